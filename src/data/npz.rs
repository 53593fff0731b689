//! Examples and labels from NumPy's `.npz` archives; the format is in [`crate::interop::npz`].

use std::path::Path;

use super::{ArrayDataset, Values};
use crate::checkpoint::vfs::{RealFs, Vfs};
use crate::error::{DataFault, Error, Result};
use crate::interop::npy::Array;
use crate::interop::{Archive, Element};

/// Reads two arrays of an archive: `inputs`, `[n, ..]`, and whole-number `labels`, `[n]` or `[n,
/// 1]`.
///
/// Inputs of type `uint8` are pixels, `float16`, `float32` and `float64` numbers. Images without a
/// channel dimension, `[n, height, width]`, get one; with one, it comes before the height.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read. [`Error::Data`] if it is not a ZIP archive or has no
/// such array (the message lists those it has); if an array is damaged, too large or of another
/// type; if the numbers of inputs and labels differ, a label is not below `classes`, or an input is
/// not finite.
pub fn read_npz(
    path: impl AsRef<Path>,
    inputs: &str,
    labels: &str,
    classes: usize,
) -> Result<ArrayDataset> {
    let path = path.as_ref();
    let archive = open(path)?;
    let (x, y) = (array(&archive, path, inputs)?, array(&archive, path, labels)?);
    let marks = whole_numbers(&y);
    let marks = marks.map_err(|reason| other(path, format!("array `{labels}` {reason}")))?;
    if x.shape.first() != Some(&marks.len()) {
        let images = x.shape.first().copied().unwrap_or(0);
        return Err(Error::data(path, DataFault::CountMismatch { images, labels: marks.len() }));
    }
    let (shape, values) = examples(path, inputs, x)?;
    if let Some((index, &label)) = marks.iter().enumerate().find(|&(_, &label)| label >= classes) {
        return Err(Error::data(path, DataFault::LabelOutOfRange { index, label, classes }));
    }
    ArrayDataset::new(path.display().to_string(), &shape, values, marks, classes)
}

/// Reads two arrays of an archive: `inputs` as [`read_npz`] does, and `targets`, numbers to
/// predict, of shape `[n]` or `[n, values]`.
///
/// # Errors
/// As [`read_npz`], but the targets must be floats, and finite.
pub fn read_npz_values(
    path: impl AsRef<Path>,
    inputs: &str,
    targets: &str,
) -> Result<ArrayDataset> {
    let path = path.as_ref();
    let archive = open(path)?;
    let (x, y) = (array(&archive, path, inputs)?, array(&archive, path, targets)?);
    let refused = |reason: String| other(path, format!("array `{targets}` {reason}"));
    let (n, of) = (x.shape.first().copied().unwrap_or(0), y.shape.clone());
    if !matches!(of[..], [examples] | [examples, _] if examples == n) {
        return Err(refused(format!("has shape {of:?}: expected [{n}, values]")));
    }
    let Values::Floats(y) = values(y).map_err(refused)? else {
        return Err(refused("has type uint8: expected floats".into()));
    };
    let (shape, x) = examples(path, inputs, x)?;
    ArrayDataset::unlabelled(path.display().to_string(), &shape, x)?.with_targets(y.to_vec())
}

/// Reads the array `inputs` only, without labels.
///
/// # Errors
/// As [`read_npz`], as far as it is about inputs.
pub fn read_npz_inputs(path: impl AsRef<Path>, inputs: &str) -> Result<ArrayDataset> {
    let path = path.as_ref();
    let (shape, values) = examples(path, inputs, array(&open(path)?, path, inputs)?)?;
    ArrayDataset::unlabelled(path.display().to_string(), &shape, values)
}

fn open(path: &Path) -> Result<Archive> {
    Archive::open(path, RealFs.open(path).map_err(|error| Error::io("open", path, error))?)
}

/// The shape of one example, and the values of all.
fn examples(path: &Path, name: &str, array: Array) -> Result<(Vec<usize>, Values)> {
    let refused = |reason| other(path, format!("array `{name}` {reason}"));
    let shape = match array.shape[..] {
        [] => return Err(refused("is a single number, not one example after the other".into())),
        [_, height, width] => vec![1, height, width],
        [_, ref shape @ ..] => shape.to_vec(),
    };
    Ok((shape, values(array).map_err(refused)?))
}

/// The array `name`, that is the entry `name.npy`.
fn array(archive: &Archive, path: &Path, name: &str) -> Result<Array> {
    let names = archive.entries().iter().map(|entry| entry.name.trim_end_matches(".npy"));
    let place = names.clone().position(|candidate| candidate == name).ok_or_else(|| {
        let known: Vec<&str> = names.collect();
        other(path, format!("no array `{name}`: it holds {}", known.join(", ")))
    })?;
    let bytes = archive.content(&archive.entries()[place])?;
    Array::parse(bytes).map_err(|reason| other(path, format!("array `{name}` {reason}")))
}

fn values(array: Array) -> Result<Values, String> {
    if array.element == Element::Unsigned(1) {
        return Ok(array.data.into());
    }
    if !matches!(array.element, Element::F16 | Element::F32 | Element::F64) {
        return Err(format!("has type {}: expected uint8 or floats", array.element));
    }
    let floats = array.values()?;
    match floats.iter().position(|x| !x.is_finite()) {
        Some(place) => Err(format!("has a value that is not finite, at position {place}")),
        None => Ok(floats.into()),
    }
}

