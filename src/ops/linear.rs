//! The affine map of a fully connected layer: `y = x w^T + bias`.
//!
//! Row `r` of `x` is one example, row `o` of `w` the weights of one output:
//!
//! ```text
//! y[r,o] = bias[o] + sum over i of x[r,i] * w[o,i]
//! ```
//!
//! so that by the chain rule, for `dy` of the shape of `y`,
//!
//! ```text
//! dx = dy w               dw = dy^T x               dbias[o] = sum over r of dy[r,o]
//! ```

use ferrotape_kernels::linear::{self, LinearDims};

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `x` `[.., i]` times the transpose of `weight` `[o, i]`, plus an optional `bias` `[o]`;
    /// gives `[.., o]`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn linear(&mut self, x: Var, weight: Var, bias: Option<Var>) -> Var {
        match bias {
            Some(bias) => self.apply(Linear, &[x, weight, bias]),
            None => self.apply(Linear, &[x, weight]),
        }
    }
}

struct Linear;

impl Linear {
    /// The kernel's view: all leading dimensions of `x` are one.
    fn dims(x: Shape, weight: Shape) -> LinearDims {
        let n = x[..x.rank() - 1].iter().product();
        LinearDims { n, i: weight[1], o: weight[0] }
    }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let (x, [o, i]) = (inputs[0], &*inputs[1]) else {
            return Err("expected a weight [out features, in features]".into());
        };
        if x.last() != Some(i) {
            return Err(format!("expected {i} features in the last dimension of the input"));
        }
        if inputs.get(2).is_some_and(|bias| **bias != [*o]) {
            return Err(format!("expected a bias of shape [{o}]"));
        }
        let mut y = x.to_vec();
        y[x.rank() - 1] = *o;
        Ok(Shape::new(&y))
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let dims = Linear::dims(ctx.inputs.shape(0), ctx.inputs.shape(1));
        let bias = (ctx.inputs.len() == 3).then(|| ctx.inputs.data(2));
        linear::forward(ctx.output, &ctx.inputs[0], &ctx.inputs[1], bias, dims);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let dims = Linear::dims(ctx.inputs.shape(0), ctx.inputs.shape(1));
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            linear::backward_input(dx, write, ctx.d_output, &ctx.inputs[1], dims);
        }
        if let Some((dw, write)) = ctx.grads.wrt(1) {
            linear::backward_weight(dw, write, ctx.d_output, &ctx.inputs[0], dims);
        }
        if ctx.inputs.len() == 3
            && let Some((db, write)) = ctx.grads.wrt(2)
        {
            linear::backward_bias(db, write, ctx.d_output, dims);
        }
    }

    fn macs(&self, inputs: &[Shape], output: Shape) -> u64 {
        output.numel() as u64 * inputs[1][1] as u64
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        for x in [&[5, 7][..], &[7], &[2, 3, 7], &[1, 7]] {
            let inputs = [uniform(1, x), uniform(2, [4, 7]), uniform(3, [4])];
            gradcheck(&inputs, |g, v| g.linear(v[0], v[1], Some(v[2]))).unwrap();
            gradcheck(&inputs[..2], |g, v| g.linear(v[0], v[1], None)).unwrap();
        }
    }

    #[test]
    fn gradient_of_a_weight_used_twice() {
        let inputs = [uniform(1, [2, 3]), uniform(2, [3, 3]), uniform(3, [3])];
        gradcheck(&inputs, |g, v| {
            let h = g.linear(v[0], v[1], Some(v[2]));
            g.linear(h, v[1], Some(v[2]))
        })
        .unwrap();
    }

    #[test]
    fn shape_errors_say_what_was_expected() {
        let error = shape_error(&[&[2, 3], &[5, 4]], |g, v| g.linear(v[0], v[1], None));
        let text = "linear: expected 4 features in the last dimension of the input \
                    (operands: [2, 3], [5, 4])";
        assert_eq!(error, text);
        let error = shape_error(&[&[2, 4], &[5, 4], &[4]], |g, v| g.linear(v[0], v[1], Some(v[2])));
        assert!(error.contains("expected a bias of shape [5]"), "{error}");
    }
}
