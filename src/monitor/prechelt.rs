//! The three classes of stopping criteria of Lutz Prechelt, "Early Stopping - But When?", in
//! Neural Networks: Tricks of the Trade (1998). `E_va(t)` is the validation value and `E_tr(t)`
//! the training loss at evaluation t, `E_opt(t)` the lowest `E_va` up to t.
//!
//! ```text
//! GL(t)   = 100 (E_va(t) / E_opt(t) - 1)                      percent, at every t
//! P_k(t)  = 1000 (sum(E_tr of the strip) / (k min(E_tr of the strip)) - 1)      per mille
//! PQ(t)   = GL(t) / P_k(t)                                    at t = k, 2k, 3k, ...
//! UP_s(t) : UP_(s-1)(t - k) and E_va(t) > E_va(t - k)         at t = k, 2k, 3k, ...
//! ```
//!
//! The paper's errors are positive. Two things keep the formulas meaningful elsewhere: a negative
//! denominator turns the quotient's sign, so that "above the lowest" is always positive; and a
//! denominator nearer to zero than [`FLOOR`] is replaced by it, so that a perfect model or a
//! training loss that stands still gives a huge finite number, or 0 if the numerator is 0 too.

use super::criterion::{Finding, Moment};
use super::verdict::StopReason;

/// The smallest magnitude that is divided by.
const FLOOR: f64 = 1e-12;

/// `value / reference - 1`, by how much of its own size `value` lies above `reference`.
fn excess(value: f64, reference: f64) -> f64 {
    if reference.abs() < FLOOR {
        (value - reference) / FLOOR
    } else {
        (value / reference - 1.0) * reference.signum()
    }
}

/// `GL(t)`, with the running `E_opt`.
#[derive(Debug, Clone, PartialEq)]
struct Loss {
    lowest: f64,
}

impl Loss {
    fn new() -> Self {
        Loss { lowest: f64::INFINITY }
    }

    /// Takes in a finite value and gives the generalisation loss there, in percent.
    fn percent(&mut self, value: f64) -> f64 {
        self.lowest = self.lowest.min(value);
        100.0 * excess(value, self.lowest)
    }
}

/// State of [`Rule::Gl`](super::Rule::Gl).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GeneralizationLoss {
    alpha: f64,
    loss: Loss,
}

impl GeneralizationLoss {
    pub(super) fn new(alpha: f64) -> Self {
        GeneralizationLoss { alpha, loss: Loss::new() }
    }

    pub(super) fn judge(&mut self, moment: &Moment) -> Finding {
        let Some(value) = moment.signed else { return Finding::new(None, self.alpha, None) };
        let percent = self.loss.percent(value);
        let fires = moment.counts && percent > self.alpha;
        let reason = fires.then(|| StopReason::GeneralizationLoss {
            metric: moment.metric.to_owned(),
            percent,
            alpha: self.alpha,
            value: moment.mode.signed(value),
            best: moment.mode.signed(self.loss.lowest),
        });
        Finding::new(Some(percent), self.alpha, reason)
    }
}

/// State of [`Rule::Pq`](super::Rule::Pq).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ProgressQuotient {
    alpha: f64,
    k: u32,
    loss: Loss,
    /// Training losses of the current strip.
    strip: Vec<f64>,
}

impl ProgressQuotient {
    pub(super) fn new(alpha: f64, k: u32) -> Self {
        ProgressQuotient { alpha, k, loss: Loss::new(), strip: Vec::new() }
    }

    pub(super) fn judge(&mut self, moment: &Moment) -> Finding {
        let percent = moment.signed.map(|value| self.loss.percent(value));
        let Some(train_loss) = moment.now().train_loss else {
            return Finding::missing("train_loss", self.alpha);
        };
        self.strip.push(train_loss);
        if !ends_strip(moment, self.k) {
            return Finding::new(None, self.alpha, None);
        }
        let progress = progress(&self.strip);
        self.strip.clear();
        let (Some(percent), true) = (percent, progress.is_finite()) else {
            return Finding::new(None, self.alpha, None);
        };
        let quotient = percent / progress.max(FLOOR);
        let fires = moment.counts && quotient > self.alpha;
        let reason = fires.then(|| StopReason::ProgressQuotient {
            metric: moment.metric.to_owned(),
            quotient,
            alpha: self.alpha,
            percent,
            progress,
        });
        Finding::new(Some(quotient), self.alpha, reason)
    }
}

/// `P_k` of one strip, in per mille; NaN if a training loss is not finite.
fn progress(strip: &[f64]) -> f64 {
    if strip.iter().any(|loss| !loss.is_finite()) {
        return f64::NAN;
    }
    let lowest = strip.iter().copied().fold(f64::INFINITY, f64::min);
    let sum: f64 = strip.iter().sum();
    1000.0 * excess(sum / strip.len() as f64, lowest)
}

/// State of [`Rule::Up`](super::Rule::Up).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RisingStrips {
    s: u32,
    k: u32,
    /// The value at the last strip's end where it was finite.
    before: Option<f64>,
    rises: u32,
}

impl RisingStrips {
    pub(super) fn new(s: u32, k: u32) -> Self {
        RisingStrips { s, k, before: None, rises: 0 }
    }

    pub(super) fn judge(&mut self, moment: &Moment) -> Finding {
        let threshold = f64::from(self.s);
        if !ends_strip(moment, self.k) {
            return Finding::new(None, threshold, None);
        }
        let rose = match (moment.signed, self.before) {
            (Some(value), Some(before)) => value > before,
            (Some(_), None) => false,
            // Never a reset: a value that is not finite is worse than any before it.
            (None, _) => true,
        };
        self.before = moment.signed.or(self.before);
        if !rose {
            self.rises = 0;
        } else if moment.counts {
            self.rises += 1;
        }
        let fires = moment.counts && self.rises >= self.s;
        let reason = fires.then(|| StopReason::RisingStrips {
            metric: moment.metric.to_owned(),
            rises: self.rises,
            k: self.k,
        });
        Finding::new(Some(f64::from(self.rises)), threshold, reason)
    }
}

/// Does a strip of `k` evaluations end here? Strips are counted from the first evaluation.
fn ends_strip(moment: &Moment, k: u32) -> bool {
    moment.number().is_multiple_of(k as usize)
}
