//! Negation: `y = -x`, with `dx = -dy`.

use ferrotape_kernels::elementwise;

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `-x`, elementwise.
    #[track_caller]
    pub fn neg(&mut self, x: Var) -> Var {
        self.apply(Neg, &[x])
    }
}

struct Neg;

impl Op for Neg {
    fn name(&self) -> &'static str {
        "neg"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        elementwise::scale(ctx.output, &ctx.inputs[0], -1.0);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            elementwise::add_scaled(dx, write, ctx.d_output, -1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::uniform;
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        gradcheck(&[uniform(1, [3, 7])], |g, x| g.neg(x[0])).unwrap();
    }
}
