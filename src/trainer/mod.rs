//! The training loop: [`Trainer::fit`].
//!
//! ```text
//! for each epoch:
//!     for each batch:  forward, loss, backward, clip, update;   interrupted? -> save, end
//!     evaluate         on a probe of the training data and on the validation data
//!     observe          the monitor says: new best? stop?
//!     save             the complete state, as the last and perhaps the best checkpoint
//!     act              tell the callbacks; stop, or go on
//! restore the best weights
//! ```
//!
//! The loop has no state of its own that is not in the checkpoint: where it is in training is the
//! [`Cursor`](crate::checkpoint::Cursor), everything random is a function of it, and the monitor
//! is a function of the history. So a resumed run is the uninterrupted run, bit for bit. The same
//! loop written out by hand is about twenty lines: see `examples/`.
//!
//! | file | idea |
//! |---|---|
//! | `fit`, `begin` | the loop; how it begins, afresh or where it was |
//! | `step` | one step: the pieces of its batch, clipping, what is not finite |
//! | `evaluate` | measuring a model without training it |
//! | `state` | between the run and what a checkpoint holds |
//! | `saver` | saving at once or in the background; a full disk |
//! | `callback` | who is told what happens: terminal, log, TensorBoard |
//! | `interrupt` | a flag, or a signal, that ends a run between two steps |
//! | `clock` | where the time goes |

mod begin;
mod callback;
mod clock;
mod evaluate;
mod fit;
mod interrupt;
mod saver;
mod state;
mod step;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use callback::{
    Callback, EndInfo, EvaluationInfo, JsonLines, PrintProgress, Progress, RunInfo, StepInfo,
    TensorBoard,
};
pub use evaluate::{CLASS_METRICS, Evaluation, VALUE_METRICS, evaluate, predict, predict_values};
#[cfg(feature = "cli")]
pub(crate) use evaluate::{EVALUATION_BATCH, check_metric};
pub use interrupt::Interrupt;
pub use state::recorded_history;
pub use step::NonFinite;

use crate::checkpoint::Checkpoints;
use crate::data::Augment;
use crate::monitor::{Best, EarlyStopping, Observation, StopReason, TrainingPlan};
use crate::nn::Module;
use crate::optim::{ConstantLr, LrSchedule, Sgd};
use crate::params::Params;

pub(crate) const DEFAULT_EPOCHS: u64 = 100;
pub(crate) const DEFAULT_BATCH_SIZE: usize = 64;

/// What to do if the checkpoint directory already holds a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Resume {
    /// Refuse to start: a run is never overwritten.
    #[default]
    Never,
    /// Continue it; in an empty directory start afresh.
    Auto,
}

/// Everything a training run needs; [`Trainer::fit`] runs it.
///
/// ```no_run
/// use ferrotape::checkpoint::Checkpoints;
/// use ferrotape::data::load_idx_dir;
/// use ferrotape::monitor::EarlyStopping;
/// use ferrotape::nn::{Layer, Sequential};
/// use ferrotape::optim::{Sgd, StepLr};
/// use ferrotape::trainer::{Resume, Trainer};
/// use ferrotape::Params;
///
/// let data = load_idx_dir("data/mnist", 10, 0)?;
/// let mut params = Params::new(0);
/// let model = Sequential::new(&mut params, [Layer::Flatten, Layer::linear(784, 10)]);
/// let outcome = Trainer::new(model, params, Sgd::new(0.05).momentum(0.9))
///     .schedule(StepLr::new(4, 0.5))
///     .monitor(EarlyStopping::patience(5))
///     .checkpoints(Checkpoints::open("runs/mnist")?)
///     .resume(Resume::Auto)
///     .fit(&data.train, &data.valid)?;
/// println!("{}", outcome.stop);
/// # Ok::<(), ferrotape::Error>(())
/// ```
pub struct Trainer<M> {
    model: M,
    params: Params,
    optimizer: Sgd,
    schedule: Box<dyn LrSchedule>,
    monitor: EarlyStopping,
    checkpoints: Option<Checkpoints>,
    resume: Resume,
    epochs: u64,
    batch_size: usize,
    accumulate: usize,
    clip_norm: Option<f32>,
    clip_value: Option<f32>,
    on_non_finite: NonFinite,
    background: Option<Duration>,
    max_steps: Option<u64>,
    augment: Option<Box<dyn Augment>>,
    callbacks: Vec<Box<dyn Callback>>,
    interrupt: Interrupt,
    notes: Vec<(String, String)>,
}

impl<M: Module> Trainer<M> {
    /// A run of at most 100 epochs in batches of 64, with constant learning rate, patience 10, no
    /// checkpoints and no output.
    pub fn new(model: M, params: Params, optimizer: Sgd) -> Self {
        Trainer {
            model,
            params,
            optimizer,
            schedule: Box::new(ConstantLr),
            monitor: EarlyStopping::default(),
            checkpoints: None,
            resume: Resume::Never,
            epochs: DEFAULT_EPOCHS,
            batch_size: DEFAULT_BATCH_SIZE,
            accumulate: 1,
            clip_norm: None,
            clip_value: None,
            on_non_finite: NonFinite::Skip,
            background: None,
            max_steps: None,
            augment: None,
            callbacks: Vec::new(),
            interrupt: Interrupt::never(),
            notes: Vec::new(),
        }
    }

    /// How the learning rate changes.
    pub fn schedule(mut self, schedule: impl LrSchedule + 'static) -> Self {
        self.schedule = Box::new(schedule);
        self
    }

    /// When to stop, and what "best" means.
    pub fn monitor(mut self, spec: impl Into<EarlyStopping>) -> Self {
        self.monitor = spec.into();
        self
    }

