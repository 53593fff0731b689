//! The loop itself.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::evaluate::{Evaluation, Evaluator, check_model};
use super::state::{self, Position};
use super::{EvaluationInfo, Outcome, Resume, RunInfo, StepInfo, Stop, Trainer};
use crate::checkpoint::{Metric, Skipped};
use crate::data::{Batches, Dataset};
use crate::error::{Error, Result};
use crate::monitor::{Monitor, Observation, TrainingPlan, Verdict};
use crate::nn::Module;
use crate::optim::Progress;
use crate::rng::{Purpose, Stream};
use crate::tape::{Graph, Tape};

impl<M: Module> Trainer<M> {
    /// Trains until the monitor, the number of epochs or an interruption ends it, and restores
    /// the best weights.
    ///
    /// # Errors
    /// Before the first step: a model that does not fit the data, a monitor that cannot work, a
    /// directory that holds a run (see [`Resume`]), a run that does not fit these settings or is
    /// finished. Later: whatever saving or a callback returns; what was saved before stays.
    pub fn fit(self, train: &dyn Dataset, valid: &dyn Dataset) -> Result<Outcome<M>> {
        // On a thread of the pool: from outside, each parallel operation would have to wake the
        // pool and be woken by it, which takes longer than many an operation.
        let mut outcome = None;
        rayon::scope(|_| outcome = Some(self.fit_in_pool(train, valid)));
        outcome.expect("the scope has run")
    }

    fn fit_in_pool(self, train: &dyn Dataset, valid: &dyn Dataset) -> Result<Outcome<M>> {
        check_model(&self.model, &self.params, train)?;
        check_model(&self.model, &self.params, valid)?;
        if self.epochs == 0 {
            return Err(Error::config("epochs", "0 epochs train nothing; expected at least 1"));
        }
        let mut run = Run::begin(self, train, valid)?;
        let stop = run.train()?;
        for callback in &mut run.trainer.callbacks {
            callback.on_end(&stop)?;
        }
        run.finish(stop)
    }
}

/// A run in progress.
struct Run<'d, M> {
    trainer: Trainer<M>,
    train: &'d dyn Dataset,
    valid: &'d dyn Dataset,
    /// A fixed sample of the training data, as large as the validation data: its loss in
    /// evaluation mode is comparable with the validation loss, which the mean over an epoch's
    /// batches, measured while the weights move and with dropout on, is not.
    probe: Vec<usize>,
    base_lr: f32,
    /// Settings that a resumed run must share, recorded in every checkpoint.
    config: Vec<(String, String)>,
    position: Position,
    monitor: Monitor,
    best_weights: Option<Vec<f32>>,
    best_checkpoint: Option<PathBuf>,
    last_checkpoint: Option<PathBuf>,
    /// Of the state in `last_checkpoint`.
    digest: Option<String>,
    train_tape: Tape,
    eval_tape: Tape,
    /// Time spent in steps, and images trained, since this process began.
    training: (Duration, u64),
}

impl<'d, M: Module> Run<'d, M> {
    fn begin(trainer: Trainer<M>, train: &'d dyn Dataset, valid: &'d dyn Dataset) -> Result<Self> {
        let config = state::config(&trainer, train, valid);
        let monitor = Monitor::new(trainer.monitor.clone())?;
        let mut run = Run {
            probe: probe(train, valid.len(), trainer.params.seed()),
            base_lr: trainer.optimizer.lr,
            trainer,
            train,
            valid,
            config,
            position: Position::default(),
            monitor,
            best_weights: None,
            best_checkpoint: None,
            last_checkpoint: None,
            digest: None,
            train_tape: Tape::new(),
            eval_tape: Tape::new(),
            training: (Duration::ZERO, 0),
        };
        let plan = TrainingPlan {
            lr_step: run.trainer.schedule.step_epochs().and_then(|n| n.try_into().ok()),
            evaluations: run.trainer.epochs.try_into().ok(),
            ..TrainingPlan::default()
        };
        let mut notes = run.trainer.monitor.warnings(&plan);
        let resumed_from = run.resume(&mut notes)?;
        let info = RunInfo {
            resumed_from,
            notes,
            epoch: run.position.epoch,
            step: run.position.step,
            steps_per_epoch: run.train.len().div_ceil(run.trainer.batch_size) as u64,
            train_examples: run.train.len(),
            valid_examples: run.valid.len(),
            epochs: run.trainer.epochs,
        };
        for callback in &mut run.trainer.callbacks {
            callback.on_start(&info)?;
        }
        Ok(run)
    }

