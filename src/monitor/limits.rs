//! Rules that compare one number with a fixed limit: target, divergence and budget.

use super::criterion::{Finding, Moment};
use super::rule::Budget;
use super::verdict::StopReason;

/// [`Rule::Target`](super::Rule::Target) has no memory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target(pub(super) f64);

impl Target {
    /// Looks at the raw value, because that is what the restored weights will have.
    pub(super) fn judge(&mut self, moment: &Moment) -> Finding {
        let Some(_) = moment.signed else { return Finding::new(None, self.0, None) };
        let reached = moment.mode.signed(moment.raw) <= moment.mode.signed(self.0);
        let reason = reached.then(|| StopReason::Target {
            metric: moment.metric.to_owned(),
            value: moment.raw,
            target: self.0,
        });
        Finding::new(Some(moment.raw), self.0, reason)
    }
}

/// State of [`Rule::Divergence`](super::Rule::Divergence).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Divergence {
    factor: f64,
    /// The first finite value, signed.
    first: Option<f64>,
}

impl Divergence {
    pub(super) fn new(factor: f64) -> Self {
        Divergence { factor, first: None }
    }

    pub(super) fn judge(&mut self, moment: &Moment) -> Finding {
        let Some(value) = moment.signed else { return Finding::new(None, self.factor, None) };
        let first = *self.first.get_or_insert(value);
        let limit = first + (self.factor - 1.0) * first.abs();
        let fires = moment.counts && value > limit;
        let reason = fires.then(|| StopReason::Divergence {
            metric: moment.metric.to_owned(),
            value: moment.mode.signed(value),
            first: moment.mode.signed(first),
            factor: self.factor,
        });
        Finding::new(Some(moment.mode.signed(value)), moment.mode.signed(limit), reason)
    }
}

/// [`Rule::Budget`](super::Rule::Budget) has no memory; its reading is the share used up.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spending(pub(super) Budget);

impl Spending {
    pub(super) fn judge(&mut self, moment: &Moment) -> Finding {
        let Budget { epochs, steps, seconds } = self.0;
        let now = moment.now();
        if seconds.is_some() && now.elapsed.is_none() {
            return Finding::missing("elapsed", 1.0);
        }
        let spent = [
            ("epochs", now.epoch as f64, epochs.map(|n| n as f64)),
            ("steps", now.step as f64, steps.map(|n| n as f64)),
            ("seconds", now.elapsed.unwrap_or(0.0), seconds),
        ];
        let limited =
            spent.into_iter().filter_map(|(unit, used, limit)| Some((unit, used, limit?)));
        let tightest = limited.max_by(|a, b| (a.1 / a.2).total_cmp(&(b.1 / b.2)));
        let Some((unit, used, limit)) = tightest else { return Finding::new(None, 1.0, None) };
        let reason = (used >= limit).then_some(StopReason::Budget { unit, used, limit });
        Finding::new(Some(used / limit), 1.0, reason)
    }
}
