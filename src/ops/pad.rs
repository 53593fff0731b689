//! A border of constant value around a tensor.
//!
//! ```text
//! dx = dy without the border
//! ```

use ferrotape_kernels::{Write, layout};

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::{MAX_RANK, Shape};

impl Graph<'_, '_> {
    /// `x` with `value` around it: `padding[k]` is how much comes before and after it along
    /// dimension `k`.
    ///
    /// # Panics
    /// If there is not one pair for each dimension.
    #[track_caller]
    pub fn pad(&mut self, x: Var, padding: &[(usize, usize)], value: f32) -> Var {
        self.apply(Pad { padding: padding.into(), value }, &[x])
    }
}

struct Pad {
    padding: Box<[(usize, usize)]>,
    value: f32,
}

impl Pad {
    /// Where the operand begins in the output.
    fn start(&self) -> [usize; MAX_RANK] {
        std::array::from_fn(|axis| self.padding.get(axis).map_or(0, |(before, _)| *before))
    }
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let (x, pairs) = (inputs[0], self.padding.len());
        if pairs != x.rank() {
            return Err(format!("{pairs} pairs of padding for {} dimensions", x.rank()));
        }
        let padded = x.iter().zip(&self.padding).map(|(len, (before, after))| before + len + after);
        Ok(Shape::new(&padded.collect::<Vec<_>>()))
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let (shape, padded) = (ctx.inputs.shape(0), ctx.output_shape);
        let (start, origin) = (&self.start()[..shape.rank()], &[0; MAX_RANK][..shape.rank()]);
        let x = &ctx.inputs[0];
        ctx.output.fill(self.value);
        layout::copy_block(ctx.output, &padded, start, Write::Set, x, &shape, origin, &shape);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let (shape, padded) = (ctx.inputs.shape(0), ctx.output_shape);
        let (start, origin) = (&self.start()[..shape.rank()], &[0; MAX_RANK][..shape.rank()]);
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            layout::copy_block(dx, &shape, origin, write, ctx.d_output, &padded, start, &shape);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::{Graph, Tape, gradcheck};
    use crate::{Params, Tensor};

    #[test]
    fn gradient() {
        for padding in [[(0, 0), (1, 2)], [(2, 0), (0, 1)], [(0, 0), (0, 0)]] {
            gradcheck(&[uniform(1, [2, 3])], |g, x| g.pad(x[0], &padding, 0.5)).unwrap();
            gradcheck(&[uniform(1, [2, 3])], |g, x| {
                let y = g.pad(x[0], &padding, 0.5);
                let z = g.pad(x[0], &padding, -2.0);
                g.mul(y, z)
            })
            .unwrap();
        }
    }

    #[test]
    fn the_border_has_the_value() {
        let (mut tape, params) = (Tape::new(), Params::new(0));
        let mut g = Graph::eval(&mut tape, &params);
        let x = g.constant(Tensor::from_vec(vec![1.0, 2.0], [1, 2]));
        let y = g.pad(x, &[(1, 0), (0, 1)], 9.0);
        assert_eq!(g.shape(y), [2, 3].into());
        assert_eq!(g.value(y), [9.0, 9.0, 9.0, 1.0, 2.0, 9.0]);
        let error = shape_error(&[&[1, 2]], |g, x| g.pad(x[0], &[(1, 1)], 0.0));
        assert!(error.contains("1 pairs of padding for 2 dimensions"), "{error}");
    }
}
