//! Helpers shared by the checkpoint tests.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

pub mod hookfs;
#[cfg(feature = "cli")]
pub mod program;
pub mod repair;
pub mod simfs;
pub mod toy;

use std::fs;
use std::path::PathBuf;

use ferrotape::checkpoint::{
    Cursor, History, Metric, NamedTensor, OptimizerState, ScheduleState, TrainingState,
};

/// An empty directory of this test's own.
pub fn scratch(test: &str, name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test).join(name);
    let _ = fs::remove_dir_all(&dir);
    dir
}

/// A small state with something in every field, different for every step.
pub fn state(step: u64) -> TrainingState<'static> {
    let tensor = |name: &str, shape: &[usize], base: f32| {
        let len = shape.iter().product::<usize>();
        let data: Vec<f32> = (0..len).map(|i| base + step as f32 + i as f32 / 8.0).collect();
        NamedTensor::new(name, shape, data)
    };
    let mut history = History::default();
    for row in 0..step.min(4) {
        let values = [("valid_loss", 1.0 / (1.0 + row as f64)), ("lr", 0.05)];
        history.push(row, 10 * row, &values, &[row as f32, 0.5]);
    }
    TrainingState {
        config: vec![("batch".into(), "32".into()), ("arch".into(), "conv(1, 6, 5)".into())],
        params: vec![tensor("conv.weight", &[6, 1, 5, 5], 1.0), tensor("conv.bias", &[6], 2.0)],
        buffers: vec![tensor("bn.running_mean", &[6], 3.0), tensor("bn.count", &[], 4.0)],
        optimizer: OptimizerState {
            kind: "sgd".into(),
            hyper: vec![("lr".into(), 0.05), ("momentum".into(), 0.9)],
            slots: vec![tensor("conv.weight", &[6, 1, 5, 5], 5.0), tensor("conv.bias", &[6], 6.0)],
        },
        schedule: ScheduleState { spec: "step(10, 0.5)".into(), values: vec![] },
        cursor: Cursor { seed: 7, epoch: step, step: 10 * step, position: 0, samples: 320 * step },
        monitor: "patience(5)".into(),
        history,
        clock: Vec::new(),
    }
}

/// A tiny state, for tests that save and load it a million times.
pub fn tiny_state(step: u64) -> TrainingState<'static> {
    TrainingState {
        params: vec![NamedTensor::new("w", [3], vec![step as f32, 0.5, -1.0])],
        optimizer: OptimizerState {
            kind: "sgd".into(),
            hyper: vec![],
            slots: vec![NamedTensor::new("w", [3], vec![-(step as f32), 0.25, 2.0])],
        },
        cursor: Cursor { seed: 1, step, epoch: step / 4, position: step % 4, samples: 8 * step },
        ..TrainingState::default()
    }
}

/// A loss to minimise.
pub fn loss(value: f64) -> Option<Metric> {
    Some(Metric::minimize("valid_loss", value))
}

/// A number that looks random, and is the same for the same `seed` and `index` for ever
/// (the finaliser of SplitMix64).
pub fn noise(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
