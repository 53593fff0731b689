//! What the monitor answers: a decision, and all the numbers it rests on.

use std::fmt;

use serde::Serialize;

use super::diagnosis::Diagnosis;
use super::tracker::Best;
use crate::numbers::{counted, short};

/// The monitor's answer to one observation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Go on, or stop and why.
    pub decision: Decision,
    /// Is this evaluation the best one so far? Then its weights are the ones to keep.
    pub new_best: bool,
    /// The best evaluation so far; `None` as long as no value was finite.
    pub best: Option<Best>,
    /// From where the most impatient patience rule counts: the last significant improvement.
    /// `None` if no rule counts patience.
    pub anchor: Option<Best>,
    /// Bad evaluations that the most impatient patience rule still accepts: it stops at 0. `None`
    /// if no rule counts patience.
    pub patience_left: Option<u32>,
    /// The measured value was NaN or infinite and the policy is to go back to the best weights.
    pub roll_back: bool,
    /// One reading for each rule that is not a composition, in the order they were written.
    pub readings: Vec<Reading>,
    /// What the curves look like, apart from any rule.
    pub diagnosis: Diagnosis,
}

impl Verdict {
    /// Should training stop?
    pub fn should_stop(&self) -> bool {
        self.stop_reason().is_some()
    }

    /// Why training should stop, if it should.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        match &self.decision {
            Decision::Continue => None,
            Decision::Stop(reason) => Some(reason),
        }
    }
}

/// Go on or stop.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Decision {
    /// Train on.
    Continue,
    /// Stop now.
    Stop(StopReason),
}

/// A rule's number against its threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// The rule's text form.
    pub rule: String,
    /// What it measured now; `None` when it cannot say yet, as before the end of a first strip.
    pub value: Option<f64>,
    /// What the value is compared with.
    pub threshold: f64,
    /// Does the rule want to stop at this evaluation?
    pub fires: bool,
}

/// Why a run was stopped, with the numbers. `Display` explains it in a sentence.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub enum StopReason {
    /// No significant improvement for too long.
    Patience {
        /// What was watched.
        metric: String,
        /// Bad evaluations since the anchor.
        bad: u32,
        /// How many were allowed.
        patience: u32,
        /// The last significant improvement; `None` if no value was ever finite.
        anchor: Option<Best>,
    },
    /// The value is too far above the lowest one.
    GeneralizationLoss {
        /// What was watched.
        metric: String,
        /// Percent above (for `max`: below) the best value.
        percent: f64,
        /// The limit in percent.
        alpha: f64,
        /// The value.
        value: f64,
        /// The best value so far, as the rule sees it (after smoothing).
        best: f64,
    },
    /// Generalisation is lost faster than training progresses.
    ProgressQuotient {
        /// What was watched.
        metric: String,
        /// `percent / progress`.
        quotient: f64,
        /// The quotient's limit.
        alpha: f64,
        /// Generalisation loss in percent.
        percent: f64,
        /// Training progress in the strip, in per mille.
        progress: f64,
    },
    /// The value rose strip after strip.
    RisingStrips {
        /// What was watched.
        metric: String,
        /// Successive strips with a rise.
        rises: u32,
        /// Evaluations per strip.
        k: u32,
    },
    /// Training still improves while the watched value gets worse.
    Correlation {
        /// What was watched.
        metric: String,
        /// Pearson correlation with the training loss.
        correlation: f64,
        /// The limit.
        threshold: f64,
        /// Evaluations looked at.
        k: u32,
    },
    /// No statistically significant improvement for too long.
    NotSignificant {
        /// Evaluations since the anchor without one.
        bad: u32,
        /// How many were allowed.
        patience: u32,
        /// The test statistic of this evaluation against the anchor; `None` if it was not finite.
        t: Option<f64>,
        /// What it should have exceeded.
        z: f64,
        /// The last significant improvement.
        anchor: Option<Best>,
    },
    /// The goal is reached.
    Target {
        /// What was watched.
        metric: String,
        /// The value.
        value: f64,
        /// The goal.
        target: f64,
    },
    /// The value is far worse than at the start.
    Divergence {
        /// What was watched.
        metric: String,
        /// The value.
        value: f64,
        /// The first value.
        first: f64,
        /// How many times it was allowed to grow.
        factor: f64,
    },
    /// A limit is used up.
    Budget {
        /// `"epochs"`, `"steps"` or `"seconds"`.
        unit: &'static str,
        /// Used so far.
        used: f64,
        /// Allowed.
        limit: f64,
    },
    /// A value that is not a number.
    NonFinite {
        /// What was watched.
        metric: String,
        /// NaN or an infinity.
        #[serde(with = "super::float")]
        value: f64,
        /// When.
        epoch: u64,
    },
    /// A rule needs something that was not measured, so it could never fire.
    Missing {
        /// What is missing.
        what: String,
        /// When.
        epoch: u64,
        /// What was measured.
        measured: Vec<String>,
    },
    /// Several rules agreed.
    Several(
        /// Their reasons.
        Vec<StopReason>,
    ),
}

