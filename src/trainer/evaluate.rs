//! Measuring a model on a data set in evaluation mode.

use crate::data::{Batch, Batches, Dataset, outputs};
use crate::error::{Error, Result};
use crate::metrics::{self, ConfusionMatrix, Mean};
use crate::monitor::{TRAIN_LOSS, VALID_LOSS};
use crate::names::nearest;
use crate::nn::Module;
use crate::ops::{CrossEntropyOptions, Reduction};
use crate::params::Params;
use crate::tape::{Graph, Tape, Var};

use super::Interrupt;

/// Examples per evaluation batch. Fixed, because the choice of a kernel's algorithm may depend
/// on the batch size, and an evaluation must give the same bits wherever it is made.
pub(crate) const EVALUATION_BATCH: usize = 250;

/// What [`Trainer::fit`](super::Trainer::fit) measures at each evaluation on data with classes: the
/// metrics that its monitor and its schedule may look at.
pub const CLASS_METRICS: [&str; 8] = [
    VALID_LOSS,
    TRAIN_LOSS,
    "accuracy",
    "top5_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "train_accuracy",
];

/// The same on data with values to predict.
pub const VALUE_METRICS: [&str; 5] = [VALID_LOSS, TRAIN_LOSS, "mse", "mae", "train_mae"];

/// Refuses a metric that is not measured on data with values to predict, or with classes.
pub(crate) fn check_metric(name: &str, values: bool) -> Result<()> {
    let measured: &[&str] = if values { &VALUE_METRICS } else { &CLASS_METRICS };
    if measured.contains(&name) {
        return Ok(());
    }
    let part_of = |known: &&str| known.starts_with(name) || known.ends_with(name);
    let meant = nearest(name, measured).or_else(|| measured.iter().copied().find(part_of));
    let meant = meant.map_or(String::new(), |meant| format!(": did you mean `{meant}`?"));
    let known = measured.join(", ");
    let reason = format!("is not measured{meant} (there are {known})");
    Err(Error::config(format!("metric `{name}`"), reason))
}

/// What one pass over a data set measured.
///
/// Of data with values to predict there are loss and `mean_absolute_error`; of data with classes,
/// everything else. What there is not is NaN or empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The mean cross-entropy, in nats, or the mean squared error.
    pub loss: f64,
    /// The standard error of that mean.
    pub standard_error: f64,
    /// The share of examples whose most likely class is the right one, from 0 to 1.
    pub accuracy: f64,
    /// The share of examples whose right class is among the five most likely.
    pub top5_accuracy: f64,
    /// How often each class was taken for each other one.
    pub confusion: ConfusionMatrix,
    /// The mean distance of predicted from true values.
    pub mean_absolute_error: f64,
    /// The loss of each example, in the order of the data set.
    pub losses: Vec<f32>,
    /// The most likely class of each example, in the order of the data set.
    pub predictions: Vec<usize>,
}

impl Evaluation {
    /// What is recorded besides the loss, by name.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        if self.confusion.classes() == 0 {
            return vec![("mse", self.loss), ("mae", self.mean_absolute_error)];
        }
        let average = self.confusion.macro_average();
        vec![
            ("accuracy", self.accuracy),
            ("top5_accuracy", self.top5_accuracy),
            ("macro_precision", average.precision),
            ("macro_recall", average.recall),
            ("macro_f1", average.f1),
        ]
    }
}

/// The mean loss of a model's outputs for a batch: what is minimised. It follows from the data: the
/// squared error of values to predict, and the cross-entropy of classes.
pub(super) fn loss<'p>(g: &mut Graph<'_, 'p>, output: Var, batch: &'p Batch) -> Var {
    if batch.targets.data().is_empty() {
        return g.cross_entropy(output, &batch.labels);
    }
    let targets = g.input(&batch.targets);
    g.mse(output, targets)
}

