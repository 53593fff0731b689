//! What a checkpoint holds: one complete training state, in memory.
//!
//! These types know nothing of files, of bincode or of the other rooms. The trainer converts its
//! parameters, optimizer, schedule, monitor and position into a [`TrainingState`] and back; the
//! rest of this module moves that value to and from disk without ever changing a bit of it.
//!
//! Tensor data is a [`Cow`]: a trainer that saves in the foreground lends its flat parameter
//! buffer and nothing is copied, a loaded state owns its data.

use std::borrow::Cow;

/// A named f32 tensor, row-major. An empty shape is a scalar (one value).
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor<'a> {
    /// The name, as in a PyTorch `state_dict`: `"conv1.weight"`.
    pub name: String,
    /// The sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The values; as many as the product of `shape`.
    pub data: Cow<'a, [f32]>,
}

impl<'a> NamedTensor<'a> {
    /// A tensor that borrows or owns its values.
    pub fn new(
        name: impl Into<String>,
        shape: impl Into<Vec<usize>>,
        data: impl Into<Cow<'a, [f32]>>,
    ) -> Self {
        NamedTensor { name: name.into(), shape: shape.into(), data: data.into() }
    }

    /// The same tensor owning its values.
    pub fn into_owned(self) -> NamedTensor<'static> {
        NamedTensor { name: self.name, shape: self.shape, data: Cow::Owned(self.data.into_owned()) }
    }
}

/// The optimizer: which one, its hyper-parameters and its per-parameter memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OptimizerState<'a> {
    /// Which optimizer: `"sgd"`.
    pub kind: String,
    /// Hyper-parameters and scalar state, by name: `("lr", 0.05)`, `("momentum", 0.9)`.
    pub hyper: Vec<(String, f64)>,
    /// Per-parameter memory: `"conv1.weight.momentum"`.
    pub slots: Vec<NamedTensor<'a>>,
}

/// The learning-rate schedule: its specification as text, and its scalar state.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScheduleState {
    /// The specification, in the text form the trainer prints and parses.
    pub spec: String,
    /// Scalar state by name, for schedules that react to the metric.
    pub values: Vec<(String, f64)>,
}

/// Where in the run the state was taken. As every random number is a function of seed, purpose,
/// epoch, step and index, this is also the whole state of the random number generators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The run's seed.
    pub seed: u64,
    /// The epoch the next step belongs to, from 0. The end of epoch `e` is `(e + 1, 0)`.
    pub epoch: u64,
    /// Optimizer steps done since the beginning of the run.
    pub step: u64,
    /// Examples of the current epoch already used.
    pub position: u64,
    /// Examples used since the beginning of the run.
    pub samples: u64,
}

/// The evaluations so far, as a table: one row per evaluation, one named column per metric.
///
/// It is kept in columns because that is how it is stored, and because a hostile file must not
/// be able to inflate in memory. A cell of a column that a row does not have is NaN.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// The column names, in the order they were first seen.
    pub columns: Vec<String>,
    /// The epoch of each row.
    pub epochs: Vec<u64>,
    /// The step of each row.
    pub steps: Vec<u64>,
    /// The cells, row by row: `rows x columns`.
    pub values: Vec<f64>,
    /// Per-example values that a paired test needs, row by row, each row as long as the others:
    /// `rows x samples per row`. May be empty.
    pub samples: Vec<f32>,
}

impl History {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.epochs.len()
    }

    /// The cells of one row, in the order of `columns`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[f64] {
        let width = self.columns.len();
        &self.values[row * width..(row + 1) * width]
    }

    /// The per-example values of one row; empty if none are kept.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn samples_of(&self, row: usize) -> &[f32] {
        let width = self.samples.len() / self.rows();
        &self.samples[row * width..(row + 1) * width]
    }

    /// Adds a row. A metric that was never seen before becomes a new column.
    ///
    /// # Panics
    /// If `samples` has another length than those of the rows before.
    #[track_caller]
    pub fn push(&mut self, epoch: u64, step: u64, values: &[(&str, f64)], samples: &[f32]) {
        let rows = self.rows();
        assert!(
            rows == 0 || samples.len() * rows == self.samples.len(),
            "history: a row of {} samples after {rows} rows of {}",
            samples.len(),
            self.samples.len() / rows.max(1),
        );
        for (name, _) in values {
            if !self.columns.iter().any(|column| column == name) {
                self.add_column(name);
            }
        }
        self.epochs.push(epoch);
        self.steps.push(step);
        self.samples.extend_from_slice(samples);
        for column in &self.columns {
            let cell = values.iter().find(|(name, _)| name == column);
            self.values.push(cell.map_or(f64::NAN, |&(_, value)| value));
        }
    }

    fn add_column(&mut self, name: &str) {
        let width = self.columns.len();
        let old = std::mem::take(&mut self.values);
        for row in 0..self.rows() {
            self.values.extend_from_slice(&old[row * width..(row + 1) * width]);
            self.values.push(f64::NAN);
        }
        self.columns.push(name.to_owned());
    }
}

