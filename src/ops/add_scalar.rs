//! Addition of a number: `y = x + c`, with `dx = dy`.

use ferrotape_kernels::elementwise;

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `x + c`, elementwise. No gradient flows to `c`; if you need it, use [`add`](Graph::add).
    #[track_caller]
    pub fn add_scalar(&mut self, x: Var, c: f32) -> Var {
        self.apply(AddScalar(c), &[x])
    }
}

struct AddScalar(f32);

impl Op for AddScalar {
    fn name(&self) -> &'static str {
        "add_scalar"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        ctx.output.iter_mut().zip(&ctx.inputs[0]).for_each(|(y, x)| *y = x + self.0);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            elementwise::add_scaled(dx, write, ctx.d_output, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::uniform;
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        // The product makes the derivative depend on what was added.
        gradcheck(&[uniform(1, [3, 7])], |g, x| {
            let y = g.add_scalar(x[0], 0.7);
            g.mul(y, y)
        })
        .unwrap();
    }
}
