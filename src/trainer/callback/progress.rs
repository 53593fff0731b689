//! Progress on a terminal: a line that lives while an epoch is trained, and what an evaluation
//! found.
//!
//! ```text
//! epoch 3/30 ━━━━━━━━━━━━━━────── 171/250  loss 0.0812  4,210 images/s  0:05 left, at most 4:03
//!
//! epoch 3/30  train 0.0701  valid 0.0854 ±0.0091 best  accuracy 97.40%  lr 0.02
//!             patience ■■■■■  gap 0.0153 ↗  learning  saved: last, best  saving 0.3%
//! ```
//!
//! The first line is written over itself; the second is for good, and breaks between its parts
//! where the terminal is narrow.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stdout};
use std::time::{Duration, Instant};

use super::{Callback, EndInfo, EvaluationInfo, PrintProgress, RunInfo, StepInfo, print_line};
use crate::error::Result;
use crate::monitor::{Condition, Verdict};
use crate::numbers::{clock, short, short_setting, two_digits};

/// Shows a run on a terminal, live; in a pipe or file by [`PrintProgress`].
///
/// The environment's `NO_COLOR` is respected, `COLUMNS` is believed (without it 80 is assumed), and
/// `TERM=dumb` asks for plain lines.
pub struct Progress {
    kind: Kind,
}

enum Kind {
    Live(Box<Live>),
    Plain(PrintProgress),
}

impl Progress {
    /// Whatever suits standard output. In plain lines the loss is printed every `every` steps.
    pub fn new(every: u64) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let kind = match stdout().is_terminal() && !dumb {
            true => Kind::Live(Box::new(Live::new(Style::of_environment()))),
            false => Kind::Plain(PrintProgress { every }),
        };
        Progress { kind }
    }

    fn callback(&mut self) -> &mut dyn Callback {
        match &mut self.kind {
            Kind::Live(live) => &mut **live,
            Kind::Plain(plain) => plain,
        }
    }
}

impl Callback for Progress {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        self.callback().on_start(run)
    }

    fn on_step(&mut self, step: &StepInfo) -> Result<()> {
        self.callback().on_step(step)
    }

    fn on_warning(&mut self, warning: &str) -> Result<()> {
        self.callback().on_warning(warning)
    }

    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        self.callback().on_evaluation(evaluation)
    }

    fn on_end(&mut self, end: &EndInfo<'_>) -> Result<()> {
        self.callback().on_end(end)
    }
}

/// What the terminal can do.
#[derive(Clone, Copy)]
struct Style {
    color: bool,
    width: usize,
}

