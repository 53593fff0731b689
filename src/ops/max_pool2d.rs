//! Max pooling: each output is the largest pixel of its window.
//!
//! ```text
//! y[n,c,i,j] = max over u,v of x[n, c, i*s - p + u, j*s - p + v]
//! ```
//!
//! with stride `s` and padding `p`; padding never wins. Near almost every input the winner stays
//! the winner, so `y` moves exactly as that pixel does and the whole gradient goes to it:
//!
//! ```text
//! dx[winner of (i,j)] += dy[n,c,i,j]
//! ```
//!
//! Where several pixels are equal the first in row-major order wins. The forward pass keeps one
//! byte per output, the winner's position in its window.

use ferrotape_kernels::pool2d;

use super::Pool2dOptions;
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// The largest pixel of each `kernel` by `kernel` window of `x` `[n, c, h, w]`; gives
    /// `[n, c, oh, ow]` with `oh = (h - kernel) / stride + 1`, rounded down. A window with a NaN
    /// gives NaN.
    ///
    /// # Panics
    /// If `x` is not an image of at least one window.
    #[track_caller]
    pub fn max_pool2d(&mut self, x: Var, kernel: usize, stride: usize) -> Var {
        self.max_pool2d_with(x, Pool2dOptions { stride: [stride; 2], ..Pool2dOptions::new(kernel) })
    }

    /// As [`Graph::max_pool2d`], for any window, stride and padding.
    ///
    /// # Panics
    /// If `x` is not an image of at least one window, or the window has more than 256 pixels.
    #[track_caller]
    pub fn max_pool2d_with(&mut self, x: Var, options: Pool2dOptions) -> Var {
        self.apply(MaxPool2d(options), &[x])
    }
}

struct MaxPool2d(Pool2dOptions);

impl Op for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let [kh, kw] = self.0.kernel;
        if kh.saturating_mul(kw) > 256 {
            return Err(format!("the window {kh} x {kw} has more than 256 pixels"));
        }
        self.0.output_shape(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let dims = self.0.dims(ctx.inputs.shape(0));
        let codes = ctx.recording.then(|| {
            ctx.saved.bytes.resize(ctx.output.len(), 0);
            &mut ctx.saved.bytes[..]
        });
        pool2d::max_forward(ctx.output, codes, &ctx.inputs[0], &dims);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let dims = self.0.dims(ctx.inputs.shape(0));
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            pool2d::max_backward(dx, write, ctx.d_output, &ctx.saved.bytes, &dims);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::pool2d::tests::CASES;
    use crate::ops::testing::{distinct, shape_error};
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        for (shape, options) in CASES {
            gradcheck(&[distinct(1, shape)], |g, x| g.max_pool2d_with(x[0], options)).unwrap();
        }
    }

    #[test]
    fn a_window_has_at_most_256_pixels() {
        let error = shape_error(&[&[1, 1, 20, 20]], |g, x| g.max_pool2d(x[0], 17, 1));
        assert!(error.contains("17 x 17"), "{error}");
    }
}
