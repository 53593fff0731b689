//! The bytes of a checkpoint file around its sections: header, directory, trailer.
//!
//! ```text
//! 0     header      128 bytes: magic, version, lengths, generation, position, digest, root
//! 128   directory   64 bytes per section: tag, flags, offset, length, checksum
//! ...   sections    each at a multiple of 64, zero padding between
//! end   trailer     64 bytes: magic, length, generation, root
//! ```
//!
//! The checksums form a tree, so that every byte is covered once and nothing is hashed twice:
//! each tensor's checksum is in TIDX, each section's in the directory, and the *root* covers
//! header and directory. TDAT has no checksum of its own: it is its tensors and zero padding.
//! All of them are XXH3-128: as fast as CRC-32 with SIMD instructions, on any machine, from one
//! small dependency, and wide enough to serve as identity as well. They find accidents; they are
//! no signature.
//!
//! The whole format, byte by byte, is in `docs/checkpoint-format.md`.

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::CheckpointFault;

/// Like PNG's: a high bit, a name, and the line ends that a text-mode copy would change.
pub(super) const MAGIC: [u8; 8] = *b"\x89FTP\r\n\x1a\n";
pub(super) const END_MAGIC: [u8; 8] = *b"FTPEND\r\n";
/// The version this program writes, and the newest it reads.
pub(super) const VERSION: u32 = 1;
pub(super) const ALIGN: u64 = 64;
pub(super) const HEADER_BYTES: usize = 128;
pub(super) const ENTRY_BYTES: usize = 64;
pub(super) const TRAILER_BYTES: usize = 64;
/// More sections than this are a sign of damage.
pub(super) const MAX_SECTIONS: u32 = 64;
const ROOT_AT: usize = 112;
/// Bit 0 of a section's flags: a reader that does not know the section must refuse the file.
pub(super) const CRITICAL: u32 = 1;

/// An XXH3-128 checksum, stored little-endian.
pub(super) type Checksum = [u8; 16];

/// The checksum of some bytes.
pub(super) fn checksum(bytes: &[u8]) -> Checksum {
    xxh3_128(bytes).to_le_bytes()
}

/// A checksum fed in pieces.
#[derive(Clone, Default)]
pub(super) struct Hasher(Xxh3);

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(&self) -> Checksum {
        self.0.digest128().to_le_bytes()
    }
}

/// The least multiple of 64 that is not below `offset`, if there is one.
pub(super) fn align_up(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(ALIGN)
}

/// The largest size that metadata (all sections but TDAT) may have in a file of `len` bytes.
/// Decoding costs a few times the encoded size, and a reader promises to stay near the file's.
pub(super) fn metadata_limit(len: u64) -> u64 {
    (256 << 10) + len / 64
}

/// The largest number of tensors in a file of `len` bytes, for the same reason.
pub(super) fn tensor_limit(len: u64) -> u64 {
    2048 + len / 4096
}

/// The header's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sections: u32,
    pub(super) file_len: u64,
    pub(super) generation: u64,
    pub(super) epoch: u64,
    pub(super) step: u64,
    pub(super) digest: Checksum,
}

/// One line of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) tag: [u8; 4],
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) checksum: Checksum,
}

impl Entry {
    /// Whether a reader must know the section.
    pub(super) fn is_critical(&self) -> bool {
        self.flags & CRITICAL != 0
    }

    /// The tag for messages.
    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(&self.tag).into_owned()
    }
}

impl Header {
    fn to_bytes(self) -> [u8; ROOT_AT] {
        let mut bytes = [0; ROOT_AT];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.sections.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.file_len.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.step.to_le_bytes());
        bytes[48..64].copy_from_slice(&self.digest);
        bytes
    }

    /// Reads and checks everything a header says by itself. The root is checked with the
    /// directory, by [`parse_directory`].
    pub(super) fn parse(
        bytes: &[u8; HEADER_BYTES],
        real_len: u64,
    ) -> Result<Header, CheckpointFault> {
        if bytes[..8] != MAGIC {
            return Err(CheckpointFault::NotACheckpoint);
        }
        let version = u32_at(bytes, 8);
        if version > VERSION {
            return Err(CheckpointFault::NeedsNewerReader {
                what: format!("format version {version}"),
            });
        }
        let header = Header {
            sections: u32_at(bytes, 12),
            file_len: u64_at(bytes, 16),
            generation: u64_at(bytes, 24),
            epoch: u64_at(bytes, 32),
            step: u64_at(bytes, 40),
            digest: bytes[48..64].try_into().expect("16 bytes"),
        };
        if real_len < header.file_len {
            return Err(CheckpointFault::Truncated { expected: header.file_len, found: real_len });
        }
        if real_len > header.file_len {
            return Err(CheckpointFault::corrupt("header", "the file is longer than it says"));
        }
        if header.to_bytes() != bytes[..ROOT_AT] {
            return Err(CheckpointFault::corrupt("header", "reserved bytes are not zero"));
        }
        if header.sections > MAX_SECTIONS {
            return Err(CheckpointFault::OverLimit {
                what: "sections".into(),
                value: header.sections.into(),
                limit: MAX_SECTIONS.into(),
            });
        }
        Ok(header)
    }

    /// Where the first section may begin.
    pub(super) fn head_len(&self) -> u64 {
        HEADER_BYTES as u64 + ENTRY_BYTES as u64 * u64::from(self.sections)
    }
}

