//! Path 1: 2 x 2 windows next to each other, without padding.
//!
//! Two image rows make one output row. Dealing each into its even and odd columns puts the four
//! corners of a vector of windows into four vectors, and pooling is arithmetic between those:
//!
//! ```text
//! image rows   a b a b a b ..     a a a ..   b b b ..
//!              c d c d c d ..     c c c ..   d d d ..     y = max(a, b, c, d)
//! ```
//!
//! A last image row or column without a partner belongs to no window.

use super::{Pool2dDims, back_up, better};
use crate::{
    Write,
    simd::{Simd, SimdKernel},
};

/// Max pooling of whole planes.
pub(super) struct Max<'a> {
    pub(super) y: &'a mut [f32],
    pub(super) codes: Option<&'a mut [u8]>,
    pub(super) x: &'a [f32],
    pub(super) d: &'a Pool2dDims,
}

impl SimdKernel for Max<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Max { y, mut codes, x, d } = self;
        let ow = d.ow();
        for (row, top, bottom) in row_pairs(x, d) {
            let mut from = 0;
            while from < ow {
                let ox = back_up::<S>(from, ow);
                let [a, b] = dealt(s, &top[2 * ox..]);
                let (top, top_code) = better(s, (b, s.splat(1.0)), (a, s.zero()));
                let [a, b] = dealt(s, &bottom[2 * ox..]);
                let (bottom, bottom_code) = better(s, (b, s.splat(3.0)), (a, s.splat(2.0)));
                let (max, code) = better(s, (bottom, bottom_code), (top, top_code));
                let out = row * ow + ox..(row + 1) * ow;
                s.write(&mut y[out.clone()], max);
                if let Some(codes) = &mut codes {
                    s.write_bytes(&mut codes[out], code);
                }
                from += S::LANES;
            }
        }
    }
}

/// Average pooling of whole planes.
pub(super) struct Avg<'a> {
    pub(super) y: &'a mut [f32],
    pub(super) x: &'a [f32],
    pub(super) d: &'a Pool2dDims,
}

impl SimdKernel for Avg<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ow = self.d.ow();
        for (row, top, bottom) in row_pairs(self.x, self.d) {
            let mut from = 0;
            while from < ow {
                let ox = back_up::<S>(from, ow);
                let [a, b] = dealt(s, &top[2 * ox..]);
                let [c, d] = dealt(s, &bottom[2 * ox..]);
                let sum = s.add(s.add(a, b), s.add(c, d));
                s.write(&mut self.y[row * ow + ox..(row + 1) * ow], s.mul(sum, s.splat(0.25)));
                from += S::LANES;
            }
        }
    }
}

/// The output rows of some planes, each with the two image rows that it pools, as far as it does.
#[inline(always)]
fn row_pairs<'a>(
    x: &'a [f32],
    d: &Pool2dDims,
) -> impl Iterator<Item = (usize, &'a [f32], &'a [f32])> {
    let (h, w, used) = (d.h, d.w, d.ow() * 2);
    let pairs = x.chunks_exact(h * w).flat_map(move |plane| plane.chunks_exact(2 * w));
    pairs.enumerate().map(move |(row, pair)| (row, &pair[..used], &pair[w..w + used]))
}

/// The even and the odd columns at the start of an image row, up to a vector of each.
#[inline(always)]
fn dealt<S: Simd>(s: S, row: &[f32]) -> [S::F32; 2] {
    let (even, odd) = if row.len() >= 2 * S::LANES {
        s.deinterleave(s.read(row), s.read(&row[S::LANES..2 * S::LANES]))
    } else {
        s.deinterleave(s.read(row), s.read(&row[S::LANES.min(row.len())..]))
    };
    [even, odd]
}

/// Both backward passes, for whole planes: with codes a gradient goes to the winner, without to all
/// in equal parts.
pub(super) struct Backward<'a> {
    pub(super) dx: &'a mut [f32],
    pub(super) write: Write,
    pub(super) dy: &'a [f32],
    pub(super) codes: Option<&'a [u8]>,
    pub(super) d: &'a Pool2dDims,
}

impl SimdKernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward { dx, write, dy, codes, d } = self;
        let (oh, ow, w) = (d.oh(), d.ow(), d.w);
        for (plane, dx) in dx.chunks_exact_mut(d.h * w).enumerate() {
            let (pairs, last_row) = dx.split_at_mut(oh * 2 * w);
            for (oy, pair) in pairs.chunks_exact_mut(2 * w).enumerate() {
                let (top, bottom) = pair.split_at_mut(w);
                let row = (plane * oh + oy) * ow;
                let mut from = 0;
                while from < ow {
                    // What is added to must be visited once only.
                    let ox = if write == Write::Set { back_up::<S>(from, ow) } else { from };
                    let out = row + ox..row + ow;
                    let g = s.read(&dy[out.clone()]);
                    let mut corners = [s.mul(g, s.splat(0.25)); 4];
                    if let Some(codes) = codes {
                        let code = s.read_bytes(&codes[out]);
                        for (place, corner) in corners.iter_mut().enumerate() {
                            *corner = s.select(s.eq(code, s.splat(place as f32)), g, s.zero());
                        }
                    }
                    let [a, b, c, d] = corners;
                    put(s, &mut top[2 * ox..2 * ow], write, s.interleave(a, b));
                    put(s, &mut bottom[2 * ox..2 * ow], write, s.interleave(c, d));
                    from += S::LANES;
                }
                if write == Write::Set {
                    top[2 * ow..].fill(0.0);
                    bottom[2 * ow..].fill(0.0);
                }
            }
            if write == Write::Set {
                last_row.fill(0.0);
            }
        }
    }
}

/// Writes two vectors, as far as they fit.
#[inline(always)]
fn put<S: Simd>(s: S, dx: &mut [f32], write: Write, (first, second): (S::F32, S::F32)) {
    if dx.len() >= 2 * S::LANES {
        // The same, but the compiler knows both lengths.
        put_one(s, &mut dx[..S::LANES], write, first);
        put_one(s, &mut dx[S::LANES..2 * S::LANES], write, second);
    } else {
        let (dx0, dx1) = dx.split_at_mut(S::LANES.min(dx.len()));
        put_one(s, dx0, write, first);
        put_one(s, dx1, write, second);
    }
}

#[inline(always)]
fn put_one<S: Simd>(s: S, dx: &mut [f32], write: Write, v: S::F32) {
    let v = if write == Write::Add { s.add(s.read(dx), v) } else { v };
    s.write(dx, v);
}
