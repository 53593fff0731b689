//! Max, average and global average pooling over image planes.
//!
//! A plane is one channel of one image; planes are independent and are what threads divide. Two
//! paths:
//!
//! 1. 2 x 2 windows side by side without padding, the usual case: two image rows make one output
//!    row. Dealing each row into its even and odd columns puts the four corners of a vector of
//!    windows into four vectors, and pooling is arithmetic between them.
//! 2. Anything else: a vector of neighbouring windows at a time, place by place. Windows that
//!    reach into the padding on the left or right go one by one, and so does the backward pass.
//!
//! The backward pass of max pooling must know who won. One byte per output, the winner's place in
//! its window (its *code*), is an eighth of an array of indices and says the same.

use crate::{
    Write,
    isa::Isa,
    par::{self, Rows, Work},
    reduce,
    simd::{MAX_LANES, Simd, SimdKernel},
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

    /// The part of a window that lies inside the image.
    #[inline(always)]
    fn window(&self, oy: usize, ox: usize) -> Window {
        let ((y, rows), (x, columns)) = (self.clip(0, oy), self.clip(1, ox));
        Window { y, x, rows, columns }
    }

    /// Along one axis, the image's index of the window's start, which wraps around if that lies in
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
    par::split(Work::Elements(x.len()), d.planes(), data, |_, (y, codes, x)| {
        let (y, codes, x) = (y.data, codes.map(|codes| codes.data), x.data);
        if d.side_by_side_2x2() {
            isa.dispatch(Max2x2 { y, codes, x, d });
        } else {
            isa.dispatch(Forward { y, codes, x, max: true, d });
        }
    });
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
        for (row, top, bottom) in row_pairs(x, d) {
            let mut from = 0;
            while from < ow {
                let ox = back_up::<S>(from, ow);
                let [a, b] = dealt(s, top, ox);
                let (top, top_code) = better(s, (b, s.splat(1.0)), (a, s.zero()));
                let [a, b] = dealt(s, bottom, ox);
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

/// The value and code of `new` where it beats `old`: where it is larger, or NaN.
#[inline(always)]
fn better<S: Simd>(s: S, new: (S::F32, S::F32), old: (S::F32, S::F32)) -> (S::F32, S::F32) {
    let beats = s.or(s.gt(new.0, old.0), s.is_nan(new.0));
    (s.select(beats, new.0, old.0), s.select(beats, new.1, old.1))
}

/// Where to start the vector at `from`: earlier if it would reach beyond `end` otherwise. Doing a
/// few outputs twice is quicker than writing part of a vector.
#[inline(always)]
fn back_up<S: Simd>(from: usize, end: usize) -> usize {
    if end < S::LANES { from } else { from.min(end - S::LANES) }
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
    let (left, right) = s.deinterleave(s.read(&row[first..]), s.read(&row[second..]));
    [left, right]
}

/// Path 2 of max and average pooling, for whole planes.
struct Forward<'a> {
    y: &'a mut [f32],
    codes: Option<&'a mut [u8]>,
    x: &'a [f32],
    max: bool,
    d: &'a Pool2dDims,
}

impl SimdKernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Forward { y, mut codes, x, max, d } = self;
        let (image, ow, whole) = (d.h * d.w, d.ow(), d.whole_columns());
        let share = if max { 1.0 } else { 1.0 / (d.kernel[0] * d.kernel[1]) as f32 };
        for (row, y) in y.chunks_exact_mut(ow).enumerate() {
            let (x, oy) = (&x[row / d.oh() * image..][..image], row % d.oh());
            let mut from = 0;
            while from < ow {
                let lanes = if whole.contains(&from) { S::LANES.min(whole.end - from) } else { 1 };
                let (value, code) = pool(s, x, d, d.window(oy, from), lanes, max);
                let y = &mut y[from..from + lanes];
                s.write(y, s.mul(value, s.splat(share)));
                if let Some(codes) = &mut codes {
                    s.write_bytes(&mut codes[row * ow + from..][..lanes], code);
                }
                from += lanes;
            }
        }
    }
}

