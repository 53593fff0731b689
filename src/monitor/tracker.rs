//! The two trackers, and why there are two.
//!
//! *Best* is the lowest value ever seen, whatever the margin: it decides which weights are
//! restored. The *anchor* is the last improvement that was large enough to matter: it decides
//! patience. One variable for both jobs is a bug either way: a run that improves a little at every
//! evaluation is stopped, or its best weights are thrown away.
//!
//! Values in here are signed so that lower is better; see [`Mode`](super::Mode).

use serde::Serialize;

/// One remarkable evaluation of the history.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Best {
    /// Its epoch, from 1.
    pub epoch: u64,
    /// The monitored value there, in the metric's own sign.
    pub value: f64,
    /// Its position in the history, from 0.
    pub index: usize,
}

/// The last significant improvement and the evaluations counted since.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Anchor {
    /// Where it is; `None` before the first finite value.
    pub(super) at: Option<Best>,
    /// The bar that the next significant improvement has to get below.
    bar: f64,
    /// Evaluations counted as bad since.
    pub(super) bad: u32,
}

impl Anchor {
    pub(super) fn new() -> Self {
        Anchor { at: None, bar: f64::INFINITY, bad: 0 }
    }

    /// Does a signed value improve significantly on the anchor? The first finite value does.
    pub(super) fn improved_by(&self, value: f64) -> bool {
        value < self.bar
    }

    /// Drops the anchor here; the next improvement must be better by more than `delta`.
    pub(super) fn drop_at(&mut self, best: Best, signed: f64, delta: f64) {
        *self = Anchor { at: Some(best), bar: signed - delta, bad: 0 };
    }

    /// Counts one evaluation that was no improvement.
    pub(super) fn count_bad(&mut self) {
        self.bad = self.bad.saturating_add(1);
    }
}
