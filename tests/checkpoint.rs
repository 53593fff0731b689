//! Checkpoints on the real file system: what is saved is what is loaded, damage is found and
//! named, and a run directory never loses what was reported as saved.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use common::simfs::{ENOSPC, SimFs};
use common::{loss, state};
use ferrotape::Error;
use ferrotape::checkpoint::{
    CheckpointFault, CheckpointFile, Checkpoints, NamedTensor, TrainingState, list,
};
use ferrotape::error::RunDirFault;

mod common;

fn scratch(name: &str) -> PathBuf {
    common::scratch("checkpoint", name)
}

#[test]
fn what_is_loaded_is_what_was_saved_to_the_bit() {
    let dir = scratch("roundtrip");
    let mut state = state(3);
    // Values that a careless conversion changes.
    state.params[1].data = vec![0.0, -0.0, f32::MIN_POSITIVE / 2.0, f32::INFINITY, f32::MAX, 1e-40]
        .into_iter()
        .collect();
    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    assert!(!checkpoints.has_checkpoints());
    assert!(checkpoints.load_latest().unwrap().is_none());
    let saved = checkpoints.save(&state, loss(0.25)).unwrap();
    assert_eq!(saved.bytes, fs::metadata(&saved.path).unwrap().len());
    assert!(saved.warnings.is_empty(), "{:?}", saved.warnings);
    drop(checkpoints);

    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    assert!(checkpoints.has_checkpoints());
    let loaded = checkpoints.load_latest().unwrap().unwrap();
    assert_eq!(loaded.state, state);
    let bits = |state: &TrainingState<'_>| -> Vec<u32> {
        state.params[1].data.iter().map(|value| value.to_bits()).collect()
    };
    assert_eq!(bits(&loaded.state), bits(&state));
    assert_eq!((loaded.digest, loaded.metric), (saved.digest, loss(0.25)));
    assert!(loaded.skipped.is_empty());
}

#[test]
fn nan_payloads_survive_and_empty_states_are_states() {
    let dir = scratch("nan");
    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    let nan = f32::from_bits(0x7fc1_2345);
    let state = TrainingState {
        params: vec![NamedTensor::new("w", [1], vec![nan]), NamedTensor::new("e", [0, 3], vec![])],
        ..TrainingState::default()
    };
    checkpoints.save(&state, None).unwrap();
    let loaded = checkpoints.load_latest().unwrap().unwrap().state;
    assert_eq!(loaded.params[0].data[0].to_bits(), nan.to_bits());
    assert_eq!(loaded.params[1].shape, [0, 3]);
    checkpoints.save(&TrainingState::default(), None).unwrap();
    assert_eq!(checkpoints.load_latest().unwrap().unwrap().state, TrainingState::default());
}

