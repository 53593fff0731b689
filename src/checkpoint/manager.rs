//! The run directory: one writer, increasing generations, recovery.
//!
//! ```text
//! runs/mnist/lock                  held while a Checkpoints is open
//! runs/mnist/ckpt-00000012.ftape   one complete training state; immutable
//! runs/mnist/ckpt-00000012.pin     an empty file beside it: never delete generation 12
//! runs/mnist/manifest.json         a table of contents for people and scripts
//! ```
//!
//! The files are the truth. The manifest is written after every change and read by nothing that
//! saves or loads (the command line takes from it how many checkpoints a run keeps), so it cannot
//! be wrong in a way that matters; all names are relative, so a directory may be moved
//! or copied. Recovery looks at the files, newest first, takes the first that verifies to its
//! last byte, says which it passed over and why, and deletes nothing.
//!
//! The last state is replaced by the next one; the best may never be reached again. If the disk is
//! full just when it is to be saved, it is owed: a copy stays in memory, and is saved first once
//! there is room.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CheckpointFault;
use super::commit::{commit, file_name, generation_of, rehearse, temporary_generation_of};
use super::reader::{CheckpointFile, hex};
use super::retention::{Retention, Roles, by_metric};
use super::state::{Cursor, Metric, TrainingState};
use super::vfs::{Lock, RealFs, Vfs};
use super::writer::Plan;
use crate::error::{Error, Result, RunDirFault};

const LOCK: &str = "lock";
const MANIFEST: &str = "manifest.json";
const MANIFEST_TEMPORARY: &str = ".manifest.tmp";

/// A run directory, open for saving and loading, locked against every other writer.
pub struct Checkpoints {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    _lock: Box<dyn Lock>,
    retention: Retention,
    /// The files whose metadata is sound, in ascending order of generation.
    entries: Vec<Entry>,
    /// The generations found unreadable. They are never deleted and never counted on.
    damaged: Vec<u64>,
    next: u64,
    /// A state that is better than all in `entries`, and that there was no room for.
    owed: Option<Box<(TrainingState<'static>, Metric)>>,
}

impl std::fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoints")
            .field("dir", &self.dir)
            .field("retention", &self.retention)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// One checkpoint of a run directory, known without reading its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its number: later checkpoints have higher ones.
    pub generation: u64,
    /// The file.
    pub path: PathBuf,
    /// The file's size.
    pub bytes: u64,
    /// The position in the run.
    pub cursor: Cursor,
    /// The metric of its weights, if they were evaluated.
    pub metric: Option<Metric>,
    /// Whether it is never deleted.
    pub pinned: bool,
    /// The state's digest, as 32 hexadecimal digits.
    pub digest: String,
}

/// A checkpoint that is on disk.
#[derive(Debug)]
pub struct Saved {
    /// Its number.
    pub generation: u64,
    /// The file.
    pub path: PathBuf,
    /// The file's size.
    pub bytes: u64,
    /// The state's digest, as 32 hexadecimal digits: equal for equal states.
    pub digest: String,
    /// Older checkpoints that no role needed any more, now deleted.
    pub removed: Vec<PathBuf>,
    /// What went wrong after the checkpoint was safe: cleaning up, the manifest.
    pub warnings: Vec<Error>,
}

impl Saved {
    /// Adds what happened when another state was saved just before.
    fn after(mut self, before: Option<Saved>) -> Self {
        if let Some(before) = before {
            self.removed.splice(0..0, before.removed);
            self.warnings.splice(0..0, before.warnings);
        }
        self
    }
}

/// A state read from disk, verified to the last bit.
#[derive(Debug)]
pub struct Loaded {
    /// The state.
    pub state: TrainingState<'static>,
    /// The file's number.
    pub generation: u64,
    /// The file.
    pub path: PathBuf,
    /// The metric of its weights, if they were evaluated.
    pub metric: Option<Metric>,
    /// The state's digest, as 32 hexadecimal digits.
    pub digest: String,
    /// The files that were preferred but not valid, and why. Tell the user.
    pub skipped: Vec<Skipped>,
}

