//! Learning-rate schedules: pure functions of the position in training and of the evaluations so
//! far, so that a resumed run needs no state to be on schedule.
//!
//! | schedule | counts | the rate |
//! |---|---|---|
//! | [`ConstantLr`] | | stays |
//! | [`StepLr`] | epochs | drops every so many |
//! | [`MultiStepLr`] | epochs | drops at given ones |
//! | [`ExponentialLr`] | epochs | drops after each |
//! | [`CosineAnnealing`] | epochs | falls along a cosine; may restart |
//! | [`OneCycle`] | steps | rises to a peak and falls to almost nothing |
//! | [`LinearWarmUp`] | steps | begins small, before another schedule takes over |
//! | [`ReduceOnPlateau`] | evaluations | drops when the monitored metric no longer improves |
//!
//! [`PerStep`] makes a schedule that counts epochs count steps. All rates are relative to that of
//! the optimizer when the run began, and are computed in `f64`.

mod cosine;
mod drops;
mod plateau;
mod warm_up;

pub use cosine::{CosineAnnealing, OneCycle};
pub use drops::{ExponentialLr, MultiStepLr, StepLr};
pub use plateau::ReduceOnPlateau;
pub use warm_up::LinearWarmUp;

use crate::monitor::Observation;

/// Where training is: what a schedule may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Optimizer steps taken before this one.
    pub step: u64,
    /// Optimizer steps per epoch.
    pub steps_per_epoch: u64,
    /// The evaluations so far, oldest first.
    pub history: &'a [Observation],
}

/// How the learning rate changes over training.
pub trait LrSchedule: Send + Sync {
    /// The learning rate of the next step, for a run begun with the rate `base`.
    fn lr(&self, base: f32, at: &Progress<'_>) -> f32;

    /// The epochs between drops of the rate, for a schedule that has such steps.
    fn step_epochs(&self) -> Option<u64> {
        None
    }

    /// The metric that the rate depends on, for a schedule that looks at one.
    fn metric(&self) -> Option<&str> {
        None
    }

    /// The schedule in words, with all settings: for reports, and to notice that a run is resumed
    /// with another one.
    fn describe(&self) -> String;
}

/// A schedule chosen at run time.
impl LrSchedule for Box<dyn LrSchedule> {
    fn lr(&self, base: f32, at: &Progress<'_>) -> f32 {
        (**self).lr(base, at)
    }

    fn step_epochs(&self) -> Option<u64> {
        (**self).step_epochs()
    }

    fn metric(&self) -> Option<&str> {
        (**self).metric()
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// The same learning rate throughout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConstantLr;

impl LrSchedule for ConstantLr {
    fn lr(&self, base: f32, _at: &Progress<'_>) -> f32 {
        base
    }

    fn describe(&self) -> String {
        "constant".into()
    }
}

/// Another schedule, counting optimizer steps where that one counts epochs.
///
/// ```
/// use ferrotape::optim::{CosineAnnealing, LrSchedule, PerStep, Progress};
/// let schedule = PerStep(CosineAnnealing::new(1000, 0.0)); // one descent in 1000 steps
/// let at = Progress { epoch: 3, step: 500, steps_per_epoch: 150, history: &[] };
/// assert_eq!(schedule.lr(0.1, &at), 0.05);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerStep<S>(
    /// The schedule.
    pub S,
);

impl<S: LrSchedule> LrSchedule for PerStep<S> {
    fn lr(&self, base: f32, at: &Progress<'_>) -> f32 {
        self.0.lr(base, &Progress { epoch: at.step, ..*at })
    }

    fn metric(&self) -> Option<&str> {
        self.0.metric()
    }

    fn describe(&self) -> String {
        format!("per_step({})", self.0.describe())
    }
}

#[cfg(test)]
mod testing {
    use super::*;

    /// The rates of the first `n` epochs of one step each, from 0.1.
    pub(super) fn rates(schedule: &impl LrSchedule, n: u64) -> Vec<f32> {
        let at = |epoch| Progress { epoch, step: epoch, steps_per_epoch: 1, history: &[] };
        (0..n).map(|epoch| schedule.lr(0.1, &at(epoch))).collect()
    }

    /// Fails unless all rates are the expected ones but for rounding.
    #[track_caller]
    pub(super) fn assert_rates(rates: &[f32], expected: &[f64]) {
        assert_eq!(rates.len(), expected.len());
        for (epoch, (&rate, &expected)) in rates.iter().zip(expected).enumerate() {
            let error = (f64::from(rate) - expected).abs();
            assert!(error <= 1e-7 * expected, "epoch {epoch}: {rate} instead of {expected}");
        }
    }
}
