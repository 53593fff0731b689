//! What goes wrong during a run costs nothing that was saved, and nothing half-done is ever saved:
//! a panic anywhere, on any thread; a full disk, for checkpoints or for logs; a broken one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
#[cfg(unix)]
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::hookfs::HookFs;
use common::scratch;
use common::simfs::{EIO, ENOSPC, Fault, SimFs};
use common::toy::{self, bits};
use ferrotape::checkpoint::Checkpoints;
use ferrotape::checkpoint::vfs::{RealFs, Vfs};
use ferrotape::nn::{Module, Sequential};
use ferrotape::tape::Mode;
use ferrotape::trainer::{
    Callback, EndInfo, EvaluationInfo, JsonLines, Outcome, StepInfo, TensorBoard, Trainer,
};
use ferrotape::{Error, Graph, Result, Var};
use rayon::prelude::*;

mod common;

fn open(fs: &SimFs) -> Checkpoints {
    Checkpoints::open_in(Arc::new(fs.clone()), "run").unwrap()
}

fn trainer(fs: &SimFs) -> Trainer<Sequential> {
    toy::trainer(open(fs), false)
}

fn fit<M: Module>(trainer: Trainer<M>) -> Result<Outcome<M>> {
    trainer.fit(&toy::train(), &toy::valid())
}

fn whole() -> Outcome<Sequential> {
    fit(trainer(&SimFs::default())).unwrap()
}

/// Fails unless every checkpoint of a run is a whole state of before step `before`, and the run
/// goes on from the last as if nothing had happened.
#[track_caller]
fn assert_nothing_lost(what: &str, vfs: Arc<dyn Vfs>, dir: &str, before: u64) {
    let mut checkpoints = Checkpoints::open_in(vfs, dir).unwrap();
    assert_eq!(checkpoints.damaged(), [0; 0], "{what}");
    let generations: Vec<u64> = checkpoints.entries().iter().map(|e| e.generation).collect();
    for generation in generations {
        let loaded = checkpoints.load(generation).unwrap();
        assert!(loaded.state.cursor.step <= before, "{what}: {:?}", loaded.state.cursor);
    }
    let rest = fit(toy::trainer(checkpoints, false)).unwrap();
    let whole = whole();
    assert_eq!(rest.digest, whole.digest, "{what}");
    assert_eq!(bits(&rest.params), bits(&whole.params), "{what}");
}

/// Where a model panics.
#[derive(Clone, Copy, Debug)]
enum Place {
    Forward,
    /// In a closure that runs on the threads of the pool, as those of kernels do.
    Pool,
}

/// The usual model, which panics in one of its forward passes of training.
struct Fragile {
    model: Sequential,
    place: Place,
    at: u64,
    passes: AtomicU64,
}

impl Module for Fragile {
    fn forward(&self, g: &mut Graph, x: Var) -> Var {
        let fatal =
            g.mode() == Mode::Train && self.passes.fetch_add(1, Ordering::Relaxed) == self.at;
        match self.place {
            Place::Forward => assert!(!fatal, "forward pass {}", self.at),
            Place::Pool => (0..64)
                .into_par_iter()
                .for_each(|i| assert!(!(fatal && i == 37), "forward pass {}", self.at)),
        }
        self.model.forward(g, x)
    }

    fn architecture(&self) -> String {
        self.model.architecture()
    }
}

#[test]
fn a_panic_in_any_forward_pass_saves_nothing_half_done() {
    for place in [Place::Forward, Place::Pool] {
        for background in [false, true] {
            // Each step has two passes: with the first, running statistics are updated already.
            for at in 0..2 * 3 * toy::STEPS_PER_EPOCH {
                let fs = SimFs::default();
                let (model, params) = toy::cnn(7);
                let model = Fragile { model, place, at, passes: AtomicU64::new(0) };
                let mut trainer = toy::trainer_of(model, params, open(&fs), false);
                if background {
                    trainer = trainer.save_in_background(Duration::ZERO);
                }
                assert!(catch_unwind(AssertUnwindSafe(|| fit(trainer))).is_err());
                let what = format!("{place:?} {at}, background: {background}");
                assert_nothing_lost(&what, Arc::new(fs), "run", at / 2);
            }
        }
    }
}

#[test]
fn a_panic_while_reading_data_saves_nothing_half_done() {
    for at in [0, 9, 30, 100, 299] {
        let fs = SimFs::default();
        let valid = toy::valid().on_read(move |n| assert_ne!(n, at, "bad example"));
        let run = || trainer(&fs).fit(&toy::train(), &valid);
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        assert_nothing_lost("validation data", Arc::new(fs), "run", toy::STEPS_PER_EPOCH);

        let fs = SimFs::default();
        let train = toy::train().on_read(move |n| assert_ne!(n, at, "bad example"));
        let run = || trainer(&fs).fit(&train, &toy::valid());
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        assert_nothing_lost("training data", Arc::new(fs), "run", at);
    }
}