    /// Takes over the last checkpoint, if there is one and that is wanted.
    fn resume(&mut self, notes: &mut Vec<String>) -> Result<Option<PathBuf>> {
        let Some(checkpoints) = &mut self.trainer.checkpoints else { return Ok(None) };
        if !checkpoints.has_checkpoints() {
            if self.trainer.resume == Resume::Auto {
                notes.push(format!(
                    "nothing to resume in {}: starting afresh",
                    checkpoints.dir().display()
                ));
            }
            return Ok(None);
        }
        if self.trainer.resume == Resume::Never {
            return Err(Error::config(
                "run directory",
                format!(
                    "{} already holds a run, which is never overwritten; resume it, or choose \
                     another directory",
                    checkpoints.dir().display()
                ),
            ));
        }
        let latest = checkpoints.load_latest()?.expect("there are checkpoints");
        notes.extend(latest.skipped.iter().map(skipped_note));
        let restored = state::restore(
            &latest.state,
            &self.config,
            &mut self.trainer.params,
            &mut self.trainer.optimizer,
        )?;
        self.position = restored.position;
        self.last_checkpoint = Some(latest.path.clone());
        if latest.state.monitor != state::monitor_text(&self.trainer.monitor) {
            notes.push(format!("the monitor is now {}", self.trainer.monitor));
        }
        let mut verdict = None;
        for observation in restored.history {
            verdict = Some(self.monitor.observe(observation));
        }
        if let Some(reason) = verdict.as_ref().and_then(Verdict::stop_reason) {
            return Err(Error::config(
                "resume",
                format!(
                    "this run is finished ({reason}); to train on, allow more, for instance with \
                     a larger patience"
                ),
            ));
        }
        if self.position.epoch >= self.trainer.epochs
            && !evaluation_owed(&self.position, &self.monitor)
        {
            return Err(Error::config(
                "resume",
                format!(
                    "this run is finished (all {} epochs are done); to train on, allow more epochs",
                    self.position.epoch
                ),
            ));
        }
        if self.monitor.best().is_some()
            && let Some(best) = checkpoints.load_best()?
        {
            notes.extend(best.skipped.iter().map(skipped_note));
            let mut params = self.trainer.params.clone();
            best.state.load_into(&mut params)?;
            self.best_weights = Some(params.flat().to_vec());
            self.best_checkpoint = Some(best.path);
        }
        Ok(Some(latest.path))
    }

    fn train(&mut self) -> Result<Stop> {
        loop {
            if evaluation_owed(&self.position, &self.monitor)
                && let Some(stop) = self.evaluate()?
            {
                return Ok(stop);
            }
            if self.position.epoch >= self.trainer.epochs {
                return Ok(Stop::Epochs(self.position.epoch));
            }
            if let Some(stop) = self.train_epoch()? {
                return Ok(stop);
            }
        }
    }

    /// Trains from the current position to the end of the epoch; `Some` if interrupted.
    fn train_epoch(&mut self) -> Result<Option<Stop>> {
        let Run { trainer, train, position, monitor, train_tape, training, base_lr, .. } = self;
        let Trainer { model, params, optimizer, augment, callbacks, .. } = trainer;
        let mut batches = Batches::new(*train, trainer.batch_size).shuffled(params.seed());
        if let Some(augment) = augment {
            batches = batches.augmented(&**augment, params.seed());
        }
        let steps_per_epoch = batches.per_epoch() as u64;
        batches.seek(position.epoch, position.batch as usize);

        let mut interrupted = false;
        while position.batch < steps_per_epoch && !interrupted {
            let started = Instant::now();
            optimizer.lr = trainer.schedule.lr(
                *base_lr,
                &Progress {
                    epoch: position.epoch,
                    step: position.step,
                    steps_per_epoch,
                    history: monitor.history(),
                },
            );
            let batch = batches.next().expect("the epoch is not over");
            let mut g = Graph::new(train_tape, params).at_step(position.step);
            let x = g.input(&batch.inputs);
            let logits = model.forward(&mut g, x);
            let loss = g.cross_entropy(logits, &batch.labels);
            let loss_value = g.item(loss);
            let gradients = g.backward(loss);
            optimizer.step(params, &gradients);
            training.0 += started.elapsed();
            training.1 += batch.labels.len() as u64;

            position.step += 1;
            position.batch += 1;
            position.samples += batch.labels.len() as u64;
            let info = StepInfo {
                epoch: position.epoch + 1,
                iteration: position.batch,
                steps_per_epoch,
                step: position.step,
                loss: loss_value,
                lr: optimizer.lr,
            };
            callbacks.iter_mut().try_for_each(|callback| callback.on_step(&info))?;
            let limit_reached = trainer.max_steps.is_some_and(|limit| position.step >= limit);
            interrupted = limit_reached || trainer.interrupt.requested();
        }
        // The end of an epoch and the beginning of the next are one position.
        if position.batch == steps_per_epoch {
            position.epoch += 1;
            position.batch = 0;
        }
        if !interrupted {
            return Ok(None);
        }
        self.save(None)?;
        Ok(Some(Stop::Interrupted(self.trainer.interrupt.signal())))
    }

