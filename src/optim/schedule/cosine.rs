//! Schedules that go from one rate to another along half a cosine wave: slowly at both ends.

use super::{LrSchedule, Progress};

/// From `from` at 0 to `to` at 1, along half a wave.
fn anneal(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + cos_pi(share))
}

/// `cos(pi x)` for `x` in `[0, 1]`, the same bits on every machine, unlike the system's `cos`:
/// the power series of `sin(pi (1/2 - x))`, cut where a term is below 1e-16.
fn cos_pi(x: f64) -> f64 {
    let y = std::f64::consts::PI * (0.5 - x);
    let y2 = y * y;
    // 1 - y2/(2*3) (1 - y2/(4*5) (1 - ...
    y * (1..=10).rev().fold(1.0, |tail, k| {
        let k = f64::from(k);
        1.0 - y2 / (2.0 * k * (2.0 * k + 1.0)) * tail
    })
}

/// The learning rate falls along half a cosine wave in `period` epochs, and may then start again
/// from the top (Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts",
/// 2017).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineAnnealing {
    period: u64,
    min_lr: f32,
    /// By how much each period is longer than the one before; 0 for no restart.
    factor: u64,
}

impl CosineAnnealing {
    /// `lr = min_lr + (base - min_lr) (1 + cos(pi t / period)) / 2` in epoch `t`, and `min_lr` from
    /// epoch `period` on.
    ///
    /// # Panics
    /// If `period` is zero.
    #[track_caller]
    pub fn new(period: u64, min_lr: f32) -> Self {
        assert!(period > 0, "CosineAnnealing: the period must be at least 1 epoch");
        CosineAnnealing { period, min_lr, factor: 0 }
    }

    /// Goes back to the full rate at the end of each period; each is `factor` times as long as the
    /// one before.
    ///
    /// # Panics
    /// If `factor` is zero.
    #[track_caller]
    pub fn restarts(mut self, factor: u64) -> Self {
        assert!(factor > 0, "CosineAnnealing: periods cannot become 0 times as long");
        self.factor = factor;
        self
    }

    /// The place within the current period, from 0 to 1.
    fn share(&self, epoch: u64) -> f64 {
        let (mut t, mut period) = (epoch, self.period);
        match self.factor {
            0 => t = t.min(period),
            1 => t %= period,
            factor => {
                while t >= period {
                    t -= period;
                    period = period.saturating_mul(factor);
                }
            }
        }
        t as f64 / period as f64
    }
}

impl LrSchedule for CosineAnnealing {
    fn lr(&self, base: f32, at: &Progress<'_>) -> f32 {
        anneal(f64::from(base), f64::from(self.min_lr), self.share(at.epoch)) as f32
    }

    fn describe(&self) -> String {
        let CosineAnnealing { period, min_lr, factor } = self;
        let restarts = if *factor > 0 { format!(", restarts={factor}") } else { String::new() };
        format!("cosine_annealing(period={period}, min_lr={min_lr}{restarts})")
    }
}

/// One rise and one fall over the whole run: from 1/25 of the optimizer's rate up to it in the
/// first 30% of the steps, then down to 1/10,000 of where it began (Smith & Topin,
/// "Super-Convergence", 2018). PyTorch's `OneCycleLR` with its defaults, except that the momentum
/// is left alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycle {
    epochs: u64,
    rise: f64,
}

impl OneCycle {
    /// How many times the first rate is lower than the peak.
    const DIV_FACTOR: f64 = 25.0;
    /// How many times the last rate is lower than the first.
    const FINAL_DIV_FACTOR: f64 = 1e4;

    /// A cycle over `epochs` epochs. The optimizer's learning rate is its peak.
    ///
    /// # Panics
    /// If `epochs` is zero.
    #[track_caller]
    pub fn new(epochs: u64) -> Self {
        assert!(epochs > 0, "OneCycle: a cycle needs at least 1 epoch");
        OneCycle { epochs, rise: 0.3 }
    }

    /// Sets the share of the steps in which the rate rises.
    ///
    /// # Panics
    /// If `share` is not between 0 and 1.
    #[track_caller]
    pub fn rise(mut self, share: f64) -> Self {
        assert!(share > 0.0 && share < 1.0, "OneCycle: cannot rise in {share} of the steps");
        self.rise = share;
        self
    }
}

impl LrSchedule for OneCycle {
    fn lr(&self, base: f32, at: &Progress<'_>) -> f32 {
        let peak = f64::from(base);
        let first = peak / Self::DIV_FACTOR;
        let last = first / Self::FINAL_DIV_FACTOR;
        // The steps at which the rate is highest and lowest, as PyTorch counts them.
        let total = (self.epochs * at.steps_per_epoch) as f64;
        let (top, end) = ((self.rise * total - 1.0).max(0.0), total - 1.0);
        let t = at.step as f64;
        if t < top {
            anneal(first, peak, t / top) as f32
        } else {
            anneal(peak, last, ((t - top) / (end - top).max(1.0)).min(1.0)) as f32
        }
    }

    fn describe(&self) -> String {
        format!("one_cycle(epochs={}, rise={})", self.epochs, self.rise)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_rates, rates};
    use super::*;

    #[test]
    fn cosine_of_pi_x() {
        assert_eq!(cos_pi(0.5), 0.0);
        for i in 0..=1000 {
            let x = f64::from(i) / 1000.0;
            let error = cos_pi(x) - (std::f64::consts::PI * x).cos();
            assert!(error.abs() < 4e-16, "{x}: {error}");
        }
    }

    // The expected rates are those of PyTorch's CosineAnnealingLR, CosineAnnealingWarmRestarts
    // and OneCycleLR.

    #[test]
    fn the_rate_falls_along_a_cosine_and_stays() {
        let expected =
            [0.1, 0.09140576475, 0.06890576475, 0.04109423525, 0.01859423525, 0.01, 0.01];
        assert_rates(&rates(&CosineAnnealing::new(5, 0.01), 7), &expected);
    }

    #[test]
    fn periods_restart_and_grow() {
        let expected = [0.1, 0.07525, 0.02575, 0.1, 0.07525, 0.02575, 0.1];
        assert_rates(&rates(&CosineAnnealing::new(3, 0.001).restarts(1), 7), &expected);
        let expected = [
            0.1,
            0.05,
            0.1,
            0.08535533906,
            0.05,
            0.01464466094,
            0.1,
            0.09619397663,
            0.08535533906,
            0.06913417162,
            0.05,
            0.03086582838,
        ];
        assert_rates(&rates(&CosineAnnealing::new(2, 0.0).restarts(2), 12), &expected);
    }

    #[test]
    fn one_cycle_rises_and_falls() {
        let expected = [
            0.004,
            0.052,
            0.1,
            0.0950484632,
            0.08117456539,
            0.06112620219,
            0.03887419781,
            0.01882583461,
            0.004951936799,
            4e-7,
            4e-7,
        ];
        assert_rates(&rates(&OneCycle::new(10), 11), &expected);
        let expected = [0.004, 0.028, 0.076, 0.1, 0.08535539764, 0.0500002, 0.01464500236, 4e-7];
        assert_rates(&rates(&OneCycle::new(8).rise(0.5), 8), &expected);
    }
}
