//! Two-dimensional convolution (cross-correlation, as everywhere in deep learning).
//!
//! ```text
//! y[n,o,i,j] = bias[o] + sum over c,u,v of  x[n, c, i*s - p + u*d, j*s - p + v*d] * w[o,c,u,v]
//! ```
//!
//! with stride `s`, padding `p`, dilation `d`, and `x` zero outside its bounds. With `groups`,
//! output channel `o` sees only the input channels of its own group. `y` is linear in each of
//! `x`, `w` and `bias`, so each gradient is the transpose of that linear map applied to `dy`:
//!
//! ```text
//! dx[n,c,..]  gathers dy[n,o,i,j] * w[o,c,u,v]  from every (i,j,u,v) that read that pixel
//! dw[o,c,u,v] = sum over n,i,j of dy[n,o,i,j] * x[n, c, i*s - p + u*d, j*s - p + v*d]
//! dbias[o]    = sum over n,i,j of dy[n,o,i,j]
//! ```

use ferrotape_kernels::conv2d::{self, Conv2dDims};

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

/// How a convolution slides over its input. Pairs are `[vertical, horizontal]`.
///
/// ```
/// use ferrotape::ops::Conv2dOptions;
/// let same = Conv2dOptions { padding: [1, 1], ..Default::default() };
/// assert_eq!(same.stride, [1, 1]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conv2dOptions {
    /// Distance between neighbouring windows, in pixels.
    pub stride: [usize; 2],
    /// Rows and columns of zeros added on each side.
    pub padding: [usize; 2],
    /// Distance between neighbouring taps of the kernel, in pixels.
    pub dilation: [usize; 2],
    /// Into how many independent groups the channels are split.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Conv2dOptions { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

impl Graph<'_, '_> {
    /// Convolution of `x` `[n, c, h, w]` with `weight` `[o, c / groups, kh, kw]` and an optional
    /// `bias` `[o]`; gives `[n, o, oh, ow]` with
    /// `oh = (h + 2 * padding - dilation * (kh - 1) - 1) / stride + 1`, rounded down.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn conv2d(
        &mut self,
        x: Var,
        weight: Var,
        bias: Option<Var>,
        options: Conv2dOptions,
    ) -> Var {
        match bias {
            Some(bias) => self.apply(Conv2d(options), &[x, weight, bias]),
            None => self.apply(Conv2d(options), &[x, weight]),
        }
    }
}

struct Conv2d(Conv2dOptions);

