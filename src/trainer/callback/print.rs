//! Progress in plain lines, for pipes and files.

use super::line::{LEGEND, Lines, Style, epoch};
use super::{
    Callback, EndInfo, EvaluationInfo, RunInfo, StepInfo, beginning, ending, no_update, print_line,
};
use crate::error::Result;

/// Prints the loss every few steps and a line per evaluation, with an indented second one where
/// there is more to say.
pub struct PrintProgress {
    every: u64,
    epochs: u64,
    lines: Lines,
}

impl PrintProgress {
    /// Prints the loss of every step whose number within the epoch is a multiple of `every`.
    pub fn new(every: u64) -> Self {
        PrintProgress { every, epochs: 1, lines: Lines::new(Style::PLAIN) }
    }
}

impl Callback for PrintProgress {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        self.epochs = run.epochs;
        for note in &run.notes {
            print_line(format_args!("note: {note}"));
        }
        print_line(beginning(run));
        print_line(LEGEND);
        Ok(())
    }

    fn on_step(&mut self, step: &StepInfo) -> Result<()> {
        if !step.applied {
            print_line(no_update(step));
        } else if step.iteration.is_multiple_of(self.every) {
            let steps = step.steps_per_epoch;
            let width = steps.to_string().len();
            print_line(format_args!(
                "{}  iteration {:>width$}/{steps}  loss {:.4}",
                epoch(step.epoch, self.epochs),
                step.iteration,
                step.loss
            ));
        }
        Ok(())
    }

    fn on_warning(&mut self, warning: &str) -> Result<()> {
        print_line(format_args!("warning: {warning}"));
        Ok(())
    }

    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        print_line(self.lines.line(evaluation));
        Ok(())
    }

    fn on_end(&mut self, end: &EndInfo<'_>) -> Result<()> {
        ending(end).iter().for_each(print_line);
        Ok(())
    }
}
