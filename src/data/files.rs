//! Reading a file that may be wrong, damaged or hostile.
//!
//! A header is a claim. [`Source`] believes none: it never reserves more memory than the file at
//! hand can fill, nor more than [`LIMIT`], and never reads past the declared end by more than one
//! byte. Gzip is recognised by its first bytes, whatever the file is called.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::{DataFault, Error, Result};
use crate::files;

/// The most bytes a reader takes from one file, after decompression: 4 GiB.
pub(super) const LIMIT: u64 = 4 << 30;

/// Deflate cannot expand more than this (a match of 258 bytes costs at least 2 bits).
pub(super) const MAX_EXPANSION: u64 = 1032;

/// A data file, read from the front, decompressed on the way if need be.
pub(super) struct Source<'p> {
    path: &'p Path,
    bytes: Box<dyn Read>,
    /// Bytes read so far.
    position: u64,
    /// The most bytes the file can hold, after decompression.
    most: u64,
}

impl<'p> Source<'p> {
    pub(super) fn open(path: &'p Path) -> Result<Self> {
        let file = files::open(path).map_err(|e| Error::io("open", path, e))?;
        let size = file.metadata().map_err(|e| Error::io("inspect", path, e))?.len();
        let mut file = BufReader::new(file);
        let start = file.fill_buf().map_err(|e| Error::io("read", path, e))?;
        if start.starts_with(&[0x1f, 0x8b]) {
            Ok(Source::new(path, gunzip(path, file)?, size.saturating_mul(MAX_EXPANSION)))
        } else {
            Ok(Source::new(path, Box::new(file), size))
        }
    }

    /// Reads `bytes`, a part of the file at `path` that holds no more than `most` bytes.
    pub(super) fn new(path: &'p Path, bytes: Box<dyn Read>, most: u64) -> Self {
        Source { path, bytes, position: 0, most }
    }

    /// The next `count` bytes, all of them.
    pub(super) fn take(&mut self, count: u64) -> Result<Vec<u8>> {
        let too_large = || self.fault(DataFault::TooLarge { bytes: count, limit: LIMIT });
        if count > LIMIT {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        let room = usize::try_from(count.min(self.most)).map_err(|_| too_large())?;
        bytes.try_reserve_exact(room).map_err(|_| too_large())?;
        let read = self.bytes.by_ref().take(count).read_to_end(&mut bytes);
        read.map_err(|e| self.read_error(e))?;
        let found = self.position + bytes.len() as u64;
        if (bytes.len() as u64) < count {
            let expected = self.position + count;
            return Err(self.fault(DataFault::Truncated { expected, found }));
        }
        self.position = found;
        Ok(bytes)
    }

    /// Everything that follows.
    pub(super) fn rest(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.bytes.by_ref().take(LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|e| self.read_error(e))?;
        self.position += bytes.len() as u64;
        if bytes.len() as u64 > LIMIT {
            let fault = DataFault::TooLarge { bytes: self.most, limit: LIMIT };
            return Err(self.fault(fault));
        }
        Ok(bytes)
    }

    /// Checks that nothing follows. For gzip this also verifies the checksum.
    pub(super) fn end(mut self) -> Result<()> {
        let mut extra = Vec::new();
        let read = self.bytes.by_ref().take(1).read_to_end(&mut extra);
        match read.map_err(|e| self.read_error(e))? {
            0 => Ok(()),
            _ => Err(self.fault(DataFault::TrailingBytes { declared: self.position })),
        }
    }

    pub(super) fn fault(&self, fault: DataFault) -> Error {
        Error::data(self.path, fault)
    }

    /// An error of the decompressor, or of the system below it.
    fn read_error(&self, error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(_) => Error::io("read", self.path, error),
            None => self.fault(DataFault::BadCompression { message: error.to_string() }),
        }
    }
}

#[cfg(feature = "gzip")]
fn gunzip(_: &Path, file: BufReader<File>) -> Result<Box<dyn Read>> {
    Ok(Box::new(flate2::bufread::MultiGzDecoder::new(file)))
}

#[cfg(not(feature = "gzip"))]
fn gunzip(path: &Path, _: BufReader<File>) -> Result<Box<dyn Read>> {
    let message = "gzip-compressed, and this build lacks the `gzip` feature: gunzip it first";
    Err(Error::data(path, DataFault::Other { message: message.into() }))
}

/// The first of `names` that exists in `dir`, as it is or with `.gz` appended.
pub(super) fn find(dir: &Path, names: &[&str]) -> Option<PathBuf> {
    let with_gz = names.iter().flat_map(|name| [name.to_string(), format!("{name}.gz")]);
    with_gz.map(|name| dir.join(name)).find(|path| path.is_file())
}

/// The error for files that [`find`] did not find.
pub(super) fn missing_files(dir: &Path, names: &str) -> Error {
    let message = if dir.is_dir() {
        format!("this directory has no file {names} (or the same with .gz)")
    } else {
        format!("not a directory; looked in it for {names} (or the same with .gz)")
    };
    Error::data(dir, DataFault::Other { message })
}
