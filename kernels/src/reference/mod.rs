//! The naive twin of every kernel: the definition, written as plainly as it can be, and the oracle of every test.

pub mod elementwise;
pub mod layout;
pub mod pool2d;
pub mod sgd;
pub mod softmax;
