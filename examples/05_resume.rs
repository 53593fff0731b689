//! 5. A run that is interrupted and resumed is the run that was not: bit for bit.
//!
//! Trains once without interruption, then the same run in pieces of 40 steps, each by a trainer
//! that knows nothing but the run directory, and compares the digests of the complete states.
//!
//! Run it: `cargo run --release --example 05_resume`

use ferrotape::checkpoint::Checkpoints;
use ferrotape::data::load_idx_dir;
use ferrotape::monitor::EarlyStopping;
use ferrotape::nn::{Layer, Sequential};
use ferrotape::optim::{Sgd, StepLr};
use ferrotape::trainer::{Outcome, Resume, Stop, Trainer};
use ferrotape::{Params, Result};
use std::path::Path;

fn train(dir: &Path, max_steps: Option<u64>) -> Result<Outcome<Sequential>> {
    let data = load_idx_dir("data/mnist", 10, 0)?;
    let mut params = Params::new(0);
    let layers = [
        Layer::conv2d(1, 6, 5),
        Layer::Relu,
        Layer::max_pool2d(2, 2),
        Layer::Flatten,
        Layer::Dropout { p: 0.2 },
        Layer::linear(864, 10),
    ];
    let model = Sequential::new(&mut params, layers);
    Trainer::new(model, params, Sgd::new(0.05).momentum(0.9))
        .schedule(StepLr::new(1, 0.5))
        .monitor(EarlyStopping::patience(2))
        .checkpoints(Checkpoints::open(dir)?)
        .resume(Resume::Auto)
        .epochs(2)
        .batch_size(100)
        .max_steps(max_steps)
        .fit(&data.train, &data.valid)
}

fn shown(outcome: &Outcome<Sequential>) -> &str {
    outcome.digest.as_deref().expect("the run was saved")
}

fn main() -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("ferrotape-resume-{}", std::process::id()));
    let whole = train(&scratch.join("whole"), None)?;
    println!("in one go:  {} steps, digest {}", whole.steps, shown(&whole));

    let mut limit = 0;
    let pieces = loop {
        limit += 40;
        let piece = train(&scratch.join("pieces"), Some(limit))?;
        println!("in pieces:  {} steps, digest {}", piece.steps, shown(&piece));
        if !matches!(piece.stop, Stop::Interrupted(_)) {
            break piece;
        }
    };
    assert_eq!(pieces.digest, whole.digest);
    println!("the same state, to the last bit");
    std::fs::remove_dir_all(&scratch).map_err(|e| ferrotape::Error::io("remove", &scratch, e))
}
