//! NumPy's broadcasting, and its adjoint.
//!
//! Shapes are aligned at their last axes; an axis that `x` lacks, or has with extent 1, is
//! repeated. Repeating is a copy with stride 0; its adjoint sums over the same axes.

use crate::{Write, layout, nest, reduce};

/// `y` = `x` repeated along the axes in which the shapes differ. y: `y_shape`, x: `x_shape`
///
/// # Panics
/// If the lengths don't fit the shapes, or `x_shape` does not broadcast to `y_shape`.
#[track_caller]
pub fn broadcast_to(y: &mut [f32], y_shape: &[usize], x: &[f32], x_shape: &[usize]) {
    nest::check_len("broadcast_to", "y", y.len(), y_shape);
    nest::check_len("broadcast_to", "x", x.len(), x_shape);
    let mut nest = nest::Nest::default();
    for axis in nest::broadcast("broadcast_to", x_shape, y_shape) {
        nest.push(nest::Axis { a: axis.b, b: axis.a, ..axis });
    }
    layout::copy(y, Write::Set, x, nest);
}

/// `dx (=|+=) dy` summed over the axes that [`broadcast_to`] repeats. dx: `x_shape`, dy: `y_shape`
///
/// # Panics
/// As [`broadcast_to`].
#[track_caller]
pub fn sum_to(dx: &mut [f32], write: Write, x_shape: &[usize], dy: &[f32], y_shape: &[usize]) {
    reduce::sum_to("sum_to", ("dx", dx), write, x_shape, ("dy", dy), y_shape);
}
