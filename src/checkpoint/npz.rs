//! Tensors from and for NumPy: `.npz`, a zip archive with one `.npy` file per array.
//!
//! Written like `np.savez` (not compressed), read like `np.load`, also what `np.savez_compressed`
//! has written. Only the parts of zip that NumPy uses are understood: one disk, no encryption,
//! stored or deflated. Sizes come from the central directory, are checked against the file before
//! anything is allocated, and inflating stops at the size that was promised.

use std::io::{self, Read, Write};
use std::path::Path;

use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::CheckpointFault;
use super::commit::write_atomically;
use super::state::NamedTensor;
use crate::error::{Error, Result};

/// A deflated byte can become at most 1032 bytes, so no honest archive claims more.
const MAX_RATIO: u64 = 1032;
/// The most that one archive may inflate to.
const MAX_TOTAL: u64 = 16 << 30;

/// Writes tensors as an `.npz` archive, replacing `path` only once the new file is complete and
/// on disk.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] if two tensors have the same name or the archive
/// would need 4 GiB (which zip cannot without an extension that this writer does not use).
pub fn save_npz(path: impl AsRef<Path>, tensors: &[NamedTensor<'_>]) -> Result<()> {
    let path = path.as_ref();
    let total = tensors.iter().map(|tensor| 4 * tensor.data.len() as u64 + 2048).sum::<u64>();
    let limit = u64::from(u32::MAX);
    super::index::check_names("archive", tensors.iter().map(|tensor| tensor.name.as_str()))
        .and_then(|()| match total <= limit && tensors.len() < usize::from(u16::MAX) {
            true => Ok(()),
            false => Err(over("bytes in an archive", total, limit)),
        })
        .map_err(|fault| Error::checkpoint(path, fault))?;
    write_atomically(path, |file| {
        let mut directory = Vec::new();
        let mut offset = 0;
        for tensor in tensors {
            let array = npy_bytes(tensor);
            let mut crc = Crc::new();
            crc.update(&array);
            let name = format!("{}.npy", tensor.name);
            // Version 2.0, UTF-8 name, stored, 1 January 1980.
            let mut common = Vec::new();
            for half in [20_u16, 0x0800, 0, 0, 0x0021] {
                common.extend(half.to_le_bytes());
            }
            for word in [crc.sum(), array.len() as u32, array.len() as u32] {
                common.extend(word.to_le_bytes());
            }
            common.extend((name.len() as u16).to_le_bytes());
            common.extend(0_u16.to_le_bytes());

            directory.extend_from_slice(b"PK\x01\x02\x14\x00");
            directory.extend_from_slice(&common);
            directory.extend_from_slice(&[0; 10]);
            directory.extend((offset as u32).to_le_bytes());
            directory.extend_from_slice(name.as_bytes());

            file.write_all(b"PK\x03\x04")?;
            file.write_all(&common)?;
            file.write_all(name.as_bytes())?;
            file.write_all(&array)?;
            offset += 4 + common.len() + name.len() + array.len();
        }
        file.write_all(&directory)?;
        file.write_all(b"PK\x05\x06\0\0\0\0")?;
        for _ in 0..2 {
            file.write_all(&(tensors.len() as u16).to_le_bytes())?;
        }
        file.write_all(&(directory.len() as u32).to_le_bytes())?;
        file.write_all(&(offset as u32).to_le_bytes())?;
        file.write_all(&[0, 0])
    })
}

/// Reads all arrays of an `.npz` archive as f32, in its order. Types `<f4`, `<f8` and `<i8`, in
/// C order, are understood; the last two are rounded.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] naming the array and what is wrong with it.
pub fn load_npz(path: impl AsRef<Path>) -> Result<Vec<NamedTensor<'static>>> {
    let path = path.as_ref();
    if path.exists() && !path.is_file() {
        return Err(Error::checkpoint(path, CheckpointFault::NotARegularFile));
    }
    let bytes = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
    read_npz(&bytes).map_err(|fault| Error::checkpoint(path, fault))
}

/// As [`load_npz`], from memory.
///
/// # Errors
/// As there.
pub fn npz_from_bytes(bytes: &[u8]) -> Result<Vec<NamedTensor<'static>>> {
    read_npz(bytes).map_err(|fault| Error::checkpoint("(memory)", fault))
}

