//! `ferrotape prune`: delete what no role needs.

use std::path::{Path, PathBuf};

use ferrotape::checkpoint::{Checkpoints, Retention, Roles};
use ferrotape::{Error, Result};
use serde_json::json;

use super::output::Output;
use super::source::{self, list};
use super::{Arguments, Command, Exit};

pub(crate) const COMMAND: Command = Command {
    name: "prune",
    summary: "delete the checkpoints that no role needs",
    help: "\
Deletes the checkpoints of a run that are neither among the last, nor among the best, nor on an
epoch mark, nor pinned. A directory in use by a training run is refused; damaged files are never
deleted.

Usage: ferrotape prune RUN_DIR

What is not given is what the run has noted in its manifest, or else the default.

      --keep-last N     the newest N, at least 2 (3)
      --keep-best N     the N with the best metric (1)
      --keep-every N    the first one of every N-th epoch (none)
      --max-bytes N     once all are larger together, give up epoch marks, then all but one of the
                        best, then all but two of the last
      --dry-run         only say what would be deleted
",
    run,
};

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let (mut last, mut best, mut every_epochs, mut max_bytes) = (None, None, None, None);
    let mut dry_run = false;
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "keep-last" => last = Some(arguments.value()?),
            "keep-best" => best = Some(arguments.value()?),
            "keep-every" => every_epochs = Some(arguments.value()?),
            "max-bytes" => max_bytes = Some(arguments.value()?),
            "dry-run" => dry_run = true,
            _ => return arguments.unknown(&option),
        }
    }
    let [dir] = arguments.operands(["RUN_DIR"])?;
    let noted = source::retention(dir);
    let retention = Retention {
        last: last.unwrap_or(noted.last),
        best: best.unwrap_or(noted.best),
        every_epochs: every_epochs.or(noted.every_epochs),
        max_bytes: max_bytes.or(noted.max_bytes),
    };
    let (removed, kept) =
        if dry_run { removable(dir, &retention)? } else { prune(dir, retention)? };
    if arguments.json {
        let names: Vec<_> = removed.iter().map(|path| path.to_string_lossy()).collect();
        out.json(&json!({ "dry_run": dry_run, "removed": names, "kept": kept }));
    } else {
        let done = if dry_run { "would be removed" } else { "removed" };
        removed.iter().for_each(|path| out.line(format!("{} {done}", path.display())));
        out.line(format!("{} {done}, {kept} kept", removed.len()));
    }
    Ok(true)
}

/// What [`prune`] would remove, and how many it would keep, without touching anything.
fn removable(dir: &Path, retention: &Retention) -> Result<(Vec<PathBuf>, usize)> {
    let (mut entries, _) = list(dir)?;
    entries.retain(|entry| source::verify(&entry.path).is_ok());
    let roles = retention.roles(&entries);
    let needed = roles.into_iter().map(Roles::any);
    let removable: Vec<PathBuf> = entries
        .iter()
        .zip(needed)
        .filter(|(_, needed)| !needed)
        .map(|(entry, _)| entry.path.clone())
        .collect();
    let kept = entries.len() - removable.len();
    Ok((removable, kept))
}

fn prune(dir: &Path, retention: Retention) -> Result<(Vec<PathBuf>, usize)> {
    let mut checkpoints = open_existing(dir)?.retention(retention);
    let removed = checkpoints.prune()?;
    Ok((removed, checkpoints.entries().len()))
}

/// Opens a directory that already is a run: asking for one does not make it one.
pub(crate) fn open_existing(dir: &Path) -> Result<Checkpoints> {
    let (entries, skipped) = list(dir)?;
    if entries.is_empty() && skipped.is_empty() {
        let name = dir.display().to_string();
        return Err(Error::config(name, "this directory holds no checkpoint"));
    }
    let retention = source::retention(dir);
    Ok(Checkpoints::open(dir)?.retention(retention))
}
