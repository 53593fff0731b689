//! `dw` from `dy` and `x`: for each tap of each output channel a sum over the pixels of all images.
//!
//! Four engines: [`winograd`] where it [pays](winograd::pays), else the cheapest by [`Sums`] of
//! [`weights`](super::weights) (lanes are output channels), [`dots`](super::dots) (pixels) and
//! [`images`] (images). A 1 x 1 kernel is no special case: its image is one long row.

use super::{
    Conv2dDims, cost::Sums, dots::DotSums, forward::source, images, weights::WeightSums, winograd,
};
use crate::Write;

/// The gradient `dw [o, c / groups, kh, kw]` from `dy [n, o, oh, ow]` and `x [n, c, h, w]`.
///
/// # Panics
/// If a slice has another length than `d` says, or `d` is no convolution (see [`Conv2dDims`]).
#[track_caller]
pub fn backward_weight(dw: &mut [f32], write: Write, dy: &[f32], x: &[f32], d: &Conv2dDims) {
    d.check("backward_weight");
    d.check_lengths(
        "backward_weight",
        &[("dw", dw.len(), d.w_len()), ("dy", dy.len(), d.y_len()), ("x", x.len(), d.x_len())],
    );
    if dw.is_empty() {
        return;
    }
    if dy.is_empty() || x.is_empty() {
        if write == Write::Set {
            dw.fill(0.0);
        }
        return;
    }
    // The rows of an image that need no padding are one long row.
    let d = &if d.is_pointwise() { Conv2dDims { h: 1, w: d.h * d.w, ..*d } } else { *d };
    if winograd::pays(d) {
        return winograd::backward_weight(dw, write, dy, x, d);
    }
    let sums = Sums::of_output(d);
    let [channels, dots] = [sums.in_channels(), sums.in_dots().unwrap_or(usize::MAX)];
    if sums.in_images_for_weights().is_some_and(|images| images < channels.min(dots)) {
        images::backward_weight(dw, write, dy, x, d);
    } else if dots < channels {
        let (planes, taps) = source(d, d.stride[1]);
        let step = d.stride[0] * planes.padded[1];
        DotSums { dy, x, d, planes, taps: &taps, step }.run(dw, write);
    } else {
        let (planes, taps) = source(d, 1);
        let step = [d.stride[0] * planes.padded[1], d.stride[1]];
        WeightSums { dy, x, d, planes, taps: &taps, step }.run(dw, write);
    }
}