fn over(what: &str, value: u64, limit: u64) -> CheckpointFault {
    CheckpointFault::OverLimit { what: what.to_owned(), value, limit }
}

/// A bounds-checked look into the archive.
fn slice<'b>(bytes: &'b [u8], at: u64, len: u64, part: &str) -> Result<&'b [u8], CheckpointFault> {
    let end = at.checked_add(len).filter(|&end| end <= bytes.len() as u64);
    let end = end.ok_or_else(|| CheckpointFault::corrupt(part, "goes past the end"))?;
    Ok(&bytes[at as usize..end as usize])
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]]).into()
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn read_npz(bytes: &[u8]) -> Result<Vec<NamedTensor<'static>>, CheckpointFault> {
    // The end record is last, followed by a comment of at most 65535 bytes.
    let tail = bytes.len().saturating_sub(22 + 65535);
    let end = bytes[tail..]
        .windows(4)
        .rposition(|window| window == b"PK\x05\x06")
        .ok_or(CheckpointFault::NotACheckpoint)? as u64
        + tail as u64;
    let record = slice(bytes, end, 22, "end record")?;
    let (count, mut at) = (u16_at(record, 10), u32_at(record, 16));
    let mut tensors = Vec::new();
    let mut total = 0;
    for _ in 0..count {
        let entry = slice(bytes, at, 46, "directory")?;
        if !entry.starts_with(b"PK\x01\x02") {
            return Err(CheckpointFault::corrupt("directory", "an entry has a wrong magic"));
        }
        let lens = [u16_at(entry, 28), u16_at(entry, 30), u16_at(entry, 32)];
        let name = slice(bytes, at + 46, lens[0], "directory")?;
        let name = std::str::from_utf8(name)
            .map_err(|_| CheckpointFault::corrupt("directory", "a name is not UTF-8"))?;
        let part = format!("array {:?}", name.chars().take(40).collect::<String>());
        at += 46 + lens.iter().sum::<u64>();

        let (packed, size) = (u32_at(entry, 20), u32_at(entry, 24));
        if packed == u64::from(u32::MAX) || size == u64::from(u32::MAX) {
            return Err(CheckpointFault::NeedsNewerReader { what: format!("{part}: zip64") });
        }
        let local_at = u32_at(entry, 42);
        let local = slice(bytes, local_at, 30, &part)?;
        let data_at = local_at + 30 + u16_at(local, 26) + u16_at(local, 28);
        let data = slice(bytes, data_at, packed, &part)?;
        total += size;
        if total > MAX_TOTAL || size > packed.saturating_mul(MAX_RATIO) {
            return Err(over("inflated bytes", total, MAX_TOTAL.min(packed * MAX_RATIO)));
        }
        let bad = |reason: &str| CheckpointFault::corrupt(part.clone(), reason);
        let inflated;
        let array = match u16_at(entry, 10) {
            0 if packed == size => data,
            8 => {
                inflated = inflate(data, size).map_err(|error| bad(&error.to_string()))?;
                &inflated[..]
            }
            _ => return Err(bad("is packed in an unknown way")),
        };
        let mut crc = Crc::new();
        crc.update(array);
        if u64::from(crc.sum()) != u32_at(entry, 16) {
            return Err(bad("wrong checksum"));
        }
        let name = name.strip_suffix(".npy").ok_or_else(|| bad("is not an .npy file"))?;
        let (shape, values) = parse_npy(array).map_err(|reason| bad(&reason))?;
        tensors.push(NamedTensor::new(name, shape, values));
    }
    super::index::check_names("archive", tensors.iter().map(|tensor| tensor.name.as_str()))?;
    Ok(tensors)
}

/// Inflates to exactly `size` bytes, growing only as the data really comes.
fn inflate(data: &[u8], size: u64) -> io::Result<Vec<u8>> {
    let mut inflated = Vec::new();
    DeflateDecoder::new(data).take(size + 1).read_to_end(&mut inflated)?;
    match inflated.len() as u64 == size {
        true => Ok(inflated),
        false => Err(io::Error::other("inflates to another size than promised")),
    }
}

