//! Reading costs at most 1.1 times the file's size plus 1 MiB, whatever the file says; saving costs
//! a few chunks, and in the background the size of the state. The only test of its binary, because
//! it watches every allocation of the process.

use std::sync::Arc;

use common::repair::{repair, sections};
use common::simfs::SimFs;
use common::{noise, scratch, state};
use ferrotape::checkpoint::{
    BackgroundSaver, CheckpointFile, Checkpoints, History, NamedTensor, TrainingState,
};
use peak_alloc::PeakAlloc;

mod common;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Peak bytes that reading a file needs beyond the file itself, and whether it was accepted.
fn cost_of_reading(file: &Arc<Vec<u8>>) -> (usize, bool) {
    let bytes = file.to_vec();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = CheckpointFile::from_bytes(bytes).and_then(|file| file.read_state());
    (MEMORY.peak_usage().saturating_sub(before), result.is_ok())
}

fn assert_cheap(file: Vec<u8>, what: &str) -> bool {
    let file = Arc::new(file);
    let (cost, accepted) = cost_of_reading(&file);
    let limit = file.len() + file.len() / 10 + (1 << 20);
    assert!(cost <= limit, "{what}: {cost} bytes for a file of {}", file.len());
    accepted
}

fn file_of(state: &TrainingState<'_>) -> Vec<u8> {
    let fs = SimFs::default();
    let mut checkpoints = Checkpoints::open_in(Arc::new(fs.clone()), "run").unwrap();
    let saved = checkpoints.save(state, None).unwrap();
    fs.get(saved.path).unwrap()
}

/// Puts `body` in place of a section, and everything else in order.
fn with_body(file: &[u8], tag: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let all = sections(file);
    let mut new = file[..128 + 64 * all.len()].to_vec();
    for section in &all {
        let bytes = if &section.tag == tag { body } else { &file[section.bytes.clone()] };
        new.resize(new.len().next_multiple_of(64), 0);
        let offset = new.len() as u64;
        new[section.line + 8..section.line + 16].copy_from_slice(&offset.to_le_bytes());
        new[section.line + 16..section.line + 24]
            .copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        new.extend_from_slice(bytes);
    }
    new.resize(new.len().next_multiple_of(64), 0);
    new.extend_from_slice(&file[file.len() - 64..]);
    let len = new.len();
    new[16..24].copy_from_slice(&(len as u64).to_le_bytes());
    new[len - 56..len - 48].copy_from_slice(&(len as u64).to_le_bytes());
    repair(&mut new);
    new
}

fn saving_costs_at_most_the_state() {
    let size = 4 << 23;
    let mut large = state(3);
    large.params.push(NamedTensor::new("large", [1 << 23], vec![1.0; 1 << 23]));
    let mut checkpoints = Checkpoints::open(scratch("checkpoint_memory", "run")).unwrap();
    let peak = |save: &mut dyn FnMut()| {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        save();
        MEMORY.peak_usage().saturating_sub(before)
    };
    let cost = peak(&mut || drop(checkpoints.save(&large, None).unwrap()));
    assert!(cost < 2 << 20, "saving: {cost} bytes");
    let mut saver = BackgroundSaver::new(checkpoints);
    let cost = peak(&mut || (0..3).for_each(|_| saver.save(&large, None).unwrap()));
    assert!(cost >= size, "there is a copy");
    assert!(cost < size + (2 << 20), "saving in the background: {cost} bytes");
    saver.finish().1.unwrap();
}

#[test]
fn reading_and_saving_cost_little_memory() {
    saving_costs_at_most_the_state();
    // Honest files.
    assert!(assert_cheap(file_of(&state(3)), "a small state"));
    let mut large = state(3);
    large.params.push(NamedTensor::new("large", [1 << 23], vec![1.0; 1 << 23]));
    assert!(assert_cheap(file_of(&large), "one large tensor"));
    large.params = (0..4000)
        .map(|i| NamedTensor::new(format!("layer.{i}.weight"), [40, 40], vec![0.5; 1600]))
        .collect();
    assert!(assert_cheap(file_of(&large), "many tensors"));
    let mut history = History::default();
    for row in 0..20_000 {
        history.push(row, row, &[("a", 0.5), ("b", 0.25)], &[0.0; 100]);
    }
    let long = TrainingState { history, ..TrainingState::default() };
    assert!(assert_cheap(file_of(&long), "a long history"));

    // Sections full of what costs most in memory for its bytes: short texts.
    let file = file_of(&state(1));
    let large_file = file_of(&large);
    for (file, count) in [(&file, 14_000_u64), (&large_file, 12_000)] {
        let mut pairs = count.to_le_bytes().to_vec();
        let mut hyper = [&1_u64.to_le_bytes()[..], b"x", &count.to_le_bytes()].concat();
        for _ in 0..count {
            for _ in 0..2 {
                pairs.extend_from_slice(&1_u64.to_le_bytes());
                pairs.push(b'x');
            }
            hyper.extend_from_slice(&1_u64.to_le_bytes());
            hyper.push(b'x');
            hyper.extend_from_slice(&1.0_f64.to_le_bytes());
        }
        let mut accepted = assert_cheap(with_body(file, b"CONF", &pairs), "a CONF of short pairs");
        accepted &= assert_cheap(with_body(file, b"OPTM", &hyper), "an OPTM of short names");
        assert!(accepted, "as large as it may be");
    }
    assert_cheap(with_body(&file, b"CONF", &vec![0; 8 << 20]), "a CONF of 8 MiB");
    for tag in [b"META", b"CONF", b"OPTM", b"SCHD", b"SPEC", b"TIDX"] {
        for claim in [1_u64 << 20, 1 << 30, 1 << 40, u64::MAX] {
            let accepted = assert_cheap(
                with_body(&file, tag, &claim.to_le_bytes()),
                "a section that claims a long text or list",
            );
            assert!(!accepted);
        }
    }
    // Tensors that claim to be larger than the file.
    for seed in 0..3000 {
        let mut file = file.clone();
        let tidx = &sections(&file)[6].bytes;
        let at = (tidx.start + noise(seed, 1) as usize % tidx.len()).min(tidx.end - 8);
        let claims = [1_u64 << 24, 1 << 33, 1 << 44, u64::MAX / 4, u64::MAX];
        let claim = claims[seed as usize % claims.len()];
        file[at..at + 8].copy_from_slice(&claim.to_le_bytes());
        repair(&mut file);
        assert_cheap(file, "an index with an extreme number");
    }
}
