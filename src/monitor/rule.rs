//! When to stop, as data: the [`Rule`] tree, its constructors, its checks and its text form's
//! writing half (the reading half is `parse.rs`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::observation::VALID_LOSS;
use crate::error::{Error, Result};

/// Is a low or a high value of a metric the better one?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Lower is better, as for a loss.
    #[default]
    Min,
    /// Higher is better, as for an accuracy.
    Max,
}

impl Mode {
    /// Turns a value into one where lower is better, and back: the only place where the modes
    /// differ, so that `Max` on `x` is `Min` on `-x` by construction.
    pub(super) fn signed(self, value: f64) -> f64 {
        match self {
            Mode::Min => value,
            Mode::Max => -value,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Min => "min",
            Mode::Max => "max",
        })
    }
}

/// By how much a value has to improve on the anchor to count as an improvement for patience.
/// All of them are strict: an improvement by exactly this amount is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MinDelta {
    /// By a fixed amount in the metric's unit. `Absolute(0.0)` means any improvement.
    Absolute(f64),
    /// By this fraction of the anchor's magnitude, so that it works for negative scores too:
    /// `Relative(0.01)` wants -2.0 to become lower than -2.02, and 2.0 lower than 1.98.
    Relative(f64),
    /// By one standard error of the validation loss at the anchor (the "one standard error rule"
    /// of Breiman et al., 1984): what is smaller may be chance.
    Auto,
}

impl Default for MinDelta {
    fn default() -> Self {
        MinDelta::Absolute(0.0)
    }
}

impl fmt::Display for MinDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MinDelta::Absolute(delta) => write!(f, "{delta}"),
            MinDelta::Relative(fraction) => write!(f, "relative({fraction})"),
            MinDelta::Auto => f.write_str("auto"),
        }
    }
}

/// The limits of [`Rule::Budget`]; whichever is reached first stops the run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Budget {
    /// Epochs, counted from 1: stops after this epoch.
    pub epochs: Option<u64>,
    /// Optimizer steps.
    pub steps: Option<u64>,
    /// Seconds of training, as reported in [`Observation::elapsed`](super::Observation::elapsed).
    pub seconds: Option<f64>,
}

