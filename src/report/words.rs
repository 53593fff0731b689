//! The verdict in plain words: how the run ended, why, and whether that was right.

use super::Report;
use crate::monitor::{Best, Condition, Observation, Verdict};
use crate::numbers::{grouped, short, two_digits};
use crate::trainer::Stop;

/// The headline.
pub(super) fn headline(report: &Report) -> String {
    let Some(last) = report.history.last() else { return "Nothing was measured".to_owned() };
    let epochs =
        |n: u64| if n == 1 { "1 epoch".to_owned() } else { format!("{} epochs", grouped(n)) };
    let how = match &report.stop {
        Some(Stop::Early(_)) => format!("Stopped early, after {}", epochs(last.epoch)),
        Some(Stop::Epochs(n)) if *n == 1 => "Its one epoch is done".to_owned(),
        Some(Stop::Epochs(n)) => format!("All {} are done", epochs(*n)),
        Some(Stop::NonFinite { step, .. }) => format!("Broke down at step {}", grouped(*step)),
        Some(Stop::Interrupted(_)) => format!("Interrupted after {}", epochs(last.epoch)),
        None => format!("{} on record", epochs(last.epoch)),
    };
    match report.best() {
        Some(best) if best.epoch == last.epoch && report.history.len() > 1 => {
            format!("{how}; the last one is the best")
        }
        Some(_) if report.history.len() == 1 => how,
        Some(best) => format!("{how}; the best is epoch {}", best.epoch),
        None => format!("{how}, and none is usable"),
    }
}

/// What follows the headline: a heading and a text for each thing there is to say.
pub(super) fn explanation(report: &Report) -> Vec<(&'static str, String)> {
    let (Some(last), Some(verdict)) = (report.history.last(), report.verdicts.last()) else {
        return Vec::new();
    };
    let mut parts = Vec::new();
    match &report.stop {
        Some(Stop::Early(reason)) => parts.push(("Why it stopped", sentence(&reason.to_string()))),
        Some(stop @ Stop::NonFinite { .. }) => {
            parts.push(("Why it stopped", sentence(&stop.to_string())));
        }
        Some(Stop::Interrupted(_)) => {
            let text = "Somebody asked it to. Its state is complete: the run can be resumed, and \
                        will then be what it would have been.";
            parts.push(("Why it stopped", text.to_owned()));
        }
        Some(Stop::Epochs(_)) | None => {}
    }
    let question = match &report.stop {
        Some(Stop::Early(_)) => "Was that right?",
        Some(Stop::Epochs(_)) => "Was that enough?",
        _ => "How it looks",
    };
    parts.push((question, judgement(report, last, verdict)));
    parts.push(("What to do", verdict.diagnosis.advice().to_owned()));
    parts
}

/// Whether the end was right, as far as the curves can tell.
fn judgement(report: &Report, last: &Observation, verdict: &Verdict) -> String {
    let Some(best) = verdict.best else {
        return "No evaluation gave a finite value, so there are no weights worth keeping."
            .to_owned();
    };
    let early = matches!(report.stop, Some(Stop::Early(_)));
    let ended = report.stop.is_some();
    let kept = format!(
        "The weights of epoch {} are the ones {}.",
        best.epoch,
        if ended { "that were kept" } else { "to keep" }
    );
    let all = matches!(report.stop, Some(Stop::Epochs(_)));
    let (yes, enough) = match (early, all) {
        (true, _) => ("Yes. ", "Yes, as far as one can see. "),
        (_, true) => ("More than enough. ", "Yes, as far as one can see. "),
        _ => ("", ""),
    };
    let text = match verdict.diagnosis.condition {
        Condition::MildOverfitting | Condition::SevereOverfitting => {
            format!("{yes}{} {kept}", overfitting(report, best, last, verdict))
        }
        Condition::Plateau => format!(
            "{enough}{} nothing moved by more than its noise: more epochs of the same would hardly \
             have found anything better. {kept}",
            match best.epoch {
                epoch if epoch == last.epoch => "At the end".to_owned(),
                epoch => format!("From epoch {epoch} on"),
            }
        ),
        Condition::Learning if early => format!(
            "Perhaps not: {} was still getting better over the last evaluations. More patience, \
             or a larger budget, is worth a try. {kept}",
            report.metric()
        ),
        Condition::Learning if all => format!(
            "Probably not: {} was still getting better at the end. Allow more epochs and resume. \
             {kept}",
            report.metric()
        ),
        Condition::Learning => format!("{} is still getting better.", report.metric()),
        Condition::Noisy => format!(
            "Hard to say: {} jumps by {} from one evaluation to the next, which hides any trend. \
             {kept}",
            report.metric(),
            verdict.diagnosis.noise.map_or("much".to_owned(), short)
        ),
        Condition::Diverging => format!(
            "{}Training itself had gone wrong, and would not have come back by itself. {kept}",
            if early { "Yes. " } else { "" }
        ),
        _ => "Too few evaluations to judge by.".to_owned(),
    };
    format!("{text}{}", chance(report, best, last))
}

/// What a model does that begins to memorise, in numbers.
fn overfitting(report: &Report, best: Best, last: &Observation, verdict: &Verdict) -> String {
    let percent = verdict.diagnosis.percent_above_best.unwrap_or(0.0);
    let mut text =
        format!("Since epoch {} {} got worse by {percent:.0}%", best.epoch, report.metric());
    let then = report.history[best.index].train_loss;
    let finite = |(then, now): &(f64, f64)| then.is_finite() && now.is_finite();
    if let Some((then, now)) = then.zip(last.train_loss).filter(finite) {
        text += &format!(
            " while the loss on the training data went on falling, from {} to {}",
            short(then),
            short(now)
        );
    }
    text + ": the model had begun to memorise."
}

/// Whether the last value differs from the best by more than chance.
fn chance(report: &Report, best: Best, last: &Observation) -> String {
    let seen = &report.history[best.index];
    let (Some(error), true) = (seen.standard_error(), report.metric() == "valid_loss") else {
        return String::new();
    };
    let difference = last.valid_loss - seen.valid_loss;
    if best.index + 1 < report.history.len() && difference.abs() < error {
        return format!(
            " Mind that the last value is within one standard error of the best (±{}): the \
             validation data can hardly tell the two apart.",
            two_digits(error)
        );
    }
    String::new()
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    // A name such as `valid_loss` stays as it is.
    let name = text.split(' ').next().is_some_and(|word| word.contains('_'));
    let mut letters = text.chars();
    let first: String = match letters.next() {
        Some(first) if !name => first.to_uppercase().collect(),
        Some(first) => first.to_string(),
        None => String::new(),
    };
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}
