//! Path 2: windows of any size, anywhere.
//!
//! Forward, a vector holds neighbouring windows of an output row and visits their places together,
//! which takes windows that don't reach into the padding on the left or right; those that do go
//! one by one. Backward, one by one. Fast paths: strides of 1 and 2 along the rows are loads and
//! deinterleaved loads; others are gathered.

use super::{Pool2dDims, back_up, better};
use crate::{
    Write,
    simd::{MAX_LANES, Simd, SimdKernel},
};
use std::ops::Range;

impl Pool2dDims {
    /// Along one axis, the image's index of a window's start, which wraps around if that lies in
    /// the padding, and the places of the window that lie inside the image.
    #[inline(always)]
    fn clip(&self, axis: usize, out: usize) -> (usize, Range<usize>) {
        let size = [self.h, self.w][axis];
        let (start, pad) = (out * self.stride[axis], self.padding[axis]);
        let inside = pad.saturating_sub(start)..self.kernel[axis].min(size + pad - start);
        (start.wrapping_sub(pad), inside)
    }

    /// The output columns whose windows touch no padding on the left or right.
    fn whole_columns(&self) -> Range<usize> {
        let (k, s, p) = (self.kernel[1], self.stride[1], self.padding[1]);
        let first = p.div_ceil(s).min(self.ow());
        let end = (self.w + p).checked_sub(k).map_or(0, |last| last / s + 1);
        first..end.clamp(first, self.ow())
    }
}

/// Max and average pooling of whole planes.
pub(super) struct Forward<'a> {
    pub(super) y: &'a mut [f32],
    pub(super) codes: Option<&'a mut [u8]>,
    pub(super) x: &'a [f32],
    pub(super) max: bool,
    pub(super) d: &'a Pool2dDims,
}

impl SimdKernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.d.stride[1] {
            1 => self.planes::<S, 1>(s),
            2 => self.planes::<S, 2>(s),
            _ => self.planes::<S, 0>(s),
        }
    }
}

impl Forward<'_> {
    /// `STRIDE` is that of the columns, or 0 if it is known only at run time.
    #[inline(always)]
    fn planes<S: Simd, const STRIDE: usize>(self, s: S) {
        let Forward { y, mut codes, x, max, d } = self;
        let (image, ow, whole) = (d.h * d.w, d.ow(), d.whole_columns());
        let share = s.splat(if max { 1.0 } else { 1.0 / (d.kernel[0] * d.kernel[1]) as f32 });
        for (row, y) in y.chunks_exact_mut(ow).enumerate() {
            let (x, oy) = (&x[row / d.oh() * image..][..image], row % d.oh());
            let codes = codes.as_mut().map(|codes| &mut codes[row * ow..][..ow]);
            let codes = codes.unwrap_or_default();
            for ox in (0..whole.start).chain(whole.end..ow) {
                let (value, code) =
                    if max { largest(x, d, oy, ox) } else { (mean(x, d, oy, ox), 0) };
                y[ox] = value;
                if let Some(slot) = codes.get_mut(ox) {
                    *slot = code;
                }
            }
            let mut from = whole.start;
            while from < whole.end {
                let ox = back_up::<S>(from, whole.end).max(whole.start);
                let (value, code) = pool::<S, STRIDE>(s, x, d, oy, ox, max);
                s.write(&mut y[ox..whole.end], s.mul(value, share));
                if !codes.is_empty() {
                    s.write_bytes(&mut codes[ox..whole.end], code);
                }
                from = ox + S::LANES;
            }
        }
    }
}

/// The maximum and its code, or the sum, of a vector of windows from `ox`, none of which reaches
/// into the padding on the left or right.
#[inline(always)]
fn pool<S: Simd, const STRIDE: usize>(
    s: S,
    x: &[f32],
    d: &Pool2dDims,
    oy: usize,
    ox: usize,
    max: bool,
) -> (S::F32, S::F32) {
    let (y0, rows) = d.clip(0, oy);
    let x0 = ox * d.stride[1] - d.padding[1];
    let mut result = (s.zero(), s.zero());
    let mut first = max;
    for ky in rows {
        let row = &x[y0.wrapping_add(ky) * d.w + x0..];
        for kx in 0..d.kernel[1] {
            let values = every_nth::<S, STRIDE>(s, &row[kx..], d.stride[1]);
            let candidate = (values, s.splat((ky * d.kernel[1] + kx) as f32));
            if !max {
                result.0 = s.add(result.0, values);
            } else if first {
                result = candidate;
                first = false;
            } else {
                result = better(s, candidate, result);
            }
        }
    }
    result
}

