//! The compute kernels of ferrotape: slices and dimensions in, slices out.
//!
//! # The calling convention
//!
//! Outputs come first, dimensions last in a small struct. A `d` in front of a name is the gradient
//! of the loss with respect to that thing. Everything is `f32`, row-major and contiguous. A comment
//! gives the shape of each slice, in these letters:
//!
//! | letter | is | letter | is |
//! |---|---|---|---|
//! | `n` | images in the batch | `h`, `w` | height and width of an image |
//! | `c` | channels in | `oh`, `ow` | of the output |
//! | `o` | channels out | `kh`, `kw` | of the kernel |
//! | `g` | groups | `m`, `k` | rows, and the summed dimension of a matrix product |
//!
//! A gradient may have several contributors: [`Write::Set`] lets the first one overwrite, so that
//! nobody has to fill with zeros, and [`Write::Add`] lets the others add. Every public function
//! checks the lengths of its slices before it does anything else and panics with the name of the
//! slice and the expected length.
//!
//! # The promise
//!
//! The same build on the same instruction set gives the same bits for any number of threads: see
//! [`par`].
//!
//! # The rooms
//!
//! [`isa`] says which instructions there are, [`simd`] is the vector the kernels are written
//! against, [`par`] cuts work for threads, `awake` keeps them from sleeping in between, [`scratch`]
//! lends memory, [`memory`] asks for large pages, `tuning` has the numbers that were found by
//! measuring, [`mod@reference`] holds the oracle. All else is kernels.

mod awake;
pub mod broadcast;
pub mod conv2d;
pub mod elementwise;
pub mod gemm;
pub mod isa;
pub mod layout;
pub mod linear;
mod math;
pub mod memory;
mod nest;
pub mod norm;
pub mod par;
pub mod pool2d;
pub mod reduce;
pub mod reference;
pub mod scratch;
pub mod sgd;
pub mod simd;
pub mod softmax;
mod tile;
mod tuning;

/// The number of elements of a shape.
///
/// # Panics
/// If it is beyond `usize`: the wrapped product could pass for the length of a slice.
#[track_caller]
fn elements(shape: &[usize]) -> usize {
    if shape.contains(&0) {
        return 0;
    }
    let product = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
    product.unwrap_or_else(|| panic!("{shape:?} are more elements than any memory holds"))
}

/// What happens to what is already in an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is overwritten; it may be anything, even NaN.
    Set,
    /// It is added to.
    Add,
}
