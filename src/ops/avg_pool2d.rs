//! Average pooling: each output is the mean of its window.
//!
//! ```text
//! y[n,c,i,j] = 1 / (kh * kw) * sum over u,v of x[n, c, i*s - p + u, j*s - p + v]
//! ```
//!
//! with stride `s` and padding `p`; padding counts as zeros (PyTorch's `count_include_pad`). Each
//! pixel gets the share `1 / (kh * kw)` of the gradient of every window that it is in:
//!
//! ```text
//! dx[pixel] = 1 / (kh * kw) * sum over windows (i,j) with the pixel of dy[n,c,i,j]
//! ```

use ferrotape_kernels::pool2d;

use super::Pool2dOptions;
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// The mean of each `kernel` by `kernel` window of `x` `[n, c, h, w]`; gives `[n, c, oh, ow]`
    /// with `oh = (h - kernel) / stride + 1`, rounded down.
    ///
    /// # Panics
    /// If `x` is not an image of at least one window.
    #[track_caller]
    pub fn avg_pool2d(&mut self, x: Var, kernel: usize, stride: usize) -> Var {
        self.avg_pool2d_with(x, Pool2dOptions { stride: [stride; 2], ..Pool2dOptions::new(kernel) })
    }

    /// As [`Graph::avg_pool2d`], for any window, stride and padding.
    ///
    /// # Panics
    /// If `x` is not an image of at least one window.
    #[track_caller]
    pub fn avg_pool2d_with(&mut self, x: Var, options: Pool2dOptions) -> Var {
        self.apply(AvgPool2d(options), &[x])
    }
}

struct AvgPool2d(Pool2dOptions);

impl Op for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        self.0.output_shape(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let dims = self.0.dims(ctx.inputs.shape(0));
        pool2d::avg_forward(ctx.output, &ctx.inputs[0], &dims);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let dims = self.0.dims(ctx.inputs.shape(0));
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            pool2d::avg_backward(dx, write, ctx.d_output, &dims);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::pool2d::tests::CASES;
    use crate::ops::testing::uniform;
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        for (shape, options) in CASES {
            gradcheck(&[uniform(1, shape)], |g, x| g.avg_pool2d_with(x[0], options)).unwrap();
        }
    }
}
