//! The loop itself.

use std::time::Instant;

use super::clock::Clock;
use super::evaluate::{Evaluation, Evaluator, check_model, in_pool};
use super::saver::{Report, Saver};
use super::state::{self, Position};
use super::step::{NonFinite, Stepper, Taken};
use super::{EndInfo, EvaluationInfo, Outcome, StepInfo, Stop, Trainer};
use crate::checkpoint::{Checkpoints, Metric};
use crate::data::{Augment, Dataset};
use crate::error::{Error, Result};
use crate::monitor::{Mode, Monitor, Observation, TrainingPlan};
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
    /// What is learnt follows from the data. Where examples have classes it is cross-entropy that
    /// is minimised; where they have values
    /// ([`ArrayDataset::with_targets`](crate::data::ArrayDataset::with_targets)), the mean squared
    /// error.
    ///
    /// A full disk does not end a run: it is a warning ([`Outcome::warnings`]), and saving is tried
    /// again later, that of the best evaluation included. Nor does a log that cannot be written.
    ///
    /// # Errors
    /// Before the first step: a model that does not fit the data, a monitor that cannot work, a
    /// monitor or schedule of a metric that is not measured (see [`CLASS_METRICS`] and
    /// [`VALUE_METRICS`]), a directory that holds a run (see [`Resume`]) or has no room, a run that
    /// does not fit these settings or is finished. Later: whatever saving or a callback returns;
    /// what was saved before stays. A callback that fails at the end is only a warning, and so is
    /// [`Error::Io`] of one that is told of an evaluation.
    ///
    /// # Panics
    /// Passes on a panic of the model, the data or a callback. The state of that step is gone with
    /// it; nothing of it was saved.
    ///
    /// [`CLASS_METRICS`]: super::CLASS_METRICS
    /// [`VALUE_METRICS`]: super::VALUE_METRICS
    /// [`Resume`]: super::Resume
    pub fn fit(self, train: &dyn Dataset, valid: &dyn Dataset) -> Result<Outcome<M>> {
        in_pool(|| self.fit_in_pool(train, valid))
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
    pub(super) train: &'d dyn Dataset,
    pub(super) valid: &'d dyn Dataset,
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
    pub(super) best: Option<Params>,
    /// With what the present weights compete for the role "best", if they were evaluated.
    metric: Option<Metric>,
    pub(super) stepper: Stepper<'d>,
    eval_tape: Tape,
    pub(super) saver: Saver,
    /// Whether there is something that the last save does not have.
    unsaved: bool,
    warnings: Vec<String>,
    pub(super) clock: Clock,
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
            clock: Clock::start(),
        })
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
    pub(super) fn evaluation_owed(&self) -> bool {
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
        self.clock.stepped(started, examples);

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
        let mut observation = Observation {
            step: self.position.step,
            lr: Some(f64::from(self.trainer.optimizer.lr)),
            valid_loss_se: Some(valid.standard_error),
            elapsed: Some(self.clock.elapsed()),
            ..Observation::new(self.position.epoch, valid.loss).with_train_loss(train.loss)
        };
        for (name, value) in valid.metrics() {
            observation.metrics.insert(name.to_owned(), value);
        }
        let probed =
            train.metrics().into_iter().filter(|(name, _)| ["accuracy", "mae"].contains(name));
        observation.metrics.extend(probed.map(|(name, value)| (format!("train_{name}"), value)));
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
            checkpoint: self.saver.last().filter(|_| !self.unsaved),
            images_per_second: self.clock.images_per_second(),
            saving_overhead: self.clock.saving_overhead(),
        };
        let mut unwritten = Vec::new();
        for callback in &mut self.trainer.callbacks {
            match callback.on_evaluation(&info) {
                Err(error @ Error::Io { .. }) => unwritten.push(error.to_string()),
                told => told?,
            }
        }
        unwritten.into_iter().try_for_each(|warning| self.warn(warning))?;
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
        self.clock.saved(started);
        self.unsaved = false;
        self.note(report?)
    }

    /// Passes on what happened while saving.
    fn note(&mut self, report: Report) -> Result<()> {
        self.unsaved |= report.no_room;
        report.warnings.into_iter().try_for_each(|warning| self.warn(warning))
    }

    fn warn(&mut self, warning: String) -> Result<()> {
        let Run { trainer, warnings, .. } = self;
        warnings.push(warning);
        let warning = warnings.last().expect("just pushed");
        trainer.callbacks.iter_mut().try_for_each(|callback| callback.on_warning(warning))
    }

    /// Saves what is not saved yet, restores the best weights and makes up the balance. However
    /// the run ended, a save in the background is waited for.
    fn finish(mut self, stop: Result<Stop>) -> Result<Outcome<M>> {
        let saved = if stop.is_ok() && self.unsaved { self.save() } else { Ok(()) };
        let (checkpoints, last) = std::mem::take(&mut self.saver).finish();
        let stop = stop?;
        saved?;
        self.note(last?)?;
        let unsaved = checkpoints.is_some() && self.unsaved;
        if unsaved {
            self.warn("the end of this run is on no disk: there was no room for it".to_owned())?;
        }
        self.tell_of_the_end(&stop, checkpoints.as_ref())?;

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
            unsaved,
            digest: last.filter(|_| !self.unsaved).map(|entry| entry.digest.clone()),
            best_checkpoint: of_best.map(|entry| entry.path.clone()),
            last_checkpoint: last.map(|entry| entry.path.clone()),
            images_per_second: self.clock.images_per_second(),
            warnings: self.warnings,
            model: self.trainer.model,
            params: self.best.unwrap_or(self.trainer.params),
        })
    }

    /// A callback that fails here, as a report for which the disk has no room, is a warning: what
    /// was trained is not thrown away for it.
    fn tell_of_the_end(&mut self, stop: &Stop, checkpoints: Option<&Checkpoints>) -> Result<()> {
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
            images_per_second: self.clock.images_per_second(),
            elapsed: self.clock.elapsed(),
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
