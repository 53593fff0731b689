//! Dimensions in another order: permute and transpose.
//!
//! `y` has the elements of `x` at permuted indices, so the gradient takes the way back:
//!
//! ```text
//! y[i_0, i_1, ..] = x[i with i_k at position axes[k]]        dx = permute(dy, inverse of axes)
//! ```

use ferrotape_kernels::{Write, layout};

use super::dims::dim_index;
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// The dimensions of `x` in another order: dimension `k` of the result is dimension `axes[k]`
    /// of `x`.
    ///
    /// # Panics
    /// If `axes` does not name every dimension once.
    #[track_caller]
    pub fn permute(&mut self, x: Var, axes: &[usize]) -> Var {
        self.apply(Permute { axes: axes.into() }, &[x])
    }

    /// `x` with two dimensions exchanged; negative ones count from the end.
    ///
    /// # Panics
    /// If there is no such dimension.
    #[track_caller]
    pub fn transpose(&mut self, x: Var, a: isize, b: isize) -> Var {
        let shape = self.shape(x);
        let mut axes: Vec<usize> = (0..shape.rank()).collect();
        match dim_index(a, shape).and_then(|a| Ok((a, dim_index(b, shape)?))) {
            Ok((a, b)) => axes.swap(a, b),
            Err(reason) => {
                self.refuse("transpose", &reason, &[shape]);
            }
        }
        self.permute(x, &axes)
    }
}

struct Permute {
    axes: Box<[usize]>,
}

impl Op for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let (x, axes) = (inputs[0], &self.axes);
        if axes.len() != x.rank() || (0..x.rank()).any(|axis| !axes.contains(&axis)) {
            return Err(format!("{axes:?} does not name each of {} dimensions once", x.rank()));
        }
        Ok(Shape::new(&axes.iter().map(|&axis| x[axis]).collect::<Vec<_>>()))
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let shape = ctx.inputs.shape(0);
        layout::permute(ctx.output, Write::Set, &ctx.inputs[0], &shape, &self.axes);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let Some((dx, write)) = ctx.grads.wrt(0) else { return };
        let mut inverse = vec![0; self.axes.len()];
        for (k, &axis) in self.axes.iter().enumerate() {
            inverse[axis] = k;
        }
        layout::permute(dx, write, ctx.d_output, &ctx.output_shape, &inverse);
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::{Graph, Tape, gradcheck};
    use crate::{Params, Tensor};

    #[test]
    fn gradient() {
        let x = [uniform(1, [2, 3, 4])];
        for axes in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1]] {
            gradcheck(&x, |g, x| g.permute(x[0], &axes)).unwrap();
        }
        gradcheck(&x, |g, x| g.transpose(x[0], 0, -1)).unwrap();
    }

    #[test]
    fn gradient_adds_to_other_uses_of_the_operand() {
        gradcheck(&[uniform(1, [3, 3])], |g, x| {
            let t = g.transpose(x[0], 0, 1);
            g.mul(x[0], t)
        })
        .unwrap();
    }

    #[test]
    fn dimension_k_of_the_result_is_dimension_axes_k() {
        let (mut tape, params) = (Tape::new(), Params::new(0));
        let mut g = Graph::eval(&mut tape, &params);
        let x = g.constant(Tensor::from_vec((0..6).map(|i| i as f32).collect(), [1, 2, 3]));
        let y = g.permute(x, &[2, 0, 1]);
        assert_eq!(g.shape(y), [3, 1, 2].into());
        assert_eq!(g.value(y), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        let z = g.transpose(x, -2, -1);
        assert_eq!((g.shape(z), g.value(z)), ([1, 3, 2].into(), g.value(y)));
    }

    #[test]
    fn shape_errors_say_what_was_expected() {
        let error = shape_error(&[&[2, 3]], |g, x| g.permute(x[0], &[0, 0]));
        assert!(error.contains("[0, 0] does not name each of 2 dimensions once"), "{error}");
        let error = shape_error(&[&[2, 3]], |g, x| g.transpose(x[0], 0, 2));
        assert!(error.starts_with("transpose: there is no dimension 2"), "{error}");
    }
}
