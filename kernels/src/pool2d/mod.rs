//! Max, average and global average pooling over image planes.
//!
//! A plane is one channel of one image; planes are independent and are what threads divide. Two
//! paths:
//!
//! 1. [`side_by_side`]: 2 x 2 windows next to each other without padding, the usual case.
//! 2. [`anywhere`]: all other windows.
//!
//! The backward pass of max pooling must know who won. One byte per output, the winner's place in
//! its window (its *code*, `ky * kw + kx`), is an eighth of an array of indices and says the same.

use crate::{
    Write,
    isa::Isa,
    par::{self, Rows, Work},
    reduce,
    simd::Simd,
};

mod anywhere;
mod side_by_side;

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
    ///
    /// # Panics
    /// If it is beyond `usize`.
    pub fn x_len(&self) -> usize {
        crate::elements(&[self.n, self.c, self.h, self.w])
    }

    /// Length of `y`.
    ///
    /// # Panics
    /// If it is beyond `usize`, or the window is larger than the padded image.
    pub fn y_len(&self) -> usize {
        crate::elements(&[self.n, self.c, self.oh(), self.ow()])
    }

    /// Panics unless the dimensions make sense and the slices fit them.
    #[track_caller]
    fn check(&self, op: &str, x: (&str, usize), y: (&str, usize), codes: Option<usize>) {
        for axis in 0..2 {
            let (k, s, p) = (self.kernel[axis], self.stride[axis], self.padding[axis]);
            let size = [self.h, self.w][axis];
            assert!(k > 0 && s > 0, "{op}: kernel and stride must be positive in {self:?}");
            assert!(p <= k / 2, "{op}: padding must be at most half the window in {self:?}");
            let fits = size > 0 && size.saturating_add(2 * p) >= k;
            assert!(fits, "{op}: the window is larger than the image in {self:?}");
        }
        let lens = [(x.0, x.1, self.x_len()), (y.0, y.1, self.y_len())];
        for (name, len, expected) in lens {
            assert!(
                len == expected,
                "{op}: {name} has {len} values, {expected} expected by {self:?}"
            );
        }
        let area = crate::elements(&self.kernel);
        if let Some(len) = codes {
            let expected = self.y_len();
            assert!(
                len == expected,
                "{op}: codes has {len} bytes, {expected} expected by {self:?}"
            );
            assert!(area <= 256, "{op}: a window of {area} places does not fit a byte");
        }
    }

    /// Whether path 1 applies.
    fn side_by_side_2x2(&self) -> bool {
        self.kernel == [2, 2] && self.stride == [2, 2] && self.padding == [0, 0]
    }

    fn planes(&self) -> usize {
        self.n * self.c
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
    par::split(Work::Elements(x.len()), d.planes(), data, |_, (y, codes, x)| {
        let (y, codes, x) = (y.data, codes.map(|codes| codes.data), x.data);
        if d.side_by_side_2x2() {
            isa.dispatch(side_by_side::Max { y, codes, x, d });
        } else {
            isa.dispatch(anywhere::Forward { y, codes, x, max: true, d });
        }
    });
}

/// `dx` = each output's gradient at the place that won it, 0 elsewhere.
///
/// dx `[n, c, h, w]`, dy `[n, c, oh, ow]`, codes `[n, c, oh, ow]` from [`max_forward`]
///
/// # Panics
/// As [`max_forward`]. Codes that it did not write may panic, or lose gradients.
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
            isa.dispatch(side_by_side::Avg { y, x, d });
        } else {
            isa.dispatch(anywhere::Forward { y, codes: None, x, max: false, d });
        }
    });
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
            isa.dispatch(side_by_side::Backward { dx, write, dy, codes, d });
        } else {
            anywhere::backward(dx, write, dy, codes, d);
        }
    });
}

/// The value and code of `new` where it beats `old`: where it is larger, or NaN.
#[inline(always)]
fn better<S: Simd>(s: S, new: (S::F32, S::F32), old: (S::F32, S::F32)) -> (S::F32, S::F32) {
    let beats = s.or(s.gt(new.0, old.0), s.is_nan(new.0));
    (s.select(beats, new.0, old.0), s.select(beats, new.1, old.1))
}

/// Where to start the vector at `from`: earlier if it would reach beyond `end` otherwise. Writing a
/// few outputs twice is quicker than writing part of a vector.
#[inline(always)]
fn back_up<S: Simd>(from: usize, end: usize) -> usize {
    if end < S::LANES { from } else { from.min(end - S::LANES) }
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
    for ((name, len), expected) in [(x, crate::elements(&[rows, hw])), (y, rows)] {
        assert!(
            len == expected,
            "{op}: {name} has {len} values, {expected} expected by {rows} planes of {hw}"
        );
    }
}
