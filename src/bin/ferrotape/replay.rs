//! `ferrotape replay`: what other stopping rules would have done on a recorded run.

use std::path::Path;

use ferrotape::checkpoint::{self, CheckpointFile};
use ferrotape::monitor::{Comparison, EarlyStopping, Observation, StopReason, compare, read_log};
use ferrotape::trainer::recorded_history;
use ferrotape::{Error, Result};

use super::{Options, line};

pub(super) fn replay(options: &Options, out: &mut String) -> Result<bool> {
    let [source] = options.operands()?;
    if options.rules.is_empty() {
        let reason = "none given; try --rule 'patience(3)' --rule 'gl(5)' --rule 'pq(0.75,k=5)'";
        return Err(Error::config("--rule", reason));
    }
    let specs: Vec<EarlyStopping> =
        options.rules.iter().map(|rule| rule.parse()).collect::<Result<_>>()?;
    let history = history(source)?;
    let found = compare(&specs, &history)?;
    if options.json {
        for comparison in &found {
            let object = serde_json::to_string(comparison).expect("plain data");
            line(out, format_args!("{object}"));
        }
        return Ok(true);
    }
    let last = history.last().map_or(0, |observation| observation.epoch);
    line(out, format_args!("{} evaluations, the last at epoch {last}", history.len()));
    let width = found.iter().map(|c| c.rule.len()).max().unwrap_or(0).max(4);
    line(
        out,
        format_args!(
            "{:<width$}  {:>5}  {:>5}  {:>12}  {:>10}  {:>6}  why it would stop",
            "rule", "stop", "best", "value", "regret", "saved"
        ),
    );
    for comparison in &found {
        line(out, format_args!("{}", row(comparison, width)));
    }
    Ok(true)
}

fn row(comparison: &Comparison, width: usize) -> String {
    let Comparison { rule, stop_epoch, best_epoch, best_value, regret, saved, reason } = comparison;
    let epoch = |epoch: &Option<u64>| epoch.map_or("-".to_owned(), |epoch| epoch.to_string());
    let number = |x: &Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.6}"));
    format!(
        "{rule:<width$}  {:>5}  {:>5}  {:>12}  {:>10}  {:>5.0}%  {}",
        epoch(stop_epoch),
        epoch(best_epoch),
        number(best_value),
        number(regret),
        100.0 * saved,
        reason.as_ref().map_or("it never does".to_owned(), StopReason::to_string),
    )
}

/// The evaluations recorded in a JSON Lines log, a checkpoint, or the newest one of a run.
fn history(source: &Path) -> Result<Vec<Observation>> {
    if source.is_dir() {
        let (entries, _) = checkpoint::list(source)?;
        let newest = entries
            .last()
            .ok_or_else(|| Error::config("replay", "this run directory holds no checkpoint"))?;
        return Ok(recorded_history(&CheckpointFile::open(&newest.path)?.read_state()?));
    }
    if source.extension().is_some_and(|extension| extension == "ftape") {
        return Ok(recorded_history(&CheckpointFile::open(source)?.read_state()?));
    }
    let text = std::fs::read_to_string(source).map_err(|e| Error::io("read", source, e))?;
    read_log(source, &text)
}