/// A file that was passed over.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: Error,
}

impl Checkpoints {
    /// Opens a run directory, creating it if need be, and locks it. Removes temporary files that
    /// an interrupted save left behind; touches nothing else.
    ///
    /// # Errors
    /// [`RunDirFault::Locked`] if another process has it open, or [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_in(Arc::new(RealFs), dir)
    }

    /// [`Checkpoints::open`] on any file system.
    ///
    /// # Errors
    /// As there.
    pub fn open_in(vfs: Arc<dyn Vfs>, dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_owned();
        vfs.create_dir_all(&dir).map_err(|error| Error::io("create", &dir, error))?;
        let lock = vfs
            .try_lock(&dir.join(LOCK))
            .map_err(|error| Error::io("lock", dir.join(LOCK), error))?
            .ok_or_else(|| Error::RunDir { path: dir.clone(), fault: RunDirFault::Locked })?;
        let names = vfs.list(&dir).map_err(|error| Error::io("list", &dir, error))?;
        let mut next = 0;
        for name in &names {
            let stale = temporary_generation_of(name);
            if stale.is_some() || name == MANIFEST_TEMPORARY {
                let path = dir.join(name);
                vfs.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
            }
            let generation = generation_of(name).or(stale).or(pin_of(name));
            next = next.max(generation.map_or(0, |generation| generation.saturating_add(1)));
        }
        let (entries, damaged) = scan(&*vfs, &dir, &names);
        let retention = Retention::default();
        Ok(Checkpoints { vfs, dir, _lock: lock, retention, entries, damaged, next, owed: None })
    }

    /// Keeps the newest `count` checkpoints; fewer than 2 counts as 2.
    pub fn keep_last(mut self, count: usize) -> Self {
        self.retention.last = count;
        self
    }

    /// Keeps the `count` checkpoints with the best metric.
    pub fn keep_best(mut self, count: usize) -> Self {
        self.retention.best = count;
        self
    }

    /// Keeps the first checkpoint of every epoch that is a multiple of `epochs`.
    pub fn keep_every_epochs(mut self, epochs: u64) -> Self {
        self.retention.every_epochs = Some(epochs);
        self
    }

    /// Gives up roles once the files are larger than `bytes` together; see [`Retention`].
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.retention.max_bytes = Some(bytes);
        self
    }

    /// Sets all of the above at once.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// The run directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the directory holds checkpoint files, valid or not. A new run should not begin in
    /// a directory that does.
    pub fn has_checkpoints(&self) -> bool {
        !self.entries.is_empty() || !self.damaged.is_empty()
    }

    /// The checkpoints whose metadata is sound, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The generations of files found unreadable; loading says why.
    pub fn damaged(&self) -> &[u64] {
        &self.damaged
    }

    /// The roles that keep each of [`Checkpoints::entries`].
    pub fn roles(&self) -> Vec<Roles> {
        self.retention.roles(&self.entries)
    }

    /// Saves a state as a new generation. When this returns `Ok`, the state survives a power cut,
    /// and older checkpoints that no role needs have been deleted. `metric` is what was measured
    /// with exactly these weights, if they were just evaluated.
    ///
    /// If the disk is too full for a state with the best metric so far, a copy of it is kept in
    /// memory, and saved before the next one.
    ///
    /// # Errors
    /// [`Error::Io`], for example when the disk is full, or [`Error::Checkpoint`] if the state
    /// breaks a rule of the format. No older checkpoint is touched, and saving again later is
    /// safe.
    pub fn save(&mut self, state: &TrainingState<'_>, metric: Option<Metric>) -> Result<Saved> {
        let mut before = None;
        if let Some(owed) = self.owed.take()
            && metric.as_ref().is_none_or(|metric| !metric.replaces(&owed.1))
        {
            match self.write(&owed.0, Some(owed.1.clone())) {
                Ok(saved) => before = Some(saved),
                Err(error) => {
                    self.owed = Some(owed);
                    return Err(error);
                }
            }
        }
        match self.write(state, metric.clone()) {
            Ok(saved) => Ok(saved.after(before)),
            Err(error) => {
                let best = metric.filter(|metric| error.is_no_room() && self.would_be_best(metric));
                self.owed = best.map(|metric| Box::new((state.to_owned_state(), metric)));
                Err(error)
            }
        }
    }

    /// Whether a state with this metric would have the role "best".
    fn would_be_best(&self, metric: &Metric) -> bool {
        let mut others = self.entries.iter().filter_map(|entry| entry.metric.as_ref());
        self.retention.best > 0
            && metric.value.is_finite()
            && others.all(|other| metric.replaces(other))
    }

    /// Saves one state, and deletes what no role needs any more.
    fn write(&mut self, state: &TrainingState<'_>, metric: Option<Metric>) -> Result<Saved> {
        let generation = self.next;
        let path = self.dir.join(file_name(generation));
        let plan = Plan::new(state, generation, metric.as_ref())
            .map_err(|fault| Error::checkpoint(&path, fault))?;
        let bytes = plan.file_len();
        // A name is never used twice, not even after a failure that leaves its fate unknown.
        self.next = self.next.saturating_add(1);
        let (path, digest) = commit(&*self.vfs, &self.dir, generation, plan)?;
        let digest = hex(&digest);
        self.entries.push(Entry {
            generation,
            path: path.clone(),
            bytes,
            cursor: state.cursor,
            metric,
            pinned: false,
            digest: digest.clone(),
        });
        let mut warnings = Vec::new();
        let removed = self.retain(&mut warnings);
        self.write_manifest(&mut warnings);
        Ok(Saved { generation, path, bytes, digest, removed, warnings })
    }

    /// Finds out, before any work is done, whether a state can be saved here: writes one, makes it
    /// durable and removes it again. That asks the disk itself and not its statistics, so it is
    /// right about quotas, rights and shared volumes as well.
    ///
    /// # Errors
    /// As for [`Checkpoints::save`].
    pub fn preflight(&mut self, state: &TrainingState<'_>) -> Result<()> {
        let plan = Plan::new(state, self.next, None)
            .map_err(|fault| Error::checkpoint(self.dir.join(file_name(self.next)), fault))?;
        rehearse(&*self.vfs, &self.dir, self.next, plan)
    }

    /// Deletes what no role needs, as after every save. For use after the retention was changed.
    /// Every file is verified to its last byte before, so that what stays is valid.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be removed.
    pub fn prune(&mut self) -> Result<Vec<PathBuf>> {
        for Entry { generation, path, .. } in self.entries.clone() {
            if open(&*self.vfs, &path, generation).and_then(|file| file.verify()).is_err() {
                self.set_damaged(generation);
            }
        }
        let mut warnings = Vec::new();
        let removed = self.retain(&mut warnings);
        self.write_manifest(&mut warnings);
        warnings.into_iter().next().map_or(Ok(removed), Err)
    }

    /// Protects a generation from deletion, or takes the protection back.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such generation, or [`Error::Io`].
    pub fn set_pinned(&mut self, generation: u64, pinned: bool) -> Result<()> {
        let entry = self
            .entries
            .iter_mut()
            .find(|entry| entry.generation == generation)
            .ok_or_else(|| Error::config("generation", format!("there is no {generation}")))?;
        let path = self.dir.join(pin_name(generation));
        let done = match (entry.pinned, pinned) {
            (false, true) => self.vfs.create_new(&path).map(drop),
            (true, false) => self.vfs.remove(&path),
            _ => return Ok(()),
        };
        done.map_err(|error| Error::io("write", &path, error))?;
        entry.pinned = pinned;
        self.vfs.sync_dir(&self.dir).map_err(|error| Error::io("sync", &self.dir, error))?;
        let mut warnings = Vec::new();
        self.write_manifest(&mut warnings);
        warnings.into_iter().next().map_or(Ok(()), Err)
    }

    /// Loads the newest checkpoint that is valid; `None` if the directory holds none at all.
    ///
    /// # Errors
    /// [`RunDirFault::NoValidCheckpoint`] if there are files and none is valid: that is never
    /// taken for a fresh start.
    pub fn load_latest(&mut self) -> Result<Option<Loaded>> {
        let mut order: Vec<u64> = self.entries.iter().map(|entry| entry.generation).collect();
        order.extend(&self.damaged);
        order.sort_unstable_by(|a, b| b.cmp(a));
        self.load_first(&order)
    }

    /// Loads the checkpoint with the best metric that is valid; `None` if no checkpoint has a
    /// metric.
    ///
    /// # Errors
    /// [`RunDirFault::NoValidCheckpoint`] if there are such files and none is valid.
    pub fn load_best(&mut self) -> Result<Option<Loaded>> {
        let ranked = by_metric(&self.entries);
        if ranked.is_empty() && !self.entries.is_empty() {
            return Ok(None);
        }
        // What is damaged may have been the best: it is tried again, and reported.
        let mut order: Vec<u64> = self.damaged.clone();
        order.extend(ranked.iter().map(|&at| self.entries[at].generation));
        self.load_first(&order)
    }

    /// Loads the checkpoint of one generation.
    ///
    /// # Errors
    /// [`RunDirFault::NoValidCheckpoint`] if it is not there or not valid.
    pub fn load(&mut self, generation: u64) -> Result<Loaded> {
        Ok(self.load_first(&[generation])?.expect("a file that is not valid is an error"))
    }

    /// Loads the first of some generations that is valid.
    fn load_first(&mut self, order: &[u64]) -> Result<Option<Loaded>> {
        let mut skipped = Vec::new();
        for &generation in order {
            let path = self.dir.join(file_name(generation));
            let read = open(&*self.vfs, &path, generation).and_then(|file| {
                let (metric, digest) = (file.metric().cloned(), file.digest());
                Ok((file.read_state()?, metric, digest))
            });
            match read {
                Ok((state, metric, digest)) => {
                    return Ok(Some(Loaded { state, generation, path, metric, digest, skipped }));
                }
                Err(error) => {
                    self.set_damaged(generation);
                    skipped.push(Skipped { path, error });
                }
            }
        }
        if skipped.is_empty() {
            return Ok(None);
        }
        let fault = RunDirFault::NoValidCheckpoint { skipped };
        Err(Error::RunDir { path: self.dir.clone(), fault })
    }

    /// From now on the file is neither counted on nor deleted.
    fn set_damaged(&mut self, generation: u64) {
        self.entries.retain(|entry| entry.generation != generation);
        if !self.damaged.contains(&generation) {
            self.damaged.push(generation);
        }
    }

    /// Deletes the files that no role needs. One that cannot be deleted stays an entry.
    fn retain(&mut self, warnings: &mut Vec<Error>) -> Vec<PathBuf> {
        let roles = self.retention.roles(&self.entries);
        let mut removed = Vec::new();
        let mut roles = roles.into_iter();
        self.entries.retain(|entry| {
            if roles.next().is_some_and(Roles::any) {
                return true;
            }
            match self.vfs.remove(&entry.path) {
                Ok(()) => removed.push(entry.path.clone()),
                Err(error) => warnings.push(Error::io("remove", &entry.path, error)),
            }
            !removed.contains(&entry.path)
        });
        removed
    }

    /// Writes the table of contents. It need not survive a power cut, so nothing is synced.
    fn write_manifest(&self, warnings: &mut Vec<Error>) {
        let rows: Vec<serde_json::Value> = self
            .entries
            .iter()
            .zip(self.roles())
            .map(|(entry, roles)| {
                serde_json::json!({
                    "generation": entry.generation,
                    "file": file_name(entry.generation),
                    "bytes": entry.bytes,
                    "epoch": entry.cursor.epoch,
                    "step": entry.cursor.step,
                    "metric": entry.metric.as_ref().map(|metric| &metric.name),
                    "value": entry.metric.as_ref().map(|metric| metric.value),
                    "roles": roles.names(),
                    "digest": entry.digest,
                })
            })
            .collect();
        let Retention { last, best, every_epochs, max_bytes } = &self.retention;
        let manifest = serde_json::json!({
            "checkpoints": rows,
            "retention": {
                "last": last, "best": best, "every_epochs": every_epochs, "max_bytes": max_bytes,
            },
        });
        let text = format!("{manifest:#}\n");
        let temporary = self.dir.join(MANIFEST_TEMPORARY);
        let path = self.dir.join(MANIFEST);
        let write = || {
            self.vfs.create_new(&temporary)?.write_all(text.as_bytes())?;
            self.vfs.replace(&temporary, &path)
        };
        if let Err(error) = write() {
            let _ = self.vfs.remove(&temporary);
            warnings.push(Error::io("write", &path, error));
        }
    }
}

