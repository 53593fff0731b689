//! As much of the ZIP format as NumPy uses: one disk, no encryption, stored or deflated.
//!
//! ```text
//! file  = entries .. | directory (where each entry is) | end record (where the directory is)
//! entry = local header | packed bytes
//! ```
//!
//! Sizes in the directory are claims. Together they are limited by the size of the file, one by
//! one they are checked against it, and unpacking stops at the size that was promised.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::fault;
use crate::checkpoint::vfs::ReadFile;
use crate::error::{DataFault, Error, Result};

/// Weights hardly compress, but what was never trained may be all zeros. An archive may become as
/// large as this, or this many times its own size, whatever is larger.
const ALWAYS_ALLOWED: u64 = 256 << 20;
const MAX_RATIO: u64 = 100;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// An open archive whose directory has been read.
pub(crate) struct Archive {
    path: PathBuf,
    file: Box<dyn ReadFile>,
    entries: Vec<Entry>,
}

/// One file in the archive.
pub(crate) struct Entry {
    pub(crate) name: String,
    method: u16,
    checksum: u32,
    packed: u64,
    size: u64,
    offset: u64,
}

impl Archive {
    /// Reads the directory of an archive. The path is for messages.
    pub(crate) fn open(path: &Path, file: Box<dyn ReadFile>) -> Result<Archive> {
        let io = |error| Error::io("read", path, error);
        let bad = |reason: &str| fault(path, format!("not a usable ZIP archive: {reason}"));
        let size = file.size().map_err(io)?;
        // The end record is 22 bytes and a comment of up to 64 KiB.
        let start = size.saturating_sub(22 + 0xffff);
        let mut tail = vec![0; (size - start) as usize];
        file.read_exact_at(&mut tail, start).map_err(io)?;
        let end = tail.windows(22).rposition(|bytes| bytes.starts_with(b"PK\x05\x06"));
        let end = end.ok_or_else(|| bad("no end record"))?;
        let (length, place) = (u32_at(&tail, end + 12), u32_at(&tail, end + 16));
        if place + length > start + end as u64 {
            return Err(bad("the directory lies outside of the file"));
        }
        let mut directory = vec![0; length as usize];
        file.read_exact_at(&mut directory, place).map_err(io)?;

        let mut entries = Vec::new();
        let mut rest = directory.as_slice();
        while !rest.is_empty() {
            let name_length = rest.get(..46).map_or(usize::MAX, |_| u16_at(rest, 28).into());
            let name = rest.get(46..).and_then(|bytes| bytes.get(..name_length));
            let Some(name) = name.filter(|_| rest.starts_with(b"PK\x01\x02")) else {
                return Err(bad("the directory is damaged"));
            };
            entries.push(Entry {
                name: String::from_utf8_lossy(name).into_owned(),
                method: u16_at(rest, 10),
                checksum: u32_at(rest, 16) as u32,
                packed: u32_at(rest, 20),
                size: u32_at(rest, 24),
                offset: u32_at(rest, 42),
            });
            let more = usize::from(u16_at(rest, 30)) + usize::from(u16_at(rest, 32));
            rest = rest.get(46 + name_length + more..).unwrap_or_default();
        }
        let limit = ALWAYS_ALLOWED.max(size.saturating_mul(MAX_RATIO));
        let bytes = entries.iter().map(|entry| entry.size).sum();
        if bytes > limit {
            return Err(Error::data(path, DataFault::TooLarge { bytes, limit }));
        }
        Ok(Archive { path: path.to_owned(), file, entries })
    }