fn since(anchor: Option<Best>) -> String {
    match anchor {
        Some(Best { epoch, value, .. }) => {
            format!("the last real improvement was {} at epoch {epoch}", short(value))
        }
        None => "no value was ever finite".to_owned(),
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Patience { metric, bad, patience, anchor } => write!(
                f,
                "{metric} has not improved for {} (patience {patience}); {}",
                counted(u64::from(*bad), "evaluation"),
                since(*anchor)
            ),
            StopReason::GeneralizationLoss { metric, percent, alpha, value, best } => write!(
                f,
                "{metric} is {}, which is {}% worse than its best, {} (limit {alpha}%): the model \
                 begins to memorise the training data",
                short(*value),
                short(*percent),
                short(*best)
            ),
            StopReason::ProgressQuotient { metric, quotient, alpha, percent, progress } => write!(
                f,
                "{metric} is {}% worse than its best while the training loss hardly falls any more \
                 (progress {} per mille): quotient {} exceeds {alpha}",
                short(*percent),
                short(*progress),
                short(*quotient)
            ),
            StopReason::RisingStrips { metric, rises, k } => write!(
                f,
                "{metric} got worse in {} in a row, of {} each",
                counted(u64::from(*rises), "strip"),
                counted(u64::from(*k), "evaluation")
            ),
            StopReason::Correlation { metric, correlation, threshold, k } => write!(
                f,
                "over the last {k} evaluations {metric} gets worse while the training loss still \
                 falls: correlation {} is below {threshold}",
                short(*correlation)
            ),
            StopReason::NotSignificant { bad, patience, t, z, anchor } => {
                write!(
                    f,
                    "no improvement of valid_loss beyond chance for {} (patience {patience}",
                    counted(u64::from(*bad), "evaluation")
                )?;
                if let Some(t) = t {
                    write!(f, "; t = {} where {z} would be significant", short(*t))?;
                }
                write!(f, "); {}", since(*anchor))
            }
            StopReason::Target { metric, value, target } => {
                write!(f, "{metric} reached {}, the target was {target}", short(*value))
            }
            StopReason::Divergence { metric, value, first, factor } => write!(
                f,
                "{metric} is {}, it began at {} and may grow {factor} times: training diverges, \
                 try a lower learning rate",
                short(*value),
                short(*first)
            ),
            StopReason::Budget { unit, used, limit } => {
                let used = if used.fract() == 0.0 { used.to_string() } else { short(*used) };
                write!(f, "the budget of {limit} {unit} is used up ({used})")
            }
            StopReason::NonFinite { metric, value, epoch } => write!(
                f,
                "{metric} is {value} at epoch {epoch}: the weights are broken, try a lower \
                 learning rate or clip the gradients"
            ),
            StopReason::Missing { what, epoch, measured } => write!(
                f,
                "the stopping rule needs `{what}`, which was not measured at epoch {epoch}; there \
                 is only {}",
                measured.join(", ")
            ),
            StopReason::Several(reasons) => {
                reasons.iter().enumerate().try_for_each(|(i, reason)| {
                    let and = if i == 0 { "" } else { "; and " };
                    write!(f, "{and}{reason}")
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_sentences_with_their_numbers() {
        let metric = || "valid_loss".to_owned();
        let anchor = Some(Best { epoch: 2, value: 0.5, index: 1 });
        for (reason, text) in [
            (
                StopReason::GeneralizationLoss {
                    metric: metric(),
                    percent: 6.25,
                    alpha: 5.0,
                    value: 0.5321,
                    best: 0.5,
                },
                "valid_loss is 0.5321, which is 6.250% worse than its best, 0.5000 (limit 5%): the \
                 model begins to memorise the training data",
            ),
            (
                StopReason::RisingStrips { metric: metric(), rises: 3, k: 5 },
                "valid_loss got worse in 3 strips in a row, of 5 evaluations each",
            ),
            (
                StopReason::NotSignificant { bad: 1, patience: 1, t: Some(0.5), z: 1.645, anchor },
                "no improvement of valid_loss beyond chance for 1 evaluation (patience 1; t = \
                 0.5000 where 1.645 would be significant); the last real improvement was 0.5000 at \
                 epoch 2",
            ),
            (
                StopReason::Several(vec![
                    StopReason::Target { metric: metric(), value: 0.09, target: 0.1 },
                    StopReason::Budget { unit: "epochs", used: 9.0, limit: 9.0 },
                ]),
                "valid_loss reached 0.09000, the target was 0.1; and the budget of 9 epochs is used \
                 up (9)",
            ),
            (
                StopReason::Budget { unit: "seconds", used: 0.342160044, limit: 0.3 },
                "the budget of 0.3 seconds is used up (0.3422)",
            ),
            (
                StopReason::NonFinite { metric: metric(), value: f64::NAN, epoch: 3 },
                "valid_loss is NaN at epoch 3: the weights are broken, try a lower learning rate \
                 or clip the gradients",
            ),
        ] {
            assert_eq!(reason.to_string(), text);
        }
    }
}