/// A tensor as an `.npy` file, version 1.0.
fn npy_bytes(tensor: &NamedTensor<'_>) -> Vec<u8> {
    let dims: String = tensor.shape.iter().map(|dim| format!("{dim}, ")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    if tensor.shape.is_empty() {
        header = header.replace("(, )", "()");
    }
    // The data begins at a multiple of 64.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((padded as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(10 + padded - 1, b' ');
    bytes.push(b'\n');
    bytes.extend(tensor.data.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

fn parse_npy(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("has a wrong magic")?;
    let (len, rest) = match rest {
        [1, _, a, b, rest @ ..] => (u64::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => {
            (u64::from(u32::from_le_bytes([*a, *b, *c, *d])), rest)
        }
        _ => return Err("has an unknown version".into()),
    };
    let len = usize::try_from(len).ok().filter(|&len| len <= rest.len());
    let (header, data) = rest.split_at(len.ok_or("has a header that goes past the end")?);
    let header = std::str::from_utf8(header).map_err(|_| "has a header that is not text")?;
    let value = |key: &str| {
        let (_, rest) = header.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let order = value("fortran_order").ok_or("does not say its order")?;
    if !order.starts_with("False") {
        return Err("is in Fortran order; save it with np.ascontiguousarray".into());
    }
    let dims = value("shape").and_then(|text| text.strip_prefix('(')?.split_once(')'));
    let (dims, _) = dims.ok_or("does not say its shape")?;
    let shape = dims.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    let shape: Option<Vec<usize>> = shape.map(|dim| dim.parse().ok()).collect();
    let shape = shape.filter(|shape| shape.len() <= 32).ok_or("has a shape that is none")?;
    type Convert = fn(&[u8]) -> f32;
    let descr = value("descr").ok_or("does not say its type")?;
    let types: [(&str, usize, Convert); 3] = [
        ("'<f4'", 4, |bytes| f32::from_le_bytes(bytes.try_into().expect("4 bytes"))),
        ("'<f8'", 8, |bytes| f64::from_le_bytes(bytes.try_into().expect("8 bytes")) as f32),
        ("'<i8'", 8, |bytes| i64::from_le_bytes(bytes.try_into().expect("8 bytes")) as f32),
    ];
    let (_, size, convert) = types
        .into_iter()
        .find(|(name, ..)| descr.starts_with(name))
        .ok_or_else(|| format!("has the unsupported type {:.12}", descr))?;
    let expected = shape.iter().try_fold(size, |bytes, &dim| bytes.checked_mul(dim));
    if expected != Some(data.len()) {
        return Err("has a shape that does not give its size".into());
    }
    Ok((shape, data.chunks_exact(size).map(convert).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_npy_header_is_what_numpy_writes_and_reads() {
        for (shape, text) in
            [(&[][..], "'shape': ()"), (&[3], "'shape': (3, )"), (&[1, 3], "'shape': (1, 3, )")]
        {
            let len = shape.iter().product::<usize>();
            let tensor = NamedTensor::new("w", shape, vec![0.5; len]);
            let bytes = npy_bytes(&tensor);
            assert!(String::from_utf8_lossy(&bytes).contains(text));
            assert_eq!((bytes.len() - 4 * len) % 64, 0);
            assert_eq!(parse_npy(&bytes).unwrap(), (shape.to_vec(), vec![0.5; len]));
        }
    }

    #[test]
    fn broken_arrays_are_refused_with_a_reason() {
        let good = npy_bytes(&NamedTensor::new("w", [2, 2], vec![1.0; 4]));
        let with = |from: &str, to: &str| {
            let text: String = good.iter().map(|&byte| char::from(byte)).collect();
            let bytes = text.replace(from, to).chars().map(|c| c as u8).collect::<Vec<u8>>();
            parse_npy(&bytes).unwrap_err()
        };
        assert!(with("False", "True ").contains("Fortran"));
        assert!(with("'<f4'", "'>f4'").contains("type"));
        assert!(with("(2, 2, )", "(2, 3, )").contains("size"));
        assert!(with("(2, 2, )", "(2, -2,)").contains("shape"));
        assert!(parse_npy(&good[..good.len() - 1]).unwrap_err().contains("size"));
        assert!(parse_npy(&good[..20]).unwrap_err().contains("past the end"));
        assert!(npz_from_bytes(b"PK").is_err());
        assert!(npz_from_bytes(&[&b"PK\x05\x06"[..], &[0xff; 18]].concat()).is_err());
    }
}
