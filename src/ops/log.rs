//! The natural logarithm: `y = ln(x)`.
//!
//! ```text
//! dx = dy / x
//! ```

use ferrotape_kernels::elementwise;

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `ln(x)`, elementwise: minus infinity at 0 and NaN below.
    #[track_caller]
    pub fn log(&mut self, x: Var) -> Var {
        self.apply(Log, &[x])
    }
}

struct Log;

impl Op for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        elementwise::log_forward(ctx.output, &ctx.inputs[0]);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            elementwise::log_backward(dx, write, ctx.d_output, &ctx.inputs[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::between;
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        gradcheck(&[between(0.5, 3.0, 1, [3, 7])], |g, x| g.log(x[0])).unwrap();
    }
}
