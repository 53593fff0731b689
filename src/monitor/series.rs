//! One watched metric: reads it from each observation, turns it so that lower is better and evens
//! it out for the rules.

use std::collections::VecDeque;

use super::observation::{Observation, VALID_LOSS};
use super::rule::Mode;
use super::spec::Smoothing;

/// A metric with its latest value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) metric: String,
    pub(super) mode: Mode,
    /// The value as measured; NaN if it was not.
    pub(super) raw: f64,
    /// The smoothed value, lower is better; `None` if this evaluation is not finite.
    pub(super) signed: Option<f64>,
    measured: bool,
    smoothing: Smoothing,
    /// The last finite signed values, oldest first; for `Ema` the average alone.
    memory: VecDeque<f64>,
}

impl Series {
    pub(super) fn new(metric: &str, mode: Mode, smoothing: Smoothing) -> Self {
        Series {
            metric: metric.to_owned(),
            mode,
            raw: f64::NAN,
            signed: None,
            measured: false,
            smoothing,
            memory: VecDeque::new(),
        }
    }

    /// Takes in the next evaluation.
    pub(super) fn read(&mut self, now: &Observation) {
        let value = now.value(&self.metric);
        self.measured = value.is_some();
        self.raw = value.unwrap_or(f64::NAN);
        let finite = self.raw.is_finite() && now.valid_loss.is_finite();
        self.signed = finite.then(|| self.smooth(self.mode.signed(self.raw)));
    }

    /// The metric's name if it was not measured.
    pub(super) fn missing(&self) -> Option<String> {
        (!self.measured).then(|| self.metric.clone())
    }

    /// The value that is not finite, with its name: the metric's own, or else the validation loss.
    pub(super) fn non_finite(&self, now: &Observation) -> Option<(String, f64)> {
        let own = (self.metric.as_str(), self.raw);
        let loss = (VALID_LOSS, now.valid_loss);
        let bad = [own, loss].into_iter().find(|(_, value)| !value.is_finite());
        bad.map(|(name, value)| (name.to_owned(), value))
    }

    fn smooth(&mut self, value: f64) -> f64 {
        match self.smoothing {
            Smoothing::None => value,
            Smoothing::Mean(n) => {
                self.remember(value, n);
                self.memory.iter().sum::<f64>() / self.memory.len() as f64
            }
            Smoothing::Median(n) => {
                self.remember(value, n);
                let mut sorted = Vec::from(self.memory.clone());
                sorted.sort_by(f64::total_cmp);
                let middle = sorted.len() / 2;
                match sorted.len() % 2 {
                    1 => sorted[middle],
                    _ => 0.5 * (sorted[middle - 1] + sorted[middle]),
                }
            }
            Smoothing::Ema(beta) => {
                let average = self.memory.pop_front();
                let average = average.map_or(value, |before| beta * before + (1.0 - beta) * value);
                self.memory.push_back(average);
                average
            }
        }
    }

    /// Keeps the last `n` values.
    fn remember(&mut self, value: f64, n: u32) {
        self.memory.push_back(value);
        if self.memory.len() > n as usize {
            self.memory.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smoothed(smoothing: Smoothing, values: &[f64]) -> Vec<Option<f64>> {
        let mut series = Series::new(VALID_LOSS, Mode::Min, smoothing);
        let read = |&loss| {
            series.read(&Observation::new(1, loss));
            series.signed
        };
        values.iter().map(read).collect()
    }

    #[test]
    fn smoothing_by_hand_skips_what_is_not_finite() {
        let values = [4.0, 2.0, f64::NAN, 9.0, 1.0];
        let some = |x| Some(x);
        let mean = smoothed(Smoothing::Mean(3), &values);
        assert_eq!(mean, [some(4.0), some(3.0), None, some(5.0), some(4.0)]);
        let median = smoothed(Smoothing::Median(3), &values);
        assert_eq!(median, [some(4.0), some(3.0), None, some(4.0), some(2.0)]);
        let ema = smoothed(Smoothing::Ema(0.5), &values);
        assert_eq!(ema, [some(4.0), some(3.0), None, some(6.0), some(3.5)]);
    }
}
