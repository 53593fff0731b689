//! Leaky rectified linear unit: `y = x` where `x > 0`, else `slope * x` (Maas et al., 2013).
//!
//! ```text
//! dx = dy * (1 if x > 0, else slope)
//! ```
//!
//! The derivative at 0 is taken to be `slope`, as in PyTorch.

use ferrotape_kernels::elementwise;

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `x` where it is positive and `slope * x` elsewhere. PyTorch's default `slope` is 0.01.
    #[track_caller]
    pub fn leaky_relu(&mut self, x: Var, slope: f32) -> Var {
        self.apply(LeakyRelu(slope), &[x])
    }
}

struct LeakyRelu(f32);

impl Op for LeakyRelu {
    fn name(&self) -> &'static str {
        "leaky_relu"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        elementwise::leaky_relu_forward(ctx.output, &ctx.inputs[0], self.0);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            elementwise::leaky_relu_backward(dx, write, ctx.d_output, &ctx.inputs[0], self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::away_from;
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        for slope in [0.01, 0.3, -0.5] {
            let x = away_from(&[0.0], 1, [3, 7]);
            gradcheck(&[x], |g, x| g.leaky_relu(x[0], slope)).unwrap();
        }
    }
}
