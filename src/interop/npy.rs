//! NumPy's `.npy` format: one array.
//!
//! ```text
//! "\x93NUMPY" major minor | header length | header, a Python dictionary | elements
//! {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
//! ```

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use super::{Element, MEMORY, byte_size, fault, open, write_f32s};
use crate::checkpoint::vfs::ReadFile;
use crate::checkpoint::write_atomically;
use crate::error::{Error, Result};
use crate::tensor::{MAX_RANK, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Writes a tensor as `numpy.save` does, replacing `path` only once the new file is complete and on
/// disk.
///
/// # Errors
/// [`Error::Io`].
pub fn write(path: impl AsRef<Path>, tensor: &Tensor) -> Result<()> {
    write_atomically(path.as_ref(), |file| {
        file.write_all(&header(&tensor.shape()))?;
        write_f32s(file, tensor.data())
    })
}

/// Reads an array as f32; one in Fortran order is transposed.
///
/// # Errors
/// [`Error::Io`], or [`Error::Data`] if it is not an array of numbers in little-endian order or has
/// more than six dimensions.
pub fn read(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    read_file(path, &*open(path)?)
}

/// As [`read`], from memory.
///
/// # Errors
/// As there.
pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Tensor> {
    read_file(Path::new(MEMORY), &bytes.into())
}

fn read_file(path: &Path, file: &dyn ReadFile) -> Result<Tensor> {
    let io = |error| Error::io("read", path, error);
    let size = usize::try_from(file.size().map_err(io)?).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| io(io::ErrorKind::OutOfMemory.into()))?;
    bytes.resize(size, 0);
    file.read_exact_at(&mut bytes, 0).map_err(io)?;
    let bad = |reason| fault(path, format!("the array {reason}"));
    let array = Array::parse(bytes).map_err(bad)?;
    if array.shape.len() > MAX_RANK {
        return Err(bad(format!("has {} dimensions, limit {MAX_RANK}", array.shape.len())));
    }
    let shape = array.shape.clone();
    Ok(Tensor::from_vec(array.values().map_err(bad)?, &shape[..]))
}

/// Everything before the elements, which then begin at a multiple of 64.
pub(super) fn header(shape: &[usize]) -> Vec<u8> {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let dims = dims.join(", ");
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}{comma}), }}");
    let padded = (MAGIC.len() + 4 + text.len() + 1).next_multiple_of(64) - MAGIC.len() - 4;
    let mut bytes = [MAGIC, &[1, 0]].concat();
    bytes.extend((padded as u16).to_le_bytes());
    bytes.extend(text.into_bytes());
    bytes.resize(MAGIC.len() + 4 + padded - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// An array whose elements are still as in the file.
pub(crate) struct Array {
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    /// The elements in row-major order.
    pub(crate) data: Vec<u8>,
}

impl Array {
    /// Takes the content of a file apart. The reason for a refusal completes "the array ..".
    pub(crate) fn parse(mut bytes: Vec<u8>) -> Result<Array, String> {
        let (at, len) = match bytes.get(MAGIC.len()..12) {
            Some(&[1, _, a, b, ..]) => (10_usize, usize::from(u16::from_le_bytes([a, b]))),
            Some(&[2 | 3, _, a, b, c, d]) => (12, u32::from_le_bytes([a, b, c, d]) as usize),
            _ => return Err("is not in the npy format".into()),
        };
        if !bytes.starts_with(MAGIC) {
            return Err("is not in the npy format".into());
        }
        let start = at.saturating_add(len);
        let header = bytes.get(at..start).and_then(|text| std::str::from_utf8(text).ok());
        let header = header.ok_or("has a damaged npy header")?;
        let Fields { descr, fortran, shape } = fields(header).ok_or_else(|| {
            let text: String = header.trim().chars().take(200).collect();
            format!("has an npy header that is not understood: {text}")
        })?;
        let shape = shape.split(',').map(str::trim).filter(|dim| !dim.is_empty());
        let shape: Result<Vec<usize>, _> = shape.map(str::parse).collect();
        let shape = shape.map_err(|_| "has an impossible shape")?;
        let descr: String = descr.chars().take(20).collect();
        let element = Element::of_numpy(&descr).ok_or_else(|| match descr.starts_with('>') {
            true => format!("has type {descr}, big-endian: save it as little-endian"),
            false => format!("has type {descr}, which cannot become f32"),
        })?;
        bytes.drain(..start);
        if byte_size(&shape, element.size()) != Some(bytes.len()) {
            let got = bytes.len();
            return Err(format!(
                "has {got} bytes, not those of shape {shape:?} and type {element}"
            ));
        }
        let data = if fortran { transposed(&bytes, &shape, element.size()) } else { bytes };
        Ok(Array { element, shape, data })
    }

    /// The elements as f32.
    pub(crate) fn values(&self) -> Result<Vec<f32>, String> {
        let mut values = Vec::new();
        let reserved = values.try_reserve_exact(self.data.len() / self.element.size());
        reserved.map_err(|_| "does not fit into memory")?;
        self.element.append(&self.data, &mut values)?;
        Ok(values)
    }
}

struct Fields<'h> {
    descr: &'h str,
    fortran: bool,
    /// The dimensions, separated by commas.
    shape: &'h str,
}

