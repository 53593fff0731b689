//! NumPy's `.npz` format: named arrays, as a ZIP archive of [`npy`] files.
//!
//! Written like `numpy.savez` (not compressed), read like `numpy.load`, also what
//! `numpy.savez_compressed` has written.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use flate2::Crc;

use super::npy::{self, Array};
use super::zip::Archive;
use super::{MEMORY, check_unique, fault, open, write_f32s};
use crate::checkpoint::vfs::ReadFile;
use crate::checkpoint::{NamedTensor, write_atomically};
use crate::error::{DataFault, Error, Result};

/// Sizes and offsets are 32 bits, unless an extension is used.
const LIMIT: u64 = u32::MAX as u64;

/// Writes tensors as an `.npz` archive, replacing `path` only once the new file is complete and
/// on disk. In Python, `dict(numpy.load(path))` has them.
///
/// # Errors
/// [`Error::Io`], or [`Error::Data`] if two tensors have the same name, or if there are 65535 of
/// them or 4 GiB: safetensors has no such limit.
pub fn write(path: impl AsRef<Path>, tensors: &[NamedTensor<'_>]) -> Result<()> {
    let path = path.as_ref();
    check_unique(path, tensors)?;
    let bytes = tensors.iter().map(|tensor| 4 * tensor.data.len() as u64 + 2048).sum::<u64>();
    if bytes >= LIMIT {
        return Err(Error::data(path, DataFault::TooLarge { bytes, limit: LIMIT }));
    }
    if tensors.len() >= usize::from(u16::MAX) {
        return Err(fault(path, format!("{} arrays, limit {}", tensors.len(), u16::MAX - 1)));
    }
    write_atomically(path, |file| {
        let mut directory = Vec::new();
        let mut offset = 0;
        for tensor in tensors {
            let mut array = npy::header(&tensor.shape);
            write_f32s(&mut array, &tensor.data)?;
            let mut checksum = Crc::new();
            checksum.update(&array);
            let name = format!("{}.npy", tensor.name);
            // Version 2.0, UTF-8 name, stored, midnight of 1 January 1980.
            let mut common = Vec::new();
            for half in [20_u16, 0x0800, 0, 0, 0x0021] {
                common.extend(half.to_le_bytes());
            }
            for word in [checksum.sum(), array.len() as u32, array.len() as u32] {
                common.extend(word.to_le_bytes());
            }
            common.extend((name.len() as u16).to_le_bytes());
            common.extend(0_u16.to_le_bytes());

            directory.extend_from_slice(b"PK\x01\x02\x14\x00");
            directory.extend_from_slice(&common);
            directory.extend_from_slice(&[0; 10]);
            directory.extend((offset as u32).to_le_bytes());
            directory.extend_from_slice(name.as_bytes());

            for part in [b"PK\x03\x04", &common[..], name.as_bytes(), &array] {
                file.write_all(part)?;
                offset += part.len();
            }
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

/// Reads all arrays of an `.npz` archive as f32, in its order; those in Fortran order are
/// transposed.
///
/// # Errors
/// [`Error::Io`], or [`Error::Data`] naming the array and what is wrong with it, or if the archive
/// would unpack to more than 256 MiB and more than 100 times its size.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<NamedTensor<'static>>> {
    let path = path.as_ref();
    read_file(path, open(path)?)
}

/// As [`read`], from memory.
///
/// # Errors
/// As there.
pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Vec<NamedTensor<'static>>> {
    read_file(Path::new(MEMORY), Box::new(bytes.into()))
}

fn read_file(path: &Path, file: Box<dyn ReadFile>) -> Result<Vec<NamedTensor<'static>>> {
    let archive = Archive::open(path, file)?;
    let mut tensors = Vec::new();
    for entry in archive.entries() {
        let name = entry.name.strip_suffix(".npy");
        let name = name.ok_or_else(|| fault(path, format!("{:?} is no array", entry.name)))?;
        let array = Array::parse(archive.content(entry)?);
        let values = array.and_then(|array| Ok((array.values()?, array.shape)));
        let (values, shape) =
            values.map_err(|reason| fault(path, format!("array {name:?} {reason}")))?;
        tensors.push(NamedTensor::new(name, shape, values));
    }
    check_unique(path, &tensors)?;
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::super::zip::testing::archive;
    use super::*;

    fn reason(bytes: Vec<u8>) -> String {
        from_bytes(bytes).unwrap_err().to_string()
    }

    #[test]
    fn broken_archives_are_refused_with_a_reason() {
        let array = [npy::header(&[2]), vec![0; 8]].concat();
        for deflate in [false, true] {
            let good = archive(&[("a.npy", &array), ("b.npy", &array)], deflate);
            assert_eq!(from_bytes(good.clone()).unwrap().len(), 2);
            let twice = archive(&[("a.npy", &array), ("a.npy", &array)], deflate);
            assert!(reason(twice).contains("two tensors named \"a\""));
            let other = archive(&[("a.txt", &array)], deflate);
            assert!(reason(other).contains("\"a.txt\" is no array"));
            let short = archive(&[("a.npy", &array[..array.len() - 1])], deflate);
            assert!(reason(short).contains("array \"a\" has 7 bytes"));
            let mut bad = good.clone();
            bad[50] ^= 1;
            assert!(reason(bad).contains("\"a.npy\": is damaged"));
        }
        assert!(reason(b"PK".to_vec()).contains("not a usable ZIP archive"));
        assert!(reason([&b"PK\x05\x06"[..], &[0xff; 18]].concat()).contains("outside"));
    }

    #[test]
    fn a_small_file_does_not_become_a_large_one() {
        let zeros = vec![0; 3 << 20];
        let mut files = Vec::new();
        let names: Vec<String> = (0..90).map(|i| format!("{i}.npy")).collect();
        files.extend(names.iter().map(|name| (name.as_str(), &zeros[..])));
        assert!(reason(archive(&files[..2], true)).contains("array \"0\""));
        assert!(reason(archive(&files, true)).contains("over the limit of 268435456"));
    }
}