    /// Evaluates, observes, saves, and says whether that ends the run.
    fn evaluate(&mut self) -> Result<Option<Stop>> {
        let Some((train, valid)) = self.measure() else {
            self.save(None)?;
            return Ok(Some(Stop::Interrupted(self.trainer.interrupt.signal())));
        };
        let mut observation = Observation {
            step: self.position.step,
            lr: Some(f64::from(self.trainer.optimizer.lr)),
            valid_loss_se: Some(valid.standard_error),
            ..Observation::new(self.position.epoch, valid.loss).with_train_loss(train.loss)
        }
        .with_metric("accuracy", valid.accuracy)
        .with_metric("train_accuracy", train.accuracy);
        if self.trainer.monitor.needs_example_losses() {
            observation.example_losses = valid.losses;
        }
        // What the monitor can never take for best must not be kept as best either.
        let metric = self.metric(&observation).filter(|_| valid.loss.is_finite());
        let verdict = self.monitor.observe(observation);
        if verdict.new_best {
            let weights = self.trainer.params.flat();
            match &mut self.best_weights {
                Some(best) => best.copy_from_slice(weights),
                None => self.best_weights = Some(weights.to_vec()),
            }
        }
        self.save(metric)?;
        if verdict.new_best {
            self.best_checkpoint.clone_from(&self.last_checkpoint);
        }
        let observation = self.monitor.history().last().expect("just observed");
        let info = EvaluationInfo {
            observation,
            verdict: &verdict,
            epochs: self.trainer.epochs,
            checkpoint: self.last_checkpoint.as_deref(),
            images_per_second: self.images_per_second(),
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

    /// What checkpoints compete in for the role "best".
    fn metric(&self, observation: &Observation) -> Option<Metric> {
        let spec = &self.trainer.monitor;
        let value = observation.value(spec.metric())?;
        Some(match spec.direction() {
            crate::monitor::Mode::Min => Metric::minimize(spec.metric(), value),
            crate::monitor::Mode::Max => Metric::maximize(spec.metric(), value),
        })
    }

    fn save(&mut self, metric: Option<Metric>) -> Result<()> {
        let Some(checkpoints) = &mut self.trainer.checkpoints else { return Ok(()) };
        let state = state::capture(
            &self.config,
            &self.trainer.params,
            &self.trainer.optimizer,
            &*self.trainer.schedule,
            &self.position,
            &self.monitor,
        );
        let saved = checkpoints.save(&state, metric)?;
        self.last_checkpoint = Some(saved.path);
        self.digest = Some(saved.digest);
        Ok(())
    }

    fn images_per_second(&self) -> f64 {
        let (time, images) = self.training;
        images as f64 / time.as_secs_f64().max(1e-9)
    }

    fn finish(mut self, stop: Stop) -> Result<Outcome<M>> {
        if let Some(best) = &self.best_weights {
            self.trainer.params.flat_mut().copy_from_slice(best);
        }
        Ok(Outcome {
            images_per_second: self.images_per_second(),
            stop,
            best: self.monitor.best(),
            history: self.monitor.history().to_vec(),
            steps: self.position.step,
            digest: self.digest,
            best_checkpoint: self.best_checkpoint,
            last_checkpoint: self.last_checkpoint,
            model: self.trainer.model,
            params: self.trainer.params,
        })
    }
}

/// Whether an epoch has ended that was not evaluated yet: a run may have been interrupted just there.
fn evaluation_owed(position: &Position, monitor: &Monitor) -> bool {
    let evaluated = monitor.history().last().map_or(0, |observation| observation.epoch);
    position.batch == 0 && position.epoch > evaluated
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
