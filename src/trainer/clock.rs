//! Where the time of a run goes.

use std::time::{Duration, Instant};

/// Counts in one process; only the time of training outlives it, in checkpoints.
pub(super) struct Clock {
    began: Instant,
    /// Seconds of training in the processes before this one.
    before: f64,
    stepping: Duration,
    /// Images trained in that time.
    images: u64,
    /// Time for which steps waited for saving.
    saving: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        Clock {
            began: Instant::now(),
            before: 0.0,
            stepping: Duration::ZERO,
            images: 0,
            saving: Duration::ZERO,
        }
    }

    /// Goes on from the seconds that a checkpoint has recorded.
    pub(super) fn resume_from(&mut self, seconds: f64) {
        (self.before, self.began) = (seconds, Instant::now());
    }

    /// Notes a step that began at `started` and ends now.
    pub(super) fn stepped(&mut self, started: Instant, images: u64) {
        self.stepping += started.elapsed();
        self.images += images;
    }

    /// Notes a wait for saving that began at `started` and ends now.
    pub(super) fn saved(&mut self, started: Instant) {
        self.saving += started.elapsed();
    }

    /// Seconds of training, also in the processes before this one.
    pub(super) fn elapsed(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    /// Training throughput, evaluations and saving not counted.
    pub(super) fn images_per_second(&self) -> f64 {
        self.images as f64 / self.stepping.as_secs_f64().max(1e-9)
    }

    /// The share of this process's time for which training waited for saving, from 0 to 1.
    pub(super) fn saving_overhead(&self) -> f64 {
        self.saving.as_secs_f64() / self.began.elapsed().as_secs_f64()
    }
}
