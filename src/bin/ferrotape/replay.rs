//! `ferrotape replay`: what other stopping rules would have done on a recorded run.

use std::path::Path;

use ferrotape::checkpoint::TrainingState;
use ferrotape::files::read_text;
use ferrotape::monitor::{Comparison, EarlyStopping, Observation, StopReason, compare, read_log};
use ferrotape::numbers::counted;
use ferrotape::trainer::recorded_history;
use ferrotape::{Error, Result};

use super::output::{Output, Table, number, or_dash};
use super::{Arguments, Command, Exit, source};

pub(crate) const COMMAND: Command = Command {
    name: "replay",
    summary: "what other stopping rules would have done on a recorded run",
    help: "\
Says for each rule when it would have stopped a recorded run, the best it would have found by then,
how much worse that is than the best of the whole run (regret), and the share of the training that
it would have saved.

Usage: ferrotape replay LOG.jsonl|FILE.ftape|RUN_DIR --rule RULE [--rule RULE ...]

      --rule RULE     such as 'patience(3)', 'gl(5)', 'pq(0.75,k=5)', 'up(3,k=5)',
                      'any(patience(5),target(0.1))'

A log has one JSON object per line and evaluation with `epoch` (counted from 1), `train_loss` and
`valid_loss`; other keys are metrics or ignored. It may be of any program. A line whose `valid_loss`
is null is ignored: it was not measured. A NaN was, and a rule stops there unless its nan_policy
says otherwise.
With --json there is one object per rule and line: rule, stop_epoch (null if it never stops),
best_epoch, best_value, regret, saved, reason.
",
    run,
};

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let mut specs: Vec<EarlyStopping> = Vec::new();
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "rule" => {
                let rule: String = arguments.value()?;
                specs.push(rule.parse().map_err(|error: Error| arguments.refused(&rule, error))?);
            }
            _ => return arguments.unknown(&option),
        }
    }
    let [path] = arguments.operands(["LOG.jsonl|FILE.ftape|RUN_DIR"])?;
    if specs.is_empty() {
        let reason = "missing --rule RULE; try --rule 'patience(3)' --rule 'gl(5)'";
        return Err(Exit::Usage(reason.into()));
    }
    let history = history(path)?;
    let found = compare(&specs, &history)?;
    if arguments.json {
        for comparison in &found {
            // Written directly, which keeps the order of the fields.
            out.block(&(serde_json::to_string(comparison).expect("plain data") + "\n"));
        }
        return Ok(true);
    }
    let last = history.last().map_or(0, |observation| observation.epoch);
    let count = counted(history.len() as u64, "evaluation");
    out.line(format!("{count}, the last at epoch {last}"));
    let headings = [
        "rule",
        ">stops at",
        ">best epoch",
        ">best value",
        ">regret",
        ">saved",
        "why it would stop",
    ];
    let mut table = Table::new(&headings);
    for Comparison { rule, stop_epoch, best_epoch, best_value, regret, saved, reason } in found {
        table.row([
            rule,
            or_dash(stop_epoch),
            or_dash(best_epoch),
            or_dash(best_value.map(number)),
            or_dash(regret.map(number)),
            format!("{:.0}%", 100.0 * saved),
            match reason {
                None => "it never does".to_owned(),
                Some(reason @ StopReason::Missing { .. }) => format!("cannot be applied: {reason}"),
                Some(reason) => reason.to_string(),
            },
        ]);
    }
    table.print(out);
    Ok(true)
}

/// The evaluations recorded in a JSON Lines log, a checkpoint, or the newest one of a run.
fn history(path: &Path) -> Result<Vec<Observation>> {
    if path.is_dir() || path.extension().is_some_and(|extension| extension == "ftape") {
        let history = source::open(path, false)?.read_history()?;
        let recorded = recorded_history(&TrainingState { history, ..TrainingState::default() });
        if recorded.is_empty() {
            let name = path.display().to_string();
            return Err(Error::config(name, "no evaluation has been recorded"));
        }
        return Ok(recorded);
    }
    let text = read_text(path)?;
    read_log(path, &text)
}
