//! How a run begins: where its last checkpoint is, or afresh, once it is known that there can be a
//! first one.

use std::path::PathBuf;

use super::evaluate::{check_metric, measured};
use super::fit::Run;
use super::saver::Saver;
use super::{Resume, RunInfo, Trainer, state};
use crate::checkpoint::{Checkpoints, Skipped};
use crate::error::{Error, Result};
use crate::monitor::Verdict;
use crate::nn::Module;
use crate::params::Params;

impl<M: Module> Run<'_, M> {
    /// Takes over the last checkpoint, or makes sure that there can be a first one.
    pub(super) fn begin(&mut self) -> Result<()> {
        // A misspelt metric would only be missed after the first epoch; by a schedule, never.
        let watched = self.trainer.monitor.metrics();
        let mut watched = watched.into_iter().chain(self.trainer.schedule.metric());
        let measured = measured(self.valid.targets() > 0);
        watched.try_for_each(|name| check_metric(name, measured))?;
        let mut notes = self.trainer.warnings();
        let mut resumed_from = None;
        if let Some(mut checkpoints) = self.trainer.checkpoints.take() {
            resumed_from = self.resume(&mut checkpoints, &mut notes)?;
            if resumed_from.is_none() {
                self.preflight(&mut checkpoints)?;
            }
            self.saver = Saver::new(checkpoints, self.trainer.background);
        }
        let info = RunInfo {
            resumed_from,
            notes,
            epoch: self.position.epoch,
            step: self.position.step,
            history: self.monitor.history().to_vec(),
            steps_per_epoch: self.stepper.per_epoch(),
            train_examples: self.train.len(),
            valid_examples: self.valid.len(),
            epochs: self.trainer.epochs,
            monitor: self.trainer.monitor.to_string(),
        };
        self.trainer.callbacks.iter_mut().try_for_each(|callback| callback.on_start(&info))
    }

    /// Goes to where the last checkpoint is, if there is one and that is wanted.
    fn resume(
        &mut self,
        checkpoints: &mut Checkpoints,
        notes: &mut Vec<String>,
    ) -> Result<Option<PathBuf>> {
        let dir = checkpoints.dir().display().to_string();
        if !checkpoints.has_checkpoints() {
            if self.trainer.resume == Resume::Auto {
                notes.push(format!("nothing to resume in {dir}: starting afresh"));
            }
            return Ok(None);
        }
        if self.trainer.resume == Resume::Never {
            let reason = format!(
                "{dir} already holds a run, which is never overwritten; resume it, or choose \
                 another directory"
            );
            return Err(Error::config("run directory", reason));
        }
        let latest = checkpoints.load_latest()?.expect("there are checkpoints");
        notes.extend(latest.skipped.iter().map(skipped_note));
        let Trainer { params, optimizer, monitor, .. } = &mut self.trainer;
        let restored = state::restore(&latest.state, &self.config, params, optimizer)?;
        if latest.state.monitor != state::monitor_text(monitor) {
            notes.push(format!("the monitor is now {monitor}"));
        }
        self.position = restored.position;
        self.roll_backs = restored.roll_backs;
        self.clock.resume_from(restored.elapsed);
        for observation in restored.history {
            self.monitor.observe(observation);
        }
        self.refuse_if_finished()?;
        self.best = self.load_best(checkpoints, notes)?;
        Ok(Some(latest.path))
    }

    fn refuse_if_finished(&self) -> Result<()> {
        let reason = match self.monitor.last().and_then(Verdict::stop_reason) {
            Some(reason) => format!(
                "this run is finished ({reason}); to train on, allow more, for instance with a \
                 larger patience"
            ),
            None if self.position.epoch >= self.trainer.epochs && !self.evaluation_owed() => {
                let epochs = self.position.epoch;
                format!(
                    "this run is finished (all {epochs} epochs are done); to train on, allow more \
                     epochs"
                )
            }
            None => return Ok(()),
        };
        Err(Error::config("resume", reason))
    }

    /// The weights of the best evaluation, from the checkpoint that was made there.
    fn load_best(
        &self,
        checkpoints: &mut Checkpoints,
        notes: &mut Vec<String>,
    ) -> Result<Option<Params>> {
        let Some(best) = self.monitor.best() else { return Ok(None) };
        let step = self.monitor.history()[best.index].step;
        let here = |at: usize| {
            let entry = &checkpoints.entries()[at];
            entry.cursor.step == step && entry.metric.is_some()
        };
        let found = (0..checkpoints.entries().len()).rev().find(|&at| here(at));
        let found = found.map(|at| checkpoints.entries()[at].generation);
        let mut loaded = found.and_then(|generation| checkpoints.load(generation).ok());
        if loaded.is_none() {
            // The file is damaged, or another metric was best when files had to go.
            loaded = checkpoints.load_best()?;
            notes.push(match &loaded {
                Some(other) => format!(
                    "the weights of the best evaluation, epoch {}, are lost: those of epoch {} \
                     stand in for them",
                    best.epoch, other.state.cursor.epoch
                ),
                None => {
                    format!("the weights of the best evaluation, epoch {}, are lost", best.epoch)
                }
            });
        }
        let Some(loaded) = loaded else { return Ok(None) };
        notes.extend(loaded.skipped.iter().map(skipped_note));
        let mut params = self.trainer.params.clone();
        loaded.state.load_into(&mut params)?;
        Ok(Some(params))
    }

    /// Finds out before the first step whether the run can be saved.
    fn preflight(&self, checkpoints: &mut Checkpoints) -> Result<()> {
        let mut state = state::capture(self);
        // As large as it will be after the first step.
        let zeros = vec![0.0; self.trainer.params.flat().len()];
        if self.trainer.optimizer.has_momentum() {
            state.optimizer.slots = state::slots(&self.trainer.params, &zeros);
        }
        checkpoints.preflight(&state)
    }
}

fn skipped_note(skipped: &Skipped) -> String {
    format!("skipped a damaged file: {}", skipped.error)
}
