//! Weights from and for other programs: the safetensors format.
//!
//! ```text
//! u64 length | JSON: {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ..} | data
//! ```
//!
//! A file holds tensors, not a training state: no optimizer, no cursor, no checksums. The reader
//! follows the format's own rules to the letter (no holes, no overlap, no duplicate names, sizes
//! that agree), with the lengths checked against the file before anything is allocated. The
//! format is small enough, and serde_json here anyway, that a dependency would be larger than
//! this file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::CheckpointFault;
use super::commit::write_atomically;
use super::state::NamedTensor;
use crate::error::{Error, Result};

/// A header larger than this describes hundreds of thousands of tensors.
const MAX_HEADER: u64 = 16 << 20;

/// Writes tensors as a safetensors file, replacing `path` only once the new file is complete and
/// on disk. Names and values are kept as they are, so PyTorch loads them with
/// `model.load_state_dict(safetensors.torch.load_file(path))`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] if two tensors have the same name.
pub fn save_safetensors(path: impl AsRef<Path>, tensors: &[NamedTensor<'_>]) -> Result<()> {
    let path = path.as_ref();
    super::index::check_names("header", tensors.iter().map(|tensor| tensor.name.as_str()))
        .map_err(|fault| Error::checkpoint(path, fault))?;
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for tensor in tensors {
        let begin = end;
        end += 4 * tensor.data.len() as u64;
        header.insert(
            tensor.name.clone(),
            serde_json::json!({
                "dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, end],
            }),
        );
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // Padded with spaces, so that the data is aligned for whoever maps the file.
    header.resize((8 + header.len()).next_multiple_of(64) - 8, b' ');
    write_atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|tensor| {
            tensor.data.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))
        })
    })
}

/// Reads all tensors of a safetensors file as f32, in the order of their data. `F32`, `F16` and
/// `BF16` are exact; `F64` and `I64` are rounded; other types are refused.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] naming the tensor and what is wrong with it.
pub fn load_safetensors(path: impl AsRef<Path>) -> Result<Vec<NamedTensor<'static>>> {
    let path = path.as_ref();
    let io = |error| Error::io("read", path, error);
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Error::checkpoint(path, CheckpointFault::NotARegularFile));
    }
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    read_safetensors(file, len).map_err(|failure| match failure {
        Failure::Io(error) => io(error),
        Failure::Fault(fault) => Error::checkpoint(path, fault),
    })
}

/// As [`load_safetensors`], from memory.
///
/// # Errors
/// As there.
pub fn safetensors_from_bytes(bytes: &[u8]) -> Result<Vec<NamedTensor<'static>>> {
    let path = Path::new("(memory)");
    read_safetensors(bytes, bytes.len() as u64).map_err(|failure| match failure {
        Failure::Io(error) => Error::io("read", path, error),
        Failure::Fault(fault) => Error::checkpoint(path, fault),
    })
}

enum Failure {
    Io(io::Error),
    Fault(CheckpointFault),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

fn fault(part: impl Into<String>, reason: impl Into<String>) -> Failure {
    Failure::Fault(CheckpointFault::corrupt(part, reason))
}

#[derive(serde::Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

fn read_safetensors(mut from: impl Read, len: u64) -> Result<Vec<NamedTensor<'static>>, Failure> {
    if len < 8 {
        return Err(Failure::Fault(CheckpointFault::Truncated { expected: 8, found: len }));
    }
    let mut header_len = [0; 8];
    from.read_exact(&mut header_len)?;
    let header_len = u64::from_le_bytes(header_len);
    if header_len > MAX_HEADER {
        let what = "bytes of header".into();
        let fault = CheckpointFault::OverLimit { what, value: header_len, limit: MAX_HEADER };
        return Err(Failure::Fault(fault));
    }
    if header_len > len - 8 {
        let expected = 8 + header_len;
        return Err(Failure::Fault(CheckpointFault::Truncated { expected, found: len }));
    }
    let mut header = vec![0; header_len as usize];
    from.read_exact(&mut header)?;
    if header.first() != Some(&b'{') {
        return Err(fault("header", "does not begin with {"));
    }
    let Header(mut entries) =
        serde_json::from_slice(&header).map_err(|error| fault("header", error.to_string()))?;
    drop(header);
    super::index::check_names("header", entries.iter().map(|(name, _)| name.as_str()))
        .map_err(Failure::Fault)?;
    entries.sort_by_key(|(_, info)| info.data_offsets);

