//! NumPy broadcasting, shared by the binary operations.

use ferrotape_kernels::broadcast;

use crate::tape::{Operands, Saved};
use crate::tensor::Shape;

/// The shape that `a` and `b` broadcast to: shapes are aligned at the last dimension, and a
/// dimension of length 1 (or a missing one) stretches to the other's length.
///
/// # Errors
/// If two lengths differ and neither is 1.
pub(crate) fn broadcast_shape(a: Shape, b: Shape) -> Result<Shape, String> {
    let (long, short) = if a.rank() >= b.rank() { (a, b) } else { (b, a) };
    let mut dims = long.to_vec();
    for (to, &from) in dims.iter_mut().rev().zip(short.iter().rev()) {
        match (*to, from) {
            (x, y) if x == y => {}
            (1, y) => *to = y,
            (_, 1) => {}
            (x, y) => return Err(format!("cannot broadcast: lengths {x} and {y} differ")),
        }
    }
    Ok(Shape::new(&dims))
}

/// Calls `f` with both operands at the output's full shape. An operand that already has it is
/// passed as it is; one that has not is expanded into `saved.floats`, first operand first, where
/// [`expanded_operands`] finds it again in the backward pass.
pub(crate) fn with_broadcast(
    inputs: Operands<'_>,
    output: Shape,
    saved: &mut Saved,
    f: impl FnOnce(&[f32], &[f32]),
) {
    let full = [inputs.shape(0) == output, inputs.shape(1) == output];
    let expanded = full.iter().filter(|full| !**full).count();
    saved.floats.resize(expanded * output.numel(), 0.0);
    let mut rest = &mut saved.floats[..];
    for operand in (0..2).filter(|&operand| !full[operand]) {
        let (space, after) = rest.split_at_mut(output.numel());
        broadcast::broadcast_to(space, &output, &inputs[operand], &inputs.shape(operand));
        rest = after;
    }
    let [a, b] = expanded_operands(inputs, output, saved);
    f(a, b);
}

/// Both operands at the output's full shape, after [`with_broadcast`] has expanded them.
pub(crate) fn expanded_operands<'a>(
    inputs: Operands<'a>,
    output: Shape,
    saved: &'a Saved,
) -> [&'a [f32]; 2] {
    let mut expanded = saved.floats.chunks_exact(output.numel().max(1));
    [0, 1].map(|operand| {
        if inputs.shape(operand) == output {
            inputs.data(operand)
        } else {
            expanded.next().unwrap_or(&[])
        }
    })
}
