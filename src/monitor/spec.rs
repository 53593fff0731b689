//! What to watch and how: the settings of a monitor, built in one chain and checked as a whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::observation::{Observation, VALID_LOSS};
use super::rule::{MinDelta, Mode, Rule, check_metric_name};
use crate::error::{Error, Result};

/// Evens out a noisy metric before the rules look at it. Best is always found on raw values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Smoothing {
    /// Rules see the raw values.
    #[default]
    None,
    /// The mean of the last `n` finite values.
    Mean(u32),
    /// The median of the last `n` finite values: a single outlier leaves no trace.
    Median(u32),
    /// Exponential moving average `s <- beta s + (1 - beta) x`, begun at the first value.
    Ema(f64),
}

impl fmt::Display for Smoothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Smoothing::None => f.write_str("none"),
            Smoothing::Mean(n) => write!(f, "mean({n})"),
            Smoothing::Median(n) => write!(f, "median({n})"),
            Smoothing::Ema(beta) => write!(f, "ema({beta})"),
        }
    }
}

/// What a NaN or infinite value does. Under every policy it is never best, never resets patience
/// and never enters the smoothing. A NaN or infinite `valid_loss` counts as one even if another
/// metric is monitored: an accuracy computed from NaN outputs looks finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NanPolicy {
    /// Stops the run at once, also during warm-up and before `min_epochs`.
    #[default]
    Stop,
    /// Counts as one bad evaluation for the rules that count: patience, paired and up. The other
    /// rules skip it.
    CountAsBad,
    /// Counts as bad and asks the trainer to go back to the best weights, by
    /// [`Verdict::roll_back`](super::Verdict::roll_back).
    RollBack,
}

impl fmt::Display for NanPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NanPolicy::Stop => "stop",
            NanPolicy::CountAsBad => "count_as_bad",
            NanPolicy::RollBack => "roll_back",
        })
    }
}

/// The specification of a monitor. Nothing happens until [`Monitor::new`](super::Monitor::new)
/// has checked it.
///
/// ```
/// use ferrotape::monitor::{EarlyStopping, MinDelta, Mode, Monitor, Rule};
///
/// let spec = EarlyStopping::patience(5)
///     .min_delta(MinDelta::Absolute(1e-3))
///     .monitor("accuracy")
///     .mode(Mode::Max)
///     .warm_up(2)
///     .rule(Rule::target(0.99));
/// let text = "any(patience(5),target(0.99)), min_delta=0.001, monitor=accuracy, mode=max, warm_up=2";
/// assert_eq!(spec.to_string(), text);
/// assert_eq!(text.parse::<EarlyStopping>()?, spec);
///
/// assert!(Monitor::new(spec).is_ok());
/// assert!(Monitor::new(EarlyStopping::patience(0)).is_err());
/// # Ok::<(), ferrotape::Error>(())
/// ```
///
/// The text form, which is also how it is serialized, is the rule's, followed by every setting
/// that is not the default: `min_delta=0.01|relative(0.01)|auto`, `monitor=name`, `mode=min|max`,
/// `warm_up=n`, `min_epochs=n`, `smoothing=none|mean(n)|median(n)|ema(beta)`,
/// `nan_policy=stop|count_as_bad|roll_back`, `grace_after_lr_change=n`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EarlyStopping {
    rule: Rule,
    min_delta: Option<MinDelta>,
    pub(super) monitor: String,
    pub(super) mode: Mode,
    pub(super) warm_up: u32,
    pub(super) min_epochs: u64,
    pub(super) smoothing: Smoothing,
    pub(super) nan_policy: NanPolicy,
    pub(super) grace_after_lr_change: u32,
}

impl From<Rule> for EarlyStopping {
    fn from(rule: Rule) -> Self {
        EarlyStopping::new(rule)
    }
}

/// Patience 10, which `docs/early-stopping-study.md` recommends.
impl Default for EarlyStopping {
    fn default() -> Self {
        EarlyStopping::patience(10)
    }
}

