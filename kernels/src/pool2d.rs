//! Max, average and global average pooling over image planes.
//!
//! A plane is one channel of one image; planes are independent and are what threads divide. Two
//! paths:
//!
//! 1. 2 x 2 windows side by side without padding, the usual case: two image rows make one output
//!    row. Dealing each row into its even and odd columns puts the four corners of a vector of
//!    windows into four vectors, and pooling is arithmetic between them.
//! 2. Anything else: a loop over windows clipped to the image.
//!
//! The backward pass of max pooling must know who won. One byte per output, the winner's place in
//! its window (its *code*), is an eighth of an array of indices and says the same.

use crate::{
    Write,
    isa::Isa,
    par::{self, Rows, Work},
    reduce,
    simd::{Simd, SimdKernel},
};
use std::ops::Range;

/// The shapes of a pooling layer: `x [n, c, h, w]`, `y [n, c, oh, ow]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2dDims {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Rows of an image.
    pub h: usize,
    /// Columns of an image.
    pub w: usize,
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Rows and columns around the image, on each side; at most half the window.
    pub padding: [usize; 2],
}

impl Pool2dDims {
    /// Rows of the output: as many windows as fit.
    pub fn oh(&self) -> usize {
        (self.h + 2 * self.padding[0] - self.kernel[0]) / self.stride[0] + 1
    }

    /// Columns of the output.
    pub fn ow(&self) -> usize {
        (self.w + 2 * self.padding[1] - self.kernel[1]) / self.stride[1] + 1
    }

    /// Length of `x`.
    pub fn x_len(&self) -> usize {
        self.n * self.c * self.h * self.w
    }

    /// Length of `y`.
    pub fn y_len(&self) -> usize {
        self.n * self.c * self.oh() * self.ow()
    }

    /// Panics unless the dimensions make sense and the slices fit them.
    #[track_caller]
    fn check(&self, op: &str, x: (&str, usize), y: (&str, usize), codes: Option<usize>) {
        for axis in 0..2 {
            let (k, s, p) = (self.kernel[axis], self.stride[axis], self.padding[axis]);
            let size = [self.h, self.w][axis];
            assert!(k > 0 && s > 0, "{op}: kernel and stride must be positive in {self:?}");
            assert!(2 * p <= k, "{op}: padding must be at most half the window in {self:?}");
            assert!(size + 2 * p >= k, "{op}: the window is larger than the image in {self:?}");
        }
        let lens = [(x.0, x.1, self.x_len()), (y.0, y.1, self.y_len())];
        for (name, len, expected) in lens {
            assert!(
                len == expected,
                "{op}: {name} has {len} values, {expected} expected by {self:?}"
            );
        }
        if let Some(len) = codes {
            let expected = self.y_len();
            assert!(
                len == expected,
                "{op}: codes has {len} bytes, {expected} expected by {self:?}"
            );
            let area = self.kernel[0] * self.kernel[1];
            assert!(area <= 256, "{op}: a window of {area} places does not fit a byte");
        }
    }

    /// Whether path 1 applies.
    fn side_by_side_2x2(&self) -> bool {
        self.kernel == [2, 2] && self.stride == [2, 2] && self.padding == [0, 0]
    }

    /// The parts of the window rows and columns of output `(oy, ox)` that lie inside the image,
    /// and the image's row and column at the window's (possibly padded) start, which may be
    /// "negative" and therefore wraps.
    fn window(&self, oy: usize, ox: usize) -> Window {
        let clip = |axis: usize, o: usize, size: usize| {
            let start = o * self.stride[axis];
            let pad = self.padding[axis];
            let inside = pad.saturating_sub(start)..self.kernel[axis].min(size + pad - start);
            (start.wrapping_sub(pad), inside)
        };
        let ((y, rows), (x, columns)) = (clip(0, oy, self.h), clip(1, ox, self.w));
        Window { y, x, rows, columns }
    }

    fn planes(&self) -> usize {
        self.n * self.c
    }
}

