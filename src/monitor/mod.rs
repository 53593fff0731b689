//! Early stopping: a state machine that looks at evaluations and says when to stop, and why.
//!
//! ```
//! use ferrotape::monitor::{EarlyStopping, Monitor, Observation};
//!
//! let mut monitor = Monitor::new(EarlyStopping::patience(3))?;
//! let mut stopped = None;
//! for (epoch, loss) in (1..).zip([1.0, 0.9, 0.95, 0.96, 0.97]) {
//!     let verdict = monitor.observe(Observation::new(epoch, loss));
//!     if let Some(reason) = verdict.stop_reason() {
//!         stopped = Some((epoch, reason.to_string()));
//!         break;
//!     }
//! }
//! let (epoch, reason) = stopped.unwrap();
//! assert_eq!(epoch, 5);
//! assert_eq!(monitor.best().unwrap().epoch, 2);
//! assert_eq!(
//!     reason,
//!     "valid_loss has not improved for 3 evaluations (patience 3); \
//!      the last real improvement was 0.9000 at epoch 2"
//! );
//! # Ok::<(), ferrotape::Error>(())
//! ```
//!
//! # The idea
//!
//! The monitor is a pure fold over the history of evaluations:
//!
//! ```text
//! state = fold(specification, history)        no clock, no files, no randomness
//! ```
//!
//! Everything else follows. A resumed run derives the state from the recorded history instead of
//! trusting a stored counter, also under a changed specification ([`Monitor::replay`]); and what
//! another rule would have done is known without training again ([`compare`]).
//!
//! At each evaluation:
//!
//! ```text
//! 1  best:     lowest raw finite value so far, earliest on ties       -> what to restore
//! 2  smooth each watched metric; every rule takes the value in        -> readings
//! 3  missing measurement?   NaN policy?   rules composed?             -> decision
//! 4  diagnosis of the curves, independent of the rules                -> advice
//! ```
//!
//! | suppresses        | patience, paired, gl, pq, up, correlation, divergence | target | budget | NaN stop |
//! |-------------------|---|---|---|---|
//! | warm-up, grace    | yes | no  | no | no |
//! | `min_epochs`      | yes | yes | no | no |

mod compare;
mod correlation;
mod criterion;
mod diagnosis;
mod float;
mod limits;
mod log;
mod observation;
mod parse;
mod patience;
mod prechelt;
mod rule;
mod series;
mod spec;
mod tracker;
mod verdict;
mod warnings;

pub use compare::{Comparison, compare, verdicts};
pub use diagnosis::{Condition, Diagnosis};
pub use log::read_log;
pub use observation::{Observation, TRAIN_LOSS, VALID_LOSS};
pub use rule::{Budget, MinDelta, Mode, Rule};
pub use spec::{EarlyStopping, NanPolicy, Smoothing};
pub use tracker::Best;
pub use verdict::{Decision, Reading, StopReason, Verdict};
pub use warnings::TrainingPlan;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use criterion::{Criterion, Moment, Outcome};
use series::Series;

/// A change of the learning rate by this factor, up or down, opens the period of
/// [`EarlyStopping::grace_after_lr_change`]. The small steps of a smooth schedule do not.
pub const LR_JUMP: f64 = 1.25;

/// A specification at work: the history so far and what follows from it.
///
/// Serialized as specification and history alone; reading it back derives the state anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Recorded")]
pub struct Monitor {
    spec: EarlyStopping,
    history: Vec<Observation>,
    #[serde(skip)]
    state: State,
    #[serde(skip)]
    last: Option<Verdict>,
}

/// What a serialized monitor holds.
#[derive(Deserialize)]
struct Recorded {
    spec: EarlyStopping,
    history: Vec<Observation>,
}

impl TryFrom<Recorded> for Monitor {
    type Error = crate::error::Error;

    fn try_from(recorded: Recorded) -> Result<Monitor> {
        Monitor::replay(recorded.spec, recorded.history)
    }
}

impl Monitor {
    /// A monitor that has seen nothing.
    ///
    /// # Errors
    ///
    /// Those of [`EarlyStopping::check`].
    pub fn new(spec: EarlyStopping) -> Result<Monitor> {
        spec.check()?;
        let state = State::new(&spec);
        Ok(Monitor { spec, history: Vec::new(), state, last: None })
    }

