//! Watching a run: the [`Callback`] trait and what it is told.
//!
//! | callback | shows a run |
//! |---|---|
//! | [`Progress`] | on a terminal, live; in a pipe by [`PrintProgress`], as plain lines |
//! | [`JsonLines`] | to programs, one JSON object per evaluation |
//! | [`TensorBoard`] | in TensorBoard, by its event files |
//! | [`HtmlReport`](crate::report::HtmlReport) | at its end, as a page with everything |

mod append;
mod jsonl;
mod line;
mod print;
mod progress;
mod tensorboard;

use std::fmt::Display;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

pub use jsonl::JsonLines;
pub use print::PrintProgress;
pub use progress::Progress;
pub use tensorboard::TensorBoard;

use super::{Evaluation, Stop};
use crate::checkpoint::{Checkpoints, Roles};
use crate::data::Dataset;
use crate::error::Result;
use crate::monitor::{Condition, Monitor, Observation, Verdict};
use crate::nn::Module;
use crate::numbers::duration;
use crate::params::Params;

/// Someone who is told what happens in a run. All methods do nothing by default.
pub trait Callback: Send {
    /// The run begins or continues.
    ///
    /// # Errors
    /// Ends the run before its first step.
    fn on_start(&mut self, _run: &RunInfo) -> Result<()> {
        Ok(())
    }

    /// A step was taken.
    ///
    /// # Errors
    /// Ends the run; its last checkpoint is the one before.
    fn on_step(&mut self, _step: &StepInfo) -> Result<()> {
        Ok(())
    }

    /// Something is not as it should be, but not so bad that the run ends: a full disk, say.
    ///
    /// # Errors
    /// Ends the run.
    fn on_warning(&mut self, _warning: &str) -> Result<()> {
        Ok(())
    }

    /// An evaluation was made, judged and saved.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) becomes a warning
    /// ([`Outcome::warnings`](super::Outcome::warnings)): that a log cannot be written is no reason
    /// to end a run. Any other error ends the run.
    fn on_evaluation(&mut self, _evaluation: &EvaluationInfo<'_>) -> Result<()> {
        Ok(())
    }

    /// The run has ended.
    ///
    /// # Errors
    /// Becomes a warning ([`Outcome::warnings`](super::Outcome::warnings)).
    fn on_end(&mut self, _end: &EndInfo<'_>) -> Result<()> {
        Ok(())
    }
}

/// Prints a line. That nobody reads it any more (`| head`, a terminal that was closed) is no reason
/// to end a run.
fn print_line(text: impl Display) {
    let _ = writeln!(stdout(), "{text}");
}

/// How a run begins, in a sentence.
fn beginning(run: &RunInfo) -> String {
    let how = match &run.resumed_from {
        Some(path) => {
            format!(
                "resuming from {} after epoch {} and step {}",
                path.display(),
                run.epoch,
                run.step
            )
        }
        None => "starting a new run".to_owned(),
    };
    format!(
        "{how}: {} training and {} validation examples, {} steps per epoch; stops by {}",
        run.train_examples, run.valid_examples, run.steps_per_epoch, run.monitor
    )
}

/// How it ended: why, what to do about it, and how long it took.
fn ending(end: &EndInfo<'_>) -> Vec<String> {
    let mut lines = vec![end.stop.to_string()];
    let diagnosis = end.monitor.last().map(|verdict| verdict.diagnosis);
    let known = diagnosis.filter(|found| found.condition != Condition::Starting);
    if let Some(diagnosis) = known.filter(|_| !matches!(end.stop, Stop::Interrupted(_))) {
        lines.push(format!("{}: {}", diagnosis.condition, diagnosis.advice()));
    }
    let (time, rate) = (duration(end.elapsed), end.images_per_second);
    lines.push(format!("{time} of training, {rate:.0} examples/s"));
    lines
}

/// What there is to say of a step that changed nothing.
fn no_update(step: &StepInfo) -> String {
    let StepInfo { step, loss, grad_norm, .. } = step;
    format!("step {step}: loss {loss}, gradient norm {grad_norm}: no update")
}

/// What is known when a run begins.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// The directory of the checkpoint the run continues from, if it does.
    pub resumed_from: Option<PathBuf>,
    /// Notes on the way there: files that had to be skipped, settings that changed.
    pub notes: Vec<String>,
    /// Epochs completed before.
    pub epoch: u64,
    /// Steps taken before.
    pub step: u64,
    /// Evaluations made before.
    pub history: Vec<Observation>,
    /// Steps per epoch.
    pub steps_per_epoch: u64,
    /// Examples to train on.
    pub train_examples: usize,
    /// Examples to validate on.
    pub valid_examples: usize,
    /// The largest number of epochs.
    pub epochs: u64,
    /// The monitor's specification, as text.
    pub monitor: String,
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct StepInfo {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The step within the epoch, from 1.
    pub iteration: u64,
    /// Steps per epoch.
    pub steps_per_epoch: u64,
    /// The step in all, from 1.
    pub step: u64,
    /// The mean loss over the batch, before the update.
    pub loss: f32,
    /// The learning rate of the update.
    pub lr: f32,
    /// The norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Whether there was an update: not if the loss or the gradient was not finite (see
    /// [`NonFinite`](super::NonFinite)).
    pub applied: bool,
}

/// One evaluation.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationInfo<'a> {
    /// What was measured.
    pub observation: &'a Observation,
    /// What the monitor made of it.
    pub verdict: &'a Verdict,
    /// What was measured on the validation data, in detail.
    pub evaluation: &'a Evaluation,
    /// The largest number of epochs.
    pub epochs: u64,
    /// Where the state was saved and what it is kept for; `None` if there was no room for it, and
    /// in the background, where it is not known yet.
    pub checkpoint: Option<(&'a Path, Roles)>,
    /// Training images per second, evaluations and saving not counted.
    pub images_per_second: f64,
    /// The share of this process's time for which training waited for saving, from 0 to 1.
    pub saving_overhead: f64,
}

/// A run that has ended, with all that it knows.
#[derive(Clone, Copy)]
pub struct EndInfo<'a> {
    /// Why it ended.
    pub stop: &'a Stop,
    /// Its evaluations, with the specification that judged them.
    pub monitor: &'a Monitor,
    /// The settings that decide what a step computes, by name.
    pub config: &'a [(String, String)],
    /// The model.
    pub model: &'a dyn Module,
    /// The weights of the best evaluation; without any finite one, the last weights.
    pub params: &'a Params,
    /// What was trained on.
    pub train: &'a dyn Dataset,
    /// What was validated on.
    pub valid: &'a dyn Dataset,
    /// The run directory, if there is one.
    pub checkpoints: Option<&'a Checkpoints>,
    /// What was not as it should be.
    pub warnings: &'a [String],
    /// Training throughput of this process, evaluations and saving not counted.
    pub images_per_second: f64,
    /// Seconds of training, also in the processes before this one.
    pub elapsed: f64,
}