impl Conv2d {
    /// The kernel's view of operands that passed [`Op::output_shape`].
    fn dims(&self, x: Shape, weight: Shape) -> Conv2dDims {
        let Conv2dOptions { stride, padding, dilation, groups } = self.0;
        let (n, c, h, w) = (x[0], x[1], x[2], x[3]);
        let (o, kernel) = (weight[0], [weight[2], weight[3]]);
        Conv2dDims { n, c, h, w, o, kernel, stride, padding, dilation, groups }
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let Conv2dOptions { stride, padding, dilation, groups } = self.0;
        let ([n, c, h, w], [o, c_group, kh, kw]) = (&*inputs[0], &*inputs[1]) else {
            return Err(
                "expected an image [n, c, h, w] and a weight [o, c / groups, kh, kw]".into()
            );
        };
        let positive = groups * stride[0] * stride[1] * dilation[0] * dilation[1] * kh * kw;
        if positive == 0 {
            return Err("kernel, stride, dilation and groups must be at least 1".into());
        }
        if c % groups != 0 || o % groups != 0 || c / groups != *c_group {
            return Err(format!(
                "with {groups} group(s), {c} input and {o} output channels do not fit a weight \
                 over {c_group} channels"
            ));
        }
        if inputs.get(2).is_some_and(|bias| **bias != [*o]) {
            return Err(format!("expected a bias of shape [{o}]"));
        }
        let extent = |size: usize, k: usize, axis: usize| {
            (size + 2 * padding[axis]).checked_sub(dilation[axis] * (k - 1) + 1)
        };
        match (extent(*h, *kh, 0), extent(*w, *kw, 1)) {
            (Some(h), Some(w)) => Ok([*n, *o, h / stride[0] + 1, w / stride[1] + 1].into()),
            _ => Err("the kernel is larger than the padded image".into()),
        }
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let dims = self.dims(ctx.inputs.shape(0), ctx.inputs.shape(1));
        let bias = (ctx.inputs.len() == 3).then(|| ctx.inputs.data(2));
        conv2d::forward(ctx.output, &ctx.inputs[0], &ctx.inputs[1], bias, &dims);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let dims = self.dims(ctx.inputs.shape(0), ctx.inputs.shape(1));
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            conv2d::backward_input(dx, write, ctx.d_output, &ctx.inputs[1], &dims);
        }
        if let Some((dw, write)) = ctx.grads.wrt(1) {
            conv2d::backward_weight(dw, write, ctx.d_output, &ctx.inputs[0], &dims);
        }
        if ctx.inputs.len() == 3
            && let Some((db, write)) = ctx.grads.wrt(2)
        {
            conv2d::backward_bias(db, write, ctx.d_output, &dims);
        }
    }

    fn macs(&self, inputs: &[Shape], output: Shape) -> u64 {
        let taps: usize = inputs[1].iter().skip(1).product();
        output.numel() as u64 * taps as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Conv2dOptions;
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::gradcheck;

    #[test]
    fn gradient() {
        let plain = Conv2dOptions::default();
        let cases = [
            ([2, 3, 7, 6], [4, 3, 3, 3], plain),
            ([2, 1, 8, 8], [6, 1, 5, 5], plain),
            ([1, 2, 7, 9], [3, 2, 3, 2], Conv2dOptions { padding: [1, 2], ..plain }),
            ([2, 3, 9, 8], [2, 3, 3, 3], Conv2dOptions { stride: [2, 3], ..plain }),
            (
                [1, 2, 9, 9],
                [2, 2, 3, 3],
                Conv2dOptions { dilation: [2, 1], padding: [1, 1], ..plain },
            ),
            ([2, 4, 5, 5], [6, 2, 3, 3], Conv2dOptions { groups: 2, padding: [1, 1], ..plain }),
            ([2, 3, 6, 6], [3, 1, 3, 3], Conv2dOptions { groups: 3, stride: [2, 2], ..plain }),
        ];
        for (x, w, options) in cases {
            let inputs = [uniform(1, x), uniform(2, w), uniform(3, [w[0]])];
            gradcheck(&inputs, |g, v| g.conv2d(v[0], v[1], Some(v[2]), options)).unwrap();
            gradcheck(&inputs[..2], |g, v| g.conv2d(v[0], v[1], None, options)).unwrap();
        }
    }

    #[test]
    fn shape_errors_say_what_was_expected() {
        let error = |shapes: [&[usize]; 3], options: Conv2dOptions| {
            shape_error(&shapes, |g, v| g.conv2d(v[0], v[1], Some(v[2]), options))
        };
        let (x, w, b) = (&[2, 3, 8, 8][..], &[4, 3, 5, 5][..], &[4][..]);
        let plain = Conv2dOptions::default();
        assert!(error([&[3, 8, 8], w, b], plain).contains("expected an image [n, c, h, w]"));
        assert!(error([x, w, &[5]], plain).contains("expected a bias of shape [4]"));
        assert!(error([&[2, 3, 4, 8], w, b], plain).contains("larger than the padded image"));
        let channels = error([&[2, 1, 8, 8], w, b], plain);
        assert!(channels.contains("1 input and 4 output channels do not fit"), "{channels}");
        let groups = Conv2dOptions { groups: 2, ..plain };
        assert!(error([x, w, b], groups).contains("with 2 group(s), 3 input"));
        let no_stride = Conv2dOptions { stride: [1, 0], ..plain };
        assert!(error([x, w, b], no_stride).contains("must be at least 1"));
    }
}
