//! Multiplication with NumPy broadcasting: `y = a * b`, elementwise.
//!
//! ```text
//! da = dy * b        db = dy * a
//! ```
//!
//! each summed over the dimensions along which that operand was repeated. For `x * x` the two
//! shares meet in one gradient: `dx = dy * x + dy * x`.

use ferrotape_kernels::elementwise;

use super::broadcasting::{broadcast_shape, reduced_grad, with_broadcast};
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `a * b`, elementwise; shapes broadcast as in NumPy.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    #[track_caller]
    pub fn mul(&mut self, a: Var, b: Var) -> Var {
        self.apply(Mul, &[a, b])
    }
}

struct Mul;

impl Op for Mul {
    fn name(&self) -> &'static str {
        "mul"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        broadcast_shape(inputs[0], inputs[1])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        with_broadcast(ctx.inputs, ctx.output_shape, |a, b| elementwise::mul(ctx.output, a, b));
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let dy = ctx.d_output;
        with_broadcast(ctx.inputs, ctx.output_shape, |a, b| {
            reduced_grad(&mut ctx, 0, |da, write| elementwise::mul_backward(da, write, dy, b));
            reduced_grad(&mut ctx, 1, |db, write| elementwise::mul_backward(db, write, dy, a));
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{BROADCASTS, uniform};
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        for (a, b) in BROADCASTS {
            let inputs = [uniform(1, *a), uniform(2, *b)];
            gradcheck(&inputs, |g, x| g.mul(x[0], x[1])).unwrap();
        }
    }

    #[test]
    fn gradient_of_a_square() {
        gradcheck(&[uniform(1, [5])], |g, x| g.mul(x[0], x[0])).unwrap();
    }
}
