//! The hyperbolic tangent: `y = tanh(x)`.
//!
//! ```text
//! dx = dy * (1 - y^2)
//! ```

use ferrotape_kernels::elementwise;

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `tanh(x)`, elementwise.
    #[track_caller]
    pub fn tanh(&mut self, x: Var) -> Var {
        self.apply(Tanh, &[x])
    }
}

struct Tanh;

impl Op for Tanh {
    fn name(&self) -> &'static str {
        "tanh"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        elementwise::tanh_forward(ctx.output, &ctx.inputs[0]);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            elementwise::tanh_backward(dx, write, ctx.d_output, ctx.output);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::between;
    use crate::tape::{Graph, Tape, gradcheck};
    use crate::{Params, Tensor};

    #[test]
    fn gradient() {
        gradcheck(&[between(-2.0, 2.0, 1, [3, 7])], |g, x| g.tanh(x[0])).unwrap();
    }

    #[test]
    fn extremes() {
        let x = Tensor::from_vec(vec![-1e4, 0.0, 1e4], [3]);
        let params = Params::new(0);
        let mut tape = Tape::new();
        let mut g = Graph::new(&mut tape, &params);
        let leaf = g.leaf(&x);
        let y = g.tanh(leaf);
        assert_eq!(g.value(y), [-1.0, 0.0, 1.0]);
        let gradients = g.backward_with(y, &[1.0; 3]);
        assert_eq!(gradients.wrt(leaf), Some(&[0.0, 1.0, 0.0][..]));
    }
}
