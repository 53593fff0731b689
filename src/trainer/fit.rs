//! The loop itself.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::evaluate::{Evaluation, Evaluator, check_model};
use super::saver::{Report, Saver};
use super::state::{self, Position};
use super::step::{NonFinite, Stepper, Taken};
use super::{EndInfo, EvaluationInfo, Outcome, Resume, RunInfo, StepInfo, Stop, Trainer};
use crate::checkpoint::{Checkpoints, Metric, Skipped};
use crate::data::{Augment, Dataset};
use crate::error::{Error, Result};
use crate::monitor::{Mode, Monitor, Observation, TrainingPlan, Verdict};
use crate::nn::Module;
use crate::optim::Progress;
use crate::params::Params;
use crate::rng::{Purpose, Stream};
use crate::tape::Tape;

/// What a roll-back leaves of the learning rate.
const ROLL_BACK_FACTOR: f32 = 0.5;

impl<M: Module> Trainer<M> {
    /// Trains until the monitor, the number of epochs or an interruption ends it, and restores
    /// the best weights.
    ///
    /// A full disk does not end a run: it is a warning ([`Outcome::warnings`]), and saving is tried
    /// again later.
    ///
    /// # Errors
    /// Before the first step: a model that does not fit the data, a monitor that cannot work, a
    /// directory that holds a run (see [`Resume`]) or has no room, a run that does not fit these
    /// settings or is finished. Later: whatever saving or a callback returns; what was saved before
    /// stays. A callback that fails at the end is only a warning.
    ///
    /// # Panics
    /// Passes on a panic of the model, the data or a callback. The state of that step is gone with
    /// it; nothing of it was saved.
    pub fn fit(self, train: &dyn Dataset, valid: &dyn Dataset) -> Result<Outcome<M>> {
        // On a thread of the pool: from outside, each parallel operation would have to wake the
        // pool and be woken by it, which takes longer than many an operation.
        let mut outcome = None;
        rayon::scope(|_| outcome = Some(self.fit_in_pool(train, valid)));
        outcome.expect("the scope has run")
    }

    fn fit_in_pool(mut self, train: &dyn Dataset, valid: &dyn Dataset) -> Result<Outcome<M>> {
        check_model(&self.model, &self.params, train)?;
        check_model(&self.model, &self.params, valid)?;
        if self.epochs == 0 {
            return Err(Error::config("epochs", "0 epochs train nothing; expected at least 1"));
        }
        let config = state::config(&self, train, valid);
        let augment = self.augment.take();
        let mut run = Run::new(self, train, valid, augment.as_deref(), config)?;
        let stop = run.begin().and_then(|()| run.train());
        run.finish(stop)
    }
}

/// A run in progress.
pub(super) struct Run<'d, M> {
    pub(super) trainer: Trainer<M>,
    train: &'d dyn Dataset,
    valid: &'d dyn Dataset,
    /// A fixed sample of the training data, as large as the validation data: its loss in
    /// evaluation mode is comparable with the validation loss, which the mean over an epoch's
    /// batches, measured while the weights move and with dropout on, is not.
    probe: Vec<usize>,
    base_lr: f32,
    /// Settings that a resumed run must share, recorded in every checkpoint.
    pub(super) config: Vec<(String, String)>,
    pub(super) position: Position,
    pub(super) monitor: Monitor,
    /// How often the run went back to its best weights; each time halves the learning rate.
    pub(super) roll_backs: u32,
    /// The weights and buffers of the best evaluation.
    best: Option<Params>,
    /// With what the present weights compete for the role "best", if they were evaluated.
    metric: Option<Metric>,
    stepper: Stepper<'d>,
    eval_tape: Tape,
    saver: Saver,
    /// Whether there is something that the last save does not have.
    unsaved: bool,
    warnings: Vec<String>,
    /// Seconds of training before this process, and when it began.
    clock: (f64, Instant),
    /// Time spent in steps, and images trained, since this process began.
    training: (Duration, u64),
    /// Time for which steps waited for saving, since this process began.
    saving: Duration,
}

