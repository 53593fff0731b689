//! `dx` from `dy` and `w`: a convolution of `dy` with the kernel turned around.
//!
//! An input row `xh` meets output row `yh` through kernel row `i` where `yh s - p + i d = xh`.
//! Write `xh = a + s t` with a phase `a < s`: then `yh = t + (a + p - i d) / s`, and only the
//! kernel rows for which that division is exact take part. So for each of the `s x s` phases `dx`
//! is a convolution of stride 1 with its own few taps.
//!
//! A 1 x 1 kernel of stride 1 without padding is a matrix product ([`pointwise`]). All else becomes
//! a [`Sweep`] over `dy` with one [`Phase`] for each of these; only Winograd's products have one
//! phase for any stride.

use super::{
    Conv2dDims,
    planes::Planes,
    pointwise,
    sweep::{Direction, Engine, Phase, Sweep, Tap},
};
use crate::Write;

/// The gradient `dx [n, c, h, w]` from `dy [n, o, oh, ow]` and `w [o, c / groups, kh, kw]`.
///
/// # Panics
/// If a slice has another length than `d` says, or `d` is no convolution (see [`Conv2dDims`]).
#[track_caller]
pub fn backward_input(dx: &mut [f32], write: Write, dy: &[f32], w: &[f32], d: &Conv2dDims) {
    d.check("backward_input");
    d.check_lengths(
        "backward_input",
        &[("dx", dx.len(), d.x_len()), ("dy", dy.len(), d.y_len()), ("w", w.len(), d.w_len())],
    );
    if dx.is_empty() {
        return;
    }
    if dy.is_empty() {
        if write == Write::Set {
            dx.fill(0.0);
        }
        return;
    }
    if d.is_pointwise() {
        return pointwise::backward_input(dx, write, dy, w, d);
    }
    let (oh, ow, [kh, kw]) = (d.oh(), d.ow(), d.kernel);
    let engine = Engine::choose(d, Direction::BackwardInput);
    // Winograd's products bring the stride themselves.
    let winograd = matches!(engine, Engine::Winograd(_));
    let stride = if winograd { [1, 1] } else { d.stride };
    let phased = Conv2dDims { stride, ..*d };
    let [rows, cols] = [axis_phases(&phased, 0, d.h), axis_phases(&phased, 1, d.w)];
    let before = [before(&rows), before(&cols)];
    let planes = Planes::new(d.o_group(), [oh, ow], before, [reach(&rows), reach(&cols)], 1);
    let mut phases = Vec::with_capacity(rows.len() * cols.len());
    for row in &rows {
        for col in &cols {
            let taps = (0..d.o_group()).flat_map(|o| {
                row.taps.iter().flat_map(move |&(i, yh)| {
                    col.taps.iter().map(move |&(j, yw)| {
                        let weight = o * d.taps() + i * kw + j;
                        Tap::new(planes.offset(o, [yh, yw]), weight as u32, &planes)
                    })
                })
            });
            phases.push(Phase {
                grid: [row.count, col.count],
                source_step: [planes.padded[1], 1],
                first: row.phase * d.w + col.phase,
                step: [stride[0] * d.w, stride[1]],
                taps: taps.collect(),
            });
        }
    }
    let sweep = Sweep {
        source: dy,
        planes,
        images: d.n,
        groups: d.groups,
        out_channels: d.c_group(),
        weights: w,
        group_step: d.o_group() * d.taps(),
        channel_step: kh * kw,
        bias: None,
        phases,
        channel: d.h * d.w,
        write,
        multiply_adds: d.multiply_adds(),
        engine,
    };
    sweep.run(dx);
}

/// The input rows (or columns) `phase + stride * t`, for `t < count`.
struct AxisPhase {
    phase: usize,
    count: usize,
    /// Kernel rows that take part, with the output row they meet at `t = 0`.
    taps: Vec<(usize, isize)>,
}

fn axis_phases(d: &Conv2dDims, axis: usize, size: usize) -> Vec<AxisPhase> {
    let stride = d.stride[axis];
    let phase = |phase: usize| {
        let taps = (0..d.kernel[axis]).filter_map(|i| {
            let at = (phase + d.padding[axis]) as isize - (i * d.dilation[axis]) as isize;
            (at.rem_euclid(stride as isize) == 0).then(|| (i, at.div_euclid(stride as isize)))
        });
        AxisPhase { phase, count: (size - phase).div_ceil(stride), taps: taps.collect() }
    };
    (0..stride.min(size)).map(phase).collect()
}

/// Zeros needed before the first output row.
fn before(phases: &[AxisPhase]) -> usize {
    let first = phases.iter().flat_map(|p| &p.taps).map(|&(_, at)| at).min().unwrap_or(0);
    first.min(0).unsigned_abs()
}

/// One more than the last output row that is read.
fn reach(phases: &[AxisPhase]) -> usize {
    let last = phases
        .iter()
        .flat_map(|p| p.taps.iter().map(|&(_, at)| at + p.count as isize))
        .max()
        .unwrap_or(0);
    last.max(0).unsigned_abs()
}
