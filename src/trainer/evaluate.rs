//! Measuring a model on a data set in evaluation mode.

use crate::checkpoint::nearest;
use crate::data::{Batches, Dataset};
use crate::error::{Error, Result};
use crate::metrics::{self, ConfusionMatrix, Mean};
use crate::monitor::{TRAIN_LOSS, VALID_LOSS};
use crate::nn::Module;
use crate::ops::{CrossEntropyOptions, Reduction};
use crate::params::Params;
use crate::tape::{Graph, Tape};

use super::Interrupt;

/// Examples per evaluation batch. Fixed, because the choice of a kernel's algorithm may depend
/// on the batch size, and an evaluation must give the same bits wherever it is made.
pub(crate) const EVALUATION_BATCH: usize = 250;

/// What [`Trainer::fit`](super::Trainer::fit) measures at each evaluation: the metrics that its
/// monitor and its schedule may look at.
pub const METRICS: [&str; 8] = [
    VALID_LOSS,
    TRAIN_LOSS,
    "accuracy",
    "top5_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "train_accuracy",
];

/// Refuses a metric that no evaluation will have.
pub(crate) fn check_metric(name: &str) -> Result<()> {
    if METRICS.contains(&name) {
        return Ok(());
    }
    let part_of = |known: &&str| known.starts_with(name) || known.ends_with(name);
    let meant = nearest(name, &METRICS).or_else(|| METRICS.into_iter().find(part_of));
    let meant = meant.map_or(String::new(), |meant| format!(": did you mean `{meant}`?"));
    let known = METRICS.join(", ");
    let reason = format!("is not measured{meant} (there are {known})");
    Err(Error::config(format!("metric `{name}`"), reason))
}

/// What one pass over a data set measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The mean cross-entropy, in nats.
    pub loss: f64,
    /// The standard error of that mean.
    pub standard_error: f64,
    /// The share of examples whose most likely class is the right one, from 0 to 1.
    pub accuracy: f64,
    /// The share of examples whose right class is among the five most likely.
    pub top5_accuracy: f64,
    /// How often each class was taken for each other one.
    pub confusion: ConfusionMatrix,
    /// The cross-entropy of each example, in the order of the data set.
    pub losses: Vec<f32>,
    /// The most likely class of each example, in the order of the data set.
    pub predictions: Vec<usize>,
}

/// Runs a classifier over a whole data set without training it.
///
/// The result is a function of the weights and the data alone: bit for bit the same for any
/// number of threads and in any process of the same build on the same instruction set.
///
/// # Panics
/// If the model does not accept the data's examples, or does not score its classes.
pub fn evaluate(model: &impl Module, params: &Params, data: &dyn Dataset) -> Evaluation {
    let mut tape = Tape::new();
    Evaluator { tape: &mut tape, interrupt: &Interrupt::never() }
        .run(model, params, data, (0..data.len()).collect())
        .expect("cannot be interrupted")
}

/// The class probabilities of one example, as `data.read` or the like has prepared it.
///
/// # Panics
/// If the model does not accept the shape `[1, input_shape..]`.
pub fn predict(model: &impl Module, params: &Params, input: &crate::Tensor) -> Vec<f32> {
    let mut tape = Tape::new();
    let mut g = Graph::eval(&mut tape, params);
    let x = g.input(input);
    let logits = model.forward(&mut g, x);
    let probabilities = g.softmax(logits, -1);
    g.value(probabilities).to_vec()
}

/// Evaluates with a tape that is kept, and gives up when interrupted.
pub(super) struct Evaluator<'a> {
    pub(super) tape: &'a mut Tape,
    pub(super) interrupt: &'a Interrupt,
}

impl Evaluator<'_> {
    /// Evaluates the examples at `indices`; `None` if interrupted before the end.
    pub(super) fn run(
        &mut self,
        model: &impl Module,
        params: &Params,
        data: &dyn Dataset,
        indices: Vec<usize>,
    ) -> Option<Evaluation> {
        let mut losses = Vec::with_capacity(indices.len());
        let mut predictions = Vec::with_capacity(indices.len());
        let mut confusion = ConfusionMatrix::new(data.classes());
        let mut top5 = 0;
        let mut batches = Batches::over(data, indices, EVALUATION_BATCH);
        let per_example =
            CrossEntropyOptions { reduction: Reduction::None, ..CrossEntropyOptions::default() };
        while let Some(batch) = batches.next() {
            if self.interrupt.requested() {
                return None;
            }
            let mut g = Graph::eval(self.tape, params);
            let x = g.input(&batch.inputs);
            let logits = model.forward(&mut g, x);
            let loss = g.cross_entropy_with(logits, &batch.labels, per_example);
            losses.extend_from_slice(g.value(loss));
            let (scores, classes) = (g.value(logits), g.shape(logits)[1]);
            predictions.extend(scores.chunks_exact(classes).map(metrics::argmax));
            confusion.add_batch(scores, &batch.labels);
            top5 += metrics::top_k_correct(scores, &batch.labels, 5);
        }
        let Mean { mean: loss, standard_error, .. } = Mean::of(&losses);
        let accuracy = confusion.accuracy();
        let top5_accuracy = top5 as f64 / losses.len() as f64;
        Some(Evaluation {
            loss,
            standard_error,
            accuracy,
            top5_accuracy,
            confusion,
            losses,
            predictions,
        })
    }
}

/// Checks once, before training, that a model accepts a data set's examples and names its classes.
pub(super) fn check_model(model: &impl Module, params: &Params, data: &dyn Dataset) -> Result<()> {
    let shape = [&[1], data.input_shape()].concat();
    let output = model.check(params, shape.as_slice())?;
    if *output != [1, data.classes()] {
        let reason = format!(
            "the output for one example has shape {output}, but {} has {} classes: expected \
             [1, {1}]",
            data.name(),
            data.classes()
        );
        return Err(Error::Shape { op: "model", reason });
    }
    Ok(())
}