#[test]
fn the_digest_is_of_the_content_alone() {
    let mut a = Checkpoints::open(scratch("digest-a")).unwrap();
    let mut b = Checkpoints::open(scratch("digest-b")).unwrap();
    a.save(&state(1), None).unwrap();
    let first = a.save(&state(2), loss(0.5)).unwrap();
    let second = b.save(&state(2), None).unwrap();
    assert_ne!(first.generation, second.generation);
    assert_eq!(first.digest, second.digest);

    // How long it took is no part of what was learnt.
    let mut slower = state(2);
    slower.clock = vec![1_000, 2_000, 2_500];
    let third = b.save(&slower, None).unwrap();
    assert_eq!(third.digest, first.digest);
    assert_eq!(b.load_latest().unwrap().unwrap().state, slower);

    let changes: [fn(&mut TrainingState<'static>); 8] = [
        |s| s.params[0].data.to_mut()[7] += 1.0,
        |s| s.params[0].shape = vec![6, 25],
        |s| s.params[0].name = "conv.kernel".into(),
        |s| s.optimizer.slots[1].data.to_mut()[0] = 0.5,
        |s| s.cursor.position += 1,
        |s| s.history.values[1] += 1e-9,
        |s| s.history.columns[0] = "loss".into(),
        |s| s.config[0].1 = "64".into(),
    ];
    for change in changes {
        let mut other = state(2);
        change(&mut other);
        assert_ne!(b.save(&other, None).unwrap().digest, first.digest);
    }
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let dir = scratch("lock");
    let first = Checkpoints::open(&dir).unwrap();
    let refused = Checkpoints::open(&dir).unwrap_err();
    assert!(matches!(&refused, Error::RunDir { fault: RunDirFault::Locked, .. }), "{refused}");
    drop(first);
    Checkpoints::open(&dir).unwrap();
}

#[test]
fn retention_keeps_the_last_the_best_and_the_pinned() {
    let dir = scratch("retention");
    let mut checkpoints = Checkpoints::open(&dir).unwrap().keep_last(2).keep_best(1);
    for (step, value) in [0.9, 0.2, 0.2, 0.8, f64::NAN, 0.7, 0.6].into_iter().enumerate() {
        let saved = checkpoints.save(&state(step as u64), loss(value)).unwrap();
        if step == 3 {
            checkpoints.set_pinned(saved.generation, true).unwrap();
        }
    }
    let kept = |checkpoints: &Checkpoints| -> Vec<u64> {
        checkpoints.entries().iter().map(|entry| entry.generation).collect()
    };
    // 1 and 2 tie: the earlier one is best.
    assert_eq!(kept(&checkpoints), [1, 3, 5, 6]);
    assert_eq!(checkpoints.load_best().unwrap().unwrap().generation, 1);
    drop(checkpoints);

    let mut checkpoints = Checkpoints::open(&dir).unwrap().keep_last(2).keep_best(1);
    assert_eq!(kept(&checkpoints), [1, 3, 5, 6]);
    assert_eq!(checkpoints.prune().unwrap(), Vec::<PathBuf>::new());
    checkpoints.set_pinned(3, false).unwrap();
    assert_eq!(checkpoints.prune().unwrap().len(), 1);
    assert_eq!(kept(&checkpoints), [1, 5, 6]);
    let names = fs::read_dir(&dir).unwrap().count();
    assert_eq!(names, 3 + 2, "three checkpoints, lock and manifest");
}

#[test]
fn stale_temporaries_go_only_under_the_lock() {
    let dir = scratch("stale");
    let open = Checkpoints::open(&dir).unwrap();
    let stale = dir.join(".ckpt-00000007.tmp");
    fs::write(&stale, "half a checkpoint").unwrap();
    assert!(Checkpoints::open(&dir).is_err(), "two writers");
    assert!(stale.exists(), "it may be what the other is writing");
    drop(open);
    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    assert!(!stale.exists());
    assert_eq!(checkpoints.save(&state(1), None).unwrap().generation, 8, "no name is used twice");
}

#[test]
fn a_damaged_file_that_may_have_been_the_best_is_reported() {
    let dir = scratch("damaged-best");
    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    let paths = [0.1, 0.3, 0.2].map(|value| checkpoints.save(&state(1), loss(value)).unwrap().path);
    drop(checkpoints);
    fs::write(&paths[0], "nothing").unwrap();
    let best = Checkpoints::open(&dir).unwrap().load_best().unwrap().unwrap();
    assert_eq!((best.generation, best.skipped.len()), (2, 1));
    assert_eq!(best.skipped[0].path, paths[0]);
}

/// The newest two of five are damaged in a tensor, where opening does not look. They must not count
/// as the last two, or deleting the others would leave nothing.
#[test]
fn pruning_keeps_what_is_valid() {
    let dir = scratch("prune-damaged");
    let mut checkpoints = Checkpoints::open(&dir).unwrap().keep_last(9).keep_best(0);
    for step in 0..5 {
        checkpoints.save(&state(step), None).unwrap();
    }
    for generation in [3, 4] {
        let path = dir.join(format!("ckpt-{generation:08}.ftape"));
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 1000;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(CheckpointFile::open(&path).is_ok());
    }
    let mut checkpoints = checkpoints.keep_last(2);
    assert_eq!(checkpoints.prune().unwrap(), [dir.join("ckpt-00000000.ftape")]);
    assert_eq!(checkpoints.damaged(), [3, 4]);
    assert_eq!(checkpoints.load_latest().unwrap().unwrap().generation, 2);
}

#[test]
fn recovery_falls_back_says_why_and_deletes_nothing() {
    let dir = scratch("fallback");
    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    let paths: Vec<PathBuf> =
        (0..3).map(|step| checkpoints.save(&state(step), None).unwrap().path).collect();
    drop(checkpoints);
    // The newest loses its tail, the one before a bit in a tensor.
    let bytes = fs::read(&paths[2]).unwrap();
    fs::write(&paths[2], &bytes[..bytes.len() - 100]).unwrap();
    let mut bytes = fs::read(&paths[1]).unwrap();
    let at = bytes.len() - 1000;
    bytes[at] ^= 1;
    fs::write(&paths[1], &bytes).unwrap();

    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    let loaded = checkpoints.load_latest().unwrap().unwrap();
    assert_eq!((loaded.generation, &loaded.state), (0, &state(0)));
    let reasons: Vec<String> =
        loaded.skipped.iter().map(|skipped| skipped.error.to_string()).collect();
    assert!(reasons[0].contains("truncated"), "{reasons:?}");
    assert!(reasons[1].contains("corrupt: tensor"), "{reasons:?}");
    assert_eq!(checkpoints.damaged(), [2, 1]);

    // Damaged files are neither counted as "last" nor deleted, and their names not used again.
    for step in 3..8 {
        checkpoints.save(&state(step), None).unwrap();
    }
    assert!(paths[1].exists() && paths[2].exists() && !paths[0].exists());
    assert_eq!(checkpoints.entries().last().unwrap().generation, 7);
}

#[test]
fn files_without_a_valid_one_are_an_error_not_a_fresh_start() {
    let dir = scratch("none-valid");
    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    let path = checkpoints.save(&state(1), None).unwrap().path;
    drop(checkpoints);
    fs::write(&path, b"").unwrap();
    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    assert!(checkpoints.has_checkpoints());
    let error = checkpoints.load_latest().unwrap_err();
    assert!(error.to_string().contains("ckpt-00000000.ftape: truncated: 0 bytes"), "{error}");
    assert!(matches!(error, Error::RunDir { fault: RunDirFault::NoValidCheckpoint { .. }, .. }));
}

#[test]
fn a_moved_or_copied_directory_works_and_a_renamed_file_is_noticed() {
    let dir = scratch("moved-from");
    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    let path = checkpoints.save(&state(1), None).unwrap().path;
    drop(checkpoints);
    let other = scratch("moved-to");
    fs::create_dir_all(&other).unwrap();
    fs::copy(&path, other.join("ckpt-00000000.ftape")).unwrap();
    fs::copy(&path, other.join("ckpt-00000009.ftape")).unwrap();
    let mut checkpoints = Checkpoints::open(&other).unwrap();
    let loaded = checkpoints.load_latest().unwrap().unwrap();
    assert_eq!(loaded.state, state(1));
    assert!(loaded.skipped[0].error.to_string().contains("says generation 0"));
    assert_eq!(checkpoints.save(&state(2), None).unwrap().generation, 10);
    // On its own, under any name, a file is readable.
    assert_eq!(
        CheckpointFile::open(other.join("ckpt-00000009.ftape")).unwrap().read_state().unwrap(),
        state(1)
    );
}

#[test]
fn what_a_reader_would_refuse_is_not_written() {
    let mut checkpoints = Checkpoints::open(scratch("refused")).unwrap();
    let breakers: [fn(&mut TrainingState<'static>); 5] = [
        |s| s.params[0].shape = vec![5],
        |s| s.params[1].name = "conv.weight".into(),
        |s| s.params[0].name = String::new(),
        |s| s.config[0].1 = "x".repeat(1 << 20),
        |s| s.history.steps.clear(),
    ];
    for breaker in breakers {
        let mut bad = state(2);
        breaker(&mut bad);
        let error = checkpoints.save(&bad, None).unwrap_err();
        assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    }
    assert!(!checkpoints.has_checkpoints());
}

#[test]
fn directories_text_and_future_files_are_named_for_what_they_are() {
    let dir = scratch("not");
    fs::create_dir_all(&dir).unwrap();
    let fault = |path: &std::path::Path| match CheckpointFile::open(path).unwrap_err() {
        Error::Checkpoint { fault, .. } => fault,
        other => panic!("{other}"),
    };
    assert_eq!(fault(&dir), CheckpointFault::NotARegularFile);
    let path = dir.join("text");
    fs::write(&path, "hello, world. ".repeat(20)).unwrap();
    assert_eq!(fault(&path), CheckpointFault::NotACheckpoint);

    let mut checkpoints = Checkpoints::open(dir.join("run")).unwrap();
    let saved = checkpoints.save(&state(1), None).unwrap();
    let mut bytes = fs::read(&saved.path).unwrap();
    bytes[8] = 2;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(fault(&path), CheckpointFault::NeedsNewerReader { .. }));
}

#[test]
fn a_preflight_finds_a_full_disk_before_the_first_step() {
    let fs = SimFs::default();
    let mut checkpoints = Checkpoints::open_in(Arc::new(fs.clone()), "run").unwrap();
    checkpoints.preflight(&state(1)).unwrap();
    assert!(!checkpoints.has_checkpoints() && fs.names().is_empty());
    fs.fail(fs.ops() + 3, 1, ENOSPC);
    let error = checkpoints.preflight(&state(1)).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("No space left"), "{error}");
    assert!(fs.names().is_empty());
    assert_eq!(checkpoints.save(&state(1), None).unwrap().generation, 0);
}

#[test]
fn a_directory_can_be_looked_at_while_it_is_locked() {
    let dir = scratch("list");
    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    checkpoints.save(&state(1), loss(0.5)).unwrap();
    fs::write(dir.join("ckpt-00000007.ftape"), "no").unwrap();
    fs::write(dir.join("ckpt-18446744073709551615.ftape"), "no").unwrap();
    let (entries, skipped) = list(&dir).unwrap();
    assert_eq!(entries, checkpoints.entries());
    assert_eq!(skipped.len(), 2);
    assert!(list(dir.join("missing")).is_err());
    drop(checkpoints);
    // The largest number there is leaves none for the next file: an error, not a panic.
    let mut checkpoints = Checkpoints::open(&dir).unwrap();
    for _ in 0..2 {
        let error = checkpoints.save(&state(2), None).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
}
