//! Schedules whose rate drops by a factor: every few epochs, at given ones, or after each.

use super::{LrSchedule, Progress};

/// `base * gamma ^ drops`
fn dropped(base: f32, gamma: f32, drops: u64) -> f32 {
    (f64::from(base) * f64::from(gamma).powi(drops.try_into().unwrap_or(i32::MAX))) as f32
}

/// Multiplies the learning rate by `gamma` every `step_size` epochs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLr {
    step_size: u64,
    gamma: f32,
}

impl StepLr {
    /// `lr = base * gamma ^ floor(epoch / step_size)`.
    ///
    /// # Panics
    /// If `step_size` is zero.
    #[track_caller]
    pub fn new(step_size: u64, gamma: f32) -> Self {
        assert!(step_size > 0, "StepLr: step_size must be at least 1 epoch");
        StepLr { step_size, gamma }
    }
}

impl LrSchedule for StepLr {
    fn lr(&self, base: f32, at: &Progress<'_>) -> f32 {
        dropped(base, self.gamma, at.epoch / self.step_size)
    }

    fn step_epochs(&self) -> Option<u64> {
        Some(self.step_size)
    }

    fn describe(&self) -> String {
        format!("step_lr(step_size={}, gamma={})", self.step_size, self.gamma)
    }
}

/// Multiplies the learning rate by `gamma` at each of some epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiStepLr {
    milestones: Vec<u64>,
    gamma: f32,
}

impl MultiStepLr {
    /// `lr = base * gamma ^ (how many milestones are at or before epoch)`.
    pub fn new(milestones: impl Into<Vec<u64>>, gamma: f32) -> Self {
        MultiStepLr { milestones: milestones.into(), gamma }
    }
}

impl LrSchedule for MultiStepLr {
    fn lr(&self, base: f32, at: &Progress<'_>) -> f32 {
        let passed = self.milestones.iter().filter(|&&milestone| milestone <= at.epoch).count();
        dropped(base, self.gamma, passed as u64)
    }

    fn describe(&self) -> String {
        format!("multi_step_lr(milestones={:?}, gamma={})", self.milestones, self.gamma)
    }
}

/// Multiplies the learning rate by `gamma` after each epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExponentialLr {
    gamma: f32,
}

impl ExponentialLr {
    /// `lr = base * gamma ^ epoch`.
    pub fn new(gamma: f32) -> Self {
        ExponentialLr { gamma }
    }
}

impl LrSchedule for ExponentialLr {
    fn lr(&self, base: f32, at: &Progress<'_>) -> f32 {
        dropped(base, self.gamma, at.epoch)
    }

    fn describe(&self) -> String {
        format!("exponential_lr(gamma={})", self.gamma)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PerStep;
    use super::super::testing::{assert_rates, rates};
    use super::*;

    // The expected rates are those of PyTorch's schedulers of the same names.

    #[test]
    fn rates_drop_when_they_should() {
        let step = rates(&StepLr::new(3, 0.5), 7);
        assert_eq!(step, [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025]);
        let multi = rates(&MultiStepLr::new([2, 3, 5], 0.1), 6);
        assert_rates(&multi, &[0.1, 0.1, 0.01, 0.001, 0.001, 0.0001]);
        let exponential = rates(&ExponentialLr::new(0.9), 4);
        assert_rates(&exponential, &[0.1, 0.09, 0.081, 0.0729]);
    }

    #[test]
    fn epochs_become_steps() {
        let at = Progress { epoch: 1, step: 250, steps_per_epoch: 150, history: &[] };
        let schedule = PerStep(StepLr::new(100, 0.5));
        assert_eq!(schedule.lr(0.1, &at), 0.025);
        assert_eq!(schedule.describe(), "per_step(step_lr(step_size=100, gamma=0.5))");
        assert_eq!(schedule.step_epochs(), None);
    }

    #[test]
    fn a_run_of_any_length_has_a_rate() {
        let at = Progress { epoch: u64::MAX, step: 0, steps_per_epoch: 1, history: &[] };
        assert_eq!(ExponentialLr::new(0.5).lr(0.1, &at), 0.0);
    }
}
