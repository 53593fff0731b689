//! The operations, one file each: derivation, shape rule, forward, backward, gradcheck.
//!
//! Each file adds one method to [`Graph`](crate::Graph) and holds the struct that implements
//! [`Op`](crate::tape::Op) for it. The arithmetic itself is in `ferrotape-kernels`; what is here
//! is the calculus. Notation: `x` is an operand, `y` the output, `L` the loss, and `dx` stands
//! for the partial derivative of `L` by `x`, as in the names of the code.
//!
//! To add an operation, see "Add an op" in `CONTRIBUTING.md`: two new files, two `mod` lines.

mod add;
mod add_scalar;
mod broadcasting;
mod conv2d;
mod div;
mod exp;
mod gelu;
mod leaky_relu;
mod log;
mod mul;
mod neg;
mod relu;
mod reshape;
mod scale;
mod sigmoid;
mod sub;
mod tanh;
#[cfg(test)]
pub(crate) mod testing;

pub use conv2d::Conv2dOptions;