    /// The monitor that has observed exactly `history`: how a run is resumed.
    ///
    /// # Errors
    ///
    /// Those of [`EarlyStopping::check`].
    pub fn replay(
        spec: EarlyStopping,
        history: impl IntoIterator<Item = Observation>,
    ) -> Result<Monitor> {
        let mut monitor = Monitor::new(spec)?;
        for observation in history {
            monitor.observe(observation);
        }
        Ok(monitor)
    }

    /// Takes in one evaluation and judges the run. May go on after a stop: verdicts are never
    /// latched.
    pub fn observe(&mut self, observation: Observation) -> Verdict {
        self.history.push(observation);
        let verdict = self.state.step(&self.spec, &self.history);
        self.last = Some(verdict.clone());
        verdict
    }

    /// The specification.
    pub fn spec(&self) -> &EarlyStopping {
        &self.spec
    }

    /// Every evaluation observed, oldest first.
    pub fn history(&self) -> &[Observation] {
        &self.history
    }

    /// The best evaluation so far: the lowest (for `max`: highest) raw finite value, the earliest
    /// one on ties.
    pub fn best(&self) -> Option<Best> {
        self.state.best
    }

    /// The verdict on the last evaluation. After a replay it says whether the run had ended.
    pub fn last(&self) -> Option<&Verdict> {
        self.last.as_ref()
    }
}

/// All that is remembered between evaluations besides the history itself.
#[derive(Debug, Clone, PartialEq)]
struct State {
    /// The stopping rule, with all defaults filled in.
    rule: Rule,
    /// The metrics that rules watch; the first one is the monitored metric.
    series: Vec<Series>,
    /// The simple rules inside `rule` from left to right.
    leaves: Vec<Leaf>,
    best: Option<Best>,
    /// Evaluations of the current grace period that are still to come.
    grace: u32,
}

#[derive(Debug, Clone, PartialEq)]
struct Leaf {
    criterion: Criterion,
    /// The rule's text form.
    text: String,
    /// Which of the series it watches.
    series: usize,
}

impl State {
    fn new(spec: &EarlyStopping) -> State {
        let rule = spec.stopping_rule();
        let mut series = vec![Series::new(&spec.monitor, spec.mode, spec.smoothing)];
        let mut leaves = Vec::new();
        plant(&rule, 0, spec.smoothing, &mut series, &mut leaves);
        State { rule, series, leaves, best: None, grace: 0 }
    }

