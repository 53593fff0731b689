//! The exponential function: `y = exp(x)`.
//!
//! It is its own derivative, so the backward pass reads the output:
//!
//! ```text
//! dx = dy * y
//! ```

use ferrotape_kernels::elementwise;

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `exp(x)`, elementwise.
    #[track_caller]
    pub fn exp(&mut self, x: Var) -> Var {
        self.apply(Exp, &[x])
    }
}

struct Exp;

impl Op for Exp {
    fn name(&self) -> &'static str {
        "exp"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        elementwise::exp_forward(ctx.output, &ctx.inputs[0]);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            elementwise::exp_backward(dx, write, ctx.d_output, ctx.output);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::uniform;
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        gradcheck(&[uniform(1, [3, 7])], |g, x| g.exp(x[0])).unwrap();
    }
}