/// The maximum and its code, or the sum, of a window and its right neighbours, `lanes` in all, which
/// have the same places inside the image.
#[inline(always)]
fn pool<S: Simd>(
    s: S,
    x: &[f32],
    d: &Pool2dDims,
    window: Window,
    lanes: usize,
    max: bool,
) -> (S::F32, S::F32) {
    let stride = d.stride[1];
    let mut result = (s.zero(), s.zero());
    let mut first = max;
    for ky in window.rows {
        let row = &x[window.y.wrapping_add(ky) * d.w..][..d.w];
        for kx in window.columns.clone() {
            let values = every_nth(s, &row[window.x.wrapping_add(kx)..], stride, lanes);
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

/// `x[0], x[stride], x[2 stride], ..`: that many lanes, or more.
#[inline(always)]
fn every_nth<S: Simd>(s: S, x: &[f32], stride: usize, lanes: usize) -> S::F32 {
    if lanes == 1 {
        return s.splat(x[0]);
    }
    match stride {
        1 => s.read(x),
        2 => s.deinterleave(s.read(x), s.read(&x[S::LANES.min(x.len())..])).0,
        _ => {
            let mut gathered = [0.0; MAX_LANES];
            for (lane, x) in gathered.iter_mut().zip(x.iter().step_by(stride)).take(lanes) {
                *lane = *x;
            }
            s.read(&gathered)
        }
    }
}

/// `dx` = each output's gradient at the place that won it, 0 elsewhere.
///
/// dx `[n, c, h, w]`, dy `[n, c, oh, ow]`, codes `[n, c, oh, ow]` from [`max_forward`]
///
/// # Panics
/// As [`max_forward`]; also if a code leads outside of the plane, which none of its does.
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
    par::split(Work::Elements(x.len()), d.planes(), data, |_, (y, x)| {
        let (y, x) = (y.data, x.data);
        if d.side_by_side_2x2() {
            isa.dispatch(Avg2x2 { y, x, d });
        } else {
            isa.dispatch(Forward { y, codes: None, x, max: false, d });
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
            let mut from = 0;
            while from < ow {
                let ox = back_up::<S>(from, ow);
                let ([a, b], [c, d]) = (dealt(s, top, ox), dealt(s, bottom, ox));
                let sum = s.add(s.add(a, b), s.add(c, d));
                s.write(&mut self.y[row * ow + ox..(row + 1) * ow], s.mul(sum, s.splat(0.25)));
                from += S::LANES;
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
    par::split(Work::Elements(d.x_len()), d.planes(), data, |_, (dx, dy, codes)| {
        let (dx, dy, codes) = (dx.data, dy.data, codes.map(|codes| codes.data));
        if d.side_by_side_2x2() {
            return isa.dispatch(Backward2x2 { dx, write, dy, codes, d });
        }
        if write == Write::Set {
            dx.fill(0.0);
        }
        let planes = dx.chunks_exact_mut(image.max(1)).zip(dy.chunks_exact(out));
        for (plane, (dx, dy)) in planes.enumerate() {
            match codes {
                Some(codes) => give_to_winners(dx, dy, &codes[plane * out..][..out], d),
                None => share_out(dx, dy, d),
            }
        }
    });
}

/// Path 2 of [`max_backward`] for one plane.
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

/// Path 2 of [`avg_backward`] for one plane.
fn share_out(dx: &mut [f32], dy: &[f32], d: &Pool2dDims) {
    let share = 1.0 / (d.kernel[0] * d.kernel[1]) as f32;
    for (oy, dy) in dy.chunks_exact(d.ow()).enumerate() {
        for (ox, dy) in dy.iter().enumerate() {
            let window = d.window(oy, ox);
            for ky in window.rows {
                let row = &mut dx[window.y.wrapping_add(ky) * d.w..][..d.w];
                for kx in window.columns.clone() {
                    row[window.x.wrapping_add(kx)] += share * dy;
                }
            }
        }
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
