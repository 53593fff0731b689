//! Watching a run: the [`Callback`] trait, progress in plain lines, and a JSON Lines log.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Evaluation, Stop};
use crate::error::{Error, Result};
use crate::monitor::{Observation, Verdict};

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
    /// Ends the run.
    fn on_evaluation(&mut self, _evaluation: &EvaluationInfo<'_>) -> Result<()> {
        Ok(())
    }

    /// The run has ended.
    ///
    /// # Errors
    /// Becomes the run's result.
    fn on_end(&mut self, _stop: &Stop) -> Result<()> {
        Ok(())
    }
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
    /// Steps per epoch.
    pub steps_per_epoch: u64,
    /// Examples to train on.
    pub train_examples: usize,
    /// Examples to validate on.
    pub valid_examples: usize,
    /// The largest number of epochs.
    pub epochs: u64,
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
    /// Where the state was saved; in the background it is not known yet.
    pub checkpoint: Option<&'a Path>,
    /// Training images per second since the evaluation before.
    pub images_per_second: f64,
}

/// Prints the loss every few steps and one line per evaluation.
pub struct PrintProgress {
    /// Print the loss of every step whose number within the epoch is a multiple of this.
    pub every: u64,
}

impl Callback for PrintProgress {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        for note in &run.notes {
            println!("note: {note}");
        }
        match &run.resumed_from {
            Some(path) => println!(
                "resuming from {} after epoch {} and step {}",
                path.display(),
                run.epoch,
                run.step
            ),
            None => println!("starting a new run"),
        }
        println!(
            "{} training and {} validation images, {} steps per epoch",
            run.train_examples, run.valid_examples, run.steps_per_epoch
        );
        Ok(())
    }

    fn on_step(&mut self, step: &StepInfo) -> Result<()> {
        if !step.applied {
            println!(
                "step {}: loss {}, gradient norm {}: no update",
                step.step, step.loss, step.grad_norm
            );
        } else if step.iteration.is_multiple_of(self.every) {
            println!(
                "epoch {:>3}  iteration {:>4}/{}  loss {:.4}",
                step.epoch, step.iteration, step.steps_per_epoch, step.loss
            );
        }
        Ok(())
    }

    fn on_warning(&mut self, warning: &str) -> Result<()> {
        println!("warning: {warning}");
        Ok(())
    }

    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        let EvaluationInfo { observation: o, verdict, .. } = evaluation;
        let best = match verdict.best {
            Some(_) if verdict.new_best => "new best".to_owned(),
            Some(best) => format!("best {:.4} at {}", best.value, best.epoch),
            None => "no best yet".to_owned(),
        };
        let patience = match verdict.patience_left {
            Some(left) => format!("patience {left} left"),
            None => "no patience rule".to_owned(),
        };
        println!(
            "epoch {:>3}  train {:.4}  valid {:.4} ± {:.4}  accuracy {:.2}%  lr {}  {best}  \
             {patience}  {:.0} images/s",
            o.epoch,
            o.train_loss.unwrap_or(f64::NAN),
            o.valid_loss,
            o.standard_error().unwrap_or(f64::NAN),
            100.0 * o.value("accuracy").unwrap_or(f64::NAN),
            o.lr.unwrap_or(f64::NAN) as f32,
            evaluation.images_per_second,
        );
        Ok(())
    }

    fn on_end(&mut self, stop: &Stop) -> Result<()> {
        println!("{stop}");
        Ok(())
    }
}

/// Writes one JSON object per evaluation to a file.
///
/// When a run is resumed, lines after the point of resumption are dropped first: the log is of
/// one run, however often it was interrupted.
pub struct JsonLines {
    path: PathBuf,
    file: Option<File>,
}

#[derive(Serialize)]
struct Line<'a> {
    epoch: u64,
    step: u64,
    train_loss: Option<f64>,
    valid_loss: f64,
    valid_loss_se: Option<f64>,
    lr: Option<f64>,
    elapsed: Option<f64>,
    #[serde(flatten)]
    metrics: &'a std::collections::BTreeMap<String, f64>,
    new_best: bool,
    patience_left: Option<u32>,
    images_per_second: f64,
}

impl JsonLines {
    /// Logs to the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        JsonLines { path: path.into(), file: None }
    }

    /// The lines of an existing log up to step `step`.
    fn lines_until(&self, step: u64) -> Result<Vec<String>> {
        let failed = |e| Error::io("read", &self.path, e);
        let mut kept = Vec::new();
        if !self.path.exists() {
            return Ok(kept);
        }
        for line in BufReader::new(File::open(&self.path).map_err(failed)?).lines() {
            let line = line.map_err(failed)?;
            let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if value["step"].as_u64().is_some_and(|at| at <= step) {
                kept.push(line);
            }
        }
        Ok(kept)
    }
}

impl Callback for JsonLines {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        let kept = self.lines_until(run.step)?;
        let failed = |e| Error::io("write", &self.path, e);
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).open(&self.path).map_err(failed)?;
        for line in kept {
            writeln!(file, "{line}").map_err(failed)?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let o = evaluation.observation;
        let line = serde_json::to_string(&Line {
            epoch: o.epoch,
            step: o.step,
            train_loss: o.train_loss,
            valid_loss: o.valid_loss,
            valid_loss_se: o.standard_error(),
            lr: o.lr,
            elapsed: o.elapsed,
            metrics: &o.metrics,
            new_best: evaluation.verdict.new_best,
            patience_left: evaluation.verdict.patience_left,
            images_per_second: evaluation.images_per_second,
        })
        .expect("plain data");
        writeln!(file, "{line}").map_err(|e| Error::io("write", &self.path, e))
    }
}
