//! 4. The whole system: train on MNIST, stop early, save, prove the saved model, carry on.
//!
//! Run it: `cargo run --release --example mnist_cnn` (`-- --help` lists the options)

use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ferrotape::checkpoint::{CheckpointFile, Checkpoints};
use ferrotape::data::{Dataset, RandomShift, load_idx_dir};
use ferrotape::monitor::EarlyStopping;
use ferrotape::nn::{Layer, Module, Sequential};
use ferrotape::optim::{Sgd, StepLr};
use ferrotape::report::HtmlReport;
use ferrotape::trainer::{
    Callback, Interrupt, JsonLines, Outcome, Progress, Resume, RunInfo, Stop, TensorBoard, Trainer,
    evaluate,
};
use ferrotape::{Error, Params, Result};
use serde::{Deserialize, Serialize};

/// `println!`, but that nobody reads it any more (`| head`) is no reason to panic.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(stdout(), $($text)*);
    }};
}

const HELP: &str = "\
Trains a convolutional network on MNIST with early stopping and checkpoints.

usage: cargo run --release --example mnist_cnn -- [OPTIONS]

  --data DIR       IDX files to train on, gzip or not      [data/mnist, 10,000 digits]
  --net NET        article: conv 6 5x5, pool, fc 120, 84, 10
                   large: conv 32 3x3, pool, conv 64 3x3, pool, fc 128, 10   [article]
  --run-dir DIR    where checkpoints, log and report go    [the next free runs/mnist_cnn-N]
  --resume         continue the run in --run-dir from its last checkpoint; settings not given
                   are the run's own                       [without --run-dir: the newest run]
  --epochs N       the most epochs to train                [30]
  --batch N        images per step                         [32]
  --lr X           learning rate; halved every 4 epochs    [0.02]
  --momentum X     share of the velocity kept by a step    [0.9]
  --weight-decay X pull of the weights towards zero        [0.0005]
  --nesterov       look ahead along the velocity
  --shift N        move training images by up to N pixels, at random     [1]
  --patience N     evaluations without improvement that stop the run   [5]
  --seed N         seed of weights, split and shuffling    [0]
  --threads N      worker threads                          [one per core]
  --max-steps N    interrupt after N steps in all, as Ctrl-C would (exit status 130)
  --tensorboard    also write events for TensorBoard to RUN_DIR/tensorboard
  --json           the last line of stdout is one JSON object
  --help           this text

Ctrl-C finishes the step, saves, and exits with 130; --resume then continues as if nothing had
happened.";

/// Where a run directory keeps the settings of its run.
const SETTINGS: &str = "settings.json";

/// The settings of a run. They are kept in the run directory, so that `--resume` needs no
/// repetition of them.
#[derive(Clone, Serialize, Deserialize)]
struct Options {
    data: PathBuf,
    net: String,
    epochs: u64,
    batch: usize,
    lr: f32,
    momentum: f32,
    weight_decay: f32,
    nesterov: bool,
    shift: usize,
    patience: u32,
    seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            data: "data/mnist".into(),
            net: "article".into(),
            epochs: 30,
            batch: 32,
            lr: 0.02,
            momentum: 0.9,
            weight_decay: 5e-4,
            nesterov: false,
            shift: 1,
            patience: 5,
            seed: 0,
        }
    }
}

/// A setting given on the command line.
type Change = Box<dyn Fn(&mut Options)>;

/// What is asked of this process only.
#[derive(Default)]
struct Invocation {
    run_dir: Option<PathBuf>,
    resume: bool,
    threads: Option<usize>,
    max_steps: Option<u64>,
    tensorboard: bool,
    json: bool,
    help: bool,
    /// Changes the settings as the command line says.
    given: Vec<Change>,
}

