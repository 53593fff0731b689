//! Subtraction with NumPy broadcasting: `y = a - b`.
//!
//! ```text
//! da = dy        db = -dy
//! ```
//!
//! each summed over the dimensions along which that operand was repeated, as in addition.

use ferrotape_kernels::elementwise;

use super::broadcasting::{broadcast_shape, reduced_grad, with_broadcast};
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `a - b`, elementwise; shapes broadcast as in NumPy.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    #[track_caller]
    pub fn sub(&mut self, a: Var, b: Var) -> Var {
        self.apply(Sub, &[a, b])
    }
}

struct Sub;

impl Op for Sub {
    fn name(&self) -> &'static str {
        "sub"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        broadcast_shape(inputs[0], inputs[1])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        with_broadcast(ctx.inputs, ctx.output_shape, |a, b| elementwise::sub(ctx.output, a, b));
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let dy = ctx.d_output;
        reduced_grad(&mut ctx, 0, |da, write| elementwise::add_scaled(da, write, dy, 1.0));
        reduced_grad(&mut ctx, 1, |db, write| elementwise::add_scaled(db, write, dy, -1.0));
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
            gradcheck(&inputs, |g, x| g.sub(x[0], x[1])).unwrap();
        }
    }

    #[test]
    fn a_value_minus_itself_has_no_gradient() {
        gradcheck(&[uniform(1, [3])], |g, x| g.sub(x[0], x[0])).unwrap();
    }
}
