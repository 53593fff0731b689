//! The fold itself: how one more evaluation changes the state, and the verdict that follows.
//!
//! ```text
//! 1  warm-up or grace period?                                         -> does it count
//! 2  read and smooth each watched metric; is it the lowest raw value? -> best, what to restore
//! 3  every simple rule takes the evaluation in                        -> readings
//! 4  missing measurement? NaN policy? what do the rules compose to?   -> decision
//! 5  look at the curves, whatever the rules say                       -> diagnosis
//! ```

use super::criterion::{Criterion, Moment, Outcome};
use super::diagnosis::diagnose;
use super::observation::Observation;
use super::rule::Rule;
use super::series::Series;
use super::spec::{EarlyStopping, NanPolicy, Smoothing};
use super::tracker::Best;
use super::verdict::{Decision, Reading, StopReason, Verdict};

/// A change of the learning rate by this factor, up or down, opens the period of
/// [`EarlyStopping::grace_after_lr_change`]. The small steps of a smooth schedule do not.
pub const LR_JUMP: f64 = 1.25;

/// All that is remembered between evaluations besides the history itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    /// The stopping rule, with all defaults filled in.
    rule: Rule,
    /// The metrics that rules watch; the first one is the monitored metric.
    series: Vec<Series>,
    /// The simple rules inside `rule` from left to right.
    leaves: Vec<Leaf>,
    pub(super) best: Option<Best>,
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

/// What the simple rules found, from left to right.
struct Findings {
    readings: Vec<Reading>,
    fired: Vec<Option<StopReason>>,
    /// A measurement without which one of them can never fire.
    missing: Option<String>,
}

impl State {
    pub(super) fn new(spec: &EarlyStopping) -> State {
        let rule = spec.stopping_rule();
        let mut series = vec![Series::new(&spec.monitor, spec.mode, spec.smoothing)];
        let mut leaves = Vec::new();
        plant(&rule, 0, spec.smoothing, &mut series, &mut leaves);
        State { rule, series, leaves, best: None, grace: 0 }
    }

    /// Judges the last evaluation of `history`, knowing those before.
    pub(super) fn step(&mut self, spec: &EarlyStopping, history: &[Observation]) -> Verdict {
        let index = history.len() - 1;
        let now = &history[index];

        // 1
        if lr_jumped(history) {
            self.grace = spec.grace_after_lr_change;
        }
        let counts = index >= spec.warm_up as usize && self.grace == 0;
        self.grace = self.grace.saturating_sub(1);

        // 2
        self.series.iter_mut().for_each(|series| series.read(now));
        let non_finite = self.series.iter().find_map(|series| series.non_finite(now));
        let broken = non_finite.is_some();
        let new_best = self.update_best(index, now);

        // 3
        let Findings { readings, fired, missing } = self.judge(spec, history, counts);

        // 4
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

        let tightest = self.most_impatient();
        Verdict {
            decision: stop.map_or(Decision::Continue, Decision::Stop),
            new_best,
            best: self.best,
            anchor: tightest.and_then(|(_, anchor)| anchor),
            patience_left: tightest.map(|(left, _)| left),
            roll_back: broken && spec.nan_policy == NanPolicy::RollBack,
            readings,
            // 5
            diagnosis: diagnose(history, &self.series[0], self.best),
        }
    }

    /// Lets every simple rule take in the last evaluation.
    fn judge(&mut self, spec: &EarlyStopping, history: &[Observation], counts: bool) -> Findings {
        let epoch = history[history.len() - 1].epoch;
        let missing = self.series.iter().find_map(Series::missing);
        let mut findings = Findings { readings: Vec::new(), fired: Vec::new(), missing };
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
                Outcome::Quiet => None,
                Outcome::Fires(reason) => Some(reason),
                Outcome::Missing(what) => {
                    findings.missing.get_or_insert_with(|| what.to_owned());
                    None
                }
            };
            // Asked at every evaluation and forgotten again: what min_epochs suppresses now may
            // not hold any more when the epoch comes.
            let may_stop = epoch >= spec.min_epochs || leaf.criterion.is_budget();
            let reason = reason.filter(|_| may_stop);
            findings.readings.push(Reading {
                rule: leaf.text.clone(),
                value: finding.value,
                threshold: finding.threshold,
                fires: reason.is_some(),
            });
            findings.fired.push(reason);
        }
        findings
    }

    /// The smallest patience left among the rules that count it, and from where they count.
    fn most_impatient(&self) -> Option<(u32, Option<Best>)> {
        let patience = self.leaves.iter().filter_map(|leaf| leaf.criterion.patience());
        patience
            .map(|(anchor, patience)| (patience.saturating_sub(anchor.bad), anchor.at))
            .min_by_key(|(left, _)| *left)
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
