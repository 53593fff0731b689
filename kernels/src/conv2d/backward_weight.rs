//! `dw` from `dy` and `x`.

use super::{Conv2dDims, dots::DotSums, forward::source, images, weights::WeightSums, winograd};
use crate::Write;

/// The gradient `dw [o, c / groups, kh, kw]` from `dy [n, o, oh, ow]` and `x [n, c, h, w]`.
///
/// # Panics
/// If a slice has another length than `d` says, or `d` is no convolution (see [`Conv2dDims`]).
#[track_caller]
pub fn backward_weight(dw: &mut [f32], write: Write, dy: &[f32], x: &[f32], d: &Conv2dDims) {
    d.check("backward_weight", &[]);
    d.check(
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
    let [channels, dots] = costs(d);
    if winograd::pays(d) {
        winograd::backward_weight(dw, write, dy, x, d);
    } else if prefers_images(d, channels.min(dots)) {
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

/// What lanes of channels and dot products cost, in multiply-adds for one image. Lanes of channels come by 16, and transposing
/// `dy` costs as much as 16 taps; lanes of pixels come by 8, in each row, and load more for each product. Their sums are
/// kept as vectors, which must not be too many. That is counted as for AVX2: the shape alone decides.
fn costs(d: &Conv2dDims) -> [usize; 2] {
    let (lanes, taps, rows) = (d.o_group(), d.taps(), d.groups * d.oh());
    let channels = rows * lanes.next_multiple_of(16) * (taps + 16) * d.ow();
    let dots = rows * lanes * (taps + 1) * d.ow().next_multiple_of(8) * 9 / 8;
    [channels, if lanes * taps <= 1 << 14 { dots } else { usize::MAX }]
}

/// Whether lanes of images cost less than the other engines. Their tiles have two channels in, and their sums are read and
/// written with every few rows, for a tenth of the time.
fn prefers_images(d: &Conv2dDims, others: usize) -> bool {
    let channels = d.c_group();
    images::cost(d, d.o_group())
        .is_some_and(|cost| cost * channels.next_multiple_of(2) / channels * 11 / 10 < others)
}