    let mut end = 0;
    for (name, info) in &entries {
        let part = || format!("tensor {name:?}");
        let size = element(&info.dtype)
            .ok_or_else(|| fault(part(), format!("has the unsupported type {:?}", info.dtype)))?
            .0;
        let bytes = info.shape.iter().try_fold(size, |bytes, &dim| bytes.checked_mul(dim as u64));
        let (begin, next) = info.data_offsets;
        if begin != end || next < begin || Some(next - begin) != bytes {
            return Err(fault(part(), "has offsets that do not fit its shape and place"));
        }
        end = next;
    }
    if end != len - 8 - header_len {
        return Err(fault("data", format!("{} bytes, expected {end}", len - 8 - header_len)));
    }

    let mut tensors = Vec::with_capacity(entries.len());
    let mut chunk = vec![0; 64 << 10];
    for (name, info) in entries {
        let (size, convert) = element(&info.dtype).expect("checked above");
        let mut left = info.data_offsets.1 - info.data_offsets.0;
        let mut data = Vec::new();
        data.try_reserve_exact((left / size) as usize)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        while left > 0 {
            let bytes = &mut chunk[..left.min(64 << 10) as usize];
            from.read_exact(bytes)?;
            data.extend(bytes.chunks_exact(size as usize).map(convert));
            left -= bytes.len() as u64;
        }
        tensors.push(NamedTensor::new(name, info.shape, data));
    }
    Ok(tensors)
}

type Convert = fn(&[u8]) -> f32;

/// The size of a type's elements and how one becomes an f32.
fn element(dtype: &str) -> Option<(u64, Convert)> {
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().expect("chunks have the element's size")
    }
    Some(match dtype {
        "F32" => (4, |bytes| f32::from_le_bytes(array(bytes))),
        "F64" => (8, |bytes| f64::from_le_bytes(array(bytes)) as f32),
        "I64" => (8, |bytes| i64::from_le_bytes(array(bytes)) as f32),
        "BF16" => (2, |bytes| f32::from_bits(u32::from(u16::from_le_bytes(array(bytes))) << 16)),
        "F16" => (2, |bytes| half(u16::from_le_bytes(array(bytes)))),
        _ => return None,
    })
}

/// IEEE 754 half precision, exactly.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    match exponent {
        0 => sign * fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1024.0 + fraction) * 2_f32.powi(exponent - 25),
    }
}

/// The header's entries, duplicates and all, but for `__metadata__`.
struct Header(Vec<(String, Info)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one entry per tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    fn reason(bytes: &[u8]) -> String {
        safetensors_from_bytes(bytes).unwrap_err().to_string()
    }

    #[test]
    fn other_types_become_f32() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "half":{"dtype":"F16","shape":[5],"data_offsets":[0,10]},
            "brain":{"dtype":"BF16","shape":[2],"data_offsets":[10,14]},
            "double":{"dtype":"F64","shape":[],"data_offsets":[14,22]},
            "count":{"dtype":"I64","shape":[1],"data_offsets":[22,30]}}"#;
        let mut data = Vec::new();
        for bits in [0x3c00_u16, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x3f80, 0xbf00] {
            data.extend(bits.to_le_bytes());
        }
        data.extend(0.1_f64.to_le_bytes());
        data.extend(7_i64.to_le_bytes());
        let tensors = safetensors_from_bytes(&file(header, &data)).unwrap();
        let values: Vec<&[f32]> = tensors.iter().map(|tensor| &tensor.data[..]).collect();
        assert_eq!(values[0], [1.0, -2.0, 2_f32.powi(-24), 65504.0, f32::INFINITY]);
        assert_eq!(values[1], [1.0, -0.5]);
        assert_eq!((values[2], values[3]), (&[0.1_f32][..], &[7.0][..]));
    }

    #[test]
    fn broken_files_are_refused_with_a_reason() {
        let one = |offsets: &str| {
            let entry =
                format!(r#"{{"w":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}"#);
            file(&entry, &[0; 8])
        };
        assert!(safetensors_from_bytes(&one("[0,8]")).is_ok());
        for offsets in ["[0,4]", "[4,12]", "[8,0]", "[0,18446744073709551615]"] {
            assert!(reason(&one(offsets)).contains("offsets"), "{offsets}");
        }
        assert!(reason(&one("[0,8]")[..20]).contains("truncated"));
        assert!(reason(&[0; 4]).contains("truncated"));
        assert!(reason(&u64::MAX.to_le_bytes()).contains("over the limit"));
        assert!(reason(&[one("[0,8]"), vec![0]].concat()).contains("expected 8"));
        assert!(reason(&file("[]", &[])).contains("does not begin"));
        let same = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
        assert!(reason(&file(&format!(r#"{{"w":{same},"w":{same}}}"#), &[])).contains("two"));
        let huge = r#"{"w":{"dtype":"F64","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
        assert!(reason(&file(huge, &[])).contains("offsets"));
        let other = r#"{"w":{"dtype":"C64","shape":[0],"data_offsets":[0,0]}}"#;
        assert!(reason(&file(other, &[])).contains("unsupported type"));
    }
}
