//! `dw` from `dy` and `x`.

use super::{Conv2dDims, forward::source, pointwise, weights::WeightSums};
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
    if d.is_pointwise() {
        return pointwise::backward_weight(dw, write, dy, x, d);
    }
    let (planes, taps) = source(d, 1);
    let step = [d.stride[0] * planes.padded[1], d.stride[1]];
    WeightSums { dy, x, d, planes, taps: &taps, step }.run(dw, write);
}
