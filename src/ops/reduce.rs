//! Sum and mean, of everything or along dimensions.
//!
//! Every element of `x` has derivative 1 in the one sum that it goes into, and `1 / count` in a
//! mean of `count` elements. So the adjoint of summing is broadcasting:
//!
//! ```text
//! dx = dy, repeated along the dimensions that were reduced        (times 1 / count)
//! ```

use ferrotape_kernels::{broadcast, elementwise, reduce, scratch};

use super::dims::dim_index;
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// The sum of all elements: a scalar.
    #[track_caller]
    pub fn sum(&mut self, x: Var) -> Var {
        self.apply(Reduce { mean: false, dims: None, keepdim: false }, &[x])
    }

    /// The mean of all elements: a scalar.
    ///
    /// # Panics
    /// If there are none.
    #[track_caller]
    pub fn mean(&mut self, x: Var) -> Var {
        self.apply(Reduce { mean: true, dims: None, keepdim: false }, &[x])
    }

    /// The sums along `dims`; negative ones count from the end. With `keepdim` the reduced
    /// dimensions stay with length 1 (so that the result broadcasts with `x`), else they go.
    ///
    /// # Panics
    /// If `dims` is empty, names a dimension twice, or one that is not there.
    #[track_caller]
    pub fn sum_axes(&mut self, x: Var, dims: &[isize], keepdim: bool) -> Var {
        self.apply(Reduce { mean: false, dims: Some(dims.into()), keepdim }, &[x])
    }

    /// The means along `dims`, as [`Graph::sum_axes`].
    ///
    /// # Panics
    /// As [`Graph::sum_axes`], and if there are no elements along `dims`.
    #[track_caller]
    pub fn mean_axes(&mut self, x: Var, dims: &[isize], keepdim: bool) -> Var {
        self.apply(Reduce { mean: true, dims: Some(dims.into()), keepdim }, &[x])
    }
}

struct Reduce {
    mean: bool,
    /// The dimensions to reduce; `None` for all.
    dims: Option<Box<[isize]>>,
    keepdim: bool,
}

impl Reduce {
    /// The positions of the dimensions to reduce.
    fn axes(&self, x: Shape) -> Result<Vec<usize>, String> {
        let Some(dims) = &self.dims else { return Ok((0..x.rank()).collect()) };
        let mut axes = Vec::new();
        for &dim in dims {
            let axis = dim_index(dim, x)?;
            if axes.contains(&axis) {
                return Err(format!("dimension {dim} is named twice in {dims:?}"));
            }
            axes.push(axis);
        }
        match axes.is_empty() {
            true => Err("name at least one dimension".into()),
            false => Ok(axes),
        }
    }

    /// What each sum is multiplied with.
    fn factor(&self, x: Shape, sums: usize) -> f32 {
        if self.mean { sums as f32 / x.numel() as f32 } else { 1.0 }
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match (self.mean, &self.dims) {
            (false, None) => "sum",
            (true, None) => "mean",
            (false, Some(_)) => "sum_axes",
            (true, Some(_)) => "mean_axes",
        }
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let (x, axes) = (inputs[0], self.axes(inputs[0])?);
        if self.mean && axes.iter().any(|&axis| x[axis] == 0) {
            return Err("there is no mean of no elements".into());
        }
        let length = |axis: usize| match axes.contains(&axis) {
            false => Some(x[axis]),
            true => self.keepdim.then_some(1),
        };
        Ok(Shape::new(&(0..x.rank()).filter_map(length).collect::<Vec<_>>()))
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let shape = ctx.inputs.shape(0);
        if self.dims.is_none() {
            ctx.output[0] = reduce::sum(&ctx.inputs[0]);
        } else {
            let axes = self.axes(shape).expect("the shape rule has accepted the dimensions");
            reduce::sum_axes(ctx.output, &ctx.inputs[0], &shape, &axes);
        }
        let factor = self.factor(shape, ctx.output.len());
        if self.mean {
            ctx.output.iter_mut().for_each(|y| *y *= factor);
        }
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let (shape, dy) = (ctx.inputs.shape(0), ctx.d_output);
        let factor = self.factor(shape, dy.len());
        if self.dims.is_none() {
            return ctx.grads.add_to(0, |_| dy[0] * factor);
        }
        let Some((dx, write)) = ctx.grads.wrt(0) else { return };
        let mut kept = shape.to_vec();
        for axis in self.axes(shape).expect("the shape rule has accepted the dimensions") {
            kept[axis] = 1;
        }
        scratch::with(dx.len(), |repeated| {
            broadcast::broadcast_to(repeated, &shape, dy, &kept);
            elementwise::add_scaled(dx, write, repeated, factor);
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
        let x = [uniform(1, [2, 3, 4])];
        gradcheck(&x, |g, x| g.sum(x[0])).unwrap();
        gradcheck(&x, |g, x| g.mean(x[0])).unwrap();
        for dims in [&[0][..], &[-1], &[1], &[2, 0], &[0, 1, 2]] {
            for keepdim in [false, true] {
                gradcheck(&x, |g, x| g.sum_axes(x[0], dims, keepdim)).unwrap();
                gradcheck(&x, |g, x| g.mean_axes(x[0], dims, keepdim)).unwrap();
            }
        }
    }

    #[test]
    fn gradient_of_centring() {
        gradcheck(&[uniform(1, [3, 4])], |g, x| {
            let mean = g.mean_axes(x[0], &[1], true);
            let centred = g.sub(x[0], mean);
            g.mul(centred, centred)
        })
        .unwrap();
    }

    #[test]
    fn shapes_and_values() {
        let (mut tape, params) = (Tape::new(), Params::new(0));
        let mut g = Graph::eval(&mut tape, &params);
        let x = g.constant(Tensor::from_vec((0..12).map(|i| i as f32).collect(), [2, 3, 2]));
        let rows = g.sum_axes(x, &[1, -1], false);
        assert_eq!((g.shape(rows), g.value(rows)), ([2].into(), &[15.0, 51.0][..]));
        let columns = g.mean_axes(x, &[1], true);
        assert_eq!(g.shape(columns), [2, 1, 2].into());
        assert_eq!(g.value(columns), [2.0, 3.0, 8.0, 9.0]);
        let all = g.mean(x);
        assert_eq!((g.shape(all), g.item(all)), ([].into(), 5.5));
    }

    #[test]
    fn shape_errors_say_what_was_expected() {
        let error = |shape: &[usize], dims: &[isize]| {
            shape_error(&[shape], |g, x| g.mean_axes(x[0], dims, false))
        };
        assert!(error(&[2, 3], &[]).contains("name at least one dimension"));
        assert!(error(&[2, 3], &[1, -1]).contains("dimension -1 is named twice in [1, -1]"));
        assert!(error(&[2, 3], &[5]).contains("there is no dimension 5"));
        assert!(error(&[2, 0], &[1]).contains("no mean of no elements"));
    }
}
