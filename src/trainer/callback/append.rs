//! A file that whole records are added to, one after the other.
//!
//! A disk that is full for a while costs a log neither its order nor a record:
//!
//! ```text
//! add       pending += record; write pending in one go
//! failed    cut off what was written of it; pending stays, and is tried again with the next record
//! ```

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Owns a file that is open for writing.
pub(super) struct Append<F = File> {
    path: PathBuf,
    file: F,
    /// What is not in the file yet, and how many records that is.
    pending: Vec<u8>,
    missing: usize,
    /// The file's length before a write that failed: what is beyond it is half a record.
    torn: Option<u64>,
}

/// What is asked of the file.
pub(super) trait Cut: Write {
    /// Goes to the end, and says where that is; `None` for what has none, such as a pipe.
    fn end(&mut self) -> io::Result<Option<u64>>;

    fn cut(&self, size: u64) -> io::Result<()>;
}

impl Cut for File {
    fn end(&mut self) -> io::Result<Option<u64>> {
        // Not opened in append mode, in which Windows cuts no files.
        if self.metadata()?.is_file() { self.seek(SeekFrom::End(0)).map(Some) } else { Ok(None) }
    }

    fn cut(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}

impl<F: Cut> Append<F> {
    pub(super) fn new(path: impl Into<PathBuf>, file: F) -> Self {
        Append { path: path.into(), file, pending: Vec::new(), missing: 0, torn: None }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// If it is not in the file now. It will be written with the next one, or by
    /// [`Append::finish`].
    pub(super) fn add(&mut self, record: &[u8]) -> Result<()> {
        self.pending.extend(record);
        self.missing += 1;
        self.finish()
    }

    /// Writes what could not be written before.
    ///
    /// # Errors
    /// If it still cannot be.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.write().map_err(|error| {
            let text = format!("{error}; records missing at its end: {}", self.missing);
            Error::io("write", &self.path, io::Error::new(error.kind(), text))
        })?;
        self.pending.clear();
        self.missing = 0;
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.mend()?;
        let size = self.file.end()?;
        self.file.write_all(&self.pending).inspect_err(|_| {
            self.torn = size;
            // If that fails, too, it is tried again before anything else is written.
            let _ = self.mend();
        })
    }

    /// Removes what there is of a record that could not be written.
    fn mend(&mut self) -> io::Result<()> {
        if let Some(size) = self.torn {
            self.file.cut(size)?;
            self.torn = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Has room for so many bytes, and may refuse to be cut.
    struct Disk {
        bytes: RefCell<Vec<u8>>,
        room: Cell<usize>,
        cuts: Cell<bool>,
    }

    impl Write for &Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let free = self.room.get() - self.bytes.borrow().len();
            if free == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let part = bytes.len().min(free);
            self.bytes.borrow_mut().extend(&bytes[..part]);
            Ok(part)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Cut for &Disk {
        fn end(&mut self) -> io::Result<Option<u64>> {
            Ok(Some(self.bytes.borrow().len() as u64))
        }

        fn cut(&self, size: u64) -> io::Result<()> {
            if !self.cuts.get() {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.bytes.borrow_mut().truncate(size as usize);
            Ok(())
        }
    }

    fn disk(room: usize) -> Disk {
        Disk { bytes: RefCell::default(), room: Cell::new(room), cuts: Cell::new(true) }
    }

    #[test]
    fn a_full_disk_leaves_whole_records_and_loses_none() {
        for room in 0..12 {
            let disk = disk(room);
            let mut file = Append::new("runs/log", &disk);
            let mut whole = 0;
            for (before, record) in [b"one\n", b"two\n", b"six\n"].into_iter().enumerate() {
                match file.add(record) {
                    Ok(()) => whole += 4,
                    Err(error) => {
                        let error = error.to_string();
                        assert!(error.contains("cannot write runs/log"), "{error}");
                        let missing = 1 + before - whole / 4;
                        let says = format!("records missing at its end: {missing}");
                        assert!(error.ends_with(&says), "{error}");
                    }
                }
                assert_eq!(*disk.bytes.borrow(), b"one\ntwo\nsix\n"[..whole], "room for {room}");
            }
            assert_eq!(whole, room / 4 * 4);
            file.finish().unwrap_err();
            disk.room.set(100);
            file.finish().unwrap();
            file.add(b"ten\n").unwrap();
            assert_eq!(*disk.bytes.borrow(), b"one\ntwo\nsix\nten\n", "room for {room}");
        }
    }

    #[test]
    fn half_a_record_that_could_not_be_cut_off_is_cut_off_later() {
        let disk = disk(6);
        disk.cuts.set(false);
        let mut file = Append::new("log", &disk);
        file.add(b"one\n").unwrap();
        file.add(b"two\n").unwrap_err();
        assert_eq!(*disk.bytes.borrow(), b"one\ntw");
        disk.room.set(100);
        file.add(b"six\n").unwrap_err();
        assert_eq!(*disk.bytes.borrow(), b"one\ntw");
        disk.cuts.set(true);
        file.add(b"ten\n").unwrap();
        assert_eq!(*disk.bytes.borrow(), b"one\ntwo\nsix\nten\n");
    }
}
