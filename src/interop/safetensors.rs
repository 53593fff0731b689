//! The safetensors format: how PyTorch and many others exchange weights.
//!
//! ```text
//! u64 length | JSON: {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ..} | data
//! ```
//!
//! A file holds tensors, not a training state: no optimizer, no position, no checksums. The reader
//! follows the format's own rules to the letter (no holes, no overlap, no duplicate names, sizes
//! that agree). The format is so small, and serde_json here anyway, that using the reference
//! implementation would add more code to trust than this file, and would not save the part that
//! needs care: it hands out bytes and offsets, not f32.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Element, MAX_RANK, MEMORY, byte_size, check_unique, fault, open, write_f32s};
use crate::checkpoint::vfs::ReadFile;
use crate::checkpoint::{NamedTensor, check_names, write_atomically};
use crate::error::{DataFault, Error, Result};

/// A header larger than this describes hundreds of thousands of tensors.
const MAX_HEADER: u64 = 16 << 20;
/// The one name that is not a tensor's.
const METADATA: &str = "__metadata__";
/// How much is read and converted at a time; a multiple of every element's size.
const CHUNK: usize = 64 << 10;

/// Writes tensors as a safetensors file, replacing `path` only once the new file is complete and
/// on disk. Names and values are kept as they are, so PyTorch loads them with
/// `model.load_state_dict(safetensors.torch.load_file(path))`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Data`] if two tensors have the same name or one has a name that the
/// format reserves.
pub fn write(path: impl AsRef<Path>, tensors: &[NamedTensor<'_>]) -> Result<()> {
    let path = path.as_ref();
    check_unique(path, tensors)?;
    if tensors.iter().any(|tensor| tensor.name == METADATA) {
        return Err(fault(path, format!("safetensors reserves the name {METADATA}")));
    }
    // Libraries that serve several frameworks look at the format and refuse a file without one.
    let mut header = serde_json::Map::new();
    header.insert(METADATA.into(), serde_json::json!({ "format": "pt" }));
    let mut end = 0;
    for NamedTensor { name, shape, data } in tensors {
        let begin = end;
        end += 4 * data.len() as u64;
        let entry =
            serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, end] });
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // Padded with spaces, so that the data is aligned for whoever maps the file.
    header.resize((8 + header.len()).next_multiple_of(64) - 8, b' ');
    write_atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|tensor| write_f32s(file, &tensor.data))
    })
}

/// Reads all tensors of a safetensors file as f32, in the order of their data.
///
/// # Errors
/// [`Error::Io`], or [`Error::Data`] naming the tensor and what is wrong with it.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<NamedTensor<'static>>> {
    let path = path.as_ref();
    read_file(path, &*open(path)?)
}

/// As [`read`], from memory.
///
/// # Errors
/// As there.
pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Vec<NamedTensor<'static>>> {
    read_file(Path::new(MEMORY), &bytes.into())
}

fn read_file(path: &Path, file: &dyn ReadFile) -> Result<Vec<NamedTensor<'static>>> {
    let io = |error| Error::io("read", path, error);
    let found = file.size().map_err(io)?;
    let data_at = header_end(path, file, found)?;
    let mut header = vec![0; (data_at - 8) as usize];
    file.read_exact_at(&mut header, 8).map_err(io)?;
    let bad = |reason: String| fault(path, format!("not a safetensors file: header: {reason}"));
    if header.first() != Some(&b'{') {
        return Err(bad("does not begin with {".into()));
    }
    let Header(mut entries) =
        serde_json::from_slice(&header).map_err(|error| bad(error.to_string()))?;
    drop(header);
    check_names("header", entries.iter().map(|(name, _)| name.as_str()))
        .map_err(|reason| fault(path, reason.to_string()))?;
    entries.sort_by_key(|(_, info)| info.data_offsets);

    let mut end = 0;
    for (name, Info { dtype, shape: Dims(shape), data_offsets: (begin, next) }) in &entries {
        let bytes = byte_size(shape, dtype.size()).map(|bytes| bytes as u64);
        if *begin != end || next.checked_sub(*begin).is_none_or(|len| Some(len) != bytes) {
            let reason = format!("{begin}..{next} are not its shape {shape:?}, or leave a gap");
            return Err(fault(path, format!("tensor {name:?}: the data offsets {reason}")));
        }
        end = *next;
    }
    match data_at.checked_add(end) {
        Some(expected) if expected == found => {}
        Some(declared) if declared < found => {
            return Err(Error::data(path, DataFault::TrailingBytes { declared }));
        }
        expected => {
            let expected = expected.unwrap_or(u64::MAX);
            return Err(Error::data(path, DataFault::Truncated { expected, found }));
        }
    }

    let mut tensors = Vec::with_capacity(entries.len());
    let mut chunk = vec![0; CHUNK];
    for (name, Info { dtype, shape: Dims(shape), data_offsets: (begin, end) }) in entries {
        let bad = |reason: &str| fault(path, format!("tensor {name:?}: {reason}"));
        let mut data = Vec::new();
        data.try_reserve_exact((end - begin) as usize / dtype.size())
            .map_err(|_| bad("does not fit into memory"))?;
        for at in (begin..end).step_by(CHUNK) {
            let bytes = &mut chunk[..(end - at).min(CHUNK as u64) as usize];
            file.read_exact_at(bytes, data_at + at).map_err(io)?;
            dtype.append(bytes, &mut data).map_err(|reason| bad(&reason))?;
        }
        tensors.push(NamedTensor::new(name, shape, data));
    }
    Ok(tensors)
}

