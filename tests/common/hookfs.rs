//! The real file system, with a hook before each operation: a test may die there, or wait.

use std::io::{self, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferrotape::checkpoint::vfs::{Lock, ReadFile, RealFs, Vfs, WriteFile};

/// Called with an operation's name and how many operations there were before.
type Hook = dyn Fn(&str, u64) -> io::Result<()> + Send + Sync;

#[derive(Clone)]
pub struct HookFs {
    hook: Arc<Hook>,
    ops: Arc<AtomicU64>,
}

impl HookFs {
    /// `hook` sees what changes something; reading is not interesting.
    pub fn new(hook: impl Fn(&str, u64) -> io::Result<()> + Send + Sync + 'static) -> Self {
        HookFs { hook: Arc::new(hook), ops: Arc::default() }
    }

    fn op(&self, name: &str) -> io::Result<()> {
        (self.hook)(name, self.ops.fetch_add(1, Ordering::Relaxed))
    }
}

impl Vfs for HookFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealFs.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFs.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        RealFs.open(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.op("create_new")?;
        Ok(Box::new(HookFile { fs: self.clone(), file: RealFs.create_new(path)? }))
    }

    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.op("publish")?;
        RealFs.publish(from, to)
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.op("replace")?;
        RealFs.replace(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.op("remove")?;
        RealFs.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.op("sync_dir")?;
        RealFs.sync_dir(dir)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        RealFs.try_lock(path)
    }
}

struct HookFile {
    fs: HookFs,
    file: Box<dyn WriteFile>,
}

impl io::Write for HookFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.fs.op("write")?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl io::Seek for HookFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl WriteFile for HookFile {
    fn sync_all(&mut self) -> io::Result<()> {
        self.fs.op("sync_all")?;
        self.file.sync_all()
    }
}
