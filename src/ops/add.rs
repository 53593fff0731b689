//! Addition with NumPy broadcasting: `y = a + b`.
//!
//! The derivative of a sum by each term is 1, so `dy` goes to both. Where an operand was
//! broadcast, one of its elements went into several outputs, and its gradient is the sum over
//! them: the adjoint of broadcasting is summing.
//!
//! ```text
//! da = sum_to(dy, shape of a)        db = sum_to(dy, shape of b)
//! ```

use ferrotape_kernels::{broadcast, elementwise};

use super::broadcasting::{broadcast_shape, with_broadcast};
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `a + b`, elementwise; shapes broadcast as in NumPy.
    ///
    /// # Panics
    /// If the shapes do not broadcast.
    #[track_caller]
    pub fn add(&mut self, a: Var, b: Var) -> Var {
        self.apply(Add, &[a, b])
    }
}

struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        broadcast_shape(inputs[0], inputs[1])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        with_broadcast(ctx.inputs, ctx.output_shape, |a, b| elementwise::add(ctx.output, a, b));
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        for operand in 0..2 {
            let shape = ctx.inputs.shape(operand);
            if let Some((dx, write)) = ctx.grads.wrt(operand) {
                broadcast::sum_to(dx, write, &shape, ctx.d_output, &ctx.output_shape);
            }
        }
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
            gradcheck(&inputs, |g, x| g.add(x[0], x[1])).unwrap();
        }
    }
}