/// A condition under which training should stop.
///
/// Rules have a text form, which [`Display`](fmt::Display) writes and [`FromStr`] reads:
///
/// ```
/// use ferrotape::monitor::Rule;
/// let rule: Rule = "any(patience(5, min_delta=0.001), pq(0.75, k=5))".parse()?;
/// assert_eq!(rule.to_string(), "any(patience(5,min_delta=0.001),pq(0.75,k=5))");
/// # Ok::<(), ferrotape::Error>(())
/// ```
///
/// "Evaluation" below means one [`Observation`](super::Observation), usually one per epoch. The
/// lowest value so far, E_opt, the relative losses and all margins are understood for a metric
/// where lower is better; with [`Mode::Max`] everything is mirrored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rule {
    /// `patience(5)`, `patience(5,min_delta=0.001)`: this many bad evaluations in a row since the
    /// last significant improvement.
    Patience {
        /// Bad evaluations that stop the run; at least 1.
        evaluations: u32,
        /// What a significant improvement is; `None` takes the specification's.
        min_delta: Option<MinDelta>,
    },
    /// `gl(5)`: the generalisation loss `GL = 100 (E_va / E_opt - 1)`, in percent above the lowest
    /// value so far, exceeds `alpha` (Prechelt 1998).
    Gl {
        /// Percent.
        alpha: f64,
    },
    /// `pq(0.75,k=5)`: at the end of a strip of `k` evaluations, generalisation loss per training
    /// progress `GL / P_k` exceeds `alpha`, where `P_k = 1000 (sum / (k min) - 1)` of the strip's
    /// training losses (Prechelt 1998). Needs `train_loss`.
    Pq {
        /// The quotient's limit.
        alpha: f64,
        /// Evaluations per strip; at least 2.
        k: u32,
    },
    /// `up(3,k=5)`: the value rose at `s` successive ends of strips of `k` evaluations, no matter
    /// by how much (Prechelt 1998).
    Up {
        /// Successive rises; at least 1.
        s: u32,
        /// Evaluations per strip; at least 1.
        k: u32,
    },
    /// `correlation(-0.5,k=10)`: over the last `k` evaluations the training loss falls and its
    /// Pearson correlation with the value is below the threshold: what is learnt no longer
    /// generalises. Needs `train_loss`.
    Correlation {
        /// Between -1 and 1.
        threshold: f64,
        /// Evaluations looked at; at least 3.
        k: u32,
    },
    /// `paired(5,z=1.645)`: patience with a statistical `min_delta`. An evaluation is good only if
    /// a paired test on the per-example validation losses finds it better than the anchor: with
    /// `d` the examples' differences, `mean(d) / (sd(d) / sqrt(n)) > z`. Pairing removes the
    /// spread between easy and hard examples, so it sees much smaller improvements than
    /// [`MinDelta::Auto`]. Needs `example_losses`.
    Paired {
        /// Evaluations without a significant improvement that stop the run; at least 1.
        evaluations: u32,
        /// One-sided normal quantile; 1.645 is the 5% level.
        z: f64,
    },
    /// `target(0.1)`: the raw value is at least as good as this. Reaching a goal is never bad
    /// news, so it also stops a run in its warm-up.
    Target {
        /// The goal, in the metric's unit.
        value: f64,
    },
    /// `divergence(2)`: the value is worse than the first one by more than `factor - 1` times its
    /// magnitude: a loss above `factor` times where it began.
    Divergence {
        /// More than 1.
        factor: f64,
    },
    /// `budget(epochs=10)`, `budget(steps=5000,seconds=60)`: a limit is reached. Never suppressed
    /// by warm-up or `min_epochs`.
    Budget(Budget),
    /// `any(..)`: one of the rules holds.
    Any(Vec<Rule>),
    /// `all(..)`: all of them hold at the same evaluation.
    All(Vec<Rule>),
    /// `at_least(2,..)`: that many of them hold at the same evaluation.
    AtLeast {
        /// How many; at least 1 and at most the number of rules.
        count: u32,
        /// The rules.
        rules: Vec<Rule>,
    },
    /// `on(accuracy,max,patience(5))`: the rule inside looks at another metric.
    On {
        /// A name known to [`Observation::value`](super::Observation::value).
        metric: String,
        /// Which of its values are the better ones.
        mode: Mode,
        /// The rule.
        rule: Box<Rule>,
    },
}

impl Rule {
    /// Rules nested more deeply than this are refused, so that no input can exhaust the stack.
    pub const MAX_DEPTH: usize = 16;

    /// [`Rule::Patience`] with the specification's `min_delta`.
    pub fn patience(evaluations: u32) -> Rule {
        Rule::Patience { evaluations, min_delta: None }
    }

    /// [`Rule::Gl`].
    pub fn gl(alpha: f64) -> Rule {
        Rule::Gl { alpha }
    }

    /// [`Rule::Pq`].
    pub fn pq(alpha: f64, k: u32) -> Rule {
        Rule::Pq { alpha, k }
    }

    /// [`Rule::Up`].
    pub fn up(s: u32, k: u32) -> Rule {
        Rule::Up { s, k }
    }

    /// [`Rule::Correlation`].
    pub fn correlation(threshold: f64, k: u32) -> Rule {
        Rule::Correlation { threshold, k }
    }

    /// [`Rule::Paired`].
    pub fn paired(evaluations: u32, z: f64) -> Rule {
        Rule::Paired { evaluations, z }
    }

    /// [`Rule::Target`].
    pub fn target(value: f64) -> Rule {
        Rule::Target { value }
    }

    /// [`Rule::Divergence`].
    pub fn divergence(factor: f64) -> Rule {
        Rule::Divergence { factor }
    }

    /// [`Rule::Budget`] of epochs alone.
    pub fn epochs(epochs: u64) -> Rule {
        Rule::Budget(Budget { epochs: Some(epochs), ..Budget::default() })
    }

    /// [`Rule::Any`].
    pub fn any(rules: impl Into<Vec<Rule>>) -> Rule {
        Rule::Any(rules.into())
    }