/// Where the header ends and the data begins.
fn header_end(path: &Path, file: &dyn ReadFile, found: u64) -> Result<u64> {
    let truncated = |expected| Error::data(path, DataFault::Truncated { expected, found });
    if found < 8 {
        return Err(truncated(8));
    }
    let mut len = [0; 8];
    file.read_exact_at(&mut len, 0).map_err(|error| Error::io("read", path, error))?;
    let len = u64::from_le_bytes(len);
    if len > MAX_HEADER {
        // The first bytes of any other file are a large number.
        let reason = format!("it would have a header of {len} bytes, limit {MAX_HEADER}");
        return Err(fault(path, format!("not a safetensors file: {reason}")));
    }
    if 8 + len > found {
        return Err(truncated(8 + len));
    }
    Ok(8 + len)
}

/// The header's entries but for the metadata, duplicates and all.
struct Header(Vec<(String, Info)>);

#[derive(serde::Deserialize)]
struct Info {
    #[serde(deserialize_with = "dtype")]
    dtype: Element,
    shape: Dims,
    data_offsets: (u64, u64),
}

fn dtype<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Element, D::Error> {
    let name = Cow::<str>::deserialize(deserializer)?;
    let unknown = || D::Error::custom(format!("the type {:?} cannot become f32", clip(&name)));
    Element::of_safetensors(&name).ok_or_else(unknown)
}

fn clip(text: &str) -> String {
    text.chars().take(20).collect()
}

/// A shape; no number of brackets and commas makes it use more memory than `MAX_RANK` numbers.
struct Dims(Vec<usize>);

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sequence;
        impl<'de> Visitor<'de> for Sequence {
            type Value = Dims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut dims: A) -> Result<Dims, A::Error> {
                let mut shape = Vec::new();
                while let Some(dim) = dims.next_element()? {
                    if shape.len() == MAX_RANK {
                        return Err(A::Error::custom(format!("more than {MAX_RANK} dimensions")));
                    }
                    shape.push(dim);
                }
                shape.shrink_to_fit();
                Ok(Dims(shape))
            }
        }
        deserializer.deserialize_seq(Sequence)
    }
}

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
                    if name == METADATA {
                        map.next_value::<IgnoredAny>()?;
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
        from_bytes(bytes.to_vec()).unwrap_err().to_string()
    }

    #[test]
    fn tensors_come_in_the_order_of_their_data() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "count":{"dtype":"I64","shape":[1],"data_offsets":[2,10]},
            "half":{"dtype":"F16","shape":[],"data_offsets":[0,2]}}  "#;
        let data = [&[0x00, 0x3c][..], &7_i64.to_le_bytes()].concat();
        let expected =
            [NamedTensor::new("half", [], vec![1.0]), NamedTensor::new("count", [1], vec![7.0])];
        assert_eq!(from_bytes(file(header, &data)).unwrap(), expected);
    }

    #[test]
    fn broken_files_are_refused_with_a_reason() {
        let one = |offsets: &str| {
            let entry =
                format!(r#"{{"w":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}"#);
            file(&entry, &[0; 8])
        };
        assert!(from_bytes(one("[0,8]")).is_ok());
        for offsets in ["[0,4]", "[4,12]", "[8,0]", "[0,18446744073709551615]"] {
            assert!(reason(&one(offsets)).contains("tensor \"w\": the data offsets"), "{offsets}");
        }
        assert!(reason(&one("[0,8]")[..20]).contains("truncated"));
        assert!(reason(&one("[0,8]")[..one("[0,8]").len() - 1]).contains("truncated"));
        assert!(reason(&[0; 4]).contains("truncated"));
        assert!(reason(&[one("[0,8]"), vec![0]].concat()).contains("goes on after"));
        assert!(reason(b"\x89PNG\r\n\x1a\n rest").contains("not a safetensors file"));
        assert!(reason(&file("[]", &[])).contains("does not begin"));

        let entry = |text: &str| file(&format!(r#"{{"w":{text}}}"#), &[]);
        let empty = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
        assert!(from_bytes(entry(empty)).is_ok());
        let cases = [
            (format!(r#"{empty},"w":{empty}"#), "two tensors named \"w\""),
            (format!(r#"{empty},"":{empty}"#), "the name \"\" is empty"),
            (empty.replace("F32", "F8_E5M2"), "the type \"F8_E5M2\" cannot become f32"),
            (empty.replace("[0]", "[4611686018427387904,4,0]"), "the data offsets"),
            (empty.replace("[0]", "[0,18446744073709551615,2]"), "the data offsets"),
            (empty.replace("[0]", "[-1]"), "expected usize"),
            (empty.replace("[0]", &format!("[0{}]", ",1".repeat(16))), "more than 16 dimensions"),
            (empty.replace("[0,0]", "[0]"), "expected a tuple"),
            (empty.replace(r#""dtype":"F32","#, ""), "missing field `dtype`"),
            ("[".repeat(1000), "header"),
        ];
        for (text, expected) in cases {
            assert!(reason(&entry(&text)).contains(expected), "{text}: {}", reason(&entry(&text)));
        }
    }
}
