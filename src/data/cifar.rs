//! The binary version of CIFAR-10: small colour photographs in ten classes.
//!
//! ```text
//! record = label (1 byte) | red (32 x 32 bytes) | green | blue        a file: 10,000 of them
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Source, find, missing_files};
use super::{ArrayDataset, Dataset, Normalize, Split, Subset};
use crate::error::{DataFault, Result};

const NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const SHAPE: [usize; 3] = [3, 32, 32];
const RECORD: usize = 1 + 3 * 32 * 32;

/// Reads a directory of CIFAR-10 binary files, normalised as usual: a tenth of the images in
/// `data_batch_1.bin` to `data_batch_5.bin` is held out for validation, `test_batch.bin` is the
/// test set. Each file may be gzip-compressed.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) if a file is missing, saying which; if its size is not a
/// whole number of records; or if a label is above 9. [`Error::Io`](crate::Error::Io) if it cannot
/// be read.
pub fn load_cifar10_dir(dir: impl AsRef<Path>, seed: u64) -> Result<Split> {
    let (train, test) = read_cifar10_dir(dir)?;
    let [train, test] =
        [train, test].map(|data| Subset::all(Arc::new(data.normalized(Normalize::cifar10()))));
    let (train, valid) = train.hold_out(train.len() / 10, seed)?;
    Ok(Split { train, valid, test })
}

/// Reads a directory of CIFAR-10 binary files: the training and the test images.
///
/// # Errors
/// As [`load_cifar10_dir`].
pub fn read_cifar10_dir(dir: impl AsRef<Path>) -> Result<(ArrayDataset, ArrayDataset)> {
    let dir = dir.as_ref();
    let locate = |name: String| find(dir, &[&name]).ok_or_else(|| missing_files(dir, &name));
    let train = (1..=5).map(|batch| locate(format!("data_batch_{batch}.bin")));
    let train = read_records(dir, &train.collect::<Result<Vec<_>>>()?)?;
    let test = read_records(dir, &[locate("test_batch.bin".into())?])?;
    Ok((train, test))
}

/// Reads one CIFAR-10 binary file.
///
/// # Errors
/// As [`load_cifar10_dir`], as far as it is about a file.
pub fn read_cifar10_file(path: impl AsRef<Path>) -> Result<ArrayDataset> {
    let path = path.as_ref();
    read_records(path, &[path.to_owned()])
}

fn read_records(name: &Path, files: &[PathBuf]) -> Result<ArrayDataset> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        let mut file = Source::open(path)?;
        let bytes = file.rest()?;
        let (found, record) = (bytes.len() as u64, RECORD as u64);
        let expected = found.div_ceil(record).max(1) * record;
        if found != expected {
            return Err(file.fault(DataFault::Truncated { expected, found }));
        }
        for (index, record) in bytes.chunks_exact(RECORD).enumerate() {
            let (label, classes) = (usize::from(record[0]), NAMES.len());
            if label >= classes {
                return Err(file.fault(DataFault::LabelOutOfRange { index, label, classes }));
            }
            labels.push(label);
            pixels.extend_from_slice(&record[1..]);
        }
    }
    let data = ArrayDataset::new(name.display().to_string(), &SHAPE, pixels, labels, NAMES.len())?;
    let names = NAMES.map(String::from).to_vec();
    Ok(data.with_class_names(names))
}