/// Calls a function after each step and each evaluation.
struct Call<F>(F);

impl<F: FnMut(u64, bool) -> Result<()> + Send> Callback for Call<F> {
    fn on_step(&mut self, step: &StepInfo) -> Result<()> {
        (self.0)(step.step, false)
    }

    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        (self.0)(evaluation.observation.step, true)
    }
}

#[test]
fn a_panic_or_an_error_of_a_callback_leaves_the_checkpoint_before() {
    for background in [false, true] {
        for at in [1, 4, 6] {
            let fs = SimFs::default();
            let failing = |fail: fn() -> Result<()>| {
                let call = Call(move |step, _| if step == at { fail() } else { Ok(()) });
                let trainer = trainer(&fs).callback(call);
                if background { trainer.save_in_background(Duration::ZERO) } else { trainer }
            };
            let panicking = failing(|| panic!("a callback"));
            assert!(catch_unwind(AssertUnwindSafe(|| fit(panicking))).is_err());
            fit(failing(|| Err(ferrotape::Error::config("callback", "no")))).unwrap_err();
            assert_nothing_lost("callback", Arc::new(fs), "run", at);
        }
    }
}

/// Cannot say what it has to say at the end, as a report on a full disk.
struct FailsAtTheEnd;

impl Callback for FailsAtTheEnd {
    fn on_end(&mut self, _end: &EndInfo<'_>) -> Result<()> {
        Err(ferrotape::Error::config("report", "no room"))
    }
}

#[test]
fn a_callback_that_fails_at_the_end_is_a_warning() {
    let outcome = fit(trainer(&SimFs::default()).callback(FailsAtTheEnd)).unwrap();
    assert_eq!(outcome.digest, whole().digest);
    assert!(outcome.warnings.iter().any(|w| w.contains("no room")), "{:?}", outcome.warnings);
}

/// Cannot write its log of the evaluation at step `at`.
fn failing_log(at: u64) -> impl Callback {
    Call(move |step, evaluated| {
        let refused = std::io::Error::from_raw_os_error(28);
        if evaluated && step == at { Err(Error::io("write", "a log", refused)) } else { Ok(()) }
    })
}

#[test]
fn a_log_that_cannot_be_written_is_a_warning() {
    let outcome = fit(trainer(&SimFs::default()).callback(failing_log(8))).unwrap();
    assert_eq!(outcome.digest, whole().digest);
    assert_eq!(outcome.warnings.len(), 1, "{:?}", outcome.warnings);
    assert!(outcome.warnings[0].contains("cannot write a log: No space left"));
}

/// Where the `child` of the test below writes its logs.
const LOGS: &str = "FERROTAPE_TEST_LOGS";

/// Not a test by itself: a run with logs, in a process that may not write large files.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(LOGS).map(PathBuf::from) else { return };
    let logged = trainer(&SimFs::default())
        .callback(JsonLines::new(dir.join(JsonLines::FILE_NAME)))
        .callback(TensorBoard::new(&dir));
    let outcome = fit(logged).unwrap();
    assert_eq!(outcome.digest, whole().digest);
    let warned = |file: &str| outcome.warnings.iter().filter(|w| w.contains(file)).count();
    println!("WARNINGS {} {}", warned(JsonLines::FILE_NAME), warned("tfevents"));
}

