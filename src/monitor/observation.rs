//! What one evaluation measured: the only thing the monitor ever looks at.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::float;

/// The name under which [`Observation::valid_loss`] is monitored.
pub const VALID_LOSS: &str = "valid_loss";
/// The name under which [`Observation::train_loss`] is monitored.
pub const TRAIN_LOSS: &str = "train_loss";

/// One evaluation of the model on the validation set, and what is known at that moment.
///
/// In JSON, infinities and NaN are written as the strings `"inf"`, `"-inf"` and `"NaN"`, because
/// JSON has no such numbers; a `null` loss is read back as NaN. Binary formats keep the bits.
///
/// ```
/// use ferrotape::monitor::Observation;
/// let seen = Observation { lr: Some(0.1), ..Observation::new(1, 0.8).with_train_loss(0.7) };
/// assert_eq!(seen.value("valid_loss"), Some(0.8));
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// Epoch in which the evaluation took place, counted from 1.
    pub epoch: u64,
    /// Optimizer steps taken so far.
    pub step: u64,
    /// Mean loss on the training set, if it was measured.
    #[serde(with = "float::optional")]
    pub train_loss: Option<f64>,
    /// Mean loss on the validation set; may be NaN or infinite.
    #[serde(with = "float")]
    pub valid_loss: f64,
    /// Standard error of `valid_loss`, if it is known without the per-example losses.
    #[serde(with = "float::optional")]
    pub valid_loss_se: Option<f64>,
    /// Further measurements by name, such as `"accuracy"`.
    #[serde(with = "float::map")]
    pub metrics: BTreeMap<String, f64>,
    /// Learning rate with which the weights of this evaluation were last updated.
    #[serde(with = "float::optional")]
    pub lr: Option<f64>,
    /// Seconds of training so far. The monitor has no clock: the time is given from outside.
    #[serde(with = "float::optional")]
    pub elapsed: Option<f64>,
    /// Validation loss of every example, always in the same order; empty when not recorded. Only
    /// needed when
    /// [`EarlyStopping::needs_example_losses`](super::EarlyStopping::needs_example_losses) says so:
    /// it is kept in the history.
    pub example_losses: Vec<f32>,
}

impl Observation {
    /// An evaluation in `epoch` (from 1) that measured `valid_loss` and nothing else.
    pub fn new(epoch: u64, valid_loss: f64) -> Self {
        Observation { epoch, valid_loss, ..Observation::default() }
    }

    /// The same evaluation with the training loss.
    pub fn with_train_loss(mut self, loss: f64) -> Self {
        self.train_loss = Some(loss);
        self
    }

    /// The same evaluation with one more named metric.
    pub fn with_metric(mut self, name: impl Into<String>, value: f64) -> Self {
        self.metrics.insert(name.into(), value);
        self
    }

    /// The measurement called `name`: `"valid_loss"`, `"train_loss"` or one of the metrics.
    pub fn value(&self, name: &str) -> Option<f64> {
        match name {
            VALID_LOSS => Some(self.valid_loss),
            TRAIN_LOSS => self.train_loss,
            _ => self.metrics.get(name).copied(),
        }
    }

    /// The names that [`value`](Self::value) knows, for messages.
    pub fn names(&self) -> Vec<&str> {
        let train = self.train_loss.is_some().then_some(TRAIN_LOSS);
        let metrics = self.metrics.keys().map(String::as_str);
        std::iter::once(VALID_LOSS).chain(train).chain(metrics).collect()
    }

    /// Standard error of the mean validation loss: `valid_loss_se` if given, else computed from
    /// at least two per-example losses as `sd / sqrt(n)`.
    pub fn standard_error(&self) -> Option<f64> {
        self.valid_loss_se
            .or_else(|| {
                let losses = self.example_losses.iter().map(|&loss| f64::from(loss));
                mean_and_se(losses).map(|(_, se)| se)
            })
            .filter(|se| se.is_finite())
    }
}

/// Mean and standard error of the mean of at least two values; `None` for fewer.
pub(super) fn mean_and_se(values: impl Iterator<Item = f64> + Clone) -> Option<(f64, f64)> {
    let n = values.clone().count();
    if n < 2 {
        return None;
    }
    let count = n as f64;
    let mean = values.clone().sum::<f64>() / count;
    let variance = values.map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Some((mean, (variance / count).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_every_float() {
        let mut seen = Observation::new(3, f64::NAN).with_train_loss(f64::INFINITY);
        seen.metrics.insert("a".into(), f64::NEG_INFINITY);
        seen.metrics.insert("b".into(), 0.1 + 0.2);
        let text = serde_json::to_string(&seen).unwrap();
        let back: Observation = serde_json::from_str(&text).unwrap();
        assert!(back.valid_loss.is_nan());
        assert_eq!(back.train_loss, Some(f64::INFINITY));
        assert_eq!(back.metrics, seen.metrics);
        assert_eq!(back.lr, None);
    }

    #[test]
    fn json_of_others_is_read() {
        let seen: Observation =
            serde_json::from_str(r#"{"epoch":1,"valid_loss":null,"lr":null,"x":[1]}"#).unwrap();
        assert!(seen.valid_loss.is_nan());
        assert_eq!((seen.epoch, seen.lr, seen.train_loss), (1, None, None));
        assert!(serde_json::from_str::<Observation>(r#"{"valid_loss":"low"}"#).is_err());
    }

    #[test]
    fn standard_error_by_hand() {
        // Mean 2, squared deviations 1 + 0 + 1, variance 1, standard error 1 / sqrt(3).
        let seen = Observation { example_losses: vec![1.0, 2.0, 3.0], ..Observation::new(1, 2.0) };
        assert!((seen.standard_error().unwrap() - 1.0 / 3f64.sqrt()).abs() < 1e-15);
        assert_eq!(Observation::new(1, 2.0).standard_error(), None);
    }
}
