//! Weights from and for other programs.
//!
//! | format | of | by |
//! |---|---|---|
//! | `.safetensors` | PyTorch, JAX, Hugging Face, .. | [`safetensors`] |
//! | `.npz`, many named arrays | NumPy (feature `gzip`) | `npz` |
//! | `.npy`, one array | NumPy | [`npy`] |
//!
//! Parameters have PyTorch's names here too (`0.weight`, `conv.bias`), so weights go both ways as
//! they are:
//!
//! ```
//! # fn main() -> ferrotape::Result<()> {
//! # let dir = std::env::temp_dir().join(format!("ferrotape-interop-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir).unwrap();
//! # let path = dir.join("model.safetensors");
//! use ferrotape::checkpoint::LoadOptions;
//! use ferrotape::nn::{Layer, Sequential};
//! use ferrotape::{Params, interop};
//!
//! let mut params = Params::new(0);
//! let model = Sequential::new(&mut params, [Layer::linear(4, 2)]);
//! interop::write(&path, &interop::weights(&params))?;
//! // In Python: model.load_state_dict(safetensors.torch.load_file("model.safetensors"))
//!
//! // Strict and all-or-nothing, unless told otherwise; the error lists all that does not fit.
//! let report = LoadOptions::new().load(&interop::read(&path)?, &mut params)?;
//! assert_eq!(report.loaded, ["0.weight", "0.bias"]);
//! # std::fs::remove_dir_all(&dir).unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! What is written is f32 with every bit kept. What is read becomes f32: half precision and small
//! whole numbers exactly, doubles and large whole numbers rounded to the nearest; a number beyond
//! the range of f32 is refused. Readers believe no header: every size is checked against the file
//! before anything is allocated, and each fault names the file, the tensor and the reason.

mod element;
pub mod npy;
#[cfg(feature = "gzip")]
pub mod npz;
pub mod safetensors;
#[cfg(feature = "gzip")]
mod zip;

use std::io::{self, Write};
use std::path::Path;

use crate::checkpoint::vfs::{ReadFile, RealFs, Vfs};
use crate::checkpoint::{NamedTensor, check_names};
use crate::error::{DataFault, Error, Result};
use crate::params::Params;
pub(crate) use element::Element;
#[cfg(feature = "gzip")]
pub(crate) use zip::Archive;
#[cfg(all(test, feature = "gzip"))]
pub(crate) use zip::testing;

/// Reads the tensors of a `.safetensors` or `.npz` file, whichever its name says it is.
///
/// # Errors
/// [`Error::Config`] for any other name, and those of [`safetensors::read`] and `npz::read`.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<NamedTensor<'static>>> {
    let path = path.as_ref();
    match Format::of(path)? {
        Format::Safetensors => safetensors::read(path),
        #[cfg(feature = "gzip")]
        Format::Npz => npz::read(path),
    }
}

/// Writes tensors as a `.safetensors` or `.npz` file, whichever its name says it is.
///
/// # Errors
/// [`Error::Config`] for any other name, and those of [`safetensors::write`] and `npz::write`.
pub fn write(path: impl AsRef<Path>, tensors: &[NamedTensor<'_>]) -> Result<()> {
    let path = path.as_ref();
    match Format::of(path)? {
        Format::Safetensors => safetensors::write(path, tensors),
        #[cfg(feature = "gzip")]
        Format::Npz => npz::write(path, tensors),
    }
}

/// All parameters by name, borrowed, in order of creation: what the writers take.
pub fn weights(params: &Params) -> Vec<NamedTensor<'_>> {
    let named = |id| NamedTensor::new(params.name(id), params.shape(id).to_vec(), params.get(id));
    params.ids().map(named).collect()
}

/// The formats that hold many tensors.
enum Format {
    Safetensors,
    #[cfg(feature = "gzip")]
    Npz,
}

impl Format {
    fn of(path: &Path) -> Result<Format> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Format::Safetensors),
            #[cfg(feature = "gzip")]
            Some("npz") => Ok(Format::Npz),
            #[cfg(not(feature = "gzip"))]
            Some("npz") => Err(Error::config(path.display().to_string(), "needs the feature gzip")),
            _ => Err(Error::config(
                path.display().to_string(),
                "expected a name that ends in .safetensors or .npz",
            )),
        }
    }
}

/// What messages call a file that is in memory.
const MEMORY: &str = "(memory)";
/// More dimensions than a checkpoint can hold either.
const MAX_RANK: usize = 16;

fn open(path: &Path) -> Result<Box<dyn ReadFile>> {
    RealFs.open(path).map_err(|error| Error::io("open", path, error))
}

fn fault(path: &Path, message: impl Into<String>) -> Error {
    Error::data(path, DataFault::Other { message: message.into() })
}

/// Names select tensors, so they must be there, printable and unique.
fn check_unique(path: &Path, tensors: &[NamedTensor<'_>]) -> Result<()> {
    check_names("names", tensors.iter().map(|tensor| tensor.name.as_str()))
        .map_err(|reason| fault(path, reason.to_string()))
}

/// The bytes of a row-major array of this shape; `None` if no memory could hold it. Zeros among
/// the dimensions do not excuse the others: what follows multiplies them in another order.
fn byte_size(shape: &[usize], element: usize) -> Option<usize> {
    let sizes = shape.iter().filter(|&&dim| dim > 0);
    let most = sizes.copied().try_fold(element, usize::checked_mul);
    most.filter(|&most| isize::try_from(most).is_ok() && shape.len() <= MAX_RANK)
        .map(|most| if shape.contains(&0) { 0 } else { most })
}

/// Writes values as little-endian bytes.
fn write_f32s(to: &mut impl Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * values.len().min(16 << 10));
    for chunk in values.chunks(16 << 10) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
        to.write_all(&bytes)?;
    }
    Ok(())
}
