//! Progress on a terminal: a line that lives while an epoch is trained, and what an evaluation
//! found.
//!
//! ```text
//! epoch  3/30 ━━━━━━━━━━━━━━────── 171/250  loss 0.0812  4210 examples/s  0:05 left, at most 4:03
//! ```
//!
//! That line is written over itself; the one of an evaluation is for good.

use std::fs::File;
use std::io::{IsTerminal, Write as _, stdout};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::line::{BOLD, DIM, GREEN, LEGEND, Lines, Style, YELLOW, epoch};
use super::{
    Callback, EndInfo, EvaluationInfo, PrintProgress, RunInfo, StepInfo, beginning, ending,
    no_update, print_line,
};
use crate::error::Result;
use crate::numbers::clock;

/// Shows a run on a terminal, live; in a pipe or file by [`PrintProgress`].
///
/// The environment's `NO_COLOR` is respected, `COLUMNS` is believed (without it `stty` is asked how
/// wide the terminal is), and `TERM=dumb` asks for plain lines.
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
            true => Kind::Live(Box::new(Live::new(style_of_environment()))),
            false => Kind::Plain(PrintProgress::new(every)),
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
fn style_of_environment() -> Style {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = columns.or_else(terminal_width).unwrap_or(80).max(20);
    Style { color: !no_color, bars: true, width }
}

/// The width of the terminal. The standard library cannot ask for it, but a program can that is
/// wherever terminals are.
fn terminal_width() -> Option<usize> {
    let terminal = File::open("/dev/tty").ok()?;
    let stty =
        Command::new("stty").arg("size").stdin(terminal).stderr(Stdio::null()).output().ok()?;
    let size = String::from_utf8(stty.stdout).ok()?;
    let columns = size.split_whitespace().nth(1)?.parse().ok()?;
    (columns > 0).then_some(columns)
}

struct Live {
    style: Style,
    lines: Lines,
    /// Examples in a step, on average.
    batch: f64,
    steps_per_epoch: u64,
    epochs: u64,
    /// When the last step or evaluation ended.
    last: Instant,
    /// The time that steps took since the rate was measured, and how many there were.
    measured: (Duration, u64),
    /// Examples per second, as last measured.
    rate: Option<f64>,
    drawn: Option<Instant>,
}

/// How often the live line is written, and how long a rate has to be measured.
const REDRAW: Duration = Duration::from_millis(100);
const MEASURE: Duration = Duration::from_millis(500);

impl Live {
    fn new(style: Style) -> Self {
        Live {
            style,
            lines: Lines::new(style),
            batch: 1.0,
            steps_per_epoch: 1,
            epochs: 1,
            last: Instant::now(),
            measured: (Duration::ZERO, 0),
            rate: None,
            drawn: None,
        }
    }

    /// Writes something for good, in the place of the live line.
    fn say(&mut self, text: &str) {
        let clear = if self.drawn.take().is_some() { "\r\x1b[2K" } else { "" };
        print_line(format_args!("{clear}{text}"));
    }

    fn live_line(&self, step: &StepInfo) -> String {
        const BAR: usize = 20;
        let StepInfo { iteration, steps_per_epoch, loss, .. } = step;
        let done = BAR * *iteration as usize / (*steps_per_epoch).max(1) as usize;
        let bar = format!("{}{}", "━".repeat(done), "─".repeat(BAR - done.min(BAR)));
        let mut parts = vec![
            (BOLD, epoch(step.epoch, self.epochs)),
            (GREEN, bar),
            ("", format!("{iteration:>0$}/{steps_per_epoch}", steps_per_epoch.to_string().len())),
            ("", format!("loss {loss:.4}")),
        ];
        if let Some(rate) = self.rate {
            let left = |steps: u64| clock(self.batch * steps as f64 / rate);
            let whole = self.steps_per_epoch * self.epochs;
            parts.push((DIM, format!("{rate:.0} examples/s")));
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
        self.style.flow(&fitting, 0, usize::MAX)
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
        self.say(&beginning(run));
        self.say(&self.style.paint(DIM, LEGEND));
        self.last = Instant::now();
        Ok(())
    }

    fn on_step(&mut self, step: &StepInfo) -> Result<()> {
        if !step.applied {
            self.say(&self.style.paint(YELLOW, &no_update(step)));
        }
        let now = Instant::now();
        let (time, steps) = (self.measured.0 + (now - self.last), self.measured.1 + 1);
        self.last = now;
        self.measured = (time, steps);
        if time >= MEASURE {
            self.rate = Some(self.batch * steps as f64 / time.as_secs_f64());
            self.measured = (Duration::ZERO, 0);
        }
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            // Wrapping is off for the line, so that a terminal that is narrower than it says
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
        let line = self.lines.line(evaluation);
        self.say(&line);
        self.last = Instant::now();
        Ok(())
    }

    fn on_end(&mut self, end: &EndInfo<'_>) -> Result<()> {
        let bold = [BOLD].into_iter().chain(std::iter::repeat(""));
        for (line, code) in ending(end).iter().zip(bold) {
            self.say(&self.style.paint(code, line));
        }
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

    #[test]
    fn the_live_line_is_one_line() {
        for width in [20, 50, 80, 200] {
            let mut live = Live::new(Style { color: false, bars: true, width });
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
            let line = live.live_line(&step);
            assert_eq!(line.lines().count(), 1);
            assert!(line.chars().count() <= width, "{line}");
            assert!(line.starts_with("epoch  3/30"));
            assert_eq!(line.contains("at most 0:06"), width >= 200, "{line}");
        }
    }
}