impl<'d, M: Module> Run<'d, M> {
    fn new(
        trainer: Trainer<M>,
        train: &'d dyn Dataset,
        valid: &'d dyn Dataset,
        augment: Option<&'d dyn Augment>,
        config: Vec<(String, String)>,
    ) -> Result<Self> {
        Ok(Run {
            probe: probe(train, valid.len(), trainer.params.seed()),
            base_lr: trainer.optimizer.lr,
            monitor: Monitor::new(trainer.monitor.clone())?,
            stepper: Stepper::new(&trainer, train, augment),
            trainer,
            train,
            valid,
            config,
            position: Position::default(),
            roll_backs: 0,
            best: None,
            metric: None,
            eval_tape: Tape::new(),
            saver: Saver::Nowhere,
            unsaved: false,
            warnings: Vec::new(),
            clock: (0.0, Instant::now()),
            training: (Duration::ZERO, 0),
            saving: Duration::ZERO,
        })
    }

    /// Takes over the last checkpoint, or makes sure that there can be a first one.
    fn begin(&mut self) -> Result<()> {
        let plan = TrainingPlan {
            lr_step: self.trainer.schedule.step_epochs().and_then(|n| n.try_into().ok()),
            evaluations: self.trainer.epochs.try_into().ok(),
            ..TrainingPlan::default()
        };
        let mut notes = self.trainer.monitor.warnings(&plan);
        let mut resumed_from = None;
        if let Some(mut checkpoints) = self.trainer.checkpoints.take() {
            resumed_from = self.resume(&mut checkpoints, &mut notes)?;
            if resumed_from.is_none() {
                self.preflight(&mut checkpoints)?;
            }
            self.saver = Saver::new(Some(checkpoints), self.trainer.background);
        }
        let info = RunInfo {
            resumed_from,
            notes,
            epoch: self.position.epoch,
            step: self.position.step,
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
        self.clock = (restored.elapsed, Instant::now());
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

    fn train(&mut self) -> Result<Stop> {
        loop {
            if self.asked_to_stop() {
                return Ok(Stop::Interrupted(self.trainer.interrupt.signal()));
            }
            let stop = if self.evaluation_owed() {
                self.evaluate()?
            } else if self.position.epoch >= self.trainer.epochs {
                Some(Stop::Epochs(self.position.epoch))
            } else {
                self.step()?
            };
            if let Some(stop) = stop {
                return Ok(stop);
            }
        }
    }

    fn asked_to_stop(&self) -> bool {
        let Trainer { interrupt, max_steps, .. } = &self.trainer;
        interrupt.requested() || max_steps.is_some_and(|limit| self.position.step >= limit)
    }

    /// Whether an epoch has ended that was not evaluated yet: a run may have been interrupted just
    /// there.
    fn evaluation_owed(&self) -> bool {
        let evaluated = self.monitor.history().last().map_or(0, |observation| observation.epoch);
        self.position.batch == 0 && self.position.epoch > evaluated
    }

    /// Takes one step; `Some` if it ends the run.
    fn step(&mut self) -> Result<Option<Stop>> {
        let steps_per_epoch = self.stepper.per_epoch();
        let Position { epoch, batch, step, .. } = self.position;
        let at = Progress { epoch, step, steps_per_epoch, history: self.monitor.history() };
        let kept = ROLL_BACK_FACTOR.powi(self.roll_backs.try_into().unwrap_or(i32::MAX));
        self.trainer.optimizer.lr = kept * self.trainer.schedule.lr(self.base_lr, &at);

        let started = Instant::now();
        let Taken { examples, loss, grad_norm, applied } =
            self.stepper.step(&mut self.trainer, &self.position);
        self.training.0 += started.elapsed();
        self.training.1 += examples;

        let lr = self.trainer.optimizer.lr;
        match self.trainer.on_non_finite {
            _ if applied => {}
            NonFinite::Skip => {}
            NonFinite::RollBack if self.best.is_some() => self.roll_back(),
            _ => return Ok(Some(Stop::NonFinite { step: step + 1, loss, grad_norm })),
        }
        self.position = self.position.after(examples, steps_per_epoch);
        self.metric = None;
        self.unsaved = true;
        let info = StepInfo {
            epoch: epoch + 1,
            iteration: batch + 1,
            steps_per_epoch,
            step: step + 1,
            loss,
            lr,
            grad_norm,
            applied,
        };
        self.trainer.callbacks.iter_mut().try_for_each(|callback| callback.on_step(&info))?;

        let report = self.saver.poll()?;
        self.note(report)?;
        if self.saver.due() {
            self.save()?;
        }
        Ok(None)
    }

    /// Evaluates, observes, saves; `Some` if that ends the run.
    fn evaluate(&mut self) -> Result<Option<Stop>> {
        let Some((train, valid)) = self.measure() else { return Ok(None) };
        let average = valid.confusion.macro_average();
        let mut observation = Observation {
            step: self.position.step,
            lr: Some(f64::from(self.trainer.optimizer.lr)),
            valid_loss_se: Some(valid.standard_error),
            elapsed: Some(self.elapsed()),
            ..Observation::new(self.position.epoch, valid.loss).with_train_loss(train.loss)
        }
        .with_metric("accuracy", valid.accuracy)
        .with_metric("top5_accuracy", valid.top5_accuracy)
        .with_metric("macro_precision", average.precision)
        .with_metric("macro_recall", average.recall)
        .with_metric("macro_f1", average.f1)
        .with_metric("train_accuracy", train.accuracy);
        if self.trainer.monitor.needs_example_losses() {
            observation.example_losses.clone_from(&valid.losses);
        }
        self.metric = self.candidate(&observation);
        let first = self.monitor.history().is_empty();
        let verdict = self.monitor.observe(observation);
        if verdict.new_best {
            self.best = Some(self.trainer.params.clone());
        }
        if verdict.roll_back && self.best.is_some() {
            self.roll_back();
            // It was not measured with the weights that are saved now, unless they are the best.
            self.metric.take_if(|_| !verdict.new_best);
        }
        self.unsaved = true;
        self.save()?;
        if first {
            self.warn_of_noise()?;
        }

        let info = EvaluationInfo {
            observation: self.monitor.history().last().expect("just observed"),
            verdict: &verdict,
            evaluation: &valid,
            epochs: self.trainer.epochs,
            checkpoint: self.saver.last(),
            images_per_second: self.images_per_second(),
            saving_overhead: self.saving.as_secs_f64() / self.clock.1.elapsed().as_secs_f64(),
        };
        for callback in &mut self.trainer.callbacks {
            callback.on_evaluation(&info)?;
        }
        Ok(verdict.stop_reason().cloned().map(Stop::Early))
    }

    /// Training and validation performance with the current weights; `None` if interrupted.
    fn measure(&mut self) -> Option<(Evaluation, Evaluation)> {
        let Trainer { model, params, interrupt, .. } = &self.trainer;
        let mut evaluator = Evaluator { tape: &mut self.eval_tape, interrupt };
        let train = evaluator.run(model, params, self.train, self.probe.clone())?;
        let valid = evaluator.run(model, params, self.valid, (0..self.valid.len()).collect())?;
        Some((train, valid))
    }

    /// With what an evaluation competes for the role "best" among the checkpoints: with nothing, if
    /// the monitor could never take it for best.
    fn candidate(&self, observation: &Observation) -> Option<Metric> {
        let spec = &self.trainer.monitor;
        let value = spec.candidate(observation)?;
        Some(match spec.direction() {
            Mode::Min => Metric::minimize(spec.metric(), value),
            Mode::Max => Metric::maximize(spec.metric(), value),
        })
    }

    /// After the first evaluation it is known how noisy the validation loss is.
    fn warn_of_noise(&mut self) -> Result<()> {
        let seen = &self.monitor.history()[0];
        let plan = TrainingPlan { valid_loss_se: seen.standard_error(), ..TrainingPlan::default() };
        let known = self.trainer.monitor.warnings(&TrainingPlan::default());
        let warnings = self.trainer.monitor.warnings(&plan);
        warnings.into_iter().filter(|text| !known.contains(text)).try_for_each(|w| self.warn(w))
    }

    /// Goes back to the best weights, without momentum, and on with half the learning rate.
    fn roll_back(&mut self) {
        let best = self.best.as_ref().expect("there is a best state");
        self.trainer.params.clone_from(best);
        self.trainer.optimizer.set_velocity(Vec::new());
        self.roll_backs += 1;
    }

    fn save(&mut self) -> Result<()> {
        let started = Instant::now();
        let mut saver = std::mem::take(&mut self.saver);
        let report = saver.save(&state::capture(self), self.metric.clone());
        self.saver = saver;
        self.saving += started.elapsed();
        self.unsaved = false;
        self.note(report?)
    }

    /// Passes on what happened while saving.
    fn note(&mut self, report: Report) -> Result<()> {
        self.unsaved |= report.no_room;
        report.warnings.iter().try_for_each(|warning| self.warn(format!("not saved: {warning}")))
    }

    fn warn(&mut self, warning: String) -> Result<()> {
        let Run { trainer, warnings, .. } = self;
        warnings.push(warning);
        let warning = warnings.last().expect("just pushed");
        trainer.callbacks.iter_mut().try_for_each(|callback| callback.on_warning(warning))
    }

    /// Seconds of training, also in the processes before this one.
    pub(super) fn elapsed(&self) -> f64 {
        self.clock.0 + self.clock.1.elapsed().as_secs_f64()
    }

    fn images_per_second(&self) -> f64 {
        let (time, images) = self.training;
        images as f64 / time.as_secs_f64().max(1e-9)
    }

    /// Saves what is not saved yet, restores the best weights and makes up the balance. However
    /// the run ended, a save in the background is waited for.
    fn finish(mut self, stop: Result<Stop>) -> Result<Outcome<M>> {
        let saved = if stop.is_ok() && self.unsaved { self.save() } else { Ok(()) };
        let (checkpoints, last) = std::mem::take(&mut self.saver).finish();
        let stop = stop?;
        saved?;
        self.note(last?)?;
        self.tell_of_the_end(&stop, checkpoints.as_ref())?;

        let images_per_second = self.images_per_second();
        let best = self.monitor.best();
        let best_step = best.map(|best| self.monitor.history()[best.index].step);
        let entries = checkpoints.as_ref().map_or(&[][..], Checkpoints::entries);
        let of_best =
            entries.iter().rev().find(|e| e.metric.is_some() && Some(e.cursor.step) == best_step);
        let last = entries.last();
        Ok(Outcome {
            stop,
            best,
            history: self.monitor.history().to_vec(),
            steps: self.position.step,
            digest: last.filter(|_| !self.unsaved).map(|entry| entry.digest.clone()),
            best_checkpoint: of_best.map(|entry| entry.path.clone()),
            last_checkpoint: last.map(|entry| entry.path.clone()),
            images_per_second,
            warnings: self.warnings,
            model: self.trainer.model,
            params: self.best.unwrap_or(self.trainer.params),
        })
    }

    /// A callback that fails here, as a report for which the disk has no room, is a warning: what was
    /// trained is not thrown away for it.
    fn tell_of_the_end(&mut self, stop: &Stop, checkpoints: Option<&Checkpoints>) -> Result<()> {
        let (images_per_second, elapsed) = (self.images_per_second(), self.elapsed());
        let Trainer { model, params, callbacks, .. } = &mut self.trainer;
        let info = EndInfo {
            stop,
            monitor: &self.monitor,
            config: &self.config,
            model,
            params: self.best.as_ref().unwrap_or(params),
            train: self.train,
            valid: self.valid,
            checkpoints,
            warnings: &self.warnings,
            images_per_second,
            elapsed,
        };
        let failed = callbacks.iter_mut().filter_map(|callback| callback.on_end(&info).err());
        let failed: Vec<String> = failed.map(|error| error.to_string()).collect();
        failed.into_iter().try_for_each(|warning| self.warn(warning))
    }
}

/// The indices of at most `size` training examples, the same in every process.
fn probe(train: &dyn Dataset, size: usize, seed: u64) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..train.len()).collect();
    Stream::new(seed, Purpose::Probe, 0, 0).shuffle(&mut indices);
    indices.truncate(size);
    indices.sort_unstable();
    indices
}

fn skipped_note(skipped: &Skipped) -> String {
    format!("skipped a damaged file: {}", skipped.error)
}
