//! `y` from `x` and `w`: a sum over taps for each output pixel.
//!
//! A 1 x 1 kernel of stride 1 without padding is a matrix product ([`pointwise`]). All else becomes
//! a [`Sweep`] with one phase: a grid of pixels, the padded planes they read, and for each tap its
//! offset in them. [`Engine::choose`] says which loops run it.

use super::{
    Conv2dDims,
    planes::Planes,
    pointwise,
    sweep::{Direction, Engine, Phase, Sweep, Tap},
};
use crate::Write;

/// The convolution `y [n, o, oh, ow]` of `x [n, c, h, w]` with `w [o, c / groups, kh, kw]`, plus
/// `bias [o]`.
///
/// # Panics
/// If a slice has another length than `d` says, or `d` is no convolution (see [`Conv2dDims`]).
#[track_caller]
pub fn forward(y: &mut [f32], x: &[f32], w: &[f32], bias: Option<&[f32]>, d: &Conv2dDims) {
    d.check("forward");
    d.check_lengths(
        "forward",
        &[("y", y.len(), d.y_len()), ("x", x.len(), d.x_len()), ("w", w.len(), d.w_len())],
    );
    if let Some(bias) = bias {
        d.check_lengths("forward", &[("bias", bias.len(), d.o)]);
    }
    if y.is_empty() {
        return;
    }
    if d.is_pointwise() && d.c_group() > 0 {
        return pointwise::forward(y, x, w, bias, d);
    }
    let (oh, ow) = (d.oh(), d.ow());
    let engine = Engine::choose(d, Direction::Forward);
    let sorted = if engine == Engine::Pixels { d.stride[1] } else { 1 };
    let (planes, taps) = source(d, sorted);
    let phase = Phase {
        grid: [oh, ow],
        source_step: [d.stride[0] * planes.padded[1], d.stride[1] / sorted],
        first: 0,
        step: [ow, 1],
        taps: (0..).zip(taps).map(|(weight, source)| Tap::new(source, weight, &planes)).collect(),
    };
    let sweep = Sweep {
        source: x,
        planes,
        images: d.n,
        groups: d.groups,
        out_channels: d.o_group(),
        weights: w,
        group_step: d.o_group() * d.taps(),
        channel_step: d.taps(),
        bias,
        phases: vec![phase],
        channel: oh * ow,
        write: Write::Set,
        multiply_adds: d.multiply_adds(),
        engine,
    };
    sweep.run(y);
}

/// The padded planes of one group of `x`, and where in them each tap, in the order of `w`, finds
/// the first pixel's element.
pub(super) fn source(d: &Conv2dDims, sorted: usize) -> (Planes, Vec<u32>) {
    let [kh, kw] = d.kernel;
    let reach = [(0, d.oh()), (1, d.ow())].map(|(axis, out)| {
        let last =
            out.saturating_sub(1) * d.stride[axis] + (d.kernel[axis] - 1) * d.dilation[axis] + 1;
        last.saturating_sub(d.padding[axis])
    });
    let planes = Planes::new(d.c_group(), [d.h, d.w], d.padding, reach, sorted);
    let offset = |t: usize| {
        let (c, i, j) = (t / (kh * kw), t / kw % kh, t % kw);
        let at = [(i, 0), (j, 1)]
            .map(|(k, axis)| (k * d.dilation[axis]) as isize - d.padding[axis] as isize);
        planes.offset(c, at)
    };
    (planes, (0..d.taps()).map(offset).collect())
}
