//! The logistic function: `y = 1 / (1 + exp(-x))`.
//!
//! Differentiating, `y' = exp(-x) / (1 + exp(-x))^2`, which is `y * (1 - y)`:
//!
//! ```text
//! dx = dy * y * (1 - y)
//! ```

use ferrotape_kernels::elementwise;

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `1 / (1 + exp(-x))`, elementwise. Never overflows: far from 0 it is 0 or 1.
    #[track_caller]
    pub fn sigmoid(&mut self, x: Var) -> Var {
        self.apply(Sigmoid, &[x])
    }
}

struct Sigmoid;

impl Op for Sigmoid {
    fn name(&self) -> &'static str {
        "sigmoid"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        elementwise::sigmoid_forward(ctx.output, &ctx.inputs[0]);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            elementwise::sigmoid_backward(dx, write, ctx.d_output, ctx.output);
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
        gradcheck(&[between(-3.0, 3.0, 1, [3, 7])], |g, x| g.sigmoid(x[0])).unwrap();
    }

    #[test]
    fn extremes() {
        let x = Tensor::from_vec(vec![-1e4, 0.0, 1e4], [3]);
        let params = Params::new(0);
        let mut tape = Tape::new();
        let mut g = Graph::new(&mut tape, &params);
        let leaf = g.leaf(&x);
        let y = g.sigmoid(leaf);
        assert_eq!(g.value(y), [0.0, 0.5, 1.0]);
        let gradients = g.backward_with(y, &[1.0; 3]);
        assert_eq!(gradients.wrt(leaf), Some(&[0.0, 0.25, 0.0][..]));
    }
}