/// See [`Pool2dDims::window`].
struct Window {
    y: usize,
    x: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Window {
    /// The places inside the image as `(code, index in the plane)`, row by row.
    #[inline(always)]
    fn taps(self, d: &Pool2dDims) -> impl Iterator<Item = (usize, usize)> {
        let (w, kw) = (d.w, d.kernel[1]);
        self.rows.flat_map(move |ky| {
            let row = self.y.wrapping_add(ky) * w;
            let columns = self.columns.clone();
            columns.map(move |kx| (ky * kw + kx, row + self.x.wrapping_add(kx)))
        })
    }
}

/// `y` = the largest value of each window; NaN counts as larger than anything, padding as smaller.
///
/// `codes`, if asked for, gets the place of that value in its window, `ky * kw + kx`; of equal
/// values the first. y `[n, c, oh, ow]`, codes `[n, c, oh, ow]`, x `[n, c, h, w]`
///
/// # Panics
/// Like every kernel of this file: if the lengths don't fit the dimensions, or the dimensions are
/// impossible (window larger than the padded image, padding more than half the window, a zero).
/// With codes also if the window has more than 256 places.
#[track_caller]
pub fn max_forward(y: &mut [f32], codes: Option<&mut [u8]>, x: &[f32], d: &Pool2dDims) {
    d.check("max_pool2d", ("x", x.len()), ("y", y.len()), codes.as_deref().map(<[u8]>::len));
    let (image, out) = (d.h * d.w, d.oh() * d.ow());
    let data = (
        Rows { data: y, row: out },
        codes.map(|codes| Rows { data: codes, row: out }),
        Rows { data: x, row: image },
    );
    let isa = Isa::current();
    par::split(Work::Elements(x.len()), d.planes(), data, |planes, (y, codes, x)| {
        let (y, codes, x) = (y.data, codes.map(|codes| codes.data), x.data);
        if d.side_by_side_2x2() {
            return isa.dispatch(Max2x2 { y, codes, x, d });
        }
        let mut codes = codes;
        for plane in 0..planes.len() {
            let x = &x[plane * image..][..image];
            for (oy, ox) in outputs(d) {
                let (value, code) = largest(x, d, oy, ox);
                let at = plane * out + oy * d.ow() + ox;
                y[at] = value;
                if let Some(codes) = &mut codes {
                    codes[at] = code as u8;
                }
            }
        }
    });
}

fn outputs(d: &Pool2dDims) -> impl Iterator<Item = (usize, usize)> {
    let (oh, ow) = (d.oh(), d.ow());
    (0..oh).flat_map(move |oy| (0..ow).map(move |ox| (oy, ox)))
}

/// The largest value of a window and its code.
fn largest(x: &[f32], d: &Pool2dDims, oy: usize, ox: usize) -> (f32, usize) {
    let mut taps = d.window(oy, ox).taps(d);
    let (mut code, first) = taps.next().expect("padding is at most half a window");
    let mut value = x[first];
    for (place, index) in taps {
        if x[index] > value || x[index].is_nan() {
            (value, code) = (x[index], place);
        }
    }
    (value, code)
}

/// Path 1 of max pooling, for whole planes.
struct Max2x2<'a> {
    y: &'a mut [f32],
    codes: Option<&'a mut [u8]>,
    x: &'a [f32],
    d: &'a Pool2dDims,
}

impl SimdKernel for Max2x2<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Max2x2 { y, mut codes, x, d } = self;
        let ow = d.ow();
        // Where b beats a: `b > a`, or b is NaN.
        let beats = |b, a| s.or(s.gt(b, a), s.is_nan(b));
        for (row, top, bottom) in row_pairs(x, d) {
            for ox in (0..ow).step_by(S::LANES) {
                let [top_left, top_right] = dealt(s, top, ox);
                let [bottom_left, bottom_right] = dealt(s, bottom, ox);
                let right = beats(top_right, top_left);
                let top = s.select(right, top_right, top_left);
                let top_code = s.select(right, s.splat(1.0), s.zero());
                let right = beats(bottom_right, bottom_left);
                let bottom = s.select(right, bottom_right, bottom_left);
                let bottom_code = s.select(right, s.splat(3.0), s.splat(2.0));
                let below = beats(bottom, top);
                let out = row * ow + ox..(row + 1) * ow;
                s.write(&mut y[out.clone()], s.select(below, bottom, top));
                if let Some(codes) = &mut codes {
                    s.write_bytes(&mut codes[out], s.select(below, bottom_code, top_code));
                }
            }
        }
    }
}

/// The output rows of some planes, each with the two image rows that it pools. A last image row
/// or column without a partner is left out.
#[inline(always)]
fn row_pairs<'a>(
    x: &'a [f32],
    d: &Pool2dDims,
) -> impl Iterator<Item = (usize, &'a [f32], &'a [f32])> {
    let (h, w, used) = (d.h, d.w, d.ow() * 2);
    let pairs = x.chunks_exact((h * w).max(1)).flat_map(move |plane| plane.chunks_exact(2 * w));
    pairs.enumerate().map(move |(row, pair)| (row, &pair[..used], &pair[w..w + used]))
}

/// The left and right columns of the windows from output column `ox`, up to a vector of each.
#[inline(always)]
fn dealt<S: Simd>(s: S, row: &[f32], ox: usize) -> [S::F32; 2] {
    let (first, second) = (2 * ox, (2 * ox + S::LANES).min(row.len()));
    s.deinterleave(s.read(&row[first..]), s.read(&row[second..])).into()
}