impl EarlyStopping {
    /// Stops when `rule` holds; watches `valid_loss`, lower is better.
    pub fn new(rule: Rule) -> Self {
        EarlyStopping {
            rule,
            min_delta: None,
            monitor: VALID_LOSS.to_owned(),
            mode: Mode::Min,
            warm_up: 0,
            min_epochs: 0,
            smoothing: Smoothing::None,
            nan_policy: NanPolicy::Stop,
            grace_after_lr_change: 0,
        }
    }

    /// Stops after `evaluations` bad evaluations in a row since the last improvement; at least 1.
    ///
    /// With patience 3, the losses `1.0 .9 .95 .96 .97` stop the run at the fifth evaluation and
    /// the second is the best.
    pub fn patience(evaluations: u32) -> Self {
        EarlyStopping::new(Rule::patience(evaluations))
    }

    /// Stops *also* when `rule` holds. For other combinations see [`Rule::all`] and
    /// [`Rule::at_least`] with [`new`](Self::new).
    pub fn rule(mut self, rule: Rule) -> Self {
        match &mut self.rule {
            Rule::Any(rules) => rules.push(rule),
            first => *first = Rule::any([first.clone(), rule]),
        }
        self
    }

    /// How large an improvement must be to matter, for every patience rule that has no `min_delta`
    /// of its own.
    pub fn min_delta(mut self, delta: MinDelta) -> Self {
        self.min_delta = Some(delta);
        self
    }

    /// The name of the metric to watch; see [`Observation::value`](super::Observation::value).
    pub fn monitor(mut self, metric: impl Into<String>) -> Self {
        self.monitor = metric.into();
        self
    }

    /// Whether low or high values of the metric are better.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The first `evaluations` may become best, but are never held against the run: only target,
    /// budget and [`NanPolicy::Stop`] can end it then.
    pub fn warm_up(mut self, evaluations: u32) -> Self {
        self.warm_up = evaluations;
        self
    }

    /// No rule but a budget stops the run before the end of this epoch. Evaluations count as usual
    /// meanwhile, and the rules are asked again at each: a verdict is suppressed, not stored.
    pub fn min_epochs(mut self, epochs: u64) -> Self {
        self.min_epochs = epochs;
        self
    }

    /// What the rules see of the metric.
    pub fn smoothing(mut self, smoothing: Smoothing) -> Self {
        self.smoothing = smoothing;
        self
    }

    /// What a NaN or infinite value does.
    pub fn nan_policy(mut self, policy: NanPolicy) -> Self {
        self.nan_policy = policy;
        self
    }

    /// After the learning rate changed by a factor of at least
    /// [`LR_JUMP`](super::LR_JUMP) between two evaluations, the next `evaluations` (the first with
    /// the new rate included) do not count as bad.
    pub fn grace_after_lr_change(mut self, evaluations: u32) -> Self {
        self.grace_after_lr_change = evaluations;
        self
    }

    /// The rule that stops the run, with [`min_delta`](Self::min_delta) put where it applies.
    pub fn stopping_rule(&self) -> Rule {
        let mut rule = self.rule.clone();
        if let Some(delta) = self.min_delta {
            rule.set_min_delta(delta);
        }
        rule
    }

    /// The name of the metric that decides which evaluation is best.
    pub fn metric(&self) -> &str {
        &self.monitor
    }

    /// The names of all metrics that it looks at: that one, and those of [`Rule::On`].
    pub fn metrics(&self) -> Vec<&str> {
        let mut names = vec![self.metric()];
        self.rule.walk(&mut |rule| {
            if let Rule::On { metric, .. } = rule {
                names.push(metric);
            }
        });
        names
    }

    /// Whether low or high values of that metric are better.
    pub fn direction(&self) -> Mode {
        self.mode
    }

    /// The value with which an evaluation competes for best: that of the monitored metric, if it
    /// and the validation loss are finite.
    pub fn candidate(&self, seen: &Observation) -> Option<f64> {
        let finite = |value: &f64| value.is_finite() && seen.valid_loss.is_finite();
        seen.value(&self.monitor).filter(finite)
    }

