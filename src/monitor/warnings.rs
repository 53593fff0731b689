//! Settings that are allowed but probably not meant: what a friend would mention before a long run.

use super::rule::{MinDelta, Mode, Rule};
use super::spec::{EarlyStopping, NanPolicy};

/// What is known about a run before it starts, or after its first evaluation; leave the rest out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TrainingPlan {
    /// Evaluations between two drops of the learning rate: the step size of a `StepLr`.
    pub lr_step: Option<u32>,
    /// Standard error of the validation loss.
    pub valid_loss_se: Option<f64>,
    /// Evaluations after which the run ends anyway.
    pub evaluations: Option<u32>,
}

impl EarlyStopping {
    /// What looks wrong in this specification, one complete sentence each, with what to do.
    ///
    /// ```
    /// use ferrotape::monitor::{EarlyStopping, TrainingPlan};
    /// let plan = TrainingPlan { lr_step: Some(10), ..TrainingPlan::default() };
    /// let warnings = EarlyStopping::patience(5).warnings(&plan);
    /// assert_eq!(
    ///     warnings,
    ///     ["patience(5) gives up before the learning rate has dropped, which happens every 10 \
    ///       evaluations: use a patience above 10"]
    /// );
    /// ```
    pub fn warnings(&self, plan: &TrainingPlan) -> Vec<String> {
        let rule = self.stopping_rule();
        let mut found: Vec<String> =
            suspicious_mode(&self.monitor, self.mode).into_iter().collect();
        let mut counts = false;
        rule.walk(&mut |rule| {
            counts |= matches!(rule, Rule::Patience { .. } | Rule::Paired { .. } | Rule::Up { .. });
            found.extend(impatient(rule, plan));
            found.extend(below_noise(rule, plan));
            found.extend(strip_across_drop(rule, plan));
            if let Rule::On { metric, mode, .. } = rule {
                found.extend(suspicious_mode(metric, *mode));
            }
        });
        if !counts && self.nan_policy != NanPolicy::Stop {
            found.push(format!(
                "no rule in {rule} counts bad evaluations, so with nan_policy={} a run of nothing \
                 but NaN goes on: add a patience rule",
                self.nan_policy
            ));
        }
        found
    }
}

/// A patience that ends before something it should wait for, or after the run.
fn impatient(rule: &Rule, plan: &TrainingPlan) -> Vec<String> {
    let (Rule::Patience { evaluations: patience, .. } | Rule::Paired { evaluations: patience, .. }) =
        rule
    else {
        return Vec::new();
    };
    let too_short = plan.lr_step.filter(|step| patience <= step).map(|step| {
        format!(
            "{rule} gives up before the learning rate has dropped, which happens every {step} \
             evaluations: use a patience above {step}"
        )
    });
    let too_long = plan.evaluations.filter(|total| patience >= total).map(|total| {
        format!("{rule} can never stop a run of {total} evaluations: use a smaller patience")
    });
    too_short.into_iter().chain(too_long).collect()
}

/// A margin that chance alone exceeds.
fn below_noise(rule: &Rule, plan: &TrainingPlan) -> Option<String> {
    let Rule::Patience { min_delta: Some(MinDelta::Absolute(delta)), .. } = rule else {
        return None;
    };
    let se = plan.valid_loss_se.filter(|se| *delta > 0.0 && se > delta)?;
    Some(format!(
        "{rule} counts improvements of {delta} as real, but the standard error of the validation \
         loss is {se:.2e}: use min_delta=auto, or more validation examples"
    ))
}

/// A strip that compares evaluations with different learning rates.
fn strip_across_drop(rule: &Rule, plan: &TrainingPlan) -> Option<String> {
    let (Rule::Pq { k, .. } | Rule::Up { k, .. }) = rule else { return None };
    let step = plan.lr_step.filter(|step| !step.is_multiple_of(*k))?;
    Some(format!(
        "a strip of {rule} lies across the drop of the learning rate every {step} evaluations, \
         where the losses jump: use a k that divides {step}"
    ))
}

/// `min` on something that is usually maximised, or the reverse.
fn suspicious_mode(metric: &str, mode: Mode) -> Option<String> {
    let name = metric.to_lowercase();
    let like = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let high = like(&["acc", "f1", "auc", "precision", "recall", "top", "score"]);
    let low = like(&["loss", "err", "mse", "mae", "perplexity"]);
    let other = match mode {
        Mode::Min if high && !low => Mode::Max,
        Mode::Max if low && !high => Mode::Min,
        _ => return None,
    };
    Some(format!("{metric} is watched with mode={mode}, is it not better when {other}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warn(text: &str, plan: TrainingPlan) -> String {
        text.parse::<EarlyStopping>().unwrap().warnings(&plan).join("\n")
    }

    #[test]
    fn each_warning_has_its_cause_and_is_silent_without_it() {
        let plan = TrainingPlan::default();
        let lr_step = TrainingPlan { lr_step: Some(10), ..plan };
        let noisy = TrainingPlan { valid_loss_se: Some(0.02), ..plan };
        let short = TrainingPlan { evaluations: Some(8), ..plan };
        for (text, plan, piece) in [
            ("patience(10)", lr_step, "use a patience above 10"),
            ("paired(3)", lr_step, "use a patience above 10"),
            ("patience(8)", short, "can never stop a run of 8"),
            ("patience(2,min_delta=0.01)", noisy, "use min_delta=auto"),
            ("patience(2), min_delta=0.01", noisy, "use min_delta=auto"),
            ("up(2,k=4)", lr_step, "use a k that divides 10"),
            ("any(gl(1),pq(1,k=3))", lr_step, "use a k that divides 10"),
            ("gl(1), nan_policy=count_as_bad", plan, "add a patience rule"),
            ("gl(1), monitor=accuracy", plan, "is it not better when max"),
            ("on(test_error,max,gl(1))", plan, "is it not better when min"),
        ] {
            assert!(warn(text, plan).contains(piece), "{text}: {}", warn(text, plan));
        }
        for (text, plan) in [
            ("patience(11)", lr_step),
            ("patience(7)", short),
            ("patience(2,min_delta=0.02)", noisy),
            ("patience(2,min_delta=auto)", noisy),
            ("patience(2)", noisy),
            ("up(2,k=5)", lr_step),
            ("any(gl(1),up(2,k=5)), nan_policy=count_as_bad", plan),
            ("gl(1), monitor=accuracy, mode=max", plan),
            ("gl(1), monitor=temperature", plan),
        ] {
            assert_eq!(warn(text, plan), "", "{text}");
        }
    }
}