fn whole_numbers(array: &Array) -> Result<Vec<usize>, String> {
    if !matches!(array.shape[..], [_] | [_, 1]) {
        return Err(format!("has shape {:?}: expected one label per example", array.shape));
    }
    let numbers = array.element.whole_numbers(&array.data);
    let numbers =
        numbers.ok_or_else(|| format!("has type {}: expected whole numbers", array.element))?;
    let label =
        |number: i128| usize::try_from(number).map_err(|_| "has a negative label".to_owned());
    numbers.map(label).collect()
}

fn other(path: &Path, message: String) -> Error {
    Error::data(path, DataFault::Other { message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::interop::testing;

    /// An archive of arrays: name, dictionary, elements.
    fn archive(arrays: &[(&str, &str, &[u8])], deflate: bool) -> Vec<u8> {
        let files: Vec<(String, Vec<u8>)> = arrays
            .iter()
            .map(|(name, header, data)| {
                let length = (header.len() as u16).to_le_bytes();
                let bytes = [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat();
                (format!("{name}.npy"), bytes)
            })
            .collect();
        let files: Vec<_> =
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        testing::archive(&files, deflate)
    }

    fn read(bytes: &[u8], classes: usize) -> Result<ArrayDataset> {
        let thread = std::thread::current().id();
        let name = format!("ferrotape-npz-{}-{thread:?}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        let data = read_npz(&path, "x", "y", classes);
        std::fs::remove_file(&path).unwrap();
        data
    }

    fn error(bytes: &[u8]) -> String {
        read(bytes, 3).err().unwrap().to_string()
    }

    fn header(descr: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}   \n")
    }

    #[test]
    fn stored_and_deflated_arrays_of_any_whole_type_are_read() {
        let bytes: Vec<u8> = (0..12).collect();
        let floats: Vec<u8> = (0..12).flat_map(|i| (i as f32 / 255.0).to_le_bytes()).collect();
        let doubles: Vec<u8> = (0..12).flat_map(|i| (i as f64 / 255.0).to_le_bytes()).collect();
        for deflate in [false, true] {
            for (descr, x) in [("|u1", &bytes), ("<f4", &floats), ("<f8", &doubles)] {
                for (kind, width) in [("|u1", 1), ("<i2", 2), ("<u4", 4), ("<i8", 8)] {
                    let y: Vec<u8> =
                        [2u64, 0].iter().flat_map(|l| l.to_le_bytes()[..width].to_vec()).collect();
                    let (hx, hy) = (header(descr, "(2, 2, 3)"), header(kind, "(2,)"));
                    let data =
                        read(&archive(&[("y", &hy, &y), ("x", &hx, x)], deflate), 3).unwrap();
                    assert_eq!((data.len(), data.input_shape()), (2, &[1, 2, 3][..]));
                    assert_eq!((data.label(0), data.label(1)), (2, 0));
                    let mut values = [0.0; 6];
                    data.read(1, &mut values);
                    assert_eq!(
                        values.map(|v| (v * 255.0).round()),
                        [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
                    );
                }
            }
        }
    }

    #[test]
    fn unusable_archives_say_why() {
        let (hx, hy) = (header("|u1", "(2, 3)"), header("|u1", "(2, 1)"));
        let with = |x: &str, y: &str| archive(&[("x", x, &[1; 6]), ("y", y, &[0, 1])], true);
        let good = with(&hx, &hy);
        assert_eq!(read(&good, 2).unwrap().input_shape(), [3]);
        assert!(read(&good, 1).err().unwrap().to_string().contains("label 1 of example 1"));

        let negative =
            archive(&[("x", &hx, &[1; 6]), ("y", &header("|i1", "(2,)"), &[0, 255])], false);
        let nan = f32::NAN.to_le_bytes().repeat(2);
        let nan = archive(&[("x", &header("<f4", "(2, 1)"), &nan), ("y", &hy, &[0, 1])], false);
        let cases = [
            (
                archive(&[("a", &hx, &[1; 6]), ("b", &hy, &[0, 1])], true),
                "no array `x`: it holds a, b",
            ),
            (with(&header("<f2", "(3,)"), &hy), "2 labels"),
            (with(&header("<f2", "(1, 3)"), &hy), "1 images but 2 labels"),
            (with(&header("|b1", "(2, 3)"), &hy), "array `x` has type bool"),
            (
                with(&header("|u1", "(2, 4)"), &hy),
                "array `x` has 6 bytes, not those of shape [2, 4]",
            ),
            (
                with(&hx, &header("<f2", "(1,)")),
                "array `y` has type float16: expected whole numbers",
            ),
            (with(&hx, &header("|u1", "(1, 2)")), "array `y` has shape [1, 2]"),
            (with("{'shape': (2, 3)}", &hy), "not understood: {'shape': (2, 3)}"),
            (negative, "array `y` has a negative label"),
            (nan, "array `x` has a value that is not finite, at position 0"),
        ];
        for (bytes, message) in cases {
            assert!(error(&bytes).contains(message), "{} / {message}", error(&bytes));
        }
    }

    #[test]
    fn damage_is_refused_whatever_it_hits() {
        let (hx, hy) = (header("|u1", "(2, 3)"), header("|u1", "(2,)"));
        for deflate in [false, true] {
            let good = archive(&[("x", &hx, &[1; 6]), ("y", &hy, &[0, 1])], deflate);
            for end in 0..good.len() {
                error(&good[..end]);
            }
            for at in 0..good.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut bad = good.clone();
                    bad[at] ^= flip;
                    // Some bytes mean nothing to us; then the content must be the original one.
                    if let Ok(data) = read(&bad, 3) {
                        assert_eq!(data.fingerprint(), read(&good, 3).unwrap().fingerprint());
                    }
                }
            }
        }
    }
}
