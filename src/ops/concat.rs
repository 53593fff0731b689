//! Concatenation along a dimension.
//!
//! Every element of every operand is copied to one place, so its gradient is the gradient of that
//! place: each operand takes back its own block of `dy`.

use ferrotape_kernels::{Write, layout};

use super::dims::{checked_dim, dim_index};
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Operands, Var};
use crate::tensor::{MAX_RANK, Shape};

impl Graph<'_, '_> {
    /// The operands one after the other along dimension `dim`; -1 is the last one. All other
    /// dimensions must be equal.
    ///
    /// # Panics
    /// If there are no operands, or their shapes do not fit.
    #[track_caller]
    pub fn concat(&mut self, operands: &[Var], dim: isize) -> Var {
        self.apply(Concat { dim }, operands)
    }
}

struct Concat {
    dim: isize,
}

impl Concat {
    /// Calls `f` for every operand with its number, its shape and its place in the output.
    fn for_each_block(
        &self,
        inputs: Operands<'_>,
        output: Shape,
        mut f: impl FnMut(usize, &[usize], &[usize]),
    ) {
        let dim = checked_dim(self.dim, output);
        let mut offset = [0; MAX_RANK];
        for operand in 0..inputs.len() {
            let shape = inputs.shape(operand);
            f(operand, &shape, &offset[..shape.rank()]);
            offset[dim] += shape[dim];
        }
    }
}

const ORIGIN: [usize; MAX_RANK] = [0; MAX_RANK];

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let Some(first) = inputs.first() else {
            return Err("there is nothing to concatenate".into());
        };
        let dim = dim_index(self.dim, *first)?;
        let mut output = first.to_vec();
        for shape in &inputs[1..] {
            let fits = shape.rank() == first.rank()
                && (0..shape.rank()).all(|axis| axis == dim || shape[axis] == first[axis]);
            if !fits {
                return Err(format!("{shape} differs from {first} in more than dimension {dim}"));
            }
            output[dim] += shape[dim];
        }
        Ok(Shape::new(&output))
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let (y, y_shape) = (ctx.output, ctx.output_shape);
        self.for_each_block(ctx.inputs, y_shape, |k, shape, offset| {
            let (x, origin) = (&ctx.inputs[k], &ORIGIN[..shape.len()]);
            layout::copy_block(y, &y_shape, offset, Write::Set, x, shape, origin, shape);
        });
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let (dy, dy_shape) = (ctx.d_output, ctx.output_shape);
        self.for_each_block(ctx.inputs, dy_shape, |k, shape, offset| {
            if let Some((dx, write)) = ctx.grads.wrt(k) {
                let origin = &ORIGIN[..shape.len()];
                layout::copy_block(dx, shape, origin, write, dy, &dy_shape, offset, shape);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::{Graph, Tape, gradcheck};
    use crate::{Params, Tensor};

    #[test]
    fn gradient() {
        for (dim, shapes) in [
            (0, [[1, 3, 2], [4, 3, 2], [2, 3, 2]]),
            (1, [[2, 1, 3], [2, 2, 3], [2, 4, 3]]),
            (-1, [[2, 3, 2], [2, 3, 1], [2, 3, 5]]),
        ] {
            let inputs = shapes.map(|shape| uniform(shape[1] as u64, shape));
            gradcheck(&inputs, |g, x| g.concat(x, dim)).unwrap();
            gradcheck(&inputs, |g, x| g.concat(&[x[0], x[1], x[0]], dim)).unwrap();
        }
    }

    #[test]
    fn columns_stand_side_by_side() {
        let (mut tape, params) = (Tape::new(), Params::new(0));
        let mut g = Graph::eval(&mut tape, &params);
        let a = g.constant(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2]));
        let b = g.constant(Tensor::from_vec(vec![5.0, 6.0], [2, 1]));
        let y = g.concat(&[a, b], 1);
        assert_eq!(g.value(y), [1.0, 2.0, 5.0, 3.0, 4.0, 6.0]);
    }

    #[test]
    fn shape_errors_say_what_was_expected() {
        let error = shape_error(&[&[2, 3], &[3, 3]], |g, x| g.concat(x, 1));
        assert!(error.contains("[3, 3] differs from [2, 3] in more than dimension 1"), "{error}");
        let error = shape_error(&[], |g, x| g.concat(x, 0));
        assert!(error.contains("nothing to concatenate"), "{error}");
    }
}
