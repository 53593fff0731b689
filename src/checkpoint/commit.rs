//! The commit: how bytes become a file that is either completely there or not at all.
//!
//! ```text
//! create   .ckpt-00000012.tmp      new, in the same directory
//! write    everything
//! fsync    the file                content and length are on the disk
//! publish  ckpt-00000012.ftape     a new name, never replacing another
//! fsync    the directory           the name is on the disk
//! ```
//!
//! Only then is the checkpoint reported as saved, and only after that may retention delete an
//! older one. At every moment in between the newest complete generation on disk is the one
//! reported last, or the new one. If anything fails, the temporary file is removed and nothing
//! else is touched. A failed fsync is final for its file: the kernel may have dropped the pages
//! and a second call would succeed without them. The next save writes a new file from memory.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::format::Checksum;
use super::vfs::{RealFs, Vfs, parent_of};
use super::writer::Plan;
use crate::error::{Error, Result};

const SUFFIX: &str = ".ftape";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// The file name of a generation.
pub(super) fn file_name(generation: u64) -> String {
    format!("ckpt-{generation:08}{SUFFIX}")
}

fn temporary_name(generation: u64) -> String {
    format!(".ckpt-{generation:08}{TEMPORARY_SUFFIX}")
}

/// The generation of a file name, if it is exactly one that [`file_name`] makes.
pub(super) fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("ckpt-")?.strip_suffix(SUFFIX)?;
    let generation = digits.parse().ok()?;
    (file_name(generation) == name).then_some(generation)
}

/// The generation of a temporary file's name.
pub(super) fn temporary_generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(".ckpt-")?.strip_suffix(TEMPORARY_SUFFIX)?;
    let generation = digits.parse().ok()?;
    (temporary_name(generation) == name).then_some(generation)
}

/// Writes a planned state, makes it durable, and removes it: whatever a save needs is there.
pub(super) fn rehearse(vfs: &dyn Vfs, dir: &Path, generation: u64, plan: Plan<'_>) -> Result<()> {
    let temporary = dir.join(temporary_name(generation));
    let written = write(vfs, &temporary, plan);
    let removed = vfs.remove(&temporary).map_err(|error| Error::io("remove", &temporary, error));
    written.and(removed)
}

/// Writes a planned state as `generation` into `dir`. The file is durable when this returns.
pub(super) fn commit(
    vfs: &dyn Vfs,
    dir: &Path,
    generation: u64,
    plan: Plan<'_>,
) -> Result<(PathBuf, Checksum)> {
    let temporary = dir.join(temporary_name(generation));
    let path = dir.join(file_name(generation));
    let written = write(vfs, &temporary, plan).and_then(|digest| {
        vfs.publish(&temporary, &path).map_err(|error| Error::io("publish", &path, error))?;
        Ok(digest)
    });
    match written {
        Ok(digest) => {
            vfs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
            Ok((path, digest))
        }
        Err(error) => {
            // Best effort: what stays behind is removed when the directory is next opened.
            let _ = vfs.remove(&temporary);
            Err(error)
        }
    }
}

fn write(vfs: &dyn Vfs, temporary: &Path, plan: Plan<'_>) -> Result<Checksum> {
    let mut file =
        vfs.create_new(temporary).map_err(|error| Error::io("create", temporary, error))?;
    let digest = plan.write(&mut *file).map_err(|error| Error::io("write", temporary, error))?;
    file.sync_all().map_err(|error| Error::io("sync", temporary, error))?;
    Ok(digest)
}

/// Writes any other file completely or not at all, replacing an older one of the same name.
pub(crate) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let temporary =
        path.with_file_name(format!(".{name}.{}{TEMPORARY_SUFFIX}", std::process::id()));
    let run = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&temporary)?);
        write(&mut file)?;
        file.into_inner()?.sync_all()?;
        RealFs.replace(&temporary, path)?;
        RealFs.sync_dir(&parent_of(path))
    };
    run().map_err(|error| {
        let _ = RealFs.remove(&temporary);
        Error::io("write", path, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_generation_determine_each_other() {
        for generation in [0, 12, 99_999_999, 100_000_000, u64::MAX] {
            assert_eq!(generation_of(&file_name(generation)), Some(generation));
            assert_eq!(temporary_generation_of(&temporary_name(generation)), Some(generation));
        }
        for name in ["ckpt-1.ftape", "ckpt-+0000001.ftape", "ckpt-00000001.tmp", "other"] {
            assert_eq!(generation_of(name), None, "{name}");
        }
    }
}
