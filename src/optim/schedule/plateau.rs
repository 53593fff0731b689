//! A schedule that looks at the evaluations.

use super::{LrSchedule, Progress};
use crate::monitor::{MinDelta, Mode, Plateau, VALID_LOSS};

/// The learning rate drops whenever the monitored metric has not improved for some evaluations.
///
/// What an improvement is, and when patience has run out, is the monitor's definition (see
/// [`Rule::Patience`](crate::monitor::Rule::Patience)): patience `p` here is `p - 1` in PyTorch's
/// `ReduceLROnPlateau`, which waits for one more. The rate is a fold over the history of
/// evaluations, so that a resumed run needs no counter.
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceOnPlateau {
    factor: f32,
    min_lr: f32,
    plateau: Plateau,
}

impl ReduceOnPlateau {
    /// Multiplies the rate by `factor` after every `patience` evaluations without a lower
    /// validation loss.
    ///
    /// # Panics
    /// If `patience` is zero or `factor` is not between 0 and 1.
    #[track_caller]
    pub fn new(factor: f32, patience: u32) -> Self {
        assert!(factor > 0.0 && factor < 1.0, "ReduceOnPlateau: {factor} does not reduce a rate");
        assert!(patience > 0, "ReduceOnPlateau: patience must be at least 1 evaluation");
        let metric = VALID_LOSS.to_owned();
        let min_delta = MinDelta::default();
        let plateau = Plateau { metric, mode: Mode::Min, patience, min_delta, cooldown: 0 };
        ReduceOnPlateau { factor, min_lr: 0.0, plateau }
    }

    /// Watches another metric.
    pub fn monitor(mut self, metric: impl Into<String>, mode: Mode) -> Self {
        self.plateau.metric = metric.into();
        self.plateau.mode = mode;
        self
    }

    /// Sets by how much an evaluation must be better than the last real improvement to be one.
    pub fn min_delta(mut self, min_delta: MinDelta) -> Self {
        self.plateau.min_delta = min_delta;
        self
    }

    /// The first `evaluations` after each drop do not count as bad.
    pub fn cooldown(mut self, evaluations: u32) -> Self {
        self.plateau.cooldown = evaluations;
        self
    }

    /// The rate never drops below this.
    pub fn min_lr(mut self, min_lr: f32) -> Self {
        self.min_lr = min_lr;
        self
    }
}

impl LrSchedule for ReduceOnPlateau {
    fn lr(&self, base: f32, at: &Progress<'_>) -> f32 {
        let drops = self.plateau.count(at.history);
        let exponent = drops.try_into().unwrap_or(i32::MAX);
        let lr = f64::from(base) * f64::from(self.factor).powi(exponent);
        (lr as f32).max(self.min_lr)
    }

    fn metric(&self) -> Option<&str> {
        Some(&self.plateau.metric)
    }

    fn describe(&self) -> String {
        let ReduceOnPlateau { factor, min_lr, plateau } = self;
        let Plateau { metric, mode, patience, min_delta, cooldown } = plateau;
        format!(
            "reduce_on_plateau(factor={factor}, patience={patience}, monitor={metric}, \
             mode={mode}, min_delta={min_delta}, cooldown={cooldown}, min_lr={min_lr})"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rates;
    use super::*;
    use crate::monitor::Observation;

    const LOSSES: [f64; 12] = [1.0, 0.9, 0.95, 0.96, 0.97, 0.89, 0.9, 0.9, 0.9, 0.9, 0.9, 0.88];

    /// The rate before the first evaluation and after each one.
    fn rates(schedule: &ReduceOnPlateau, observe: impl Fn(f64) -> Observation) -> Vec<f32> {
        let history: Vec<Observation> = LOSSES.into_iter().map(observe).collect();
        let at =
            |seen| Progress { epoch: 0, step: 0, steps_per_epoch: 1, history: &history[..seen] };
        (0..=history.len()).map(|seen| schedule.lr(0.1, &at(seen))).collect()
    }

    fn loss(loss: f64) -> Observation {
        Observation::new(1, loss)
    }

    // The expected rates are those of PyTorch's ReduceLROnPlateau with one less patience.

    #[test]
    fn each_plateau_lowers_the_rate() {
        let expected =
            [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125, 0.0125];
        assert_rates(&rates(&ReduceOnPlateau::new(0.5, 2), loss), &expected);
    }

    #[test]
    fn cooldown_margin_and_floor() {
        let expected =
            [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025, 0.025, 0.025];
        assert_rates(&rates(&ReduceOnPlateau::new(0.5, 2).cooldown(2), loss), &expected);

        let expected = [
            0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125, 0.00625, 0.00625,
            0.003125,
        ];
        let margin = ReduceOnPlateau::new(0.5, 2).min_delta(MinDelta::Absolute(0.05));
        assert_rates(&rates(&margin, loss), &expected);

        let expected = [0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.03, 0.03, 0.03, 0.03];
        let max = ReduceOnPlateau::new(0.5, 3).monitor("score", Mode::Max).min_lr(0.03);
        let score = |loss: f64| Observation::new(1, 0.0).with_metric("score", -loss);
        assert_rates(&rates(&max, score), &expected);
    }
}
