//! The IDX format of the MNIST files, plain or gzip-compressed.
//!
//! ```text
//! 00 00           always
//! 08              element type: unsigned byte
//! 03              number of dimensions
//! 4 bytes each    their lengths, big-endian, outermost first
//! ...             the elements, row-major, nothing after them
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{LIMIT, Source, find, missing_files};
use super::{ArrayDataset, Dataset, Normalize, Split, Subset};
use crate::error::{DataFault, Error, Result};

/// The content of an IDX file of unsigned bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    /// The lengths of the dimensions, outermost first.
    pub dims: Vec<usize>,
    /// The elements in row-major order: as many as the product of `dims`.
    pub data: Vec<u8>,
}

/// Reads an IDX file of unsigned bytes with `rank` (1 to 4) dimensions.
///
/// Memory stays within 1032 times the size of the file (gzip's largest possible expansion) and
/// within 4 GiB, whatever the header says.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read. [`Error::Data`] if it does not begin with the magic
/// number of this rank, has no elements, is shorter or longer than its header says, is too large,
/// or is damaged gzip.
///
/// # Panics
/// If `rank` is not from 1 to 4.
pub fn read_idx(path: impl AsRef<Path>, rank: u8) -> Result<Idx> {
    let expected = match rank {
        1 => "00 00 08 01, an IDX file of unsigned bytes in 1 dimension (labels)",
        2 => "00 00 08 02, an IDX file of unsigned bytes in 2 dimensions",
        3 => "00 00 08 03, an IDX file of unsigned bytes in 3 dimensions (grey images)",
        4 => "00 00 08 04, an IDX file of unsigned bytes in 4 dimensions",
        _ => panic!("read_idx: rank {rank}, expected 1 to 4"),
    };
    let mut file = Source::open(path.as_ref())?;
    let magic = file.take(4)?;
    if magic != [0, 0, 8, rank] {
        let found = [magic[0], magic[1], magic[2], magic[3]];
        return Err(file.fault(DataFault::BadMagic { expected, found }));
    }
    let lengths = file.take(4 * u64::from(rank))?;
    let (lengths, _) = lengths.as_chunks::<4>();
    let lengths: Vec<u64> = lengths.iter().map(|b| u64::from(u32::from_be_bytes(*b))).collect();
    if lengths.contains(&0) {
        let message = format!("no elements: the header's dimensions are {lengths:?}");
        return Err(file.fault(DataFault::Other { message }));
    }
    let size = lengths.iter().fold(1u64, |size, &length| size.saturating_mul(length));
    if size > LIMIT {
        return Err(file.fault(DataFault::TooLarge { bytes: size, limit: LIMIT }));
    }
    let data = file.take(size)?;
    file.end()?;
    Ok(Idx { dims: lengths.into_iter().map(|length| length as usize).collect(), data })
}

/// Reads a pair of IDX files: grey images (`[n, height, width]`) and labels (`[n]`).
///
/// # Errors
/// As [`read_idx`]; also [`Error::Data`] if the numbers of images and labels differ, or a label is
/// not below `classes`.
pub fn read_idx_pair(images: &Path, labels: &Path, classes: usize) -> Result<ArrayDataset> {
    let pixels = read_idx(images, 3)?;
    let marks: Vec<usize> = read_idx(labels, 1)?.data.into_iter().map(usize::from).collect();
    let (n, size) = pixels.dims.split_first().expect("an IDX file has dimensions");
    if *n != marks.len() {
        let fault = DataFault::CountMismatch { images: *n, labels: marks.len() };
        return Err(Error::data(labels, fault));
    }
    if let Some((index, &label)) = marks.iter().enumerate().find(|&(_, &label)| label >= classes) {
        return Err(Error::data(labels, DataFault::LabelOutOfRange { index, label, classes }));
    }
    let shape = [&[1], size].concat();
    ArrayDataset::new(images.display().to_string(), &shape, pixels.data, marks, classes)
}

/// Reads grey images without labels.
///
/// # Errors
/// As [`read_idx`].
pub fn read_idx_images(path: impl AsRef<Path>) -> Result<ArrayDataset> {
    let Idx { dims, data } = read_idx(path.as_ref(), 3)?;
    ArrayDataset::unlabelled(path.as_ref().display().to_string(), &[1, dims[1], dims[2]], data)
}

/// Reads a directory of IDX files: the examples, and the test set if it has one of its own.
///
/// Files are found under their usual names, with or without `.gz`:
/// - `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, with the test set
///   `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`;
/// - or `images-idx3-ubyte` and `labels-idx1-ubyte`, without one.
///
/// # Errors
/// [`Error::Data`] if the directory or a file is missing, saying which names were looked for; and
/// see [`read_idx_pair`].
pub fn read_idx_dir(
    dir: impl AsRef<Path>,
    classes: usize,
) -> Result<(ArrayDataset, Option<ArrayDataset>)> {
    let dir = dir.as_ref();
    let load = |prefix: &str| -> Result<Option<ArrayDataset>> {
        let pair = (locate(dir, prefix, "images", 3), locate(dir, prefix, "labels", 1));
        let (images, labels) = match pair {
            (Ok(images), Ok(labels)) => (images, labels),
            (Err(_), Err(_)) => return Ok(None),
            (Err(missing), _) | (_, Err(missing)) => return Err(missing_files(dir, &missing)),
        };
        read_idx_pair(&images, &labels, classes).map(Some)
    };
    if let Some(train) = load("train-")? {
        let test = load("t10k-")?.ok_or_else(|| missing_files(dir, "t10k-images-idx3-ubyte"))?;
        Ok((train, Some(test)))
    } else if let Some(data) = load("")? {
        Ok((data, None))
    } else {
        Err(missing_files(dir, "train-images-idx3-ubyte or images-idx3-ubyte"))
    }
}

/// Reads a directory of IDX files (see [`read_idx_dir`]) and splits it, with the MNIST
/// normalisation: a tenth is held out for validation, and a tenth for the test unless there is a
/// test set.
///
/// # Errors
/// As [`read_idx_dir`].
pub fn load_idx_dir(dir: impl AsRef<Path>, classes: usize, seed: u64) -> Result<Split> {
    let (data, test) = read_idx_dir(dir, classes)?;
    let data = Arc::new(data.normalized(Normalize::mnist()));
    let Some(test) = test else {
        return Split::stratified(data, 0.1, 0.1, seed);
    };
    let train = Subset::all(data);
    let (train, valid) = train.hold_out(train.len() / 10, seed)?;
    let test = Subset::all(Arc::new(test.normalized(Normalize::mnist())));
    Ok(Split { train, valid, test })
}

/// The path of one file of a pair, or the name that was looked for.
fn locate(dir: &Path, prefix: &str, content: &str, rank: u8) -> Result<PathBuf, String> {
    let name = format!("{prefix}{content}-idx{rank}-ubyte");
    find(dir, &[&name, &format!("{prefix}{content}.idx{rank}-ubyte")]).ok_or(name)
}
