//! From a rule to something that judges: the memory each simple rule keeps between evaluations,
//! and the common form of what it finds.

use super::correlation::Correlation;
use super::limits::{Divergence, Spending, Target};
use super::observation::Observation;
use super::patience::{Paired, Patience};
use super::prechelt::{GeneralizationLoss, ProgressQuotient, RisingStrips};
use super::rule::{Mode, Rule};
use super::tracker::{Anchor, Best};
use super::verdict::StopReason;

/// What a criterion gets to see at one evaluation.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    /// All evaluations, the one being judged last.
    pub(super) history: &'a [Observation],
    /// The watched metric's name.
    pub(super) metric: &'a str,
    /// Which of its values are better.
    pub(super) mode: Mode,
    /// Its measured value, in its own sign.
    pub(super) raw: f64,
    /// Its smoothed value, signed so that lower is better; `None` if the raw one is not finite.
    pub(super) signed: Option<f64>,
    /// May this evaluation be held against the run? Not in warm-up or a grace period.
    pub(super) counts: bool,
}

impl Moment<'_> {
    /// The evaluation being judged.
    pub(super) fn now(&self) -> &Observation {
        &self.history[self.history.len() - 1]
    }

    /// The number of this evaluation, from 1.
    pub(super) fn number(&self) -> usize {
        self.history.len()
    }

    /// This evaluation as a remarkable one, with the smoothed value.
    pub(super) fn as_best(&self, signed: f64) -> Best {
        let value = self.mode.signed(signed);
        Best { epoch: self.now().epoch, value, index: self.history.len() - 1 }
    }
}

/// What a criterion found at one evaluation.
pub(super) struct Finding {
    /// The number it looks at, if there is one yet.
    pub(super) value: Option<f64>,
    /// What it is compared with.
    pub(super) threshold: f64,
    /// The consequence.
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    Quiet,
    Fires(StopReason),
    /// Something was not measured without which this criterion can never fire.
    Missing(&'static str),
}

impl Finding {
    /// `value` against `threshold`; fires with the reason if there is one.
    pub(super) fn new(value: Option<f64>, threshold: f64, reason: Option<StopReason>) -> Self {
        let outcome = reason.map_or(Outcome::Quiet, Outcome::Fires);
        Finding { value, threshold, outcome }
    }

    pub(super) fn missing(what: &'static str, threshold: f64) -> Self {
        Finding { value: None, threshold, outcome: Outcome::Missing(what) }
    }
}

/// The state of one rule that is not a composition.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Criterion {
    Patience(Patience),
    Paired(Paired),
    Gl(GeneralizationLoss),
    Pq(ProgressQuotient),
    Up(RisingStrips),
    Correlation(Correlation),
    Target(Target),
    Divergence(Divergence),
    Budget(Spending),
}

impl Criterion {
    /// A fresh state for `rule`; `None` for a composition, which has no state of its own.
    pub(super) fn new(rule: &Rule) -> Option<Self> {
        Some(match *rule {
            Rule::Patience { evaluations, min_delta } => {
                Criterion::Patience(Patience::new(evaluations, min_delta.unwrap_or_default()))
            }
            Rule::Paired { evaluations, z } => Criterion::Paired(Paired::new(evaluations, z)),
            Rule::Gl { alpha } => Criterion::Gl(GeneralizationLoss::new(alpha)),
            Rule::Pq { alpha, k } => Criterion::Pq(ProgressQuotient::new(alpha, k)),
            Rule::Up { s, k } => Criterion::Up(RisingStrips::new(s, k)),
            Rule::Correlation { threshold, k } => {
                Criterion::Correlation(Correlation::new(threshold, k))
            }
            Rule::Target { value } => Criterion::Target(Target(value)),
            Rule::Divergence { factor } => Criterion::Divergence(Divergence::new(factor)),
            Rule::Budget(budget) => Criterion::Budget(Spending(budget)),
            Rule::Any(_) | Rule::All(_) | Rule::AtLeast { .. } | Rule::On { .. } => return None,
        })
    }

    /// Takes in one evaluation.
    pub(super) fn judge(&mut self, moment: &Moment) -> Finding {
        match self {
            Criterion::Patience(state) => state.judge(moment),
            Criterion::Paired(state) => state.judge(moment),
            Criterion::Gl(state) => state.judge(moment),
            Criterion::Pq(state) => state.judge(moment),
            Criterion::Up(state) => state.judge(moment),
            Criterion::Correlation(state) => state.judge(moment),
            Criterion::Target(state) => state.judge(moment),
            Criterion::Divergence(state) => state.judge(moment),
            Criterion::Budget(state) => state.judge(moment),
        }
    }

    /// The anchor and the patience of a criterion that counts.
    pub(super) fn patience(&self) -> Option<(&Anchor, u32)> {
        match self {
            Criterion::Patience(state) => Some((&state.anchor, state.patience)),
            Criterion::Paired(state) => Some((&state.anchor, state.patience)),
            _ => None,
        }
    }

    /// A limit holds whatever `min_epochs` says.
    pub(super) fn is_budget(&self) -> bool {
        matches!(self, Criterion::Budget(_))
    }
}
