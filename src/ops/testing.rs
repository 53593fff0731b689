//! Inputs for the gradchecks of this module, and a look at shape errors.

use crate::params::Params;
use crate::rng::{Purpose, Stream};
use crate::tape::{Graph, Mode, Tape, Var};
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

/// The message with which `f` refuses operands of the given shapes.
pub(crate) fn shape_error(
    shapes: &[&[usize]],
    f: impl FnOnce(&mut Graph, &[Var]) -> Var,
) -> String {
    let (mut tape, params) = (Tape::new(), Params::new(0));
    let mut g = Graph::with_mode(&mut tape, &params, Mode::Check);
    let vars: Vec<Var> = shapes.iter().map(|&shape| g.placeholder(shape.into())).collect();
    f(&mut g, &vars);
    g.take_fault().expect("these shapes do not fit").to_string()
}

/// Numbers that all lie at least 0.1 apart, in random order: for maxima.
pub(crate) fn distinct(seed: u64, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let mut values: Vec<f32> = (0..shape.numel()).map(|i| i as f32 * 0.1).collect();
    Stream::new(seed, Purpose::User(1), 0, 0).shuffle(&mut values);
    Tensor::from_vec(values, shape)
}
