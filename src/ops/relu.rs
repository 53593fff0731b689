//! Rectified linear unit: `y = max(x, 0)`.
//!
//! The derivative is 1 where `x > 0` and 0 where `x < 0`; at 0 any value between is a
//! subgradient and, like PyTorch, we take 0. Since `y > 0` exactly where `x > 0`, the backward
//! pass reads `y` and `x` need not be kept:
//!
//! ```text
//! dx = dy * [y > 0]
//! ```

use ferrotape_kernels::elementwise;

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `max(x, 0)`, elementwise. NaN stays NaN.
    #[track_caller]
    pub fn relu(&mut self, x: Var) -> Var {
        self.apply(Relu, &[x])
    }
}

struct Relu;

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        elementwise::relu_forward(ctx.output, &ctx.inputs[0]);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            elementwise::relu_backward(dx, write, ctx.d_output, ctx.output);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::away_from;
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        let x = away_from(&[0.0], 1, [3, 7]);
        gradcheck(&[x], |g, x| g.relu(x[0])).unwrap();
    }
}
