//! A file system in memory that remembers what is not yet safe, can be cut off at any operation,
//! and fails on demand.
//!
//! What a power cut may leave behind follows POSIX at its least helpful:
//!
//! - a written file has its content as of its last successful fsync, plus any subset of the
//!   writes since, each of them whole, torn in either half, or absent;
//! - a directory has its names as of its last fsync, plus any subset of the changes since, in
//!   order; a name may thus survive without the content of its file, and the other way round;
//! - a failed fsync throws the unwritten data away *and* calls it clean: reading still shows it,
//!   a second fsync succeeds, and after a power cut it is gone.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use ferrotape::checkpoint::vfs::{Lock, ReadFile, Vfs, WriteFile};

/// What goes wrong at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with this error number; a write may have written half.
    Errno(i32),
    /// A write writes half and says so. Other operations are not affected.
    Short,
}

pub const EINTR: Fault = Fault::Errno(4);
pub const EIO: Fault = Fault::Errno(5);
pub const ENOSPC: Fault = Fault::Errno(28);

#[derive(Clone, Default)]
pub struct SimFs(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    disk: Disk,
    ops: u64,
    locked: bool,
    /// Fails operations from the first number up to, not including, the second.
    fault: Option<(u64, u64, Fault)>,
    record: bool,
    recorded: Vec<Disk>,
}

/// Everything there is, safe and not yet safe.
#[derive(Clone, Default)]
pub struct Disk {
    files: Vec<FileData>,
    /// The names as programs see them.
    names: BTreeMap<PathBuf, usize>,
    /// The names as of the last directory fsync.
    safe_names: BTreeMap<PathBuf, usize>,
    /// The changes since.
    changes: Vec<Change>,
}

#[derive(Clone, Default)]
struct FileData {
    content: Arc<Vec<u8>>,
    safe: Arc<Vec<u8>>,
    writes: Vec<(usize, Arc<[u8]>)>,
}

#[derive(Clone)]
enum Change {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Change::Link(path, file) => drop(names.insert(path.clone(), *file)),
            Change::Unlink(path) => drop(names.remove(path)),
            Change::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

impl Disk {
    /// How many choices [`Disk::crash`] has, and the product of their sizes (saturating).
    pub fn choices(&self) -> u64 {
        let writes: usize = self.reachable().map(|file| self.files[file].writes.len()).sum();
        (0..self.changes.len())
            .map(|_| 2_u64)
            .chain((0..writes).map(|_| 4))
            .fold(1, u64::saturating_mul)
    }

    /// The files that have, or may after a crash have, a name.
    fn reachable(&self) -> impl Iterator<Item = usize> {
        let mut files: Vec<usize> = self.safe_names.values().copied().collect();
        files.extend(self.changes.iter().filter_map(|change| match change {
            Change::Link(_, file) => Some(*file),
            _ => None,
        }));
        files.sort_unstable();
        files.dedup();
        files.into_iter()
    }