/// Everything needed to go on training as if nothing had happened, and nothing else: no
/// throughput, no path. Two runs that are at the same point have equal states, so their
/// [digests](crate::checkpoint::Saved::digest) are equal too.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainingState<'a> {
    /// The run's configuration, the architecture as text, fingerprints of data and architecture.
    pub config: Vec<(String, String)>,
    /// The trainable parameters, in registration order.
    pub params: Vec<NamedTensor<'a>>,
    /// Tensors that are part of the model but not trained, such as running statistics.
    pub buffers: Vec<NamedTensor<'a>>,
    /// The optimizer.
    pub optimizer: OptimizerState<'a>,
    /// The learning-rate schedule.
    pub schedule: ScheduleState,
    /// Where the run stands.
    pub cursor: Cursor,
    /// The early-stopping rule as text. Its state is a fold over `history`.
    pub monitor: String,
    /// The evaluations so far.
    pub history: History,
    /// Milliseconds of training at each row of the history, and last, now; empty if not measured.
    /// Said about the state, like a [`Metric`], and no part of it: the digest ignores it.
    pub clock: Vec<u64>,
}

impl TrainingState<'_> {
    /// The value of a configuration key.
    pub fn config(&self, key: &str) -> Option<&str> {
        self.config.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A copy that borrows nothing, to be written by another thread.
    pub fn to_owned_state(&self) -> TrainingState<'static> {
        let own = |tensors: &[NamedTensor<'_>]| {
            tensors.iter().map(|tensor| tensor.clone().into_owned()).collect()
        };
        TrainingState {
            config: self.config.clone(),
            params: own(&self.params),
            buffers: own(&self.buffers),
            optimizer: OptimizerState {
                kind: self.optimizer.kind.clone(),
                hyper: self.optimizer.hyper.clone(),
                slots: own(&self.optimizer.slots),
            },
            schedule: self.schedule.clone(),
            cursor: self.cursor,
            monitor: self.monitor.clone(),
            history: self.history.clone(),
            clock: self.clock.clone(),
        }
    }
}

/// The metric of an evaluation made with exactly the weights of a checkpoint. It decides which
/// checkpoint is best, and is no part of the training state: the digest ignores it.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name: `"valid_loss"`.
    pub name: String,
    /// Its value. A non-finite value is never best.
    pub value: f64,
    /// Whether larger is better.
    pub higher_is_better: bool,
}

impl Metric {
    /// A metric to be minimised, such as a loss.
    pub fn minimize(name: impl Into<String>, value: f64) -> Self {
        Metric { name: name.into(), value, higher_is_better: false }
    }

    /// A metric to be maximised, such as an accuracy.
    pub fn maximize(name: impl Into<String>, value: f64) -> Self {
        Metric { name: name.into(), value, higher_is_better: true }
    }

    /// Whether this takes the role "best" from `other`: it is better, or another metric counts now.
    pub(super) fn replaces(&self, other: &Metric) -> bool {
        let same = (&self.name, self.higher_is_better) == (&other.name, other.higher_is_better);
        !same || self.better_than(other)
    }

    /// Whether this is strictly better than `other`; a value that is not finite never is.
    pub fn better_than(&self, other: &Metric) -> bool {
        if !self.value.is_finite() {
            return false;
        }
        !other.value.is_finite()
            || if self.higher_is_better {
                self.value > other.value
            } else {
                self.value < other.value
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_a_rectangular_table_whatever_the_order_of_metrics() {
        let mut history = History::default();
        history.push(0, 10, &[("loss", 1.0)], &[0.5, 0.25]);
        history.push(1, 20, &[("acc", 0.9), ("loss", 0.5)], &[0.4, 0.2]);
        assert_eq!(history.columns, ["loss", "acc"]);
        assert_eq!(history.row(1), [0.5, 0.9]);
        assert_eq!(history.row(0)[0], 1.0);
        assert!(history.row(0)[1].is_nan());
        assert_eq!(history.samples_of(1), [0.4, 0.2]);
    }

    #[test]
    fn a_non_finite_metric_is_never_better() {
        let nan = Metric::minimize("loss", f64::NAN);
        let one = Metric::minimize("loss", 1.0);
        assert!(!nan.better_than(&one) && one.better_than(&nan));
        assert!(!one.better_than(&one), "ties keep the earliest");
        assert!(Metric::maximize("acc", 0.9).better_than(&Metric::maximize("acc", 0.8)));
    }
}