/// A limit on the size of files is as good as a full disk, and needs no rights to set up.
#[cfg(unix)]
#[test]
fn logs_on_a_full_disk_end_with_a_whole_record_and_do_not_end_the_run() {
    let dir = scratch("trainer_faults", "logs");
    std::fs::create_dir_all(&dir).unwrap();
    let log = dir.join(JsonLines::FILE_NAME);
    // Two blocks of 512 bytes. What else a process gets for a file that is too large is a signal.
    let output = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; ulimit -f 2; exec "$0" --exact child --nocapture"#])
        .arg(std::env::current_exe().unwrap())
        .env(LOGS, &dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let evaluations = whole().history.len();
    let (_, warned) = text.split_once("WARNINGS ").unwrap();
    let warned: Vec<usize> = warned.split_whitespace().map_while(|n| n.parse().ok()).collect();

    let json = std::fs::read_to_string(log).unwrap();
    assert!(json.is_empty() || json.ends_with('\n'), "{json}");
    assert!(json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    // One warning for each evaluation that is missing, and one at the end.
    assert!(json.lines().count() < evaluations, "no disk was full");
    assert_eq!(json.lines().count() + warned[0], evaluations + 1);

    let mut files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let events = files.find(|path| path.to_str().unwrap().contains("tfevents")).unwrap();
    let events = std::fs::read(events).unwrap();
    let (mut at, mut records) = (0, 0);
    while at < events.len() {
        let length = u64::from_le_bytes(events[at..at + 8].try_into().unwrap());
        (at, records) = (at + 16 + length as usize, records + 1);
    }
    assert_eq!(at, events.len(), "half a record");
    assert!(records > 1 && records < 1 + evaluations, "{records} records");
    assert_eq!(records - 1 + warned[1], evaluations + 1);
}

#[test]
fn a_panic_while_saving_costs_nothing_that_was_saved() {
    for background in [false, true] {
        // The preflight has operations 0 to 5 or so; the run has more than 100.
        for at in (0..100).step_by(3) {
            let dir = scratch("trainer_faults", "saver");
            let fs = HookFs::new(move |_, op| {
                assert_ne!(op, at, "the disk is gone");
                Ok(())
            });
            let checkpoints = Checkpoints::open_in(Arc::new(fs), &dir).unwrap();
            let mut trainer = toy::trainer(checkpoints, false);
            if background {
                trainer = trainer.save_in_background(Duration::from_secs(3600));
            }
            assert!(catch_unwind(AssertUnwindSafe(|| fit(trainer))).is_err(), "operation {at}");
            let mut checkpoints = Checkpoints::open(&dir).unwrap();
            let finished = checkpoints
                .load_latest()
                .unwrap()
                .is_some_and(|latest| latest.state.cursor.step == whole().steps);
            drop(checkpoints);
            if !finished {
                let what = format!("operation {at}, background: {background}");
                assert_nothing_lost(&what, Arc::new(RealFs), dir.to_str().unwrap(), 100);
            }
        }
    }
}

/// Makes a disk fail from the first evaluation, once it is saved, to that of step `until`.
fn failing_after_the_first_evaluation(fs: SimFs, until: u64, fault: Fault) -> impl Callback {
    failing_between(fs, toy::STEPS_PER_EPOCH, until, fault)
}

/// Makes a disk fail from the evaluation at step `from`, once it is saved, to that of step `until`.
fn failing_between(fs: SimFs, from: u64, until: u64, fault: Fault) -> impl Callback {
    Call(move |step, evaluated| {
        if evaluated && step == from {
            fs.fail(fs.ops(), u64::MAX, fault);
        }
        if evaluated && step == until {
            fs.fail(0, 0, fault);
        }
        Ok(())
    })
}

#[test]
fn a_full_disk_is_a_warning_and_costs_no_older_checkpoint() {
    let whole = whole();
    for background in [false, true] {
        let fs = SimFs::default();
        let full = failing_after_the_first_evaluation(fs.clone(), u64::MAX, ENOSPC);
        let mut trainer = trainer(&fs).callback(full);
        if background {
            trainer = trainer.save_in_background(Duration::from_secs(3600));
        }
        let outcome = fit(trainer).unwrap();
        assert!(outcome.warnings[0].starts_with("not saved: "), "{:?}", outcome.warnings);
        assert!(outcome.warnings[0].contains("No space left"), "{:?}", outcome.warnings);
        assert_eq!((outcome.digest, outcome.stop), (None, whole.stop.clone()));
        assert!(outcome.unsaved && !whole.unsaved);
        assert!(outcome.warnings.last().unwrap().contains("on no disk"), "{:?}", outcome.warnings);
        assert_eq!(bits(&outcome.params), bits(&whole.params), "the run itself went on");
        fs.fail(0, 0, ENOSPC);
        // In the background the first save may still have met the full disk.
        let saved = open(&fs).entries().len();
        assert!(saved == 1 || (background && saved == 0), "{saved} checkpoints");
        assert_nothing_lost("disk full", Arc::new(fs), "run", toy::STEPS_PER_EPOCH);
    }
}

#[test]
fn a_warning_of_cleaning_up_does_not_say_that_nothing_was_saved() {
    // Once the preflight has cleaned up behind it, nothing can be removed any more.
    let removed = AtomicU64::new(0);
    let fs = HookFs::new(move |name, _| match name {
        "remove" if removed.fetch_add(1, Ordering::Relaxed) > 0 => {
            Err(std::io::Error::from_raw_os_error(13))
        }
        _ => Ok(()),
    });
    let dir = scratch("trainer_faults", "remove");
    let checkpoints = Checkpoints::open_in(Arc::new(fs), &dir).unwrap();
    let outcome = fit(toy::trainer(checkpoints, false)).unwrap();
    assert_eq!(outcome.digest, whole().digest);
    assert!(!outcome.warnings.is_empty(), "nothing had to go");
    assert!(
        outcome.warnings.iter().all(|w| w.starts_with("cannot remove ")),
        "{:?}",
        outcome.warnings
    );
}

/// Notes the steps whose evaluations are said to be in a checkpoint.
#[derive(Clone, Default)]
struct SavedAt(Arc<Mutex<Vec<u64>>>);

impl Callback for SavedAt {
    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        let step = evaluation.observation.step;
        self.0.lock().unwrap().extend(evaluation.checkpoint.map(|_| step));
        Ok(())
    }
}

/// The steps of all checkpoints of a run for which the disk is full after the evaluation at step
/// `from` and until after that at `until`.
fn saved_around(from: u64, until: u64, background: bool) -> Vec<u64> {
    let whole = whole();
    let fs = SimFs::default();
    let saved_at = SavedAt::default();
    let mut trainer = toy::trainer(open(&fs).keep_last(100), false)
        .callback(failing_between(fs.clone(), from, until, ENOSPC))
        .callback(saved_at.clone());
    if background {
        trainer = trainer.save_in_background(Duration::from_secs(3600));
    }
    let outcome = fit(trainer).unwrap();
    assert!(!outcome.warnings.is_empty());
    assert_eq!(outcome.digest, whole.digest);
    let told = saved_at.0.lock().unwrap();
    assert!(!told.contains(&until), "told of a checkpoint that there is no room for: {told:?}");
    open(&fs).entries().iter().map(|entry| entry.cursor.step).collect()
}

#[test]
fn once_there_is_room_again_saving_goes_on() {
    assert_eq!(best_step(), 8, "the evaluation at step 12 is not the best");
    assert_eq!(saved_around(8, 12, false), [4, 8, 16]);
}

fn best_step() -> u64 {
    let whole = whole();
    whole.history[whole.best.unwrap().index].step
}

#[test]
fn the_best_state_that_met_a_full_disk_is_saved_once_there_is_room() {
    assert_eq!((best_step(), whole().steps), (8, 16));
    assert_eq!(saved_around(4, 8, false), [4, 8, 12, 16]);
    // In the background a save may still meet the full disk that began before, or meet it no more.
    let saved = saved_around(4, 12, true);
    assert!(saved.contains(&8) && saved.ends_with(&[16]), "{saved:?}");

    // A process that dies after the first save for which there was room has lost nothing.
    let fs = SimFs::default();
    let dies = Call(|step, evaluated| match (step, evaluated) {
        (13, false) => Err(Error::config("process", "killed")),
        _ => Ok(()),
    });
    let full = failing_between(fs.clone(), 4, 8, ENOSPC);
    fit(trainer(&fs).callback(full).callback(dies)).unwrap_err();
    let rest = fit(trainer(&fs)).unwrap();
    assert!(rest.warnings.is_empty(), "{:?}", rest.warnings);
    assert!(rest.best_checkpoint.is_some());
    assert_eq!(bits(&rest.params), bits(&whole().params));
}

#[test]
fn a_broken_disk_ends_the_run() {
    for background in [false, true] {
        let fs = SimFs::default();
        let broken = failing_after_the_first_evaluation(fs.clone(), u64::MAX, EIO);
        let mut trainer = trainer(&fs).callback(broken);
        if background {
            trainer = trainer.save_in_background(Duration::from_secs(3600));
        }
        let error = fit(trainer).unwrap_err();
        assert!(error.to_string().contains("os error 5"), "{error}");
        fs.fail(0, 0, EIO);
        assert_nothing_lost("disk broken", Arc::new(fs), "run", toy::STEPS_PER_EPOCH);
    }
}

#[test]
fn a_disk_that_is_full_from_the_start_is_an_error_before_the_first_step() {
    let fs = SimFs::default();
    // At whatever operation of the preflight it shows: creating, writing, syncing.
    let healthy = trainer(&fs);
    let first = fs.ops();
    drop(healthy);
    let mut refused = 0;
    for op in first.. {
        let fs = SimFs::default();
        let doomed = trainer(&fs);
        fs.fail(op, u64::MAX, ENOSPC);
        let train = toy::train();
        match doomed.fit(&train, &toy::valid()) {
            Err(error) => {
                assert!(error.to_string().contains("No space left"), "{error}");
                assert_eq!(train.reads(), 0, "nothing was trained for nothing");
                fs.fail(0, 0, ENOSPC);
                assert!(!open(&fs).has_checkpoints());
                assert!(fs.names().is_empty(), "left behind: {:?}", fs.names());
                refused += 1;
            }
            Ok(outcome) => {
                assert!(!outcome.warnings.is_empty(), "the preflight is over");
                break;
            }
        }
    }
    assert!(refused >= 5, "only {refused} operations of the preflight were seen");
}
