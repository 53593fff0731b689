//! What an evaluation found, in a line: the same one on a terminal and in a pipe.
//!
//! ```text
//! epoch  9/30  train 0.0701  valid 0.0854±0.0091*  acc 97.40%  lr 0.02     patience 0/5  gap  0.015 ↗  saved best 0.3%
//!              gl 3.1/40  mild overfitting
//! ```
//!
//! Its parts stand one below the other from line to line. A second, indented line has what there is
//! not always to say: the readings of further rules, and what the curves look like when that has
//! changed. Where there is less room, the first line breaks, too.

use crate::monitor::{Condition, Reading, Verdict};
use crate::numbers::{decimals, narrow, percent, two_digits};

use super::EvaluationInfo;

/// What the parts of a line mean, said once.
pub(super) const LEGEND: &str =
    "± standard error, * new best, gap: validation less training loss, %: time spent on saving";

/// How wide a line may be if there is no terminal to ask.
const PLAIN_WIDTH: usize = 120;

/// What the reader can see.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) color: bool,
    /// Whether patience is drawn, not only counted.
    pub(super) bars: bool,
    pub(super) width: usize,
}

/// A part of a line: its colour, and its text, padded to the width of its column.
pub(super) type Part = (&'static str, String);

/// The codes of "select graphic rendition".
pub(super) const BOLD: &str = "1";
pub(super) const DIM: &str = "2";
pub(super) const RED: &str = "31";
pub(super) const GREEN: &str = "32";
pub(super) const YELLOW: &str = "33";

impl Style {
    /// For pipes and files.
    pub(super) const PLAIN: Style = Style { color: false, bars: false, width: PLAIN_WIDTH };

    pub(super) fn paint(self, code: &str, text: &str) -> String {
        match self.color && !code.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// Parts on as many lines as they need. All but the first line are indented; the parts from
    /// `second` on are not on the first one.
    pub(super) fn flow(self, parts: &[Part], indent: usize, second: usize) -> String {
        let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
        for (i, (code, part)) in parts.iter().enumerate() {
            let text = part.trim_end();
            let first = lines.is_empty();
            let begun = used > if first { 0 } else { indent };
            let full = used + text.chars().count() > self.width;
            if begun && (full || (first && i == second)) {
                lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
                used = indent;
            }
            let padding = part.chars().count() - text.chars().count() + 2;
            line += &self.paint(code, text);
            line += &" ".repeat(padding);
            used += text.chars().count() + padding;
        }
        lines.push(line);
        lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
    }
}

/// Writes the lines of a run.
pub(super) struct Lines {
    style: Style,
    /// What the curves looked like at the last evaluation.
    condition: Condition,
}

impl Lines {
    pub(super) fn new(style: Style) -> Self {
        Lines { style, condition: Condition::Starting }
    }

    /// The line of the next evaluation.
    pub(super) fn line(&mut self, evaluation: &EvaluationInfo<'_>) -> String {
        let EvaluationInfo { observation: o, verdict, .. } = evaluation;
        let epoch = epoch(o.epoch, evaluation.epochs);
        let indent = epoch.chars().count() + 2;
        let mut parts = vec![(BOLD, epoch)];
        let loss = |value| format!("{:>6}", decimals(value, 4));
        parts.extend(o.train_loss.map(|value| ("", format!("train {}", loss(value)))));
        let (code, mark) = if verdict.new_best { (GREEN, "*") } else { ("", "") };
        let error = o.standard_error().map(|error| format!("±{}", two_digits(error)));
        let valid = format!("valid {}{}{mark}", loss(o.valid_loss), error.unwrap_or_default());
        parts.push((code, format!("{valid:<20}")));
        let accuracy = o.value("accuracy");
        parts.extend(accuracy.map(|share| ("", format!("acc {:>6}", percent(share)))));
        parts.extend(o.value("mae").map(|mae| ("", format!("mae {}", loss(mae)))));
        parts.extend(o.lr.map(|lr| ("", format!("lr {:<7}", narrow(lr)))));

        let (first, others) = readings(verdict);
        parts.extend(first.and_then(|reading| self.reading(reading, verdict)));
        let diagnosis = &verdict.diagnosis;
        if let Some(gap) = diagnosis.gap {
            let trend = diagnosis.gap_trend.map_or(' ', |trend| arrow(trend, gap));
            parts.push(("", format!("gap {gap:>6.3} {trend}")));
        }
        parts.extend(saving(evaluation).map(|text| (DIM, text)));

        let second = parts.len();
        parts.extend(others.into_iter().filter_map(|reading| self.reading(reading, verdict)));
        if diagnosis.condition != self.condition {
            self.condition = diagnosis.condition;
            let code = match diagnosis.condition {
                Condition::MildOverfitting => YELLOW,
                Condition::SevereOverfitting | Condition::Diverging => RED,
                _ => "",
            };
            parts.push((code, diagnosis.condition.to_string()));
        }
        self.style.flow(&parts, indent, second)
    }

    /// A rule's number against its threshold, if it has one yet.
    fn reading(&self, reading: &Reading, verdict: &Verdict) -> Option<Part> {
        let Reading { rule, value, threshold, fires } = reading;
        let code = if *fires { RED } else { "" };
        // The parameters are only of interest where there is another rule of the same name.
        let name = kind(rule);
        let alone = verdict.readings.iter().filter(|other| kind(&other.rule) == name).count() == 1;
        let name = if alone { name } else { rule };
        let value = (*value)?;
        let text = match self.style.bars && counts(reading) {
            true => bar(value, *threshold),
            false => format!("{}/{}", narrow(value), narrow(*threshold)),
        };
        Some((code, format!("{name} {text}")))
    }
}

/// `epoch  3/30`.
pub(super) fn epoch(epoch: u64, epochs: u64) -> String {
    let width = epochs.to_string().len();
    format!("epoch {epoch:>width$}/{epochs}")
}

/// The reading for the first line, of a rule that counts patience if there is one, and the others.
fn readings(verdict: &Verdict) -> (Option<&Reading>, Vec<&Reading>) {
    let mut all: Vec<&Reading> = verdict.readings.iter().collect();
    let first = all.iter().position(|reading| counts(reading)).unwrap_or(0);
    let first = (first < all.len()).then(|| all.remove(first));
    (first, all)
}

/// The name of a rule without its parameters.
fn kind(rule: &str) -> &str {
    rule.split('(').next().unwrap_or(rule)
}

/// Whether a rule counts bad evaluations.
fn counts(reading: &Reading) -> bool {
    matches!(kind(&reading.rule), "patience" | "paired")
}

/// What is left of a patience, in at most five squares, the last of them perhaps half.
fn bar(bad: f64, patience: f64) -> String {
    let squares = patience.clamp(1.0, 5.0);
    let halves = (2.0 * squares * (1.0 - bad / patience)).ceil().max(0.0) as usize;
    let empty = squares as usize - halves.div_ceil(2);
    format!("{}{}{}", "■".repeat(halves / 2), "◧".repeat(halves % 2), "□".repeat(empty))
}

/// Where a gap is going: a change of less than a fiftieth per evaluation is none.
fn arrow(trend: f64, gap: f64) -> char {
    match trend {
        _ if trend.abs() < 0.02 * gap.abs() => '→',
        _ if trend > 0.0 => '↗',
        _ => '↘',
    }
}

/// What the checkpoint is kept for, which is also among the last, and what saving costs.
fn saving(evaluation: &EvaluationInfo<'_>) -> Option<String> {
    let cost = 100.0 * evaluation.saving_overhead;
    let Some((_, roles)) = evaluation.checkpoint else {
        // In the background it is not over yet.
        return (cost > 0.0).then(|| format!("saving {cost:.1}%"));
    };
    let mut roles = roles.names();
    if roles.len() > 1 {
        roles.retain(|&role| role != "last");
    }
    Some(format!("saved {} {cost:.1}%", roles.join("+")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::Roles;
    use crate::metrics::ConfusionMatrix;
    use crate::monitor::{EarlyStopping, Monitor, Observation};
    use crate::trainer::Evaluation;

    fn visible(text: &str) -> Vec<String> {
        // Drops what `paint` adds.
        let codes = [BOLD, DIM, RED, GREEN, YELLOW, "0"].map(|code| format!("\x1b[{code}m"));
        let plain = codes.iter().fold(text.to_owned(), |text, code| text.replace(code, ""));
        plain.lines().map(str::to_owned).collect()
    }

    /// The lines of evaluations with these training and validation losses.
    fn lines(style: Style, rule: &str, losses: &[(f64, f64)]) -> Vec<String> {
        let mut monitor = Monitor::new(rule.parse::<EarlyStopping>().unwrap()).unwrap();
        let mut lines = Lines::new(style);
        let evaluation = Evaluation {
            loss: 0.0,
            standard_error: 0.0,
            accuracy: 0.0,
            top5_accuracy: 0.0,
            confusion: ConfusionMatrix::new(2),
            mean_absolute_error: f64::NAN,
            losses: Vec::new(),
            predictions: Vec::new(),
        };
        let each = (1..).zip(losses).map(|(epoch, &(train, valid))| {
            let observation = Observation {
                lr: Some(f64::from(0.0025_f32)),
                valid_loss_se: Some(valid / 10.0),
                ..Observation::new(epoch, valid).with_train_loss(train).with_metric("accuracy", 0.9)
            };
            let verdict = monitor.observe(observation);
            let roles = Roles { last: true, best: verdict.new_best, ..Roles::default() };
            lines.line(&EvaluationInfo {
                observation: monitor.history().last().unwrap(),
                verdict: &verdict,
                evaluation: &evaluation,
                epochs: 100,
                checkpoint: Some((Path::new("x"), roles)),
                images_per_second: 1.0,
                saving_overhead: 0.0123,
            })
        });
        each.collect()
    }

    #[test]
    fn an_evaluation_is_one_line_of_at_most_120_columns() {
        let losses = [(2.3, 2.2), (0.5, 0.6), (0.3, 0.55), (0.2, 0.5), (0.01, 0.52)];
        let plain = lines(Style::PLAIN, "patience(10)", &losses);
        assert_eq!(
            plain[..2],
            [
                "epoch   1/100  train 2.3000  valid 2.2000±0.22*    acc 90.00%  lr 0.0025   \
                 patience 0/10  gap -0.100    saved best 1.2%",
                "epoch   2/100  train 0.5000  valid 0.6000±0.060*   acc 90.00%  lr 0.0025   \
                 patience 0/10  gap  0.100    saved best 1.2%",
            ]
        );
        // What the curves look like is said when it changes.
        assert!(plain[3].ends_with("\n               noisy"), "{}", plain[3]);
        assert!(plain[4].contains("patience 1/10  gap  0.510 ↗  saved last"), "{}", plain[4]);
        let live = Style { color: true, bars: true, width: 120 };
        for (line, rule) in lines(live, "patience(10)", &losses).iter().zip(&plain) {
            let (line, plain) = (visible(line), rule.lines().count());
            assert_eq!(line.len(), plain, "{line:?}");
            assert!(line.iter().all(|line| line.chars().count() <= 120), "{line:?}");
        }
    }

    #[test]
    fn further_rules_have_a_line_of_their_own() {
        let losses = [(1.0, 0.5), (0.9, 0.55)];
        let rule = "any(gl(20),patience(3),on(accuracy,max,patience(2)),pq(0.5,k=2))";
        let plain = lines(Style::PLAIN, rule, &losses);
        assert_eq!(
            plain[1].lines().nth(1).unwrap().trim_start(),
            "saved last 1.2%  gl 10/20  patience(2) 1/2  pq 0.18/0.5",
            "behind what has no room on the first line"
        );
        assert!(plain[1].contains("patience(3) 1/3  gap -0.350"), "{}", plain[1]);
        let live = Style { color: true, bars: true, width: 300 };
        assert!(lines(live, "patience(3)", &losses)[1].contains("patience ■■□"));
    }

    #[test]
    fn parts_break_between_lines_and_never_beyond_the_width() {
        let parts: Vec<_> = (0..9).map(|i| (DIM, format!("part {i} of nine  "))).collect();
        for width in [20, 37, 80, 300] {
            let style = Style { color: true, bars: true, width };
            let lines = visible(&style.flow(&parts, 4, 7));
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:?}");
            assert!(lines[1..].iter().all(|line| line.starts_with("    part")));
            let words: Vec<_> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
            assert_eq!(words.len(), 36);
            assert_eq!(lines.len() == 2, width == 300, "{lines:?}");
        }
        assert!(!Style::PLAIN.flow(&parts, 4, 9).contains('\x1b'));
    }

    #[test]
    fn patience_in_squares_and_the_trend_of_a_gap() {
        let bars = [(0.0, 3.0), (3.0, 3.0), (0.0, 10.0), (3.0, 10.0), (9.0, 10.0), (99.0, 100.0)];
        assert_eq!(
            bars.map(|(bad, patience)| bar(bad, patience)),
            ["■■■", "□□□", "■■■■■", "■■■◧□", "◧□□□□", "◧□□□□"]
        );
        assert_eq!([0.1, 0.01, -0.1].map(|trend| arrow(trend, 1.0)), ['↗', '→', '↘']);
    }
}