    /// Where to save the state after each evaluation, and on interruption.
    pub fn checkpoints(mut self, checkpoints: Checkpoints) -> Self {
        self.checkpoints = Some(checkpoints);
        self
    }

    /// What to do if there already is a run.
    pub fn resume(mut self, resume: Resume) -> Self {
        self.resume = resume;
        self
    }

    /// The largest number of epochs.
    pub fn epochs(mut self, epochs: u64) -> Self {
        self.epochs = epochs;
        self
    }

    /// The number of examples per step.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        assert!(batch_size > 0, "batch_size must be at least 1");
        self.batch_size = batch_size;
        self
    }

    /// Computes each step from `batches` batches, one after the other: a batch size of
    /// `batch_size * batches` in the memory of one. The gradient is the mean over all examples.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    pub fn accumulate(mut self, batches: usize) -> Self {
        assert!(batches > 0, "accumulate: a step needs at least 1 batch");
        self.accumulate = batches;
        self
    }

    /// Scales gradients down to this norm if they are longer: see
    /// [`clip_grad_norm`](crate::optim::clip_grad_norm).
    ///
    /// # Panics
    /// If it is not positive.
    #[track_caller]
    pub fn clip_grad_norm(mut self, max_norm: f32) -> Self {
        assert!(max_norm > 0.0, "clip_grad_norm: the norm {max_norm} is not positive");
        self.clip_norm = Some(max_norm);
        self
    }

    /// Limits the magnitude of each element of the gradient.
    ///
    /// # Panics
    /// If the limit is not positive.
    #[track_caller]
    pub fn clip_grad_value(mut self, limit: f32) -> Self {
        assert!(limit > 0.0, "clip_grad_value: the limit {limit} is not positive");
        self.clip_value = Some(limit);
        self
    }

    /// What to do about a step whose loss or gradient is not finite.
    pub fn on_non_finite(mut self, what: NonFinite) -> Self {
        self.on_non_finite = what;
        self
    }

    /// Saves while training goes on, after each evaluation and in between too: at most this often,
    /// and at a cost of at most 3% of the time. See
    /// [`BackgroundSaver`](crate::checkpoint::BackgroundSaver).
    pub fn save_in_background(mut self, interval: Duration) -> Self {
        self.background = Some(interval);
        self
    }

    /// Interrupts the run after this many steps in all, as a signal would.
    pub fn max_steps(mut self, steps: Option<u64>) -> Self {
        self.max_steps = steps;
        self
    }

    /// Changes each training example as it is read.
    pub fn augment(mut self, augment: impl Augment + 'static) -> Self {
        self.augment = Some(Box::new(augment));
        self
    }

    /// Adds someone to be told what happens.
    pub fn callback(mut self, callback: impl Callback + 'static) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Keeps a text with every checkpoint, such as the file that describes the run. Unlike settings
    /// it may change when a run is resumed.
    pub fn note(mut self, key: impl Into<String>, text: impl Into<String>) -> Self {
        self.notes.push((key.into(), text.into()));
        self
    }

    /// What looks wrong in the settings although it is allowed, one sentence each: see
    /// [`EarlyStopping::warnings`].
    pub fn warnings(&self) -> Vec<String> {
        let plan = TrainingPlan {
            lr_step: self.schedule.step_epochs().and_then(|n| n.try_into().ok()),
            evaluations: self.epochs.try_into().ok(),
            ..TrainingPlan::default()
        };
        self.monitor.warnings(&plan)
    }

    /// The flag that ends the run early.
    pub fn interrupt(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// The monitor said so.
    Early(StopReason),
    /// All epochs were trained.
    Epochs(u64),
    /// The loss or the gradient of this step was not finite, and [`NonFinite`] says not to go on.
    NonFinite {
        /// The step, from 1. It was not taken.
        step: u64,
        /// Its loss.
        loss: f32,
        /// The norm of its gradient.
        grad_norm: f64,
    },
    /// Somebody asked; the run can be resumed. Holds the signal's number, if it was one.
    Interrupted(Option<i32>),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Early(reason) => write!(f, "stopped early: {reason}"),
            Stop::Epochs(epochs) => write!(f, "all {epochs} epochs are done"),
            Stop::NonFinite { step, loss, grad_norm } => write!(
                f,
                "stopped at step {step}: loss {loss}, gradient norm {grad_norm}; lower the \
                 learning rate or clip gradients"
            ),
            Stop::Interrupted(Some(signal)) => write!(f, "interrupted by signal {signal}"),
            Stop::Interrupted(None) => f.write_str("interrupted"),
        }
    }
}

/// What a run leaves.
#[derive(Debug)]
pub struct Outcome<M> {
    /// The model.
    pub model: M,
    /// The weights of the best evaluation; without any finite one, the last weights.
    pub params: Params,
    /// Why the run ended.
    pub stop: Stop,
    /// The best evaluation.
    pub best: Option<Best>,
    /// All evaluations, also those before a resume.
    pub history: Vec<Observation>,
    /// Steps taken in all, also before a resume.
    pub steps: u64,
    /// Whether there was no room on the disk for the state at the end: what the run directory has
    /// is older.
    pub unsaved: bool,
    /// The digest of the complete state at the end, if it was saved: equal for an interrupted and
    /// resumed run and an uninterrupted one.
    pub digest: Option<String>,
    /// The file with the best weights.
    pub best_checkpoint: Option<PathBuf>,
    /// The file with the state at the end.
    pub last_checkpoint: Option<PathBuf>,
    /// What was not as it should be: disk full, noise.
    pub warnings: Vec<String>,
    /// Training throughput of this process, evaluations and saving not counted.
    pub images_per_second: f64,
}
