//! Damaged and hostile files: every one is refused with an error that says what is wrong, or is
//! a valid file. None may panic, and (in `checkpoint_memory.rs`) none may cost much memory.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::repair::{repair, sections};
use common::simfs::SimFs;
use common::{loss, noise, state};
use ferrotape::checkpoint::{
    CheckpointFault, CheckpointFile, Checkpoints, Cursor, History, NamedTensor, TrainingState,
};
use ferrotape::{Error, Result};
use proptest::prelude::*;

mod common;

/// The bytes of a checkpoint file of a state.
fn file_of(state: &TrainingState<'_>) -> Vec<u8> {
    let fs = SimFs::default();
    let mut checkpoints = Checkpoints::open_in(Arc::new(fs.clone()), "run").unwrap();
    let saved = checkpoints.save(state, loss(0.25)).unwrap();
    fs.get(saved.path).unwrap()
}

/// A file of about 16 KB.
fn file_of_16k() -> Vec<u8> {
    let mut state = state(3);
    state.clock = vec![1, 2, 3, 4];
    state.params.push(NamedTensor::new("fc.weight", [32, 100], vec![0.125; 3200]));
    let file = file_of(&state);
    assert!((15_000..18_000).contains(&file.len()), "{} bytes", file.len());
    file
}

fn read(bytes: impl Into<Cow<'static, [u8]>>) -> Result<TrainingState<'static>> {
    CheckpointFile::from_bytes(bytes)?.read_state()
}

fn fault(result: Result<TrainingState<'static>>) -> CheckpointFault {
    match result {
        Err(Error::Checkpoint { fault, .. }) => fault,
        other => panic!("expected a fault of the file, got {other:?}"),
    }
}

#[test]
fn every_truncation_of_a_16_kb_checkpoint_is_refused() {
    let file = file_of_16k();
    read(file.clone()).unwrap();
    for len in 0..file.len() {
        let fault = fault(read(file[..len].to_vec()));
        let truncated = matches!(fault, CheckpointFault::Truncated { .. });
        assert!(truncated, "{len} bytes: {fault}");
    }
}

#[test]
fn every_bit_flip_in_a_16_kb_checkpoint_is_refused() {
    let file = file_of_16k();
    for bit in 0..8 * file.len() {
        let mut bad = file.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fault(read(bad));
    }
}

#[test]
fn appended_bytes_are_refused() {
    for extra in [1, 63, 64, 4096] {
        let mut bad = file_of_16k();
        bad.extend(std::iter::repeat_n(0, extra));
        fault(read(bad));
    }
}

/// One random change, of the kinds that parsers fall for.
fn mutate(file: &mut Vec<u8>, seed: u64) {
    let mut i = 0;
    let mut random = |n: u64| {
        i += 1;
        noise(seed, i) % n.max(1)
    };
    let sections = sections(file);
    for _ in 0..=random(3) {
        let len = file.len() as u64;
        // Most of the interesting bytes are in the head and in TIDX.
        let at = match random(3) {
            0 => random(len),
            1 => random(640.min(len)),
            _ => {
                let bytes = &sections[random(sections.len() as u64) as usize].bytes;
                bytes.start as u64 + random(bytes.len() as u64)
            }
        };
        let at = (at as usize).min(file.len().saturating_sub(8));
        match random(5) {
            0 => file[at] ^= 1 << random(8),
            1 => file[at] = random(256) as u8,
            2 => {
                // A count, an offset or a length becomes extreme.
                let at = at / 8 * 8;
                let old = u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
                let extremes = [
                    0,
                    1,
                    old.wrapping_add(1),
                    old.wrapping_sub(1),
                    old.wrapping_add(64),
                    old << 1,
                    1 << 30,
                    1 << 40,
                    u64::MAX,
                    u64::MAX - 63,
                    i64::MAX as u64,
                    file.len() as u64,
                ];
                let new = extremes[random(extremes.len() as u64) as usize];
                file[at..at + 8].copy_from_slice(&new.to_le_bytes());
            }
            3 => {
                let end = (at + random(64) as usize).min(file.len());
                file.drain(at..end);
            }
            _ => {
                let end = (at + random(64) as usize).min(file.len());
                let copy = file[at..end].to_vec();
                file.splice(at..at, copy);
            }
        }
        if file.len() < 256 {
            return;
        }
    }
    if random(2) == 0 {
        // The lengths in header and trailer agree with the file again.
        let len = file.len();
        file[16..24].copy_from_slice(&(len as u64).to_le_bytes());
        file[len - 56..len - 48].copy_from_slice(&(len as u64).to_le_bytes());
    }
}

#[test]
fn mutations_with_repaired_checksums_are_errors_or_valid_files() {
    let originals = [file_of(&state(2)), file_of(&TrainingState::default())];
    let (mut valid, mut reasons) = (0, std::collections::BTreeSet::new());
    for seed in 0..40_000 {
        let mut file = originals[seed as usize % 2].clone();
        mutate(&mut file, seed);
        repair(&mut file);
        match read(file) {
            Ok(state) => {
                // What was accepted is a state like any other: it can be saved and loaded.
                valid += 1;
                let again = read(file_of(&state)).unwrap();
                assert_eq!(format!("{again:?}"), format!("{state:?}"), "seed {seed}");
            }
            Err(Error::Checkpoint { fault, .. }) => {
                reasons.insert(fault.to_string().split('"').next().unwrap().to_owned());
            }
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    println!("{valid} of 40000 mutants are valid; {} kinds of refusal", reasons.len());
    assert!(valid > 1000, "the repair does not repair: {valid}");
    assert!(reasons.len() > 15, "too few checks are reached: {reasons:#?}");
}

/// Adds a section to a valid file, just before the trailer.
fn with_section(file: &[u8], tag: &[u8; 4], critical: bool) -> Vec<u8> {
    let count = sections(file).len();
    let head = 128 + 64 * count;
    let mut line = [0_u8; 64];
    line[..4].copy_from_slice(tag);
    line[4] = u8::from(critical);
    let body = file.len() - 64;
    line[8..16].copy_from_slice(&(body as u64 + 64).to_le_bytes());
    line[16..24].copy_from_slice(&5_u64.to_le_bytes());
    let mut section = [0_u8; 64];
    section[..5].copy_from_slice(b"hello");
    let mut new = [&file[..head], &line, &file[head..body], &section, &file[body..]].concat();
    // One directory line is 64 bytes, so every section moves by 64.
    for i in 0..count {
        let at = 128 + 64 * i + 8;
        let offset = u64::from_le_bytes(new[at..at + 8].try_into().unwrap()) + 64;
        new[at..at + 8].copy_from_slice(&offset.to_le_bytes());
    }
    new[12..16].copy_from_slice(&(count as u32 + 1).to_le_bytes());
    let len = new.len();
    new[16..24].copy_from_slice(&(len as u64).to_le_bytes());
    new[len - 56..len - 48].copy_from_slice(&(len as u64).to_le_bytes());
    repair(&mut new);
    new
}

#[test]
fn unknown_sections_are_skipped_unless_they_are_critical() {
    let file = file_of(&state(2));
    let newer = with_section(&file, b"LORE", false);
    assert_eq!(read(newer.clone()).unwrap(), state(2));
    let mut damaged = newer;
    let at = damaged.len() - 128;
    damaged[at] ^= 1;
    assert_eq!(fault(read(damaged)).to_string(), "corrupt: LORE: wrong checksum");
    assert_eq!(
        fault(read(with_section(&file, b"LORE", true))),
        CheckpointFault::NeedsNewerReader { what: "section LORE".into() }
    );
    assert!(matches!(
        fault(read(with_section(&file, b"CONF", true))),
        CheckpointFault::Corrupt { .. }
    ));
}

#[test]
fn the_clock_has_a_time_for_each_evaluation() {
    let mut state = state(2);
    state.clock = vec![1, 2, 3, 4];
    let fault = fault(read(file_of(&state)));
    assert_eq!(fault.to_string(), "corrupt: TIME: not one for each evaluation");
}

#[test]
fn the_golden_file_of_version_1_is_read_for_ever() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoint-v1.ftape");
    if std::env::var_os("FERROTAPE_WRITE_GOLDEN").is_some() {
        fs::write(&golden, file_of(&state(3))).unwrap();
    }
    let file = CheckpointFile::open(&golden).unwrap();
    assert_eq!(file.metric(), loss(0.25).as_ref());
    assert_eq!(file.digest(), "bd5fa59983eb297e6fa4cbc5fe6335be");
    // The same content still gets the same bytes: the digest covers every section but META.
    let now = CheckpointFile::from_bytes(file_of(&state(3))).unwrap();
    assert_eq!(now.digest(), file.digest());
    assert_eq!(now.tensors(), file.tensors());
    assert_eq!(file.read_state().unwrap(), state(3));
}

#[test]
fn the_fuzz_corpus_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/checkpoint");
    if std::env::var_os("FERROTAPE_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(&corpus).unwrap();
        let file = file_of(&state(1));
        fs::write(corpus.join("valid"), &file).unwrap();
        fs::write(corpus.join("empty-state"), file_of(&TrainingState::default())).unwrap();
        fs::write(corpus.join("unknown-section"), with_section(&file, b"LORE", false)).unwrap();
        for seed in 1..8 {
            let mut mutant = file.clone();
            mutate(&mut mutant, seed);
            fs::write(corpus.join(format!("mutant-{seed}")), mutant).unwrap();
        }
    }
    let files = |corpus: &Path| -> Vec<Vec<u8>> {
        let entries = fs::read_dir(corpus).unwrap();
        entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
    };
    let checkpoints = files(&corpus);
    assert!(checkpoints.len() >= 8, "{} files", checkpoints.len());
    for mut bytes in checkpoints {
        let _ = read(bytes.clone());
        repair(&mut bytes);
        let _ = read(bytes);
    }
}

fn any_tensors() -> impl Strategy<Value = Vec<NamedTensor<'static>>> {
    let shape = prop::collection::vec(0_usize..5, 0..4);
    let tensor = shape.prop_flat_map(|shape| {
        let len = shape.iter().product::<usize>();
        (Just(shape), prop::collection::vec(any::<u32>(), len))
    });
    prop::collection::btree_map("[a-z.é]{1,12}", tensor, 0..6).prop_map(|tensors| {
        let tensor = |(name, (shape, bits)): (String, (Vec<usize>, Vec<u32>))| {
            let data: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            NamedTensor::new(name, shape, data)
        };
        tensors.into_iter().map(tensor).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Any state comes back with the same bits.
    #[test]
    fn any_state_survives(
        params in any_tensors(),
        slots in any_tensors(),
        config in prop::collection::vec((".{0,20}", ".{0,20}"), 0..5),
        numbers in prop::collection::vec(("[a-z]{1,8}", any::<f64>()), 0..5),
        cursor in any::<[u64; 5]>(),
        rows in prop::collection::vec((any::<u64>(), any::<u64>(), any::<[u64; 3]>()), 0..6),
    ) {
        let mut history = History::default();
        for (epoch, step, bits) in rows {
            let [a, b, c] = bits.map(f64::from_bits);
            history.push(epoch, step, &[("a", a), ("b", b)], &[c as f32]);
        }
        let [seed, epoch, step, position, samples] = cursor;
        let mut state = TrainingState {
            config,
            params,
            cursor: Cursor { seed, epoch, step, position, samples },
            monitor: "any text\u{0} at all".into(),
            history,
            ..TrainingState::default()
        };
        state.optimizer.hyper = numbers;
        state.optimizer.slots = slots;
        let file = file_of(&state);
        let read = read(file.clone()).unwrap();
        // NaN is not equal to itself, but its bits are: compare files.
        prop_assert_eq!(file_of(&read), file);
    }
}
