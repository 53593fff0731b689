//! A range along one dimension.
//!
//! The elements inside the range are copied, those outside have no influence on the output:
//!
//! ```text
//! dx = dy inside the range, 0 outside
//! ```

use std::ops::Range;

use ferrotape_kernels::{Write, layout};

use super::dims::{checked_dim, dim_index};
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::{MAX_RANK, Shape};

impl Graph<'_, '_> {
    /// The part of `x` whose index along dimension `dim` lies in `range`; dimension -1 is the last
    /// one.
    ///
    /// # Panics
    /// If there is no such dimension, or the range ends beyond it.
    #[track_caller]
    pub fn slice(&mut self, x: Var, dim: isize, range: Range<usize>) -> Var {
        self.apply(Slice { dim, range }, &[x])
    }
}

struct Slice {
    dim: isize,
    range: Range<usize>,
}

impl Slice {
    /// Where the part begins in an operand of this shape.
    fn start(&self, x: Shape) -> [usize; MAX_RANK] {
        let mut start = [0; MAX_RANK];
        start[checked_dim(self.dim, x)] = self.range.start;
        start
    }
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let (x, Range { start, end }) = (inputs[0], self.range.clone());
        let dim = dim_index(self.dim, x)?;
        if start > end || end > x[dim] {
            return Err(format!(
                "{start}..{end} is not a range of 0..{} (dimension {dim})",
                x[dim]
            ));
        }
        let mut output = x.to_vec();
        output[dim] = end - start;
        Ok(Shape::new(&output))
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let (shape, part) = (ctx.inputs.shape(0), ctx.output_shape);
        let (start, origin) = (&self.start(shape)[..shape.rank()], &[0; MAX_RANK][..shape.rank()]);
        let x = &ctx.inputs[0];
        layout::copy_block(ctx.output, &part, origin, Write::Set, x, &shape, start, &part);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let (shape, part) = (ctx.inputs.shape(0), ctx.output_shape);
        let (start, origin) = (&self.start(shape)[..shape.rank()], &[0; MAX_RANK][..shape.rank()]);
        let Some((dx, write)) = ctx.grads.wrt(0) else { return };
        if write == Write::Set {
            dx.fill(0.0);
        }
        layout::copy_block(dx, &shape, start, Write::Add, ctx.d_output, &part, origin, &part);
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::{Graph, Tape, gradcheck};
    use crate::{Params, Tensor};

    #[test]
    fn gradient() {
        for (dim, range) in [(0, 1..2), (1, 0..3), (-1, 2..4), (2, 0..1)] {
            let x = [uniform(1, [2, 3, 4])];
            gradcheck(&x, |g, x| g.slice(x[0], dim, range.clone())).unwrap();
        }
    }

    #[test]
    fn overlapping_parts_share_the_gradient() {
        gradcheck(&[uniform(1, [5, 2])], |g, x| {
            let (a, b) = (g.slice(x[0], 0, 0..4), g.slice(x[0], 0, 1..5));
            g.mul(a, b)
        })
        .unwrap();
    }

    #[test]
    fn a_part_may_be_empty_but_not_outside() {
        let (mut tape, params) = (Tape::new(), Params::new(0));
        let mut g = Graph::eval(&mut tape, &params);
        let x = g.constant(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]));
        let y = g.slice(x, -1, 1..3);
        assert_eq!(g.value(y), [2.0, 3.0, 5.0, 6.0]);
        let nothing = g.slice(x, 0, 2..2);
        assert_eq!(g.shape(nothing), [0, 3].into());
        let error = shape_error(&[&[2, 3]], |g, x| g.slice(x[0], 1, 2..4));
        assert!(error.contains("2..4 is not a range of 0..3 (dimension 1)"), "{error}");
    }
}
