//! Gaussian error linear unit: `y = x * P(x)` (Hendrycks & Gimpel, 2016).
//!
//! `P(x) = (1 + erf(x / sqrt 2)) / 2` is the standard normal distribution function, and its
//! derivative is the density `p(x) = exp(-x^2 / 2) / sqrt(2 pi)`. By the product rule
//!
//! ```text
//! dx = dy * (P(x) + x * p(x))
//! ```
//!
//! This is the exact form, PyTorch's default, and not the approximation by `tanh`.

use ferrotape_kernels::elementwise;

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `x` times the standard normal distribution function of `x`, elementwise.
    #[track_caller]
    pub fn gelu(&mut self, x: Var) -> Var {
        self.apply(Gelu, &[x])
    }
}

struct Gelu;

impl Op for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        elementwise::gelu_forward(ctx.output, &ctx.inputs[0]);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            elementwise::gelu_backward(dx, write, ctx.d_output, &ctx.inputs[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::between;
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        gradcheck(&[between(-3.0, 3.0, 1, [5, 7])], |g, x| g.gelu(x[0])).unwrap();
    }
}