/// The codes of "select graphic rendition".
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Style {
    fn of_environment() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        Style { color: !no_color, width: columns.unwrap_or(80).max(20) }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self.color && !code.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// Parts of a text, each with its colour, on as many lines as they need. All but the first line
    /// are indented.
    fn flow(self, parts: &[(&'static str, String)], indent: usize) -> String {
        let mut text = String::new();
        let mut used = 0;
        for (code, part) in parts {
            let length = part.chars().count();
            let gap = if used == 0 { 0 } else { 2 };
            if used > indent && used + gap + length > self.width {
                let _ = write!(text, "\n{:indent$}", "");
                used = indent;
            } else {
                text.push_str(&" ".repeat(gap));
                used += gap;
            }
            text.push_str(&self.paint(code, part));
            used += length;
        }
        text
    }
}

struct Live {
    style: Style,
    /// Examples in a step, on average.
    batch: f64,
    steps_per_epoch: u64,
    epochs: u64,
    /// When the steps now counted began, and how many there were.
    since: (Instant, u64),
    /// Images per second, as last measured.
    rate: Option<f64>,
    drawn: Option<Instant>,
}

/// How often the live line is written, and how long a rate has to be measured.
const REDRAW: Duration = Duration::from_millis(100);
const MEASURE: Duration = Duration::from_millis(500);

impl Live {
    fn new(style: Style) -> Self {
        let since = (Instant::now(), 0);
        Live { style, batch: 1.0, steps_per_epoch: 1, epochs: 1, since, rate: None, drawn: None }
    }

    /// Writes something for good, in the place of the live line.
    fn say(&mut self, text: &str) {
        let clear = if self.drawn.take().is_some() { "\r\x1b[2K" } else { "" };
        print_line(format_args!("{clear}{text}"));
    }

    fn live_line(&self, step: &StepInfo) -> String {
        const BAR: usize = 20;
        let StepInfo { epoch, iteration, steps_per_epoch, loss, .. } = step;
        let done = BAR * *iteration as usize / (*steps_per_epoch).max(1) as usize;
        let bar = format!("{}{}", "━".repeat(done), "─".repeat(BAR - done.min(BAR)));
        let mut parts = vec![
            (BOLD, format!("epoch {epoch}/{}", self.epochs)),
            (GREEN, bar),
            ("", format!("{iteration:>0$}/{steps_per_epoch}", steps_per_epoch.to_string().len())),
            ("", format!("loss {loss:.4}")),
        ];
        if let Some(rate) = self.rate {
            let left = |steps: u64| clock(self.batch * steps as f64 / rate);
            let whole = self.steps_per_epoch * self.epochs;
            parts.push((DIM, format!("{rate:.0} images/s")));
            parts.push((DIM, format!("{} left", left(steps_per_epoch - iteration))));
            parts.push((DIM, format!("at most {}", left(whole.saturating_sub(step.step)))));
        }
        // What does not fit is left out: the line must stay one line.
        let mut used = 0;
        let fits = |(_, part): &&(&str, String)| {
            used += part.chars().count() + 2;
            used < self.style.width + 2
        };
        let fitting: Vec<_> = parts.iter().take_while(fits).cloned().collect();
        self.style.flow(&fitting, 0)
    }

    fn evaluation_line(&self, evaluation: &EvaluationInfo<'_>) -> String {
        let EvaluationInfo { observation: o, verdict, .. } = evaluation;
        let epoch = format!("epoch {}/{}", o.epoch, evaluation.epochs);
        let indent = epoch.chars().count() + 2;
        let mut parts = vec![(BOLD, epoch)];
        parts.extend(o.train_loss.map(|value| ("", format!("train {}", loss(value)))));
        let error =
            o.standard_error().map_or(String::new(), |error| format!(" ±{}", two_digits(error)));
        let (code, mark) = if verdict.new_best { (GREEN, " best") } else { ("", "") };
        parts.push((code, format!("valid {}{error}{mark}", loss(o.valid_loss))));
        let accuracy = o.value("accuracy");
        parts.extend(accuracy.map(|share| ("", format!("accuracy {:.2}%", 100.0 * share))));
        parts.extend(o.lr.map(|lr| ("", format!("lr {}", short_setting(lr)))));
        parts.extend(rules(verdict));
        let diagnosis = &verdict.diagnosis;
        if let Some(gap) = diagnosis.gap {
            let trend = diagnosis.gap_trend.map_or("", |trend| arrow(trend, gap));
            parts.push((DIM, format!("gap {}{trend}", loss(gap))));
        }
        let code = match diagnosis.condition {
            Condition::MildOverfitting => YELLOW,
            Condition::SevereOverfitting | Condition::Diverging => RED,
            _ => DIM,
        };
        parts.push((code, diagnosis.condition.to_string()));
        if let Some((_, roles)) = evaluation.checkpoint {
            parts.push((DIM, format!("saved: {}", roles.names().join(", "))));
            parts.push((DIM, format!("saving {:.1}%", 100.0 * evaluation.saving_overhead)));
        }
        parts.push((DIM, format!("{:.0} images/s", evaluation.images_per_second)));
        self.style.flow(&parts, indent)
    }
}

/// A loss with four digits behind the point, so that they stand one below the other.
fn loss(value: f64) -> String {
    if value.abs() >= 1e-3 { format!("{value:.4}") } else { short(value) }
}

/// A bar for the patience that is left, and the other rules' numbers against their thresholds.
fn rules(verdict: &Verdict) -> Vec<(&'static str, String)> {
    let mut parts = Vec::new();
    for reading in &verdict.readings {
        let Some(value) = reading.value else { continue };
        let code = if reading.fires { RED } else { "" };
        let whole = reading.threshold as usize;
        if reading.rule.starts_with("patience(") && (1..=20).contains(&whole) {
            let left = whole.saturating_sub(value as usize);
            let bar = format!("{}{}", "■".repeat(left), "□".repeat(whole - left));
            parts.push((code, format!("patience {bar}")));
        } else {
            let (value, threshold) = (short(value), reading.threshold);
            parts.push((code, format!("{} {value} of {threshold}", reading.rule)));
        }
    }
    parts
}

/// Where a gap is going: a change of less than a fiftieth per evaluation is none.
fn arrow(trend: f64, gap: f64) -> &'static str {
    match trend {
        _ if trend.abs() < 0.02 * gap.abs() => " →",
        _ if trend > 0.0 => " ↗",
        _ => " ↘",
    }
}

impl Callback for Live {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        self.steps_per_epoch = run.steps_per_epoch;
        self.epochs = run.epochs;
        self.batch = run.train_examples as f64 / run.steps_per_epoch.max(1) as f64;
        for note in &run.notes {
            self.say(&self.style.paint(YELLOW, &format!("note: {note}")));
        }
        let how = match &run.resumed_from {
            Some(path) => {
                format!("resuming from {} after step {}", path.display(), run.step)
            }
            None => "starting a new run".to_owned(),
        };
        self.say(&format!(
            "{how}: {} training and {} validation images; stops by {}",
            run.train_examples, run.valid_examples, run.monitor
        ));
        self.since = (Instant::now(), 0);
        Ok(())
    }

    fn on_step(&mut self, step: &StepInfo) -> Result<()> {
        if !step.applied {
            let StepInfo { step, loss, grad_norm, .. } = step;
            let text = format!("step {step}: loss {loss}, gradient norm {grad_norm}: no update");
            self.say(&self.style.paint(YELLOW, &text));
        }
        self.since.1 += 1;
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            let elapsed = self.since.0.elapsed();
            if elapsed >= MEASURE {
                self.rate = Some(self.batch * self.since.1 as f64 / elapsed.as_secs_f64());
            }
            // Wrapping is off for the line, so that a terminal that is narrower than we think
            // cuts it instead of breaking it.
            let mut out = stdout();
            let _ = write!(out, "\r\x1b[2K\x1b[?7l{}\x1b[?7h", self.live_line(step));
            let _ = out.flush();
            self.drawn = Some(Instant::now());
        }
        Ok(())
    }

    fn on_warning(&mut self, warning: &str) -> Result<()> {
        self.say(&self.style.paint(YELLOW, &format!("warning: {warning}")));
        Ok(())
    }

    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        self.say(&self.evaluation_line(evaluation));
        self.since = (Instant::now(), 0);
        Ok(())
    }

    fn on_end(&mut self, end: &EndInfo<'_>) -> Result<()> {
        self.say(&self.style.paint(BOLD, &end.stop.to_string()));
        Ok(())
    }
}