/// `dx` = each output's gradient at the place that won it, 0 elsewhere.
///
/// dx `[n, c, h, w]`, dy `[n, c, oh, ow]`, codes `[n, c, oh, ow]` from [`max_forward`]
///
/// # Panics
/// As [`max_forward`]; also if a code lies outside of its window or in the padding.
#[track_caller]
pub fn max_backward(dx: &mut [f32], write: Write, dy: &[f32], codes: &[u8], d: &Pool2dDims) {
    d.check("max_pool2d_backward", ("dx", dx.len()), ("dy", dy.len()), Some(codes.len()));
    backward(dx, write, dy, Some(codes), d);
}

/// `y` = the mean of each window, padding included as zeros (PyTorch's `count_include_pad`).
///
/// y `[n, c, oh, ow]`, x `[n, c, h, w]`
#[track_caller]
pub fn avg_forward(y: &mut [f32], x: &[f32], d: &Pool2dDims) {
    d.check("avg_pool2d", ("x", x.len()), ("y", y.len()), None);
    let (image, out) = (d.h * d.w, d.oh() * d.ow());
    let data = (Rows { data: y, row: out }, Rows { data: x, row: image });
    let isa = Isa::current();
    par::split(Work::Elements(x.len()), d.planes(), data, |planes, (y, x)| {
        let (y, x) = (y.data, x.data);
        if d.side_by_side_2x2() {
            return isa.dispatch(Avg2x2 { y, x, d });
        }
        let area = (d.kernel[0] * d.kernel[1]) as f32;
        for plane in 0..planes.len() {
            let x = &x[plane * image..][..image];
            for (oy, ox) in outputs(d) {
                let sum: f32 = d.window(oy, ox).taps(d).map(|(_, index)| x[index]).sum();
                y[plane * out + oy * d.ow() + ox] = sum / area;
            }
        }
    });
}

/// Path 1 of average pooling, for whole planes.
struct Avg2x2<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    d: &'a Pool2dDims,
}

impl SimdKernel for Avg2x2<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ow = self.d.ow();
        for (row, top, bottom) in row_pairs(self.x, self.d) {
            for ox in (0..ow).step_by(S::LANES) {
                let ([a, b], [c, d]) = (dealt(s, top, ox), dealt(s, bottom, ox));
                let sum = s.add(s.add(a, b), s.add(c, d));
                s.write(&mut self.y[row * ow + ox..(row + 1) * ow], s.mul(sum, s.splat(0.25)));
            }
        }
    }
}

/// `dx` = each output's gradient divided over its window.
///
/// dx `[n, c, h, w]`, dy `[n, c, oh, ow]`
#[track_caller]
pub fn avg_backward(dx: &mut [f32], write: Write, dy: &[f32], d: &Pool2dDims) {
    d.check("avg_pool2d_backward", ("dx", dx.len()), ("dy", dy.len()), None);
    backward(dx, write, dy, None, d);
}

/// Both backward passes: with codes a gradient goes to the winner, without to all in equal parts.
fn backward(dx: &mut [f32], write: Write, dy: &[f32], codes: Option<&[u8]>, d: &Pool2dDims) {
    let (image, out) = (d.h * d.w, d.oh() * d.ow());
    let data = (
        Rows { data: dx, row: image },
        Rows { data: dy, row: out },
        codes.map(|codes| Rows { data: codes, row: out }),
    );
    let isa = Isa::current();
    par::split(Work::Elements(d.x_len()), d.planes(), data, |planes, (dx, dy, codes)| {
        let (dx, dy, codes) = (dx.data, dy.data, codes.map(|codes| codes.data));
        if d.side_by_side_2x2() {
            return isa.dispatch(Backward2x2 { dx, write, dy, codes, d });
        }
        if write == Write::Set {
            dx.fill(0.0);
        }
        let share = 1.0 / (d.kernel[0] * d.kernel[1]) as f32;
        for plane in 0..planes.len() {
            let dx = &mut dx[plane * image..][..image];
            for (oy, ox) in outputs(d) {
                let at = plane * out + oy * d.ow() + ox;
                let window = d.window(oy, ox);
                match codes {
                    Some(codes) => dx[window.index_of(codes[at], d)] += dy[at],
                    None => window.taps(d).for_each(|(_, index)| dx[index] += share * dy[at]),
                }
            }
        }
    });
}

