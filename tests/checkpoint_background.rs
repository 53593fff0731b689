//! Saving in the background: the snapshot is the state at the boundary, errors are not lost.

use std::sync::Arc;
use std::time::Duration;

use common::simfs::{EIO, ENOSPC, SimFs};
use common::{loss, state};
use ferrotape::checkpoint::{BackgroundSaver, Checkpoints};

mod common;

fn saver(fs: &SimFs) -> BackgroundSaver {
    let checkpoints = Checkpoints::open_in(Arc::new(fs.clone()), "run").unwrap();
    BackgroundSaver::new(checkpoints)
}

#[test]
fn what_is_saved_is_the_state_at_the_boundary_however_training_goes_on() {
    let fs = SimFs::default();
    let mut saver = saver(&fs);
    let mut training = state(1);
    for step in 1..20 {
        training = state(step);
        saver.save(&training, (step == 10).then(|| loss(0.1).unwrap())).unwrap();
        training.params[0].data.to_mut().fill(f32::NAN);
        training.history.values.clear();
    }
    drop(training);
    let (mut checkpoints, last) = saver.finish();
    assert_eq!(last.unwrap().unwrap().generation, 18);
    let latest = checkpoints.load_latest().unwrap().unwrap();
    assert_eq!(latest.state, state(19));
    assert_eq!(checkpoints.load_best().unwrap().unwrap().state, state(10));
}

#[test]
fn a_copy_is_good_even_if_the_state_changes_its_shape() {
    let fs = SimFs::default();
    let mut saver = saver(&fs);
    for step in [3, 1, 2] {
        let mut state = state(step);
        state.params.truncate(step as usize);
        state.params[0].shape = vec![150];
        state.params[0].name = format!("step {step}");
        if step == 2 {
            state.params[1].shape = vec![1];
            state.params[1].data.to_mut().truncate(1);
        }
        saver.save(&state, None).unwrap();
        let (mut checkpoints, _) =
            std::mem::replace(&mut saver, self::saver(&SimFs::default())).finish();
        assert_eq!(checkpoints.load_latest().unwrap().unwrap().state, state);
        saver = BackgroundSaver::new(checkpoints);
    }
    saver.finish().1.unwrap();
}

#[test]
fn errors_come_up_at_the_next_call_and_cost_no_older_checkpoint() {
    for fault in [ENOSPC, EIO] {
        let fs = SimFs::default();
        let mut saver = saver(&fs);
        saver.save(&state(1), None).unwrap();
        while saver.poll().unwrap().is_none() {
            std::thread::yield_now();
        }
        fs.fail(fs.ops() + 5, u64::MAX, fault);
        saver.save(&state(2), None).unwrap();
        let at_the_next_save = saver.save(&state(3), None).unwrap_err().to_string();
        assert!(at_the_next_save.contains("cannot write"), "{at_the_next_save}");
        let at_the_next_step = loop {
            match saver.poll() {
                Ok(None) => std::thread::yield_now(),
                Ok(Some(saved)) => panic!("{saved:?} on a full disk"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(at_the_next_step.contains("cannot "), "{at_the_next_step}");
        saver.save(&state(4), None).unwrap();
        let (mut checkpoints, outcome) = saver.finish();
        outcome.unwrap_err();
        // The disk has room again: nothing was lost, and saving works.
        fs.fail(0, 0, fault);
        assert_eq!(checkpoints.load_latest().unwrap().unwrap().state, state(1));
        checkpoints.save(&state(5), None).unwrap();
        assert_eq!(checkpoints.load_latest().unwrap().unwrap().state, state(5));
    }
}

#[test]
fn routine_saves_are_as_rare_as_their_cost_demands() {
    let fs = SimFs::default();
    let mut saver = saver(&fs).interval(Duration::ZERO).overhead(1e-9);
    assert!(saver.due(), "nothing was saved yet");
    saver.save(&state(1), None).unwrap();
    assert!(!saver.due());
    while saver.poll().unwrap().is_none() {
        assert!(!saver.due(), "one is being written");
        std::thread::yield_now();
    }
    assert!(!saver.due(), "a billion times the cost of a save has not passed");
    saver.finish().1.unwrap();
}
