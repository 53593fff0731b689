//! The few things checkpoints ask of a file system, as a trait.
//!
//! All checkpoint I/O goes through [`Vfs`]. [`RealFs`] is the operating system; the tests use an
//! implementation that records every operation and rebuilds what a power cut could leave behind,
//! and one that fails on demand. What a commit may rely on is stated here, on each method.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use crate::files;

/// A file system.
pub trait Vfs: Send + Sync {
    /// Creates a directory and its missing parents, durably.
    ///
    /// # Errors
    /// Those of the file system.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names of the entries of a directory, in no particular order. Names that are not UTF-8
    /// are left out: they are none of ours.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a regular file for reading. Anything else (a directory, a pipe, a device) is an
    /// error of kind [`io::ErrorKind::InvalidInput`], and is never waited for.
    ///
    /// # Errors
    /// Those of the file system.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Creates a file that does not exist yet.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], or those of the file system.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Gives a file its final name without replacing another file. Durable after [`Vfs::sync_dir`].
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], or those of the file system.
    fn publish(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a new name, replacing what has it.
    ///
    /// # Errors
    /// Those of the file system.
    fn replace(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes an exclusive lock on a file, creating it if need be; `None` if another process (or
    /// another handle of this one) holds it. The lock lasts as long as the value, and no longer
    /// than the process.
    ///
    /// # Errors
    /// Those of the file system.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;
}

/// A file open for reading, by several threads at once.
pub trait ReadFile: Send + Sync {
    /// The file's size in bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn size(&self) -> io::Result<u64>;

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before, or those of the file system.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

/// A file open for writing.
pub trait WriteFile: io::Write + io::Seek + Send {
    /// Makes content and length durable.
    ///
    /// # Errors
    /// Those of the file system. After an error nothing is known about the content, and a second
    /// call that succeeds proves nothing.
    fn sync_all(&mut self) -> io::Result<()>;
}

/// A held lock. Dropping it releases it.
pub trait Lock: Send + Sync {}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

impl Vfs for RealFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = parent_of(dir);
        self.create_dir_all(&parent)?;
        match fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_dir(&parent),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(RealRead(files::open(path)?)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(RealWrite::new(file)))
    }

    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        // A hard link never replaces. File systems without them (FAT) get a check and a rename,
        // which is safe as long as everyone respects the run lock.
        match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            Err(_) if to.try_exists()? => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        }
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Windows has no such operation: names are journalled there.
        if cfg!(windows) { Ok(()) } else { File::open(dir)?.sync_all() }
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        if path.exists() {
            files::open(path)?;
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(RealLock(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// The directory that holds `path`; the current one for a bare name.
pub(super) fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

struct RealRead(File);

impl ReadFile for RealRead {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bytes, offset)
    }

    #[cfg(windows)]
    fn read_exact_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&self.0, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    bytes = &mut bytes[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A file that is already in memory.
impl ReadFile for Cow<'static, [u8]> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = self.get(start..).unwrap_or(&[]);
        io::Read::read_exact(&mut rest, bytes)
    }
}

/// After this many bytes the disk is put to work, while more are being written: by itself the
/// kernel would only begin at the final fsync.
const FLUSH_EVERY: usize = 32 << 20;

struct RealWrite {
    file: File,
    /// Bytes written since the flusher was last woken.
    unflushed: usize,
    flusher: Option<Flusher>,
}

/// A thread that calls fdatasync whenever it is woken.
struct Flusher {
    wake: Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl RealWrite {
    fn new(file: File) -> Self {
        RealWrite { file, unflushed: 0, flusher: None }
    }

    fn flush_early(&mut self) -> io::Result<()> {
        self.unflushed = 0;
        let flusher = match &self.flusher {
            Some(flusher) => flusher,
            None => {
                let file = self.file.try_clone()?;
                let (wake, woken) = mpsc::channel::<()>();
                let thread = std::thread::spawn(move || {
                    woken.iter().try_for_each(|()| {
                        woken.try_iter().for_each(drop); // one call for all so far
                        file.sync_data()
                    })
                });
                self.flusher.insert(Flusher { wake, thread })
            }
        };
        // If its thread has ended, with an error, sync_all will say so.
        let _ = flusher.wake.send(());
        Ok(())
    }
}

impl io::Write for RealWrite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unflushed += written;
        if self.unflushed >= FLUSH_EVERY {
            self.flush_early()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for RealWrite {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl WriteFile for RealWrite {
    fn sync_all(&mut self) -> io::Result<()> {
        // The kernel reports a failed write-back once: if the flusher got it, it counts.
        if let Some(Flusher { wake, thread }) = self.flusher.take() {
            drop(wake);
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        self.file.sync_all()
    }
}

struct RealLock(File);

impl Lock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing the file would do, but not at once if the program happens to be starting another:
        // until its exec the child has the file open, too.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("ferrotape-vfs-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// The kernel reports a failed write-back to one call only, and a second one would succeed.
    #[test]
    fn what_the_early_flush_was_told_fails_the_sync() {
        let dir = scratch("flush");
        let mut file = RealWrite::new(File::create(dir.join("f")).unwrap());
        let (wake, _woken) = mpsc::channel();
        let thread = std::thread::spawn(|| Err(io::Error::other("lost")));
        file.flusher = Some(Flusher { wake, thread });
        assert_eq!(file.sync_all().unwrap_err().to_string(), "lost");
        fs::remove_dir_all(dir).unwrap();
    }

    /// A source that is not there makes linking fail as on a file system without links.
    #[test]
    fn publishing_without_links_replaces_nothing() {
        let dir = scratch("publish");
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::write(&to, "old").unwrap();
        let error = RealFs.publish(&from, &to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        fs::remove_dir_all(dir).unwrap();
    }
}
