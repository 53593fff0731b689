//! NumPy broadcasting, shared by the binary operations.

use ferrotape_kernels::{Write, broadcast, scratch};

use crate::tape::{BackwardCtx, Operands};
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

/// Calls `f` with both operands at the output's full shape.
pub(crate) fn with_broadcast(inputs: Operands<'_>, output: Shape, f: impl FnOnce(&[f32], &[f32])) {
    with_expanded(inputs, 0, output, |a| with_expanded(inputs, 1, output, |b| f(a, b)));
}

/// Calls `f` with an operand as it is if it has the output's shape, else with a copy that has.
fn with_expanded(inputs: Operands<'_>, k: usize, output: Shape, f: impl FnOnce(&[f32])) {
    let shape = inputs.shape(k);
    if shape == output {
        return f(&inputs[k]);
    }
    scratch::with(output.numel(), |expanded| {
        broadcast::broadcast_to(expanded, &output, &inputs[k], &shape);
        f(expanded);
    });
}

/// The gradient of operand `k` of a broadcasting operation: `full` writes it as if the operand had
/// the output's shape; it is then summed over the dimensions along which the operand was repeated.
/// `full` is not called if nobody needs the gradient.
pub(crate) fn reduced_grad(
    ctx: &mut BackwardCtx<'_>,
    k: usize,
    full: impl FnOnce(&mut [f32], Write),
) {
    let (shape, output) = (ctx.inputs.shape(k), ctx.output_shape);
    match ctx.grads.wrt(k) {
        None => {}
        Some((dx, write)) if shape == output => full(dx, write),
        Some((dx, write)) => scratch::with(output.numel(), |expanded| {
            full(expanded, Write::Set);
            broadcast::sum_to(dx, write, &shape, expanded, &output);
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::broadcast_shape;
    use crate::tensor::Shape;

    #[test]
    fn shapes_align_at_the_last_dimension() {
        let broadcast = |a: &[usize], b: &[usize]| broadcast_shape(Shape::new(a), Shape::new(b));
        assert_eq!(broadcast(&[2, 1, 4], &[3, 1]), Ok([2, 3, 4].into()));
        assert_eq!(broadcast(&[], &[0, 5]), Ok([0, 5].into()));
        assert_eq!(broadcast(&[1], &[0]), Ok([0].into()), "even to nothing");
        let error = Err("cannot broadcast: lengths 3 and 2 differ".into());
        assert_eq!(broadcast(&[2, 3], &[2, 2]), error);
        assert!(broadcast(&[2, 3], &[2]).is_err(), "not at the first");
    }
}
