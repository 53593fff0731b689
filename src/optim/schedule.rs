//! Learning-rate schedules: pure functions of the position in training, so that a resumed run
//! needs no state to be on schedule.

/// How the learning rate changes over training.
pub trait LrSchedule: Send + Sync {
    /// The learning rate during epoch `epoch` (counted from 0), for a run begun at `base`.
    fn lr(&self, base: f32, epoch: u64) -> f32;

    /// The epochs between drops of the rate, for a schedule that has such steps.
    fn step_epochs(&self) -> Option<u64> {
        None
    }

    /// The schedule in words, for reports and checkpoints.
    fn describe(&self) -> String;
}

/// The same learning rate throughout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConstantLr;

impl LrSchedule for ConstantLr {
    fn lr(&self, base: f32, _epoch: u64) -> f32 {
        base
    }

    fn describe(&self) -> String {
        "constant".into()
    }
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
    fn lr(&self, base: f32, epoch: u64) -> f32 {
        base * self.gamma.powi((epoch / self.step_size).try_into().unwrap_or(i32::MAX))
    }

    fn step_epochs(&self) -> Option<u64> {
        Some(self.step_size)
    }

    fn describe(&self) -> String {
        format!("step_lr(step_size={}, gamma={})", self.step_size, self.gamma)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_lr_drops_at_multiples_of_its_step() {
        let schedule = StepLr::new(10, 0.5);
        let rates: Vec<f32> = [0, 9, 10, 19, 20].map(|epoch| schedule.lr(0.1, epoch)).to_vec();
        assert_eq!(rates, [0.1, 0.1, 0.05, 0.05, 0.025]);
    }
}
