//! `ferrotape report`: a run as one HTML page.

use std::path::{Path, PathBuf};

use ferrotape::monitor::EarlyStopping;
use ferrotape::numbers::counted;
use ferrotape::report::Report;
use ferrotape::{Error, Result};
use serde_json::json;

use super::output::Output;
use super::{Arguments, Command, Exit};

pub(crate) const COMMAND: Command = Command {
    name: "report",
    summary: "a run as one HTML page: curves, verdict, what other rules would have done",
    help: "\
Writes a report on a run as one HTML file that needs no network: what happened and whether stopping
was right, the curves, what other stopping rules would have done, settings and checkpoints.

Usage: ferrotape report RUN_DIR|LOG.jsonl [-o FILE] [--rule RULE ...]

  -o, --output FILE   where to write it, also over an older one; without it RUN_DIR/report.html or
                      LOG.html, unless that exists: the report of a training run knows more
      --rule RULE     compare with this rule instead of the usual ones, such as 'patience(3)'

A log has one JSON object per line and evaluation with `epoch` (counted from 1), `train_loss` and
`valid_loss`; other keys are metrics or ignored. It may be of any program.
",
    run,
};

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let mut output = None;
    let mut rules: Vec<EarlyStopping> = Vec::new();
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "output" => output = Some(arguments.path()?),
            "rule" => {
                let rule: String = arguments.value()?;
                rules.push(rule.parse().map_err(|error: Error| arguments.refused(&rule, error))?);
            }
            _ => return arguments.unknown(&option),
        }
    }
    let [source] = arguments.operands(["RUN_DIR|LOG.jsonl"])?;
    let path = match output {
        Some(path) => path,
        None => usual_path(source)?,
    };
    let mut report =
        if source.is_dir() { Report::of_run_dir(source)? } else { Report::of_log(source)? };
    if !rules.is_empty() {
        report = report.rules(rules)?;
    }
    report.write(&path)?;
    let evaluations = report.evaluations();
    if arguments.json {
        out.json(&json!({ "report": path.to_string_lossy(), "evaluations": evaluations }));
    } else {
        let count = counted(evaluations as u64, "evaluation");
        out.line(format!("report on {count} written to {}", path.display()));
    }
    Ok(true)
}

/// Where a report goes if nobody says: beside what it is about, and never over another file.
fn usual_path(source: &Path) -> Result<PathBuf> {
    let path = match source.is_dir() {
        true => source.join("report.html"),
        false => source.with_extension("html"),
    };
    if path.exists() {
        let reason = "exists already; -o FILE writes there or elsewhere";
        return Err(Error::config(path.display().to_string(), reason));
    }
    Ok(path)
}