/// A run that ends by an error leaves no half-written line.
impl Drop for Live {
    fn drop(&mut self) {
        if self.drawn.take().is_some() {
            print_line("");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::{EarlyStopping, Monitor, Observation};

    fn visible(text: &str) -> Vec<String> {
        // Drops what `paint` adds.
        let codes = [BOLD, DIM, RED, GREEN, YELLOW, "0"].map(|code| format!("\x1b[{code}m"));
        let plain = codes.iter().fold(text.to_owned(), |text, code| text.replace(code, ""));
        plain.lines().map(str::to_owned).collect()
    }

    #[test]
    fn parts_break_between_lines_and_never_beyond_the_width() {
        let parts: Vec<_> = (0..9).map(|i| (DIM, format!("part {i} of nine"))).collect();
        for width in [20, 37, 80, 300] {
            let lines = visible(&Style { color: true, width }.flow(&parts, 4));
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:?}");
            assert!(lines[1..].iter().all(|line| line.starts_with("    part")));
            let words: Vec<_> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
            assert_eq!(words.len(), 36);
        }
        let style = Style { color: false, width: 80 };
        assert!(!style.flow(&parts, 4).contains('\x1b'));
    }

    #[test]
    fn the_live_line_is_one_line() {
        for width in [20, 50, 80, 200] {
            let mut live = Live::new(Style { color: true, width });
            live.rate = Some(1234.5);
            (live.epochs, live.steps_per_epoch) = (30, 250);
            let step = StepInfo {
                epoch: 3,
                iteration: 171,
                steps_per_epoch: 250,
                step: 671,
                loss: 0.25,
                lr: 0.1,
                grad_norm: 1.0,
                applied: true,
            };
            let lines = visible(&live.live_line(&step));
            assert_eq!(lines.len(), 1);
            assert!(lines[0].chars().count() <= width, "{lines:?}");
            assert!(lines[0].starts_with("epoch 3/30"));
            assert_eq!(lines[0].contains("at most 0:06"), width >= 200, "{lines:?}");
        }
    }

    #[test]
    fn patience_is_a_bar_and_other_rules_are_numbers() {
        let spec: EarlyStopping = "any(patience(3),gl(20))".parse().unwrap();
        let mut monitor = Monitor::new(spec).unwrap();
        monitor.observe(Observation::new(1, 0.5));
        let verdict = monitor.observe(Observation::new(2, 0.55));
        let texts: Vec<_> = rules(&verdict).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["patience ■■□", "gl(20) 10.00 of 20"]);
        let arrows = [0.1, 0.01, -0.1].map(|trend| arrow(trend, 1.0));
        assert_eq!(arrows, [" ↗", " →", " ↘"]);
    }
}