    /// Does a rule compare the validation loss example by example, so that
    /// [`Observation::example_losses`](super::Observation::example_losses) must be recorded?
    pub fn needs_example_losses(&self) -> bool {
        self.uses(|rule| matches!(rule, Rule::Paired { .. }))
    }

    /// Does the specification need the standard error of the validation loss, either as
    /// `valid_loss_se` or through the per-example losses?
    pub fn needs_standard_error(&self) -> bool {
        self.uses(|rule| matches!(rule, Rule::Patience { min_delta: Some(MinDelta::Auto), .. }))
    }

    /// Does a rule need `train_loss`?
    pub fn needs_train_loss(&self) -> bool {
        self.uses(|rule| matches!(rule, Rule::Pq { .. } | Rule::Correlation { .. }))
    }

    fn uses(&self, found: impl Fn(&Rule) -> bool) -> bool {
        let mut any = false;
        self.stopping_rule().walk(&mut |rule| any |= found(rule));
        any
    }

    /// Can this specification work?
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the setting and what would be accepted: a patience of 0, a
    /// negative `min_delta`, an empty composition, a rule that cannot be used on its metric, a
    /// budget that ends before `min_epochs`, a smoothing without a window.
    pub fn check(&self) -> Result<()> {
        check_metric_name(&self.monitor)?;
        let rule = self.stopping_rule();
        rule.check(&self.monitor, 0)?;
        if let Some(delta) = self.min_delta
            && rule == self.rule
        {
            let reason = format!("no patience rule in {rule} would use it");
            return Err(Error::config(format!("min_delta={delta}"), reason));
        }
        let fault = match self.smoothing {
            Smoothing::Mean(0) | Smoothing::Median(0) => Some("the window must be at least 1"),
            Smoothing::Ema(beta) if !(0.0..1.0).contains(&beta) => {
                Some("beta must be at least 0 and below 1; 0.6 is moderate, 0.9 strong")
            }
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(Error::config(format!("smoothing={}", self.smoothing), fault));
        }
        let mut early = None;
        rule.walk(&mut |rule| match rule {
            Rule::Budget(budget) if budget.epochs.is_some_and(|n| n < self.min_epochs) => {
                early = Some(rule);
            }
            _ => {}
        });
        match early {
            None => Ok(()),
            Some(rule) => Err(Error::config(
                "min_epochs",
                format!(
                    "{} is more than {rule} allows; lower one or raise the other",
                    self.min_epochs
                ),
            )),
        }
    }
}

impl fmt::Display for EarlyStopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rule)?;
        let plain = EarlyStopping::new(self.rule.clone());
        if let Some(delta) = self.min_delta {
            write!(f, ", min_delta={delta}")?;
        }
        if self.monitor != plain.monitor {
            write!(f, ", monitor={}", self.monitor)?;
        }
        if self.mode != plain.mode {
            write!(f, ", mode={}", self.mode)?;
        }
        if self.warm_up != plain.warm_up {
            write!(f, ", warm_up={}", self.warm_up)?;
        }
        if self.min_epochs != plain.min_epochs {
            write!(f, ", min_epochs={}", self.min_epochs)?;
        }
        if self.smoothing != plain.smoothing {
            write!(f, ", smoothing={}", self.smoothing)?;
        }
        if self.nan_policy != plain.nan_policy {
            write!(f, ", nan_policy={}", self.nan_policy)?;
        }
        if self.grace_after_lr_change != plain.grace_after_lr_change {
            write!(f, ", grace_after_lr_change={}", self.grace_after_lr_change)?;
        }
        Ok(())
    }
}

impl FromStr for EarlyStopping {
    type Err = Error;

    /// Reads the text form: at least a rule.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the position of the fault and what was expected there, or those of
    /// [`check`](EarlyStopping::check).
    fn from_str(text: &str) -> Result<EarlyStopping> {
        let spec = super::parse::spec(text)?;
        spec.check().map(|()| spec)
    }
}

impl TryFrom<String> for EarlyStopping {
    type Error = Error;

    fn try_from(text: String) -> Result<EarlyStopping> {
        text.parse()
    }
}

impl From<EarlyStopping> for String {
    fn from(spec: EarlyStopping) -> String {
        spec.to_string()
    }
}
