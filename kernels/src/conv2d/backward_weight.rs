//! `dw` from `dy` and `x`.

use super::{Conv2dDims, dots::DotSums, forward::source, weights::WeightSums, winograd};
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
    if winograd::pays(d) {
        winograd::backward_weight(dw, write, dy, x, d);
    } else if prefers_dots(d) {
        let (planes, taps) = source(d, d.stride[1]);
        let step = d.stride[0] * planes.padded[1];
        DotSums { dy, x, d, planes, taps: &taps, step }.run(dw, write);
    } else {
        let (planes, taps) = source(d, 1);
        let step = [d.stride[0] * planes.padded[1], d.stride[1]];
        WeightSums { dy, x, d, planes, taps: &taps, step }.run(dw, write);
    }
}

/// Whether dot products waste less than lanes of channels, counted in products per pixel. Lanes of channels come by 16, and transposing `dy` costs
/// as much as 16 taps; lanes of pixels come by 8, in each row, and load more for each product. Their sums are kept
/// as vectors, which must not be too many. That is counted as for AVX2: the shape alone decides.
fn prefers_dots(d: &Conv2dDims) -> bool {
    let (lanes, taps, cols) = (d.o_group(), d.taps(), d.ow());
    let channels = lanes.next_multiple_of(16) * (taps + 16) * cols;
    let dots = lanes * (taps + 1) * cols.next_multiple_of(8) * 9 / 8;
    dots < channels && lanes * taps <= 1 << 14
}
