//! `ferrotape ls`: the checkpoints of a run.

use std::fs::{self, Metadata};
use std::path::Path;

use ferrotape::Error;
use ferrotape::checkpoint::{Entry, Retention};
use serde_json::{Value, json};

use super::output::{Output, Table, number, or_dash, size};
use super::source::{is_gone, list, verify};
use super::{Arguments, Command, Exit};

pub(crate) const COMMAND: Command = Command {
    name: "ls",
    summary: "the checkpoints of a run: generation, epoch, metric, roles, size, verified",
    help: "\
Lists the checkpoints of a run directory, oldest first, and verifies each to its last byte.

Usage: ferrotape ls RUN_DIR

      --quick     do not read the tensors: the column `verified` stays empty

Roles say why a checkpoint is kept: among the last, among the best, on an epoch mark, pinned. They
are those that the run itself has noted, or by default: the last 3 and the best one.
",
    run,
};

/// A larger one lists more checkpoints than anyone keeps, and is not worth its memory.
const MAX_MANIFEST: u64 = 16 << 20;

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let mut quick = false;
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "quick" => quick = true,
            _ => return arguments.unknown(&option),
        }
    }
    let [dir] = arguments.operands()?;
    let (entries, skipped) = list(dir)?;
    let roles = roles(dir, &entries);
    let mut damaged: Vec<Error> = skipped.into_iter().map(|file| file.error).collect();
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
    for (entry, roles) in entries.iter().zip(roles) {
        let verified = match (!quick).then(|| verify(&entry.path)) {
            None => None,
            Some(Ok(())) => Some(true),
            Some(Err(error)) if is_gone(&error) => continue,
            Some(Err(error)) => {
                damaged.push(error);
                Some(false)
            }
        };
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

/// The roles of each entry. Which ones a run keeps is its own choice, so what it has noted in its
/// manifest comes first; the manifest may be missing, old, or not ours.
fn roles(dir: &Path, entries: &[Entry]) -> Vec<Vec<String>> {
    let manifest = dir.join("manifest.json");
    let small = |file: &Metadata| file.is_file() && file.len() < MAX_MANIFEST;
    let noted: Value = fs::metadata(&manifest)
        .ok()
        .filter(small)
        .and_then(|_| serde_json::from_slice(&fs::read(&manifest).ok()?).ok())
        .unwrap_or_default();
    let noted_for = |entry: &Entry| -> Option<Vec<String>> {
        let rows = noted["checkpoints"].as_array()?;
        let row = rows.iter().find(|row| row["digest"] == entry.digest.as_str())?;
        let same = row["generation"] == entry.generation;
        same.then(|| serde_json::from_value(row["roles"].clone()).ok())?
    };
    let usual = Retention::default().roles(entries);
    let usual = usual.into_iter().map(|roles| roles.names());
    let either = entries.iter().zip(usual).map(|(entry, usual)| {
        noted_for(entry).unwrap_or_else(|| usual.into_iter().map(str::to_owned).collect())
    });
    either.collect()
}