/// Runs a model over a whole data set without training it.
///
/// The result is a function of the weights and the data alone: bit for bit the same for any
/// number of threads and in any process of the same build on the same instruction set.
///
/// # Panics
/// If the model does not accept the data's examples, or does not have an output for each class or
/// value.
pub fn evaluate(model: &impl Module, params: &Params, data: &dyn Dataset) -> Evaluation {
    in_pool(|| {
        let mut tape = Tape::new();
        Evaluator { tape: &mut tape, interrupt: &Interrupt::never() }
            .run(model, params, data, (0..data.len()).collect())
            .expect("cannot be interrupted")
    })
}

/// Runs `f` on a thread of the pool: from outside, each parallel operation would have to wake the
/// pool and be woken by it, which takes longer than many an operation.
pub(super) fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let mut result = None;
    rayon::scope(|_| result = Some(f()));
    result.expect("the scope has run")
}

/// The class probabilities of each example in `input`, `[n, ..]`, prepared as by [`Dataset::read`]:
/// `n` rows of one number per class.
///
/// # Panics
/// If the model does not accept the shape of `input`.
pub fn predict(model: &impl Module, params: &Params, input: &crate::Tensor) -> Vec<f32> {
    answer(model, params, input, |g, logits| g.softmax(logits, -1))
}

/// The values that a model predicts for each example in `input`, row by row.
///
/// # Panics
/// If the model does not accept the shape of `input`.
pub fn predict_values(model: &impl Module, params: &Params, input: &crate::Tensor) -> Vec<f32> {
    answer(model, params, input, |_, values| values)
}

fn answer(
    model: &impl Module,
    params: &Params,
    input: &crate::Tensor,
    read: impl FnOnce(&mut Graph<'_, '_>, Var) -> Var + Send,
) -> Vec<f32> {
    in_pool(|| {
        let mut tape = Tape::new();
        let mut g = Graph::eval(&mut tape, params);
        let x = g.input(input);
        let output = model.forward(&mut g, x);
        let answer = read(&mut g, output);
        g.value(answer).to_vec()
    })
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
        let (values, mut distances) = (data.targets(), Vec::new());
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
            if values > 0 {
                let predicted = g.value(logits).chunks_exact(values);
                let rows = predicted.zip(batch.targets.data().chunks_exact(values));
                for (predicted, target) in rows {
                    losses.push(metrics::mean_squared_error(predicted, target) as f32);
                    distances.push(metrics::mean_absolute_error(predicted, target) as f32);
                }
                continue;
            }
            let loss = g.cross_entropy_with(logits, &batch.labels, per_example);
            losses.extend_from_slice(g.value(loss));
            let (scores, classes) = (g.value(logits), g.shape(logits)[1]);
            predictions.extend(scores.chunks_exact(classes).map(metrics::argmax));
            confusion.add_batch(scores, &batch.labels);
            top5 += metrics::top_k_correct(scores, &batch.labels, 5);
        }
        let Mean { mean: loss, standard_error, .. } = Mean::of(&losses);
        let accuracy = confusion.accuracy();
        let top5_accuracy = top5 as f64 / predictions.len() as f64;
        Some(Evaluation {
            loss,
            standard_error,
            accuracy,
            top5_accuracy,
            confusion,
            mean_absolute_error: Mean::of(&distances).mean,
            losses,
            predictions,
        })
    }
}

/// Checks once, before training, that a model accepts a data set's examples and has an output for
/// each class or value.
pub(super) fn check_model(model: &impl Module, params: &Params, data: &dyn Dataset) -> Result<()> {
    let shape = [&[1], data.input_shape()].concat();
    let output = model.check(params, shape.as_slice())?;
    let (count, of) = outputs(data);
    if *output != [1, count] {
        let reason = format!(
            "the output for one example has shape {output}, but {} has {count} {of}: expected \
             [1, {count}]",
            data.name()
        );
        return Err(Error::Shape { op: "model", reason });
    }
    Ok(())
}
