//! A gentle start before another schedule.

use super::{LrSchedule, Progress};

/// During the first steps the learning rate rises in a straight line from a fraction of what
/// another schedule says to all of it (Goyal et al., "Accurate, Large Minibatch SGD", 2017).
///
/// ```
/// use ferrotape::optim::{LinearWarmUp, LrSchedule, Progress, StepLr};
/// let schedule = LinearWarmUp::new(100, StepLr::new(10, 0.5)).start_factor(0.5);
/// let at = |step| Progress { epoch: 0, step, steps_per_epoch: 150, history: &[] };
/// assert_eq!([0, 50, 100].map(|step| schedule.lr(0.5, &at(step))), [0.25, 0.375, 0.5]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearWarmUp<S> {
    steps: u64,
    start_factor: f64,
    then: S,
}

impl<S: LrSchedule> LinearWarmUp<S> {
    /// Multiplies the rate of `then` by `s + (1 - s) step / steps` in the first `steps` optimizer
    /// steps; `s` is 1/3, as in PyTorch's `LinearLR`.
    pub fn new(steps: u64, then: S) -> Self {
        LinearWarmUp { steps, start_factor: 1.0 / 3.0, then }
    }

    /// Sets the fraction of the rate that the first step has.
    pub fn start_factor(mut self, factor: f64) -> Self {
        self.start_factor = factor;
        self
    }
}

impl<S: LrSchedule> LrSchedule for LinearWarmUp<S> {
    fn lr(&self, base: f32, at: &Progress<'_>) -> f32 {
        let lr = self.then.lr(base, at);
        if at.step >= self.steps {
            return lr;
        }
        let share = at.step as f64 / self.steps as f64;
        (f64::from(lr) * (self.start_factor + (1.0 - self.start_factor) * share)) as f32
    }

    fn step_epochs(&self) -> Option<u64> {
        self.then.step_epochs()
    }

    fn metric(&self) -> Option<&str> {
        self.then.metric()
    }

    fn describe(&self) -> String {
        let LinearWarmUp { steps, start_factor, then } = self;
        let then = then.describe();
        format!("linear_warm_up(steps={steps}, start_factor={start_factor}, then={then})")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_rates, rates};
    use super::super::{ConstantLr, MultiStepLr};
    use super::*;

    // The expected rates are those of PyTorch's LinearLR, alone and in a ChainedScheduler.

    #[test]
    fn the_rate_rises_to_that_of_the_other_schedule() {
        let expected = [0.1 / 3.0, 0.05, 0.2 / 3.0, 0.25 / 3.0, 0.1, 0.1];
        assert_rates(&rates(&LinearWarmUp::new(4, ConstantLr), 6), &expected);
        let expected = [0.01, 0.0325, 0.0275, 0.03875, 0.05, 0.025, 0.025];
        let warm = LinearWarmUp::new(4, MultiStepLr::new([2, 5], 0.5)).start_factor(0.1);
        assert_rates(&rates(&warm, 7), &expected);
    }
}
