//! Mean squared error: `y = mean((p - t)^2)` of predictions `p` and targets `t`.
//!
//! With `n` elements,
//!
//! ```text
//! dp = dy * 2 / n * (p - t)        dt = -dp
//! ```
//!
//! The forward pass keeps the differences.

use ferrotape_kernels::{elementwise, reduce, scratch};

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// The mean of the squared differences of two values of the same shape: a scalar.
    ///
    /// # Panics
    /// If the shapes differ (they are not broadcast: that hides mistakes in a loss) or are empty.
    #[track_caller]
    pub fn mse(&mut self, prediction: Var, target: Var) -> Var {
        self.apply(Mse, &[prediction, target])
    }
}

struct Mse;

impl Op for Mse {
    fn name(&self) -> &'static str {
        "mse"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if inputs[0] != inputs[1] {
            return Err("prediction and target must have the same shape".into());
        }
        if inputs[0].numel() == 0 {
            return Err("there is no mean of no elements".into());
        }
        Ok(Shape::default())
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let (prediction, target) = (ctx.inputs.data(0), ctx.inputs.data(1));
        let n = prediction.len();
        let differences = &mut ctx.saved.floats;
        differences.resize(n, 0.0);
        elementwise::sub(differences, prediction, target);
        scratch::with(n, |squares| {
            elementwise::mul(squares, differences, differences);
            ctx.output[0] = reduce::sum(squares) / n as f32;
        });
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let differences = &ctx.saved.floats;
        let factor = ctx.d_output[0] * 2.0 / differences.len() as f32;
        for (operand, factor) in [(0, factor), (1, -factor)] {
            if let Some((dx, write)) = ctx.grads.wrt(operand) {
                elementwise::add_scaled(dx, write, differences, factor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        gradcheck(&[uniform(1, [3, 5]), uniform(2, [3, 5])], |g, x| g.mse(x[0], x[1])).unwrap();
    }

    #[test]
    fn shapes_are_not_broadcast() {
        let error = shape_error(&[&[3, 1], &[3]], |g, x| g.mse(x[0], x[1]));
        assert!(error.contains("the same shape"), "{error}");
    }
}