    /// [`Rule::All`].
    pub fn all(rules: impl Into<Vec<Rule>>) -> Rule {
        Rule::All(rules.into())
    }

    /// [`Rule::AtLeast`].
    pub fn at_least(count: u32, rules: impl Into<Vec<Rule>>) -> Rule {
        Rule::AtLeast { count, rules: rules.into() }
    }

    /// [`Rule::On`].
    pub fn on(metric: impl Into<String>, mode: Mode, rule: Rule) -> Rule {
        Rule::On { metric: metric.into(), mode, rule: Box::new(rule) }
    }

    /// The rules directly inside a composed rule; empty for all others.
    pub fn children(&self) -> &[Rule] {
        match self {
            Rule::Any(rules) | Rule::All(rules) | Rule::AtLeast { rules, .. } => rules,
            Rule::On { rule, .. } => std::slice::from_ref(rule),
            _ => &[],
        }
    }

    /// Calls `visit` with this rule and every rule inside it, parents first.
    pub(super) fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Rule)) {
        visit(self);
        self.children().iter().for_each(|rule| rule.walk(visit));
    }

    /// Gives every patience rule inside that has no `min_delta` this one.
    pub(super) fn set_min_delta(&mut self, delta: MinDelta) {
        match self {
            Rule::Patience { min_delta, .. } => *min_delta = min_delta.or(Some(delta)),
            Rule::Any(rules) | Rule::All(rules) | Rule::AtLeast { rules, .. } => {
                rules.iter_mut().for_each(|rule| rule.set_min_delta(delta));
            }
            Rule::On { rule, .. } => rule.set_min_delta(delta),
            _ => {}
        }
    }

    /// Is every parameter of this rule, and of those inside, one that can work? `metric` is the
    /// name the rule looks at.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the rule, the parameter and what would be accepted.
    pub(super) fn check(&self, metric: &str, depth: usize) -> Result<()> {
        if depth >= Self::MAX_DEPTH {
            return Err(Error::config("rule", format!("nested over {} deep", Self::MAX_DEPTH)));
        }
        let need = |holds: bool, reason: &str| match holds {
            true => Ok(()),
            false => Err(Error::config(self.to_string(), reason)),
        };
        let losses_only = "compares validation losses, so it cannot be used on another metric";
        match self {
            Rule::Patience { evaluations, min_delta } => {
                need(*evaluations > 0, NO_PATIENCE)?;
                if let Some(delta) = min_delta {
                    delta.check(metric)?;
                }
                Ok(())
            }
            Rule::Gl { alpha } => need(above(*alpha, 0.0), "alpha must be above 0 percent"),
            Rule::Pq { alpha, k } => {
                need(above(*alpha, 0.0), "alpha must be above 0")?;
                need(*k >= 2, "the strip length k must be at least 2 evaluations")
            }
            Rule::Up { s, k } => {
                need(*s > 0, "the number of rises must be at least 1")?;
                need(*k > 0, "the strip length k must be at least 1 evaluation")
            }
            Rule::Correlation { threshold, k } => {
                need((-1.0..=1.0).contains(threshold), "the threshold must be from -1 to 1")?;
                need(*k >= 3, "k must be at least 3: two points always correlate perfectly")
            }
            Rule::Paired { evaluations, z } => {
                need(*evaluations > 0, NO_PATIENCE)?;
                need(above(*z, 0.0), "z must be above 0; 1.645 is the 5% level")?;
                need(metric == VALID_LOSS, losses_only)
            }
            Rule::Target { value } => need(value.is_finite(), "the target must be finite"),
            Rule::Divergence { factor } => {
                need(above(*factor, 1.0), "the factor must be above 1, for example 2")
            }
            Rule::Budget(budget) => {
                let Budget { epochs, steps, seconds } = *budget;
                let any = epochs.is_some() || steps.is_some() || seconds.is_some();
                need(any, "give at least one of epochs=, steps=, seconds=")?;
                need(epochs != Some(0) && steps != Some(0), "a budget of 0 trains nothing")?;
                need(seconds.is_none_or(|s| above(s, 0.0)), "seconds must be above 0")
            }
            Rule::Any(rules) | Rule::All(rules) | Rule::AtLeast { rules, .. } => {
                need(!rules.is_empty(), "needs at least one rule inside")?;
                if let Rule::AtLeast { count, .. } = self {
                    let some = (1..=rules.len()).contains(&(*count as usize));
                    need(some, "the count must be from 1 to the number of rules")?;
                }
                rules.iter().try_for_each(|rule| rule.check(metric, depth + 1))
            }
            Rule::On { metric, rule, .. } => {
                check_metric_name(metric)?;
                rule.check(metric, depth + 1)
            }
        }
    }
}

