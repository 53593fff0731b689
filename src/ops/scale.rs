//! Multiplication by a number: `y = alpha * x`, with `dx = alpha * dy`.

use ferrotape_kernels::elementwise;

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `alpha * x`, elementwise. No gradient flows to `alpha`; if you need it, use
    /// [`mul`](Graph::mul).
    #[track_caller]
    pub fn scale(&mut self, x: Var, alpha: f32) -> Var {
        self.apply(Scale(alpha), &[x])
    }
}

struct Scale(f32);

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        elementwise::scale(ctx.output, &ctx.inputs[0], self.0);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            elementwise::add_scaled(dx, write, ctx.d_output, self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::uniform;
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        gradcheck(&[uniform(1, [3, 7])], |g, x| g.scale(x[0], -1.5)).unwrap();
    }
}
