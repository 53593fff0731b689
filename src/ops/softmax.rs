//! Softmax: a row of scores becomes a probability distribution.
//!
//! ```text
//! y[i] = exp(x[i] - m) / sum over j of exp(x[j] - m)        m = max over j of x[j]
//! ```
//!
//! Subtracting `m` changes nothing but keeps `exp` from overflowing. With `d y[i] / d x[j] =
//! y[i] * ([i = j] - y[j])` the chain rule gives
//!
//! ```text
//! dx[j] = y[j] * (dy[j] - sum over i of dy[i] * y[i])
//! ```

use ferrotape_kernels::softmax;

use super::dims::dim_index;
use super::rows::{backward_rows, forward_rows};
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// Positive numbers that sum to 1 along dimension `dim`; -1 is the last one.
    ///
    /// # Panics
    /// If there is no such dimension.
    #[track_caller]
    pub fn softmax(&mut self, x: Var, dim: isize) -> Var {
        self.apply(Softmax { dim }, &[x])
    }
}

struct Softmax {
    dim: isize,
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        dim_index(self.dim, inputs[0])?;
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        forward_rows(ctx, self.dim, softmax::softmax_forward);
    }

    fn backward(&self, ctx: BackwardCtx<'_>) {
        backward_rows(ctx, self.dim, softmax::softmax_backward);
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::{Graph, Tape, gradcheck};
    use crate::{Params, Tensor};

    #[test]
    fn gradient() {
        for (shape, dim) in
            [(&[3, 5][..], -1), (&[3, 5], 0), (&[2, 3, 4], 1), (&[2, 3, 4], -3), (&[7], 0)]
        {
            gradcheck(&[uniform(1, shape)], |g, x| g.softmax(x[0], dim)).unwrap();
        }
    }

    #[test]
    fn gradient_adds_to_other_uses_of_the_operand() {
        for dim in [0, 1] {
            gradcheck(&[uniform(1, [3, 4])], |g, x| {
                let y = g.softmax(x[0], dim);
                g.mul(x[0], y)
            })
            .unwrap();
        }
    }

    #[test]
    fn huge_scores_do_not_overflow() {
        let (mut tape, params) = (Tape::new(), Params::new(0));
        let mut g = Graph::eval(&mut tape, &params);
        for shape in [[1, 3], [3, 1]] {
            let x = g.constant(Tensor::from_vec(vec![1e4, 0.0, -1e4], shape));
            let y = g.softmax(x, if shape[0] == 1 { 1 } else { 0 });
            assert_eq!(g.value(y), [1.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn a_dimension_that_is_not_there_is_named() {
        let error = shape_error(&[&[2, 3]], |g, x| g.softmax(x[0], 2));
        assert!(error.contains("there is no dimension 2: expected -2..=1"), "{error}");
    }
}