/// `x[0], x[stride], x[2 stride], ..`, as far as there are.
#[inline(always)]
fn every_nth<S: Simd, const STRIDE: usize>(s: S, x: &[f32], stride: usize) -> S::F32 {
    match STRIDE {
        1 => s.read(x),
        2 if x.len() >= 2 * S::LANES => {
            s.deinterleave(s.read(x), s.read(&x[S::LANES..2 * S::LANES])).0
        }
        2 => s.deinterleave(s.read(x), s.read(&x[S::LANES.min(x.len())..])).0,
        _ => {
            let mut gathered = [0.0; MAX_LANES];
            for (lane, x) in gathered[..S::LANES].iter_mut().zip(x.iter().step_by(stride)) {
                *lane = *x;
            }
            s.read(&gathered)
        }
    }
}

/// The largest value of one window, and its code.
fn largest(x: &[f32], d: &Pool2dDims, oy: usize, ox: usize) -> (f32, u8) {
    let ((y0, rows), (x0, columns)) = (d.clip(0, oy), d.clip(1, ox));
    let mut best = None;
    for ky in rows {
        for kx in columns.clone() {
            let value = x[y0.wrapping_add(ky) * d.w + x0.wrapping_add(kx)];
            match best {
                Some((largest, _)) if !(value > largest || value.is_nan()) => {}
                _ => best = Some((value, ky * d.kernel[1] + kx)),
            }
        }
    }
    let (value, code) = best.expect("with padding of at most half a window, each has image in it");
    (value, code as u8)
}

/// The mean of one window.
fn mean(x: &[f32], d: &Pool2dDims, oy: usize, ox: usize) -> f32 {
    let ((y0, rows), (x0, columns)) = (d.clip(0, oy), d.clip(1, ox));
    let mut sum = 0.0;
    for ky in rows {
        for kx in columns.clone() {
            sum += x[y0.wrapping_add(ky) * d.w + x0.wrapping_add(kx)];
        }
    }
    sum / (d.kernel[0] * d.kernel[1]) as f32
}

/// Both backward passes, for whole planes: with codes a gradient goes to the winner, without to all
/// in equal parts.
pub(super) fn backward(
    dx: &mut [f32],
    write: Write,
    dy: &[f32],
    codes: Option<&[u8]>,
    d: &Pool2dDims,
) {
    if write == Write::Set {
        dx.fill(0.0);
    }
    let (image, out) = (d.h * d.w, d.oh() * d.ow());
    let planes = dx.chunks_exact_mut(image).zip(dy.chunks_exact(out));
    for (plane, (dx, dy)) in planes.enumerate() {
        match codes {
            Some(codes) => give_to_winners(dx, dy, &codes[plane * out..][..out], d),
            None => share_out(dx, dy, d),
        }
    }
}

fn give_to_winners(dx: &mut [f32], dy: &[f32], codes: &[u8], d: &Pool2dDims) {
    // Where each place lies, seen from the start of its window.
    let mut places = [0; 256];
    let area = d.kernel[0] * d.kernel[1];
    for (code, place) in places[..area].iter_mut().enumerate() {
        *place = code / d.kernel[1] * d.w + code % d.kernel[1];
    }
    let rows = dy.chunks_exact(d.ow()).zip(codes.chunks_exact(d.ow())).enumerate();
    for (oy, (dy, codes)) in rows {
        let row = (oy * d.stride[0]).wrapping_sub(d.padding[0]).wrapping_mul(d.w);
        let mut start = row.wrapping_sub(d.padding[1]);
        for (dy, &code) in dy.iter().zip(codes) {
            dx[start.wrapping_add(places[usize::from(code)])] += dy;
            start = start.wrapping_add(d.stride[1]);
        }
    }
}

fn share_out(dx: &mut [f32], dy: &[f32], d: &Pool2dDims) {
    let share = 1.0 / (d.kernel[0] * d.kernel[1]) as f32;
    for (oy, dy) in dy.chunks_exact(d.ow()).enumerate() {
        let (y0, rows) = d.clip(0, oy);
        for (ox, dy) in dy.iter().enumerate() {
            let (x0, columns) = d.clip(1, ox);
            for ky in rows.clone() {
                for kx in columns.clone() {
                    dx[y0.wrapping_add(ky) * d.w + x0.wrapping_add(kx)] += share * dy;
                }
            }
        }
    }
}
