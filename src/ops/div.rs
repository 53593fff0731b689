//! Division with NumPy broadcasting: `y = a / b`, elementwise.
//!
//! ```text
//! da = dy / b        db = -dy * a / b^2 = -dy * y / b
//! ```
//!
//! each summed over the dimensions along which that operand was repeated. The second form of `db`
//! reads the output instead of `a` and cannot overflow where `b^2` would.

use ferrotape_kernels::elementwise;

use super::broadcasting::{broadcast_shape, reduced_grad, with_broadcast};
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `a / b`, elementwise; shapes broadcast as in NumPy. Division by zero gives infinity or NaN
    /// as IEEE 754 says.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    #[track_caller]
    pub fn div(&mut self, a: Var, b: Var) -> Var {
        self.apply(Div, &[a, b])
    }
}

struct Div;

impl Op for Div {
    fn name(&self) -> &'static str {
        "div"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        broadcast_shape(inputs[0], inputs[1])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        with_broadcast(ctx.inputs, ctx.output_shape, |a, b| elementwise::div(ctx.output, a, b));
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let (dy, y) = (ctx.d_output, ctx.output);
        with_broadcast(ctx.inputs, ctx.output_shape, |_, b| {
            reduced_grad(&mut ctx, 0, |da, write| elementwise::div_backward_a(da, write, dy, b));
            reduced_grad(&mut ctx, 1, |db, write| elementwise::div_backward_b(db, write, dy, b, y));
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{BROADCASTS, between, uniform};
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        for (a, b) in BROADCASTS {
            let inputs = [uniform(1, *a), between(0.5, 2.0, 2, *b)];
            gradcheck(&inputs, |g, x| g.div(x[0], x[1])).unwrap();
        }
    }
}