fn pin_name(generation: u64) -> String {
    format!("ckpt-{generation:08}.pin")
}

fn pin_of(name: &str) -> Option<u64> {
    let generation =
        generation_of(&name.strip_suffix(".pin").map(|stem| stem.to_owned() + ".ftape")?)?;
    Some(generation)
}

/// Opens a file whose name says that it is `generation`.
fn open(vfs: &dyn Vfs, path: &Path, generation: u64) -> Result<CheckpointFile> {
    let file = CheckpointFile::open_in(vfs, path)?;
    if file.generation() != generation {
        let fault = CheckpointFault::WrongName { generation: file.generation() };
        return Err(Error::checkpoint(path, fault));
    }
    Ok(file)
}

/// The generations of the checkpoint files among some names, ascending.
fn generations(names: &[String]) -> Vec<u64> {
    let mut generations: Vec<u64> = names.iter().filter_map(|name| generation_of(name)).collect();
    generations.sort_unstable();
    generations
}

fn entry(file: &CheckpointFile, names: &[String]) -> Entry {
    Entry {
        generation: file.generation(),
        path: file.path().to_owned(),
        bytes: file.bytes(),
        cursor: file.cursor(),
        metric: file.metric().cloned(),
        pinned: names.contains(&pin_name(file.generation())),
        digest: file.digest(),
    }
}

/// Sorts the checkpoint files of a directory into those with sound metadata, in ascending order,
/// and the generations of the others.
fn scan(vfs: &dyn Vfs, dir: &Path, names: &[String]) -> (Vec<Entry>, Vec<u64>) {
    let (mut entries, mut damaged) = (Vec::new(), Vec::new());
    for generation in generations(names) {
        match open(vfs, &dir.join(file_name(generation)), generation) {
            Ok(file) => entries.push(entry(&file, names)),
            Err(_) => damaged.push(generation),
        }
    }
    (entries, damaged)
}

/// Looks into a run directory without locking or changing it, also while it is being written to:
/// its checkpoints in ascending order, and the files that are none although their names say so.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be listed.
pub fn list(dir: impl AsRef<Path>) -> Result<(Vec<Entry>, Vec<Skipped>)> {
    let dir = dir.as_ref();
    let names = RealFs.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let (mut entries, mut skipped) = (Vec::new(), Vec::new());
    for generation in generations(&names) {
        let path = dir.join(file_name(generation));
        match open(&RealFs, &path, generation) {
            Ok(file) => entries.push(entry(&file, &names)),
            Err(error) => skipped.push(Skipped { path, error }),
        }
    }
    Ok((entries, skipped))
}