/// Reads the dictionary, whose values hold no quotes, commas or brackets but their own.
fn fields(header: &str) -> Option<Fields<'_>> {
    let value = |key| header.split_once(key).map(|(_, rest)| rest.trim_start());
    let order = value("'fortran_order':")?;
    let fortran = order.starts_with("True");
    if !fortran && !order.starts_with("False") {
        return None;
    }
    let (descr, _) = value("'descr':")?.strip_prefix('\'')?.split_once('\'')?;
    let (shape, _) = value("'shape':")?.strip_prefix('(')?.split_once(')')?;
    Some(Fields { descr, fortran, shape })
}

/// Elements in column-major order (the first index runs fastest) to row-major order.
fn transposed(from: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut to = Vec::with_capacity(from.len());
    let mut index = vec![0; shape.len()];
    while to.len() < from.len() {
        let offset = index.iter().zip(shape).rev().fold(0, |sum, (i, dim)| sum * dim + i);
        to.extend_from_slice(&from[offset * size..][..size]);
        for (i, &dim) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < dim {
                break;
            }
            *i = 0;
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dictionary: &str, data: &[u8]) -> Vec<u8> {
        let length = (dictionary.len() as u16).to_le_bytes();
        [MAGIC, &[1, 0], &length, dictionary.as_bytes(), data].concat()
    }

    #[test]
    fn the_header_is_the_one_that_numpy_writes() {
        for (shape, text) in [
            (&[][..], "'shape': (), }"),
            (&[3], "'shape': (3,), }"),
            (&[1, 3], "'shape': (1, 3), }"),
        ] {
            let tensor = Tensor::full(0.5, shape);
            let header = header(shape);
            assert!(String::from_utf8_lossy(&header).contains(text));
            assert_eq!(header.len() % 64, 0);
            let mut bytes = header;
            write_f32s(&mut bytes, tensor.data()).unwrap();
            assert_eq!(from_bytes(bytes).unwrap(), tensor);
        }
    }

    #[test]
    fn fortran_order_is_undone() {
        // f[i][j][k] = 100 i + 10 j + k, the first index running fastest.
        let column_major = [0, 100, 10, 110, 20, 120, 1, 101, 11, 111, 21, 121];
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 2), }";
        let tensor = from_bytes(file(header, &column_major)).unwrap();
        let expected = [0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121].map(|x| x as f32);
        assert_eq!(tensor.data(), expected);
    }

    #[test]
    fn broken_arrays_are_refused_with_a_reason() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }";
        assert!(from_bytes(file(good, &[0; 16])).is_ok());
        let reason = |bytes: Vec<u8>| from_bytes(bytes).unwrap_err().to_string();
        let with = |from: &str, to: &str| reason(file(&good.replace(from, to), &[0; 16]));
        for (from, to, expected) in [
            ("<f4", ">f4", "big-endian"),
            ("<f4", "|O8", "type |O8, which cannot become f32"),
            ("'<f4'", "[('x', '<f4')]", "not understood"),
            ("(2, 2)", "(2, 3)", "has 16 bytes, not those of shape [2, 3]"),
            ("(2, 2)", "(2, -2)", "impossible shape"),
            ("(2, 2)", "(4611686018427387904, 4, 0)", "has 16 bytes"),
            ("(2, 2)", "(4, 1, 1, 1, 1, 1, 1)", "has 7 dimensions"),
            ("False", "Maybe", "not understood"),
        ] {
            assert!(with(from, to).contains(expected), "{to}: {}", with(from, to));
        }
        let bytes = file(good, &[0; 16]);
        assert!(reason(bytes[..bytes.len() - 1].to_vec()).contains("has 15 bytes"));
        assert!(reason(bytes[..20].to_vec()).contains("damaged"));
        assert!(reason(b"\x93NUMPY".to_vec()).contains("not in the npy format"));
        assert!(
            reason(b"\x93NUMPX\x01\x00\x10\x00      ".to_vec()).contains("not in the npy format")
        );
    }
}
