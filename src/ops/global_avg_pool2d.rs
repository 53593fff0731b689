//! Global average pooling: each channel becomes its mean (Lin et al., "Network in Network", 2013).
//!
//! ```text
//! y[n,c] = 1 / (h * w) * sum over i,j of x[n,c,i,j]        dx[n,c,i,j] = dy[n,c] / (h * w)
//! ```

use ferrotape_kernels::pool2d;

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// The mean of each channel of `x` `[n, c, h, w]`; gives `[n, c]`.
    ///
    /// # Panics
    /// If `x` is not an image of at least one pixel.
    #[track_caller]
    pub fn global_avg_pool2d(&mut self, x: Var) -> Var {
        self.apply(GlobalAvgPool2d, &[x])
    }
}

struct GlobalAvgPool2d;

impl Op for GlobalAvgPool2d {
    fn name(&self) -> &'static str {
        "global_avg_pool2d"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match *inputs[0] {
            [n, c, h, w] if h * w > 0 => Ok([n, c].into()),
            _ => Err("expected an image [n, c, h, w] of at least one pixel".into()),
        }
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let [n, c, h, w] = *ctx.inputs.shape(0) else { unreachable!("the shape was checked") };
        pool2d::global_avg_forward(ctx.output, &ctx.inputs[0], n * c, h * w);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let [n, c, h, w] = *ctx.inputs.shape(0) else { unreachable!("the shape was checked") };
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            pool2d::global_avg_backward(dx, write, ctx.d_output, n * c, h * w);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        gradcheck(&[uniform(1, [2, 3, 4, 5])], |g, x| g.global_avg_pool2d(x[0])).unwrap();
    }

    #[test]
    fn shape_errors_say_what_was_expected() {
        for shape in [&[2, 3][..], &[2, 3, 0, 4]] {
            let error = shape_error(&[shape], |g, x| g.global_avg_pool2d(x[0]));
            assert!(error.contains("at least one pixel"), "{error}");
        }
    }
}