impl Window {
    /// The index in the plane of the place that `code` stands for.
    fn index_of(&self, code: u8, d: &Pool2dDims) -> usize {
        let (ky, kx) = (usize::from(code) / d.kernel[1], usize::from(code) % d.kernel[1]);
        assert!(
            self.rows.contains(&ky) && self.columns.contains(&kx),
            "max_pool2d_backward: code {code} lies outside of its window; codes must be max_forward's"
        );
        self.y.wrapping_add(ky) * d.w + self.x.wrapping_add(kx)
    }
}

/// Path 1 of both backward passes, for whole planes.
struct Backward2x2<'a> {
    dx: &'a mut [f32],
    write: Write,
    dy: &'a [f32],
    codes: Option<&'a [u8]>,
    d: &'a Pool2dDims,
}

impl SimdKernel for Backward2x2<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward2x2 { dx, write, dy, codes, d } = self;
        let (ow, w) = (d.ow(), d.w);
        for (plane, dx) in dx.chunks_exact_mut((d.h * w).max(1)).enumerate() {
            for (oy, pair) in dx.chunks_mut(2 * w).enumerate() {
                let (top, bottom) = pair.split_at_mut(w);
                if bottom.is_empty() {
                    // The last of an odd number of rows belongs to no window.
                    if write == Write::Set {
                        top.fill(0.0);
                    }
                    continue;
                }
                let row = (plane * d.oh() + oy) * ow;
                for ox in (0..ow).step_by(S::LANES) {
                    let out = row + ox..row + ow;
                    let g = s.read(&dy[out.clone()]);
                    let [a, b, c, d] = match codes {
                        None => [s.mul(g, s.splat(0.25)); 4],
                        Some(codes) => {
                            let code = s.read_bytes(&codes[out]);
                            [0.0, 1.0, 2.0, 3.0]
                                .map(|place| s.select(s.eq(code, s.splat(place)), g, s.zero()))
                        }
                    };
                    put(s, &mut top[2 * ox..2 * ow], write, s.interleave(a, b));
                    put(s, &mut bottom[2 * ox..2 * ow], write, s.interleave(c, d));
                }
                if write == Write::Set {
                    // Likewise the last of an odd number of columns.
                    top[2 * ow..].fill(0.0);
                    bottom[2 * ow..].fill(0.0);
                }
            }
        }
    }
}

/// Writes two vectors, as far as they fit.
#[inline(always)]
fn put<S: Simd>(s: S, dx: &mut [f32], write: Write, (first, second): (S::F32, S::F32)) {
    let (dx0, dx1) = dx.split_at_mut(S::LANES.min(dx.len()));
    for (dx, v) in [(dx0, first), (dx1, second)] {
        let v = if write == Write::Add { s.add(s.read(dx), v) } else { v };
        s.write(dx, v);
    }
}

/// `y` = the mean of each plane. y `[rows]`, x `[rows, hw]`; the rows are images times channels.
///
/// # Panics
/// If the lengths don't fit.
#[track_caller]
pub fn global_avg_forward(y: &mut [f32], x: &[f32], rows: usize, hw: usize) {
    check_global("global_avg_pool2d", ("x", x.len()), ("y", y.len()), rows, hw);
    let data = (y, Rows { data: x, row: hw });
    let isa = Isa::current();
    par::split(Work::Elements(x.len()), rows, data, |_, (y, x)| {
        for (row, y) in y.iter_mut().enumerate() {
            let sum = reduce::sum_run(isa, &x.data[row * hw..][..hw]);
            *y = (sum / hw as f64) as f32;
        }
    });
}

/// `dx` = each plane's gradient divided over the plane. dx `[rows, hw]`, dy `[rows]`
///
/// # Panics
/// If the lengths don't fit.
#[track_caller]
pub fn global_avg_backward(dx: &mut [f32], write: Write, dy: &[f32], rows: usize, hw: usize) {
    check_global("global_avg_pool2d_backward", ("dx", dx.len()), ("dy", dy.len()), rows, hw);
    let data = (Rows { data: dx, row: hw }, dy);
    par::split(Work::Elements(rows * hw), rows, data, |_, (dx, dy)| {
        for (row, dy) in dy.iter().enumerate() {
            let (dx, share) = (&mut dx.data[row * hw..][..hw], dy / hw as f32);
            match write {
                Write::Set => dx.fill(share),
                Write::Add => dx.iter_mut().for_each(|dx| *dx += share),
            }
        }
    });
}

#[track_caller]
fn check_global(op: &str, x: (&str, usize), y: (&str, usize), rows: usize, hw: usize) {
    for ((name, len), expected) in [(x, rows * hw), (y, rows)] {
        assert!(
            len == expected,
            "{op}: {name} has {len} values, {expected} expected by {rows} planes of {hw}"
        );
    }
}
