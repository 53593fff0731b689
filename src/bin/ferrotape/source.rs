//! A checkpoint, named by its file or by the run directory it is in.

use std::fs::{self, Metadata};
use std::path::Path;

use ferrotape::checkpoint::{self, CheckpointFile, Entry, Retention, Skipped};
use ferrotape::error::RunDirFault;
use ferrotape::{Error, Result};
use serde_json::Value;

use super::message;

/// A larger manifest lists more checkpoints than anyone keeps, and is not worth its memory.
const MAX_MANIFEST: u64 = 16 << 20;

/// Opens a file; in a run directory the newest checkpoint that verifies, or the best one. What
/// had to be passed over is reported on stderr.
pub(crate) fn open(path: &Path, best: bool) -> Result<CheckpointFile> {
    if !path.is_dir() {
        return CheckpointFile::open(path);
    }
    let (mut entries, mut skipped) = list(path)?;
    // Where nothing finite was measured, as after an import, none is better than the newest.
    let best = best && preferred(&entries, true).is_some();
    while let Some(at) = preferred(&entries, best) {
        let entry = entries.remove(at);
        match CheckpointFile::open(&entry.path).and_then(|file| file.verify().map(|()| file)) {
            Ok(file) => {
                for Skipped { error, .. } in skipped {
                    message(&format!("passed over: {error}"));
                }
                return Ok(file);
            }
            Err(error) => skipped.push(Skipped { path: entry.path, error }),
        }
    }
    Err(match skipped.is_empty() {
        true => Error::config(path.display().to_string(), "this directory holds no checkpoint"),
        false => {
            let fault = RunDirFault::NoValidCheckpoint { skipped };
            Error::RunDir { path: path.to_owned(), fault }
        }
    })
}

fn preferred(entries: &[Entry], best: bool) -> Option<usize> {
    if !best {
        return entries.len().checked_sub(1);
    }
    let roles = Retention { best: 1, ..Retention::default() }.roles(entries);
    roles.iter().position(|roles| roles.best)
}

/// The checkpoints of a run directory, and those that are damaged. A file that a running training
/// has deleted in the meantime is neither.
pub(crate) fn list(dir: &Path) -> Result<(Vec<Entry>, Vec<Skipped>)> {
    let (entries, mut skipped) = checkpoint::list(dir)?;
    skipped.retain(|file| !is_gone(&file.error));
    Ok((entries, skipped))
}

/// Which checkpoints a run keeps: its own choice, which it has noted in its manifest. That may be
/// missing, old, or not ours; then it is the usual one.
pub(crate) fn retention(dir: &Path) -> Retention {
    let manifest = dir.join("manifest.json");
    let small = |file: &Metadata| file.is_file() && file.len() < MAX_MANIFEST;
    let noted: Value = fs::metadata(&manifest)
        .ok()
        .filter(small)
        .and_then(|_| serde_json::from_slice(&fs::read(&manifest).ok()?).ok())
        .unwrap_or_default();
    let noted = &noted["retention"];
    let number = |name: &str| noted[name].as_u64();
    let count = |name: &str| usize::try_from(number(name)?).ok();
    match (count("last"), count("best")) {
        (Some(last), Some(best)) => Retention {
            last,
            best,
            every_epochs: number("every_epochs"),
            max_bytes: number("max_bytes"),
        },
        _ => Retention::default(),
    }
}

/// Whether a file was not there any more when it was opened.
pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// Reads every byte of a file.
pub(crate) fn verify(path: &Path) -> Result<()> {
    CheckpointFile::open(path)?.verify()
}
