//! 6. Using a saved model: one image in, class probabilities out.
//!
//! Nothing of the code that trained the model is needed: a checkpoint of a `Sequential` holds its
//! architecture.
//!
//! Run it: `cargo run --release --example 06_predict -- CHECKPOINT [INDEX]`, with a checkpoint
//! that `mnist_cnn` has saved. Without arguments a small model is trained first.

use std::path::PathBuf;

use ferrotape::checkpoint::{CheckpointFile, Checkpoints};
use ferrotape::data::{Dataset, load_idx_dir};
use ferrotape::nn::{Layer, Sequential};
use ferrotape::optim::Sgd;
use ferrotape::trainer::{Trainer, predict};
use ferrotape::{Error, Params, Result, Tensor};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let given = arguments.next().map(PathBuf::from);
    let index: usize = arguments.next().map_or(0, |n| n.parse().expect("INDEX is a number"));
    let checkpoint = given.map_or_else(train_a_small_model, Ok)?;

    let state = CheckpointFile::open(&checkpoint)?.read_state()?;
    let architecture = state
        .config("architecture")
        .ok_or_else(|| Error::config("architecture", "this checkpoint does not hold one"))?;
    let mut params = Params::new(0);
    let model = Sequential::from_architecture(&mut params, architecture)?;
    state.load_into(&mut params)?;

    let test = load_idx_dir("data/mnist", 10, 0)?.test;
    let mut image = Tensor::zeros([1, 1, 28, 28]);
    test.read(index % test.len(), image.data_mut());
    for row in image.data().chunks(28) {
        let shade =
            |x: &f32| [" ", "░", "▒", "▓", "█"][((x + 0.43) / 0.66).clamp(0.0, 4.0) as usize];
        println!("{}", row.iter().map(shade).collect::<String>());
    }
    for (class, p) in predict(&model, &params, &image).iter().enumerate() {
        println!("{class}  {:>6.2}%  {}", 100.0 * p, "#".repeat((40.0 * p).round() as usize));
    }
    println!("the label says {}", test.label(index % test.len()));
    Ok(())
}

fn train_a_small_model() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("ferrotape-predict-{}", std::process::id()));
    let data = load_idx_dir("data/mnist", 10, 0)?;
    let mut params = Params::new(0);
    let layers = [Layer::Flatten, Layer::linear(784, 64), Layer::Relu, Layer::linear(64, 10)];
    let model = Sequential::new(&mut params, layers);
    let outcome = Trainer::new(model, params, Sgd::new(0.05).momentum(0.9))
        .checkpoints(Checkpoints::open(&dir)?)
        .epochs(2)
        .fit(&data.train, &data.valid)?;
    println!("trained a small model: {}", dir.display());
    outcome.best_checkpoint.ok_or_else(|| Error::config("training", "no finite loss"))
}
