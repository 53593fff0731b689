//! `ferrotape ls`: the checkpoints of a run.

use ferrotape::Error;
use ferrotape::checkpoint::Roles;
use ferrotape::numbers::size;
use serde_json::json;

use super::output::{Output, Table, number, or_dash};
use super::source::{is_gone, list, retention, verify};
use super::{Arguments, Command, Exit};

pub(crate) const COMMAND: Command = Command {
    name: "ls",
    summary: "the checkpoints of a run: generation, epoch, metric, roles, size, verified",
    help: "\
Lists the checkpoints of a run directory, oldest first, and verifies each to its last byte.

Usage: ferrotape ls RUN_DIR

      --quick     do not read the tensors: the column `verified` stays empty

Roles say why a checkpoint is kept: among the last, among the best, on an epoch mark, pinned. How
many are kept is what the run has noted in its manifest, or else the last 3 and the best one.
",
    run,
};

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let mut quick = false;
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "quick" => quick = true,
            _ => return arguments.unknown(&option),
        }
    }
    let [dir] = arguments.operands(["RUN_DIR"])?;
    let (entries, skipped) = list(dir)?;
    let mut damaged: Vec<Error> = skipped.into_iter().map(|file| file.error).collect();
    let mut checked = Vec::new();
    for entry in entries {
        let verified = match (!quick).then(|| verify(&entry.path)) {
            Some(Err(error)) if is_gone(&error) => continue,
            Some(Err(error)) => {
                damaged.push(error);
                Some(false)
            }
            check => check.map(|_| true),
        };
        checked.push((entry, verified));
    }
    // What is damaged has no role: it is not counted on.
    let sound = checked.iter().filter(|(_, verified)| *verified != Some(false));
    let sound: Vec<_> = sound.map(|(entry, _)| entry.clone()).collect();
    let mut roles = retention(dir).roles(&sound).into_iter();
    let mut table = Table::new(&[
        ">generation",
        ">epoch",
        ">step",
        "metric",
        ">value",
        "roles",
        ">size",
        "verified",
    ]);
    let mut rows = Vec::new();
    for (entry, verified) in &checked {
        let role = if *verified == Some(false) { None } else { roles.next() };
        let roles = role.map(Roles::names).unwrap_or_default();
        let metric = entry.metric.as_ref();
        rows.push(json!({
            "generation": entry.generation, "path": entry.path.to_string_lossy(),
            "epoch": entry.cursor.epoch, "step": entry.cursor.step,
            "metric": metric.map(|metric| &metric.name),
            "value": metric.map(|metric| metric.value),
            "roles": roles, "bytes": entry.bytes, "digest": entry.digest, "verified": verified,
        }));
        table.row([
            entry.generation.to_string(),
            entry.cursor.epoch.to_string(),
            entry.cursor.step.to_string(),
            or_dash(metric.map(|metric| metric.name.clone())),
            or_dash(metric.map(|metric| number(metric.value))),
            or_dash((!roles.is_empty()).then(|| roles.join(" "))),
            size(entry.bytes),
            or_dash(verified.map(|verified| if verified { "yes" } else { "NO" })),
        ]);
    }
    let reasons: Vec<String> = damaged.iter().map(Error::to_string).collect();
    if arguments.json {
        out.json(&json!({ "checkpoints": rows, "damaged": reasons }));
    } else {
        if rows.is_empty() && reasons.is_empty() {
            out.line("no checkpoints");
        } else if !rows.is_empty() {
            table.print(out);
        }
        reasons.iter().for_each(|reason| out.line(format!("damaged: {reason}")));
    }
    Ok(damaged.is_empty())
}
