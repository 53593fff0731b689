//! Convolution of images: forward and the three gradients, for any kernel, stride, padding,
//! dilation and groups.
//!
//! ```text
//! y[n, o, yh, yw] = bias[o]
//!     + sum over c, i, j of  x[n, c, yh s - p + i d, yw s - p + j d]  w[o, c, i, j]
//! ```
//!
//! with stride `s`, padding `p`, dilation `d`, and `c` over the `c/g` channels of the group that
//! `o` belongs to.
//!
//! | file | idea | used for |
//! |---|---|---|
//! | `channels.rs` | lanes are output channels, rows are pixels; taps are offsets into the padded image | forward, `dx` |
//! | `pixels.rs` | lanes are pixels, rows are output channels: for few channels or taps | forward, `dx` |
//! | `images/` | lanes are images of the batch, rows are output channels: for few channels of small images | forward, `dx`, `dw` |
//! | `rows.rs` | lanes are columns, vectors go down the rows: 3 x 3 kernels to one channel, and depthwise | forward, `dx` |
//! | `winograd/` | 3 x 3 kernels with 4/9 of the products, or 25/36 with stride 2: for many channels | forward, `dx`, `dw` |
//! | `weights.rs` | lanes are output channels, rows are taps; the sum runs over pixels | `dw` |
//! | `dots.rs` | dot products over pixels: for few channels or taps, and depthwise | `dw` |
//! | `pointwise.rs` | a 1 x 1 kernel of stride 1 is a matrix product, image by image | forward, `dx` |
//!
//! `sweep.rs` is what the engines of forward and `dx` have in common, `planes.rs` the padded
//! copies. No matrix of patches is ever built.
//!
//! Which one runs is decided by the shape and the length of a vector: 1 x 1 kernels of stride 1
//! without padding are products, but for `dw`; then `winograd::pays` is asked, then `rows::pays`,
//! and among the others `cost.rs` knows which is fastest.

mod backward_bias;
mod backward_input;
mod backward_weight;
mod channels;
mod cost;
mod dots;
mod forward;
mod images;
mod pixels;
mod planes;
mod pointwise;
mod rows;
mod sweep;
mod weights;
mod winograd;

pub use {
    backward_bias::backward_bias,
    backward_input::backward_input,
    backward_weight::backward_weight,
    forward::forward,
    winograd::{winograd_from_env, without_winograd},
};

use crate::elements;

/// The dimensions of a convolution: `x [n, c, h, w]`, `w [o, c / groups, kh, kw]`, `y [n, o, oh,
/// ow]`. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dDims {
    /// Images in the batch.
    pub n: usize,
    /// Channels in.
    pub c: usize,
    /// Height of the input.
    pub h: usize,
    /// Width of the input.
    pub w: usize,
    /// Channels out.
    pub o: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Distance in the input from one output pixel to the next.
    pub stride: [usize; 2],
    /// Zeros around the input, on each side.
    pub padding: [usize; 2],
    /// Distance in the input from one tap of the kernel to the next.
    pub dilation: [usize; 2],
    /// The channels are cut into so many groups, convolved separately.
    pub groups: usize,
}

impl Conv2dDims {
    /// Height of the output; 0 where the kernel is larger than the padded input.
    pub fn oh(&self) -> usize {
        self.output(0, self.h)
    }

    /// Width of the output.
    pub fn ow(&self) -> usize {
        self.output(1, self.w)
    }

    fn output(&self, axis: usize, size: usize) -> usize {
        let reach = self.dilation[axis] * (self.kernel[axis] - 1);
        (size + 2 * self.padding[axis])
            .checked_sub(reach + 1)
            .map_or(0, |last| last / self.stride[axis] + 1)
    }

    /// Elements of `x`.
    ///
    /// # Panics
    /// If they are beyond `usize`.
    pub fn x_len(&self) -> usize {
        elements(&[self.n, self.c, self.h, self.w])
    }

    /// Elements of `w`.
    ///
    /// # Panics
    /// If they are beyond `usize`.
    pub fn w_len(&self) -> usize {
        elements(&[self.o, self.c_group(), self.kernel[0], self.kernel[1]])
    }

    /// Elements of `y`.
    ///
    /// # Panics
    /// If they are beyond `usize`.
    pub fn y_len(&self) -> usize {
        elements(&[self.n, self.o, self.oh(), self.ow()])
    }

    /// Floating-point operations of the forward pass, and of either backward pass: two per product
    /// of the definition.
    pub fn flops(&self) -> usize {
        2 * self.multiply_adds()
    }

    fn multiply_adds(&self) -> usize {
        self.y_len() * self.taps()
    }

    /// Products in one output element: `c / groups * kh * kw`.
    fn taps(&self) -> usize {
        self.c_group() * self.kernel[0] * self.kernel[1]
    }

    fn c_group(&self) -> usize {
        self.c / self.groups
    }

    fn o_group(&self) -> usize {
        self.o / self.groups
    }

    /// Whether the output pixel and the input pixel are the same: a matrix product.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    /// Whether the taps of a plane are a 3 x 3 square, which moves by `stride` with each pixel.
    fn is_square(&self, stride: usize) -> bool {
        self.kernel == [3, 3] && self.stride == [stride; 2] && self.dilation == [1, 1]
    }

    /// Panics unless this is a convolution; before it, no length may be asked for.
    #[track_caller]
    fn check(&self, op: &str) {
        let Self { n, c, h, w, o, kernel, stride, padding, dilation, groups } = self;
        let sizes = [[*n, *c], [*h, *w], [*o, *groups], *kernel, *stride, *padding, *dilation];
        assert!(
            sizes.as_flattened().iter().all(|&size| size <= i32::MAX as usize),
            "conv2d::{op}: nothing may be beyond 2^31 - 1 in {self:?}"
        );
        assert!(
            *groups > 0 && c % groups == 0 && o % groups == 0,
            "conv2d::{op}: {groups} groups must divide c = {c} and o = {o}"
        );
        for (name, pair) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            assert!(
                pair[0] > 0 && pair[1] > 0,
                "conv2d::{op}: {name} must be positive, not {pair:?}"
            );
        }
        let weights = elements(&[o / groups, c / groups, kernel[0], kernel[1]]);
        assert!(
            u32::try_from(weights).is_ok(),
            "conv2d::{op}: a group has {weights} weights, at most 2^32 - 1 work, in {self:?}"
        );
    }

    #[track_caller]
    fn check_lengths(&self, op: &str, lengths: &[(&str, usize, usize)]) {
        for (name, found, expected) in lengths {
            assert_eq!(
                found, expected,
                "conv2d::{op}: {name} has {found} elements, {self:?} needs {expected}"
            );
        }
    }
}