    /// Judges the last evaluation of `history`, knowing those before.
    fn step(&mut self, spec: &EarlyStopping, history: &[Observation]) -> Verdict {
        let index = history.len() - 1;
        let now = &history[index];
        if lr_jumped(history) {
            self.grace = spec.grace_after_lr_change;
        }
        let counts = index >= spec.warm_up as usize && self.grace == 0;
        self.grace = self.grace.saturating_sub(1);

        // 1, 2
        let mut missing = None;
        let mut non_finite = None;
        for series in &mut self.series {
            series.read(now);
            missing = missing.or_else(|| series.missing());
            non_finite = non_finite.or_else(|| series.non_finite(now));
        }
        let new_best = self.update_best(index, now);
        let mut readings = Vec::with_capacity(self.leaves.len());
        let mut fired = Vec::with_capacity(self.leaves.len());
        for leaf in &mut self.leaves {
            let series = &self.series[leaf.series];
            let moment = Moment {
                history,
                metric: &series.metric,
                mode: series.mode,
                raw: series.raw,
                signed: series.signed,
                counts,
            };
            let finding = leaf.criterion.judge(&moment);
            let reason = match finding.outcome {
                Outcome::Fires(reason) => Some(reason),
                Outcome::Quiet => None,
                Outcome::Missing(what) => {
                    missing.get_or_insert_with(|| what.to_owned());
                    None
                }
            };
            // Asked at every evaluation and forgotten again: what min_epochs suppresses now may
            // not hold any more when the epoch comes.
            let reason =
                reason.filter(|_| now.epoch >= spec.min_epochs || leaf.criterion.is_budget());
            readings.push(Reading {
                rule: leaf.text.clone(),
                value: finding.value,
                threshold: finding.threshold,
                fires: reason.is_some(),
            });
            fired.push(reason);
        }

        // 3
        let bad_value = non_finite.is_some();
        let stop = if let Some(what) = missing {
            let measured = now.names().into_iter().map(str::to_owned).collect();
            Some(StopReason::Missing { what, epoch: now.epoch, measured })
        } else if let (Some((metric, value)), NanPolicy::Stop) = (non_finite, spec.nan_policy) {
            Some(StopReason::NonFinite { metric, value, epoch: now.epoch })
        } else {
            let mut reasons = Vec::new();
            let holds = compose(&self.rule, &mut fired.into_iter(), &mut reasons);
            match reasons.len() {
                1 if holds => reasons.pop(),
                _ => holds.then_some(StopReason::Several(reasons)),
            }
        };

        let patience = self.leaves.iter().filter_map(|leaf| leaf.criterion.patience());
        let tightest = patience
            .map(|(anchor, patience)| (patience.saturating_sub(anchor.bad), anchor.at))
            .min_by_key(|(left, _)| *left);
        Verdict {
            decision: stop.map_or(Decision::Continue, Decision::Stop),
            new_best,
            best: self.best,
            anchor: tightest.and_then(|(_, anchor)| anchor),
            patience_left: tightest.map(|(left, _)| left),
            roll_back: bad_value && spec.nan_policy == NanPolicy::RollBack,
            readings,
            diagnosis: diagnosis::diagnose(history, &self.series[0], self.best),
        }
    }

    /// Makes the evaluation at `index` the best one if its raw value is finite and better.
    fn update_best(&mut self, index: usize, now: &Observation) -> bool {
        let Series { mode, raw, signed, .. } = self.series[0];
        let better = self.best.is_none_or(|best| mode.signed(raw) < mode.signed(best.value));
        let new_best = signed.is_some() && better;
        if new_best {
            self.best = Some(Best { epoch: now.epoch, value: raw, index });
        }
        new_best
    }
}

/// Collects the simple rules inside `rule`, and the series they watch.
fn plant(
    rule: &Rule,
    watched: usize,
    smoothing: Smoothing,
    series: &mut Vec<Series>,
    leaves: &mut Vec<Leaf>,
) {
    let mut watched = watched;
    if let Rule::On { metric, mode, .. } = rule {
        let known = series.iter().position(|s| s.metric == *metric && s.mode == *mode);
        watched = known.unwrap_or_else(|| {
            series.push(Series::new(metric, *mode, smoothing));
            series.len() - 1
        });
    }
    match Criterion::new(rule) {
        Some(criterion) => leaves.push(Leaf { criterion, text: rule.to_string(), series: watched }),
        None => rule
            .children()
            .iter()
            .for_each(|child| plant(child, watched, smoothing, series, leaves)),
    }
}

/// Does `rule` hold, given what its simple rules say from left to right? If so, their reasons are
/// added to `reasons`.
fn compose(
    rule: &Rule,
    fired: &mut impl Iterator<Item = Option<StopReason>>,
    reasons: &mut Vec<StopReason>,
) -> bool {
    let children = rule.children();
    let needed = match rule {
        Rule::All(_) => children.len(),
        Rule::AtLeast { count, .. } => *count as usize,
        Rule::Any(_) | Rule::On { .. } => 1,
        _ => {
            let reason = fired.next().flatten();
            let holds = reason.is_some();
            reasons.extend(reason);
            return holds;
        }
    };
    let before = reasons.len();
    // Every child is asked, because each one takes its own share of `fired`.
    let held = children.iter().filter(|child| compose(child, fired, reasons)).count();
    if held < needed {
        reasons.truncate(before);
    }
    held >= needed
}

/// Did the learning rate change by at least [`LR_JUMP`] since the evaluation before?
fn lr_jumped(history: &[Observation]) -> bool {
    let [.., before, now] = history else { return false };
    let (Some(a), Some(b)) = (before.lr, now.lr) else { return false };
    a != b && a.max(b) >= LR_JUMP * a.min(b)
}