/// The root: the checksum of header and directory, and so of everything.
fn root_of(header: &[u8], directory: &[u8]) -> Checksum {
    let mut hasher = Hasher::default();
    hasher.update(header);
    hasher.update(directory);
    hasher.finish()
}

/// The state's digest: the checksum of the directory lines that describe state. Where a section
/// lies in the file, and what META and sections that are not critical say about the state, do not
/// count.
pub(super) fn digest_of(entries: &[Entry]) -> Checksum {
    let mut hasher = Hasher::default();
    for entry in entries.iter().filter(|entry| entry.is_critical() && &entry.tag != b"META") {
        hasher.update(&entry.tag);
        hasher.update(&entry.len.to_le_bytes());
        hasher.update(&entry.checksum);
    }
    hasher.finish()
}

/// Header and directory as bytes, and the trailer.
pub(super) fn encode_head(header: Header, entries: &[Entry]) -> (Vec<u8>, [u8; TRAILER_BYTES]) {
    let directory: Vec<u8> = entries.iter().flat_map(|entry| entry_bytes(*entry)).collect();
    let mut head = header.to_bytes().to_vec();
    let root = root_of(&head, &directory);
    head.extend_from_slice(&root);
    head.extend_from_slice(&directory);
    (head, trailer_bytes(&header, root))
}

fn entry_bytes(entry: Entry) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[0..4].copy_from_slice(&entry.tag);
    bytes[4..8].copy_from_slice(&entry.flags.to_le_bytes());
    bytes[8..16].copy_from_slice(&entry.offset.to_le_bytes());
    bytes[16..24].copy_from_slice(&entry.len.to_le_bytes());
    bytes[48..64].copy_from_slice(&entry.checksum);
    bytes
}

fn trailer_bytes(header: &Header, root: Checksum) -> [u8; TRAILER_BYTES] {
    let mut bytes = [0; TRAILER_BYTES];
    bytes[0..8].copy_from_slice(&END_MAGIC);
    bytes[8..16].copy_from_slice(&header.file_len.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.generation.to_le_bytes());
    bytes[48..64].copy_from_slice(&root);
    bytes
}

/// Reads the directory and checks it, the root and the trailer: afterwards every section is
/// known to lie where it must, in order, without holes or overlap, up to the trailer.
pub(super) fn parse_directory(
    header_bytes: &[u8; HEADER_BYTES],
    header: &Header,
    directory: &[u8],
    trailer: &[u8; TRAILER_BYTES],
) -> Result<Vec<Entry>, CheckpointFault> {
    let root = root_of(&header_bytes[..ROOT_AT], directory);
    if header_bytes[ROOT_AT..] != root {
        return Err(CheckpointFault::corrupt("header", "wrong checksum"));
    }
    if *trailer != trailer_bytes(header, root) {
        return Err(CheckpointFault::corrupt("trailer", "does not belong to the header"));
    }
    let bad = |reason: &str| CheckpointFault::corrupt("directory", reason);
    let mut entries: Vec<Entry> = Vec::with_capacity(header.sections as usize);
    let mut end = header.head_len();
    for bytes in directory.chunks_exact(ENTRY_BYTES) {
        let entry = Entry {
            tag: bytes[0..4].try_into().expect("4 bytes"),
            flags: u32_at(bytes, 4),
            offset: u64_at(bytes, 8),
            len: u64_at(bytes, 16),
            checksum: bytes[48..64].try_into().expect("16 bytes"),
        };
        if entry_bytes(entry) != bytes || entry.flags & !CRITICAL != 0 {
            return Err(bad("reserved bits are not zero"));
        }
        if !entry.tag.iter().all(u8::is_ascii_uppercase) {
            return Err(bad("a tag is not four capital letters"));
        }
        if entries.iter().any(|other| other.tag == entry.tag) {
            return Err(bad("a section appears twice"));
        }
        if align_up(end) != Some(entry.offset) {
            return Err(bad("a section does not begin where the one before ends"));
        }
        end = entry
            .offset
            .checked_add(entry.len)
            .filter(|&end| end <= header.file_len)
            .ok_or_else(|| bad("a section goes past the end of the file"))?;
        entries.push(entry);
    }
    if align_up(end).and_then(|end| end.checked_add(TRAILER_BYTES as u64)) != Some(header.file_len)
    {
        return Err(bad("the last section does not end at the trailer"));
    }
    if digest_of(&entries) != header.digest {
        return Err(bad("the state digest is not that of the sections"));
    }
    Ok(entries)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
