//! Inputs for the gradchecks of this module.

use crate::rng::{Purpose, Stream};
use crate::tensor::{Shape, Tensor};

/// Pairs of shapes that broadcast: equal, scalar, by rows, by columns, both ways, by rank.
pub(crate) const BROADCASTS: &[(&[usize], &[usize])] = &[
    (&[3, 4], &[3, 4]),
    (&[3, 4], &[]),
    (&[3, 4], &[4]),
    (&[3, 4], &[3, 1]),
    (&[3, 1], &[1, 4]),
    (&[2, 1, 4], &[3, 1]),
];

/// Uniform on `[-1, 1)`.
pub(crate) fn uniform(seed: u64, shape: impl Into<Shape>) -> Tensor {
    between(-1.0, 1.0, seed, shape)
}

/// Uniform on `[low, high)`.
pub(crate) fn between(low: f32, high: f32, seed: u64, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let mut stream = Stream::new(seed, Purpose::User(1), 0, 0);
    Tensor::from_vec((0..shape.numel()).map(|_| stream.uniform(low, high)).collect(), shape)
}

/// Uniform on `[-1, 1)`, but no element within 0.1 of a kink.
pub(crate) fn away_from(kinks: &[f32], seed: u64, shape: impl Into<Shape>) -> Tensor {
    let mut tensor = uniform(seed, shape);
    for x in tensor.data_mut() {
        for kink in kinks {
            if (*x - kink).abs() < 0.1 {
                *x = kink + if *x < *kink { -0.1 } else { 0.1 };
            }
        }
    }
    tensor
}