    /// One of the states that a power cut now may leave. `choose(n)` says which of `n`
    /// possibilities becomes true, for each unsafe thing in turn.
    pub fn crash(&self, choose: &mut dyn FnMut(u64) -> u64) -> SimFs {
        let mut names = self.safe_names.clone();
        for change in &self.changes {
            if choose(2) == 1 {
                change.apply(&mut names);
            }
        }
        let mut files = self.files.clone();
        for file in self.reachable() {
            let FileData { content, safe, writes } = &mut files[file];
            for (offset, bytes) in std::mem::take(writes) {
                let half = bytes.len() / 2;
                match choose(4) {
                    0 => {}
                    1 => put(Arc::make_mut(safe), offset, &bytes),
                    2 => put(Arc::make_mut(safe), offset, &bytes[..half]),
                    _ => put(Arc::make_mut(safe), offset + half, &bytes[half..]),
                }
            }
            *content = safe.clone();
        }
        let disk = Disk { files, safe_names: names.clone(), names, changes: Vec::new() };
        SimFs(Arc::new(Mutex::new(Inner { disk, ..Inner::default() })))
    }
}

/// Writes into a byte vector as into a file: what is skipped becomes zero.
fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl SimFs {
    /// How many operations there have been.
    pub fn ops(&self) -> u64 {
        self.inner().ops
    }

    /// From now on keeps the disk as it was after every operation.
    pub fn record(&self) {
        self.inner().record = true;
    }

    /// The disks recorded so far, one per operation.
    pub fn recorded(&self) -> Vec<Disk> {
        std::mem::take(&mut self.inner().recorded)
    }

    /// The disk as it is now.
    pub fn disk(&self) -> Disk {
        self.inner().disk.clone()
    }

    /// Makes `count` operations fail, beginning with number `first` (counted from 0).
    pub fn fail(&self, first: u64, count: u64, fault: Fault) {
        self.inner().fault = Some((first, first.saturating_add(count), fault));
    }

    /// Puts a file there as if it always had been.
    pub fn put(&self, path: impl Into<PathBuf>, bytes: Vec<u8>) {
        let mut inner = self.inner();
        let content = Arc::new(bytes);
        inner.disk.files.push(FileData { safe: content.clone(), content, writes: Vec::new() });
        let (path, file) = (path.into(), inner.disk.files.len() - 1);
        inner.disk.names.insert(path.clone(), file);
        inner.disk.safe_names.insert(path, file);
    }

    /// The content of a file.
    pub fn get(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let inner = self.inner();
        let file = *inner.disk.names.get(path.as_ref())?;
        Some(inner.disk.files[file].content.to_vec())
    }

    /// All names.
    pub fn names(&self) -> Vec<PathBuf> {
        self.inner().disk.names.keys().cloned().collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Counts an operation and does it, unless it is to fail.
    fn op<T>(&self, run: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.inner();
        match inner.next_fault() {
            Some(Fault::Errno(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Short) | None => {}
        }
        let result = run(&mut inner);
        inner.note();
        result
    }
}

impl Inner {
    fn next_fault(&mut self) -> Option<Fault> {
        let op = self.ops;
        self.ops += 1;
        self.fault.filter(|(first, end, _)| (*first..*end).contains(&op)).map(|(_, _, fault)| fault)
    }

    fn note(&mut self) {
        if self.record {
            self.recorded.push(self.disk.clone());
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.disk.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.disk.names);
        self.disk.changes.push(change);
    }
}

impl Vfs for SimFs {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        self.op(|_| Ok(()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.op(|inner| {
            let inside = inner.disk.names.keys().filter_map(|path| path.strip_prefix(dir).ok());
            Ok(inside.map(|path| path.to_str().unwrap().to_owned()).collect())
        })
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.op(|inner| {
            let content = inner.disk.files[inner.find(path)?].content.clone();
            Ok(Box::new(SimRead { fs: self.clone(), content }) as Box<dyn ReadFile>)
        })
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.op(|inner| {
            if inner.disk.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            inner.disk.files.push(FileData::default());
            let file = inner.disk.files.len() - 1;
            inner.change(Change::Link(path.to_owned(), file));
            Ok(Box::new(SimWrite { fs: self.clone(), file, at: 0 }) as Box<dyn WriteFile>)
        })
    }

    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.op(|inner| {
            if inner.disk.names.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let file = inner.find(from)?;
            inner.change(Change::Link(to.to_owned(), file));
            Ok(())
        })?;
        self.remove(from)
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.op(|inner| {
            inner.find(from)?;
            inner.change(Change::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.op(|inner| {
            inner.find(path)?;
            inner.change(Change::Unlink(path.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.op(|inner| {
            inner.disk.safe_names = inner.disk.names.clone();
            inner.disk.changes.clear();
            Ok(())
        })
    }

    fn try_lock(&self, _: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.op(|inner| {
            if std::mem::replace(&mut inner.locked, true) {
                return Ok(None);
            }
            Ok(Some(Box::new(SimLock(self.clone())) as Box<dyn Lock>))
        })
    }
}

struct SimLock(SimFs);

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.inner().locked = false;
    }
}

struct SimRead {
    fs: SimFs,
    content: Arc<Vec<u8>>,
}

impl ReadFile for SimRead {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content.len() as u64)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.fs.op(|_| {
            let rest = self.content.get(offset as usize..).unwrap_or(&[]);
            (&mut &rest[..]).read_exact(bytes)
        })
    }
}

struct SimWrite {
    fs: SimFs,
    file: usize,
    at: usize,
}

impl Write for SimWrite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.fs.inner();
        let fault = inner.next_fault();
        let (bytes, result) = match fault {
            None => (bytes, Ok(bytes.len())),
            Some(Fault::Short) => {
                let half = bytes.len().div_ceil(2);
                (&bytes[..half], Ok(half))
            }
            // EINTR means that nothing was written.
            Some(EINTR) => (&bytes[..0], Err(io::Error::from_raw_os_error(4))),
            Some(Fault::Errno(errno)) => {
                (&bytes[..bytes.len() / 2], Err(io::Error::from_raw_os_error(errno)))
            }
        };
        let data = &mut inner.disk.files[self.file];
        put(Arc::make_mut(&mut data.content), self.at, bytes);
        data.writes.push((self.at, bytes.into()));
        self.at += bytes.len();
        inner.note();
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SimWrite {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(at) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        self.at = at as usize;
        Ok(at)
    }
}

impl WriteFile for SimWrite {
    fn sync_all(&mut self) -> io::Result<()> {
        let mut inner = self.fs.inner();
        let fault = inner.next_fault();
        let data = &mut inner.disk.files[self.file];
        data.writes.clear();
        if let Some(Fault::Errno(errno)) = fault {
            // The data is gone, but called clean.
            return Err(io::Error::from_raw_os_error(errno));
        }
        data.safe = data.content.clone();
        inner.note();
        Ok(())
    }
}
