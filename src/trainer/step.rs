//! One optimizer step.
//!
//! ```text
//! for each piece of the batch:  forward, loss, backward     gradients add up on the tape
//! guard:                        are loss and gradient finite? else nothing is updated
//! clip                          by value, by norm
//! update                        weights, velocity, buffers
//! ```

use super::Trainer;
use super::evaluate::loss as loss_of;
use super::state::Position;
use crate::data::{Augment, Batches, Dataset};
use crate::nn::Module;
use crate::optim::{clip_grad_norm, clip_grad_value, grad_norm};
use crate::tape::{Graph, Tape};

/// What to do about a step whose loss or gradient is not finite. The update itself is never
/// applied: one NaN would spread to all weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NonFinite {
    /// Leave the step out and go on with the next batch. If the trouble is not with a few batches,
    /// the evaluations will tell.
    #[default]
    Skip,
    /// Go back to the weights of the best evaluation, without momentum, and train on with half the
    /// learning rate. Ends the run if there is none yet.
    RollBack,
    /// End the run.
    Stop,
}

/// What computes steps: the batches, and memory that is reused.
pub(super) struct Stepper<'d> {
    batches: Batches<'d>,
    examples: u64,
    /// Examples per step, and per piece of it.
    batch: u64,
    pieces: u64,
    tape: Tape,
    /// The model's buffers before the step.
    buffers: Vec<f32>,
}

/// A step that was computed.
pub(super) struct Taken {
    pub(super) examples: u64,
    /// The mean loss over the batch.
    pub(super) loss: f32,
    /// Before clipping.
    pub(super) grad_norm: f64,
    /// Whether the weights were updated; if not, nothing has changed.
    pub(super) applied: bool,
}

impl<'d> Stepper<'d> {
    pub(super) fn new<M: Module>(
        trainer: &Trainer<M>,
        train: &'d dyn Dataset,
        augment: Option<&'d dyn Augment>,
    ) -> Self {
        let seed = trainer.params.seed();
        let mut batches = Batches::new(train, trainer.batch_size).shuffled(seed);
        if let Some(augment) = augment {
            batches = batches.augmented(augment, seed);
        }
        let pieces = trainer.accumulate as u64;
        Stepper {
            batches,
            examples: train.len() as u64,
            batch: trainer.batch_size as u64 * pieces,
            pieces,
            tape: Tape::new(),
            buffers: Vec::new(),
        }
    }

    /// Steps per epoch; the last one may have fewer examples.
    pub(super) fn per_epoch(&self) -> u64 {
        self.examples.div_ceil(self.batch)
    }

    /// Takes the step at `position` with the optimizer's present learning rate.
    pub(super) fn step<M: Module>(&mut self, trainer: &mut Trainer<M>, at: &Position) -> Taken {
        let Trainer { model, params, optimizer, clip_value, clip_norm, .. } = trainer;
        let examples = self.batch.min(self.examples - at.batch * self.batch);
        self.batches.seek(at.epoch, (at.batch * self.pieces) as usize);
        self.buffers.clear();
        self.buffers.extend_from_slice(params.flat_buffers());

        let (mut loss, mut piece, mut used) = (0.0, 0, 0);
        loop {
            let batch = self.batches.next().expect("the step has examples left");
            let mut g = Graph::new(&mut self.tape, params).at_step(at.step * self.pieces + piece);
            if piece > 0 {
                g = g.accumulate();
            }
            let x = g.input(&batch.inputs);
            let output = model.forward(&mut g, x);
            let mean = loss_of(&mut g, output, batch);
            // The mean over the batch is the mean over its pieces, weighted by their sizes.
            let share = batch.labels.len() as f32 / examples as f32;
            loss += share * g.item(mean);
            let mut gradients = g.backward_with(mean, &[share]);
            piece += 1;
            used += batch.labels.len() as u64;
            if used < examples {
                gradients.update_buffers(params);
                continue;
            }
            let grad_norm = grad_norm(&gradients);
            let applied = loss.is_finite() && grad_norm.is_finite();
            if applied {
                if let Some(limit) = *clip_value {
                    clip_grad_value(&mut gradients, limit);
                }
                if let Some(max_norm) = *clip_norm {
                    clip_grad_norm(&mut gradients, max_norm);
                }
                optimizer.step(params, &gradients);
            } else {
                params.flat_buffers_mut().copy_from_slice(&self.buffers);
            }
            return Taken { examples, loss, grad_norm, applied };
        }
    }
}