fn parse_arguments() -> Result<Invocation, lexopt::Error> {
    use lexopt::prelude::*;

    let mut invocation = Invocation::default();
    let mut parser = lexopt::Parser::from_env();
    macro_rules! set {
        ($field:ident) => {{
            let value = parser.value()?.parse()?;
            invocation.given.push(Box::new(move |options| options.$field = value));
        }};
    }
    while let Some(argument) = parser.next()? {
        match argument {
            Long("data") => {
                let dir = PathBuf::from(parser.value()?);
                invocation.given.push(Box::new(move |options| options.data.clone_from(&dir)));
            }
            Long("net") => {
                let net = parser.value()?.string()?;
                if !["article", "large"].contains(&net.as_str()) {
                    return Err(format!("--net {net}: expected article or large").into());
                }
                invocation.given.push(Box::new(move |options| options.net.clone_from(&net)));
            }
            Long("epochs") => set!(epochs),
            Long("batch") => set!(batch),
            Long("lr") => set!(lr),
            Long("momentum") => set!(momentum),
            Long("weight-decay") => set!(weight_decay),
            Long("nesterov") => invocation.given.push(Box::new(|options| options.nesterov = true)),
            Long("shift") => set!(shift),
            Long("patience") => set!(patience),
            Long("seed") => set!(seed),
            Long("run-dir") => invocation.run_dir = Some(parser.value()?.into()),
            Long("resume") => invocation.resume = true,
            Long("threads") => invocation.threads = Some(parser.value()?.parse()?),
            Long("max-steps") => invocation.max_steps = Some(parser.value()?.parse()?),
            Long("tensorboard") => invocation.tensorboard = true,
            Long("json") => invocation.json = true,
            Long("help") | Short('h') => invocation.help = true,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(invocation)
}

fn main() -> ExitCode {
    let invocation = match parse_arguments() {
        Ok(invocation) => invocation,
        Err(error) => {
            eprintln!("{error}\n--help lists the options");
            return ExitCode::from(2);
        }
    };
    if invocation.help {
        say!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if let Some(threads) = invocation.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global().expect("the pool has not been used yet");
    }
    match run(&invocation) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn layers(net: &str) -> Vec<Layer> {
    match net {
        "large" => vec![
            Layer::conv2d_same(1, 32, 3),
            Layer::Relu,
            Layer::max_pool2d(2, 2),
            Layer::conv2d_same(32, 64, 3),
            Layer::Relu,
            Layer::max_pool2d(2, 2),
            Layer::Flatten,
            Layer::linear(64 * 7 * 7, 128),
            Layer::Relu,
            Layer::linear(128, 10),
        ],
        _ => vec![
            Layer::conv2d(1, 6, 5),
            Layer::Relu,
            Layer::max_pool2d(2, 2),
            Layer::Flatten,
            Layer::linear(6 * 12 * 12, 120),
            Layer::Relu,
            Layer::linear(120, 84),
            Layer::Relu,
            Layer::linear(84, 10),
        ],
    }
}

fn run(invocation: &Invocation) -> Result<ExitCode> {
    let run_dir = invocation.run_dir.clone().unwrap_or_else(|| default_run_dir(invocation.resume));
    let checkpoints = Checkpoints::open(&run_dir)?.keep_last(2).keep_best(1);
    let options = settings(&run_dir, invocation, checkpoints.has_checkpoints())?;

    let data = load_idx_dir(&options.data, 10, options.seed)?;
    let mut params = Params::new(options.seed);
    let model = Sequential::new(&mut params, layers(&options.net));
    let shape = [&[options.batch], data.train.input_shape()].concat();
    say!("{}\n\nrun directory: {}", model.summary(&params, &*shape)?, run_dir.display());

    let sgd = Sgd::new(options.lr)
        .momentum(options.momentum)
        .weight_decay(options.weight_decay)
        .nesterov(options.nesterov);
    let mut trainer = Trainer::new(model, params, sgd)
        .schedule(StepLr::new(4, 0.5))
        .monitor(EarlyStopping::patience(options.patience))
        .checkpoints(checkpoints)
        .resume(if invocation.resume { Resume::Auto } else { Resume::Never })
        .epochs(options.epochs)
        .batch_size(options.batch)
        .augment(RandomShift { max: options.shift })
        .max_steps(invocation.max_steps)
        .interrupt(Interrupt::on_signals()?)
        .callback(KeepSettings { path: run_dir.join(SETTINGS), options: options.clone() })
        .callback(Progress::new(10))
        .callback(JsonLines::new(run_dir.join(JsonLines::FILE_NAME)))
        .callback(HtmlReport::new(run_dir.join("report.html")));
    if invocation.tensorboard {
        trainer = trainer.callback(TensorBoard::new(run_dir.join("tensorboard")));
    }
    let outcome = trainer.fit(&data.train, &data.valid)?;
    let page = run_dir.join("report.html").display().to_string();
    if !outcome.warnings.iter().any(|warning| warning.contains(&page)) {
        say!("report: {page}");
    }

    if let Stop::Interrupted(signal) = outcome.stop {
        if let Some(path) = &outcome.last_checkpoint {
            say!(
                "saved {}; continue with --resume --run-dir {}",
                path.display(),
                run_dir.display()
            );
        }
        return Ok(ExitCode::from(128 + signal.map_or(2, |signal| signal as u8)));
    }
    if outcome.unsaved {
        return Ok(ExitCode::FAILURE);
    }
    report(&outcome, &data.valid, &data.test, &options, invocation.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Proves that the best checkpoint is the best model, and measures it on the test images.
fn report(
    outcome: &Outcome<Sequential>,
    valid: &dyn Dataset,
    test: &dyn Dataset,
    options: &Options,
    json: bool,
) -> Result<()> {
    let (Some(best), Some(best_path), Some(last_path)) =
        (outcome.best, &outcome.best_checkpoint, &outcome.last_checkpoint)
    else {
        return Err(Error::config("training", "no evaluation gave a finite loss; lower --lr"));
    };
    say!("\nbest model: epoch {}, validation loss {:.6}", best.epoch, best.value);
    say!("  best state  {}\n  last state  {}", best_path.display(), last_path.display());

    // A new model, from nothing but the file.
    let file = CheckpointFile::open(best_path)?;
    let state = file.read_state()?;
    let architecture = state.config("architecture").unwrap_or_default();
    let mut params = Params::new(options.seed.wrapping_add(1));
    let model = Sequential::from_architecture(&mut params, architecture)?;
    let before = evaluate(&model, &params, valid);
    state.load_into(&mut params)?;
    let after = evaluate(&model, &params, valid);
    say!(
        "a new model: validation loss {:.6} before loading the file, {:.6} after",
        before.loss,
        after.loss
    );
    if after.loss.to_bits() != best.value.to_bits() {
        let reason = format!("it gives {} where {} was recorded", after.loss, best.value);
        return Err(Error::config("loaded model", reason));
    }
    say!("  bit for bit the recorded loss ({:#018x})", after.loss.to_bits());

    let test = evaluate(&model, &params, test);
    say!(
        "test set: {:.2}% of {} images right, loss {:.4}",
        100.0 * test.accuracy,
        test.losses.len(),
        test.loss
    );
    say!("state digest {}", outcome.digest.as_deref().unwrap_or("none"));
    if json {
        let epochs = outcome.history.last().map_or(0, |observation| observation.epoch);
        let line = serde_json::json!({
            "test_accuracy": test.accuracy,
            "valid_loss": best.value,
            "best_epoch": best.epoch,
            "epochs": epochs,
            "stop_reason": outcome.stop.to_string(),
            "checkpoint": best_path,
            "state_digest": outcome.digest,
            "images_per_second": outcome.images_per_second,
            "seed": options.seed,
        });
        say!("{line}");
    }
    Ok(())
}

/// The settings: the defaults, then those of the run to be resumed, then the command line.
fn settings(run_dir: &Path, invocation: &Invocation, exists: bool) -> Result<Options> {
    let path = run_dir.join(SETTINGS);
    let mut options = Options::default();
    if exists && invocation.resume && path.exists() {
        let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        options = serde_json::from_str(&text)
            .map_err(|e| Error::config(path.display().to_string(), e.to_string()))?;
    }
    for set in &invocation.given {
        set(&mut options);
    }
    Ok(options)
}

/// Writes the settings down for the next `--resume`, once the run has been accepted.
struct KeepSettings {
    path: PathBuf,
    options: Options,
}

impl Callback for KeepSettings {
    fn on_start(&mut self, _run: &RunInfo) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.options).expect("plain data");
        fs::write(&self.path, text + "\n").map_err(|e| Error::io("write", &self.path, e))
    }
}

/// `runs/mnist_cnn-N`: the newest that holds a run, to resume it, or else the next free one.
fn default_run_dir(resume: bool) -> PathBuf {
    let dir = |n: u32| PathBuf::from(format!("runs/mnist_cnn-{n}"));
    let free = (1..).find(|&n| !dir(n).exists()).expect("there are many numbers");
    let holds_run = |&n: &u32| dir(n).join(SETTINGS).exists();
    dir(if resume { (1..free).rev().find(holds_run).unwrap_or(1) } else { free })
}
