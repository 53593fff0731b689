//! Progress in plain lines, for pipes and files.

use super::{Callback, EndInfo, EvaluationInfo, RunInfo, StepInfo, print_line};
use crate::error::Result;

/// Prints the loss every few steps and one line per evaluation.
pub struct PrintProgress {
    /// Print the loss of every step whose number within the epoch is a multiple of this.
    pub every: u64,
}

impl Callback for PrintProgress {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        for note in &run.notes {
            print_line(format_args!("note: {note}"));
        }
        match &run.resumed_from {
            Some(path) => print_line(format_args!(
                "resuming from {} after epoch {} and step {}",
                path.display(),
                run.epoch,
                run.step
            )),
            None => print_line("starting a new run"),
        }
        print_line(format_args!(
            "{} training and {} validation images, {} steps per epoch",
            run.train_examples, run.valid_examples, run.steps_per_epoch
        ));
        Ok(())
    }

    fn on_step(&mut self, step: &StepInfo) -> Result<()> {
        if !step.applied {
            print_line(format_args!(
                "step {}: loss {}, gradient norm {}: no update",
                step.step, step.loss, step.grad_norm
            ));
        } else if step.iteration.is_multiple_of(self.every) {
            print_line(format_args!(
                "epoch {:>3}  iteration {:>4}/{}  loss {:.4}",
                step.epoch, step.iteration, step.steps_per_epoch, step.loss
            ));
        }
        Ok(())
    }

    fn on_warning(&mut self, warning: &str) -> Result<()> {
        print_line(format_args!("warning: {warning}"));
        Ok(())
    }

    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        let EvaluationInfo { observation: o, verdict, .. } = evaluation;
        let best = match verdict.best {
            Some(_) if verdict.new_best => "new best".to_owned(),
            Some(best) => format!("best {:.4} at {}", best.value, best.epoch),
            None => "no best yet".to_owned(),
        };
        let patience = match verdict.patience_left {
            Some(left) => format!("patience {left} left"),
            None => "no patience rule".to_owned(),
        };
        print_line(format_args!(
            "epoch {:>3}  train {:.4}  valid {:.4} ± {:.4}  accuracy {:.2}%  lr {}  {best}  \
             {patience}  {:.0} images/s",
            o.epoch,
            o.train_loss.unwrap_or(f64::NAN),
            o.valid_loss,
            o.standard_error().unwrap_or(f64::NAN),
            100.0 * o.value("accuracy").unwrap_or(f64::NAN),
            o.lr.unwrap_or(f64::NAN) as f32,
            evaluation.images_per_second,
        ));
        Ok(())
    }

    fn on_end(&mut self, end: &EndInfo<'_>) -> Result<()> {
        print_line(end.stop);
        Ok(())
    }
}
