//! The operations, one file each: derivation, shape rule, forward, backward, gradcheck.
//!
//! Each file adds one method to [`Graph`](crate::Graph) and holds the struct that implements
//! [`Op`](crate::tape::Op) for it. The arithmetic itself is in `ferrotape-kernels`; what is here
//! is the calculus. Notation: `x` is an operand, `y` the output, `L` the loss, and `dx` stands
//! for the partial derivative of `L` by `x`, as in the names of the code.
//!
//! Files that are not operations hold what several share: `broadcasting`, `dims` (negative ones),
//! `rows` (softmax along any dimension) and `pool2d` (windows).
//!
//! To add an operation, see "Add an op" in `CONTRIBUTING.md`: two new files, two `mod` lines.

mod add;
mod add_scalar;
mod avg_pool2d;
mod batch_norm;
mod broadcasting;
mod concat;
mod conv2d;
mod cross_entropy;
mod dims;
mod div;
mod dropout;
mod exp;
mod gelu;
mod global_avg_pool2d;
mod leaky_relu;
mod linear;
mod log;
mod log_softmax;
mod matmul;
mod max_pool2d;
mod mse;
mod mul;
mod neg;
mod pad;
mod permute;
mod pool2d;
mod reduce;
mod relu;
mod reshape;
mod rows;
mod scale;
mod sigmoid;
mod slice;
mod softmax;
mod sub;
mod tanh;
#[cfg(test)]
pub(crate) mod testing;

pub use batch_norm::BatchNormOptions;
pub use conv2d::Conv2dOptions;
pub use cross_entropy::{CrossEntropyOptions, Reduction};
pub use pool2d::Pool2dOptions;
