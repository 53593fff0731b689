//! The naive twin of every kernel: the definition, written as plainly as it can be, and the oracle
//! of every test.
//!
//! Twins compute in `f64` from the same arguments, so their own rounding does not matter.

pub mod conv2d;
pub mod elementwise;
pub mod gemm;
pub mod layout;
pub mod linear;
pub mod norm;
pub mod pool2d;
pub mod sgd;
pub mod softmax;