/// The answer to `patience(0)`.
const NO_PATIENCE: &str = "patience must be at least 1 evaluation: 1 stops at the first \
                           evaluation that is no improvement; to never stop, use no patience rule";

/// Can the text form hold this metric's name?
pub(super) fn check_metric_name(metric: &str) -> Result<()> {
    let plain = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    let good = metric.starts_with(|c: char| c.is_alphabetic() || c == '_');
    match good && metric.chars().all(plain) {
        true => Ok(()),
        false => Err(Error::config(
            format!("metric `{metric}`"),
            "a name begins with a letter and goes on with letters, digits, `_`, `-`, `.` or `/`",
        )),
    }
}

/// `x > bound`, and finite.
fn above(x: f64, bound: f64) -> bool {
    x.is_finite() && x > bound
}

impl MinDelta {
    /// Can it be used for `metric`?
    pub(super) fn check(self, metric: &str) -> Result<()> {
        let fault = match self {
            MinDelta::Absolute(delta) | MinDelta::Relative(delta)
                if !(delta.is_finite() && delta >= 0.0) =>
            {
                "must be finite and not negative; the mode says which direction is better"
            }
            MinDelta::Auto if metric != VALID_LOSS => {
                "auto needs the standard error, which is only known for valid_loss"
            }
            _ => return Ok(()),
        };
        Err(Error::config(format!("min_delta={self}"), fault))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Patience { evaluations, min_delta: None } => write!(f, "patience({evaluations})"),
            Rule::Patience { evaluations, min_delta: Some(delta) } => {
                write!(f, "patience({evaluations},min_delta={delta})")
            }
            Rule::Gl { alpha } => write!(f, "gl({alpha})"),
            Rule::Pq { alpha, k } => write!(f, "pq({alpha},k={k})"),
            Rule::Up { s, k } => write!(f, "up({s},k={k})"),
            Rule::Correlation { threshold, k } => write!(f, "correlation({threshold},k={k})"),
            Rule::Paired { evaluations, z } => write!(f, "paired({evaluations},z={z})"),
            Rule::Target { value } => write!(f, "target({value})"),
            Rule::Divergence { factor } => write!(f, "divergence({factor})"),
            Rule::Budget(Budget { epochs, steps, seconds }) => {
                let limits = [
                    epochs.map(|n| format!("epochs={n}")),
                    steps.map(|n| format!("steps={n}")),
                    seconds.map(|s| format!("seconds={s}")),
                ];
                let limits: Vec<String> = limits.into_iter().flatten().collect();
                write!(f, "budget({})", limits.join(","))
            }
            Rule::Any(rules) => write!(f, "any({})", List(rules)),
            Rule::All(rules) => write!(f, "all({})", List(rules)),
            Rule::AtLeast { count, rules } => write!(f, "at_least({count},{})", List(rules)),
            Rule::On { metric, mode, rule } => write!(f, "on({metric},{mode},{rule})"),
        }
    }
}

/// Rules separated by commas.
struct List<'a>(&'a [Rule]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(i, rule)| {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{rule}")
        })
    }
}

impl FromStr for Rule {
    type Err = Error;

    /// Reads the text form.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the position of the fault and what was expected there, or the
    /// parameter that cannot work.
    fn from_str(text: &str) -> Result<Rule> {
        let rule = super::parse::rule(text)?;
        rule.check(VALID_LOSS, 0).map(|()| rule)
    }
}

impl TryFrom<String> for Rule {
    type Error = Error;

    fn try_from(text: String) -> Result<Rule> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> String {
        rule.to_string()
    }
}