    /// The files in the archive, in its order.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Unpacks one file and verifies its checksum.
    pub(crate) fn content(&self, entry: &Entry) -> Result<Vec<u8>> {
        let bad = |reason: &str| fault(&self.path, format!("{:?}: {reason}", entry.name));
        if entry.size == u64::from(u32::MAX) || entry.packed == u64::from(u32::MAX) {
            return Err(bad("is larger than 4 GiB"));
        }
        let mut local = [0; 30];
        let read = self.file.read_exact_at(&mut local, entry.offset);
        read.map_err(|error| self.read_error(entry, error))?;
        if !local.starts_with(b"PK\x03\x04") {
            return Err(bad("has no local header"));
        }
        let skip = 30 + u64::from(u16_at(&local, 26)) + u64::from(u16_at(&local, 28));
        let packed = Part { file: &*self.file, at: entry.offset + skip, left: entry.packed };

        let mut bytes = Vec::new();
        let read = match entry.method {
            STORED if entry.packed == entry.size => {
                // The file really has that many bytes, or reading fails at the first chunk.
                let room = packed.room().map_err(|error| self.read_error(entry, error))?;
                bytes.try_reserve_exact(room).map_err(|_| bad("does not fit into memory"))?;
                packed.take(entry.size).read_to_end(&mut bytes)
            }
            DEFLATED => DeflateDecoder::new(packed).take(entry.size + 1).read_to_end(&mut bytes),
            STORED => return Err(bad("is stored in another size than its own")),
            method => return Err(bad(&format!("has ZIP method {method}, not 0 or 8"))),
        };
        read.map_err(|error| self.read_error(entry, error))?;
        if bytes.len() as u64 != entry.size {
            return Err(bad("unpacks to another size than promised"));
        }
        let mut checksum = Crc::new();
        checksum.update(&bytes);
        if checksum.sum() != entry.checksum {
            return Err(bad("is damaged: its checksum is wrong"));
        }
        Ok(bytes)
    }

    /// An error of the system, of the decompressor, or the end of the file.
    fn read_error(&self, entry: &Entry, error: io::Error) -> Error {
        match (error.raw_os_error(), error.kind()) {
            (Some(_), _) | (_, io::ErrorKind::OutOfMemory) => Error::io("read", &self.path, error),
            (_, io::ErrorKind::UnexpectedEof) => {
                fault(&self.path, format!("{:?}: goes past the end of the file", entry.name))
            }
            _ => fault(&self.path, format!("{:?}: is damaged: {error}", entry.name)),
        }
    }
}

/// A part of a file as a stream.
struct Part<'f> {
    file: &'f dyn ReadFile,
    at: u64,
    left: u64,
}

impl Part<'_> {
    /// How many of its bytes the file has.
    fn room(&self) -> io::Result<usize> {
        let room = self.file.size()?.saturating_sub(self.at).min(self.left);
        Ok(usize::try_from(room).unwrap_or(usize::MAX))
    }
}

impl Read for Part<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.left.min(bytes.len() as u64) as usize;
        self.file.read_exact_at(&mut bytes[..count], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16_at(bytes, at + 2)) << 16 | u64::from(u16_at(bytes, at))
}

/// What the test archives of two rooms are made with.
#[cfg(test)]
pub(crate) mod testing {
    use std::io::Write as _;

    use super::*;

    /// An archive of files, stored or deflated.
    pub(crate) fn archive(files: &[(&str, &[u8])], deflate: bool) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, bytes) in files {
            let mut checksum = Crc::new();
            checksum.update(bytes);
            let mut packed = bytes.to_vec();
            if deflate {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                packed = encoder.finish().unwrap();
            }
            let offset = file.len() as u32;
            let mut common = vec![20, 0, 0, 0, if deflate { 8 } else { 0 }, 0, 0, 0, 0, 0];
            common.extend(checksum.sum().to_le_bytes());
            common.extend((packed.len() as u32).to_le_bytes());
            common.extend((bytes.len() as u32).to_le_bytes());
            common.extend((name.len() as u16).to_le_bytes());
            common.extend([0, 0]);
            file.extend([b"PK\x03\x04", &common[..], name.as_bytes(), &packed].concat());
            directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10]].concat());
            directory.extend([&offset.to_le_bytes(), name.as_bytes()].concat());
        }
        let end = [directory.len() as u32, file.len() as u32].map(u32::to_le_bytes).concat();
        [&file[..], &directory, b"PK\x05\x06", &[0; 8], &end, &[0, 0]].concat()
    }
}
