//! Softmax, its logarithm, and cross-entropy, along the rows of a matrix.
//!
//! Every row is shifted by its largest value first, so no exponential overflows. Rows are
//! independent and are what threads divide. A row shorter than a vector is still one vector: the
//! lanes beyond its end hold whatever is neutral (-infinity for a maximum or an exponential).
//!
//! ```text
//! for each row:                                           (threads split these)
//!   its largest value;  the sum of exp(x - largest);  y   three passes over a row, L1
//! ```
//!
//! There is one path for rows of any length.

use crate::{
    Write,
    isa::Isa,
    math,
    par::{self, Rows, Work},
    reduce,
    simd::{Simd, SimdKernel},
};

/// `y = exp(x) / sum(exp(x))` of each row. y `[rows, cols]`, x `[rows, cols]`
///
/// # Panics
/// Like every kernel of this file: if a length does not fit.
#[track_caller]
pub fn softmax_forward(y: &mut [f32], x: &[f32], rows: usize, cols: usize) {
    check("softmax", rows, cols, &[("y", y.len()), ("x", x.len())]);
    forward(y, x, false, rows, cols);
}

/// `y = x - log(sum(exp(x)))` of each row. y `[rows, cols]`, x `[rows, cols]`
#[track_caller]
pub fn log_softmax_forward(y: &mut [f32], x: &[f32], rows: usize, cols: usize) {
    check("log_softmax", rows, cols, &[("y", y.len()), ("x", x.len())]);
    forward(y, x, true, rows, cols);
}

/// `dx (=|+=) y (dy - sum(dy y))` of each row. dx, dy, y `[rows, cols]`
#[track_caller]
pub fn softmax_backward(
    dx: &mut [f32],
    write: Write,
    dy: &[f32],
    y: &[f32],
    rows: usize,
    cols: usize,
) {
    let lens = [("dx", dx.len()), ("dy", dy.len()), ("y", y.len())];
    check("softmax_backward", rows, cols, &lens);
    backward(dx, write, dy, y, false, rows, cols);
}

/// `dx (=|+=) dy - exp(y) sum(dy)` of each row. dx, dy, y `[rows, cols]`
#[track_caller]
pub fn log_softmax_backward(
    dx: &mut [f32],
    write: Write,
    dy: &[f32],
    y: &[f32],
    rows: usize,
    cols: usize,
) {
    let lens = [("dx", dx.len()), ("dy", dy.len()), ("y", y.len())];
    check("log_softmax_backward", rows, cols, &lens);
    backward(dx, write, dy, y, true, rows, cols);
}

/// The loss of each row, `-sum(aim log_softmax(logits))`, where `aim` is the distribution to learn:
/// `1 - smoothing` on the target, plus `smoothing / c` on every class.
/// Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7.
///
/// losses `[n]`, log_probs `[n, c]` (kept for the backward pass), logits `[n, c]`, targets `[n]`
///
/// # Panics
/// If a length does not fit or a target is not less than `c`.
#[track_caller]
pub fn cross_entropy_forward(
    losses: &mut [f32],
    log_probs: &mut [f32],
    logits: &[f32],
    targets: &[usize],
    smoothing: f32,
    n: usize,
    c: usize,
) {
    let lens = [("log_probs", log_probs.len()), ("logits", logits.len())];
    check("cross_entropy", n, c, &lens);
    check("cross_entropy", n, 1, &[("losses", losses.len())]);
    check_targets("cross_entropy", targets, n, c);
    let isa = Isa::current();
    let data = (losses, Rows { data: log_probs, row: c }, Rows { data: logits, row: c }, targets);
    par::split(Work::Elements(2 * n * c), n, data, |_, (losses, log_probs, logits, targets)| {
        let (log_probs, logits) = (log_probs.data, logits.data);
        isa.dispatch(CrossEntropy { losses, log_probs, logits, targets, smoothing, c });
    });
}

/// `dlogits (=|+=) dloss (softmax(logits) - aim)` of each row; see [`cross_entropy_forward`].
///
/// dlogits `[n, c]`, dlosses `[n]`, log_probs `[n, c]` from the forward pass, targets `[n]`
///
/// # Panics
/// As [`cross_entropy_forward`].
#[track_caller]
#[allow(clippy::too_many_arguments)] // the calling convention: outputs, inputs, settings, dims
pub fn cross_entropy_backward(
    dlogits: &mut [f32],
    write: Write,
    dlosses: &[f32],
    log_probs: &[f32],
    targets: &[usize],
    smoothing: f32,
    n: usize,
    c: usize,
) {
    let lens = [("dlogits", dlogits.len()), ("log_probs", log_probs.len())];
    check("cross_entropy_backward", n, c, &lens);
    check("cross_entropy_backward", n, 1, &[("dlosses", dlosses.len())]);
    check_targets("cross_entropy_backward", targets, n, c);
    let isa = Isa::current();
    let data = (Rows { data: dlogits, row: c }, dlosses, Rows { data: log_probs, row: c }, targets);
    par::split(Work::Elements(2 * n * c), n, data, |_, (dlogits, dlosses, log_probs, targets)| {
        let (dlogits, log_probs) = (dlogits.data, log_probs.data);
        let kernel =
            CrossEntropyBackward { dlogits, write, dlosses, log_probs, targets, smoothing, c };
        isa.dispatch(kernel);
    });
}

#[track_caller]
fn check(op: &str, rows: usize, cols: usize, lens: &[(&str, usize)]) {
    for (name, len) in lens {
        let expected = crate::elements(&[rows, cols]);
        assert!(
            *len == expected,
            "{op}: {name} has {len} values, {expected} expected ({rows} x {cols})"
        );
    }
}

#[track_caller]
fn check_targets(op: &str, targets: &[usize], n: usize, c: usize) {
    assert!(targets.len() == n, "{op}: {} targets for {n} rows", targets.len());
    for (row, &target) in targets.iter().enumerate() {
        assert!(target < c, "{op}: target {target} of row {row} is not one of {c} classes");
    }
}

fn forward(y: &mut [f32], x: &[f32], log: bool, rows: usize, cols: usize) {
    let isa = Isa::current();
    let data = (Rows { data: y, row: cols }, Rows { data: x, row: cols });
    par::split(Work::Elements(2 * rows * cols), rows, data, |_, (y, x)| {
        isa.dispatch(Forward { y: y.data, x: x.data, log, cols });
    });
}

fn backward(
    dx: &mut [f32],
    write: Write,
    dy: &[f32],
    y: &[f32],
    log: bool,
    rows: usize,
    cols: usize,
) {
    let isa = Isa::current();
    let data =
        (Rows { data: dx, row: cols }, Rows { data: dy, row: cols }, Rows { data: y, row: cols });
    par::split(Work::Elements(3 * rows * cols), rows, data, |_, (dx, dy, y)| {
        isa.dispatch(Backward { dx: dx.data, write, dy: dy.data, y: y.data, log, cols });
    });
}

struct Forward<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    log: bool,
    cols: usize,
}

impl SimdKernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cols = self.cols.max(1);
        for (y, x) in self.y.chunks_exact_mut(cols).zip(self.x.chunks_exact(cols)) {
            if self.log { log_softmax_row(s, y, x) } else { softmax_row(s, y, x) }
        }
    }
}

#[inline(always)]
fn softmax_row<S: Simd>(s: S, y: &mut [f32], x: &[f32]) {
    let max = s.splat(max_row(s, x));
    let mut sum = s.zero();
    for (y, x) in y.chunks_mut(S::LANES).zip(x.chunks(S::LANES)) {
        let e = math::exp(s, s.sub(s.read_or(x, f32::NEG_INFINITY), max));
        sum = s.add(sum, e);
        s.write(y, e);
    }
    let sum = s.splat(s.reduce_sum(sum));
    for y in y.chunks_mut(S::LANES) {
        let scaled = s.div(s.read(y), sum);
        s.write(y, scaled);
    }
}

#[inline(always)]
fn log_softmax_row<S: Simd>(s: S, y: &mut [f32], x: &[f32]) {
    let max = s.splat(max_row(s, x));
    let mut sum = s.zero();
    for x in x.chunks(S::LANES) {
        sum = s.add(sum, math::exp(s, s.sub(s.read_or(x, f32::NEG_INFINITY), max)));
    }
    let log_sum = math::log(s, s.splat(s.reduce_sum(sum)));
    for (y, x) in y.chunks_mut(S::LANES).zip(x.chunks(S::LANES)) {
        s.write(y, s.sub(s.sub(s.read(x), max), log_sum));
    }
}

/// The largest value. A NaN may go unnoticed here: it turns up in the sum of exponentials.
#[inline(always)]
fn max_row<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut max = [s.splat(f32::NEG_INFINITY); 4];
    for block in x.chunks(4 * S::LANES) {
        for (max, x) in max.iter_mut().zip(block.chunks(S::LANES)) {
            *max = s.max(*max, s.read_or(x, f32::NEG_INFINITY));
        }
    }
    let [a, b, c, d] = max;
    s.reduce_max(s.max(s.max(a, b), s.max(c, d)))
}

struct Backward<'a> {
    dx: &'a mut [f32],
    write: Write,
    dy: &'a [f32],
    y: &'a [f32],
    log: bool,
    cols: usize,
}

impl SimdKernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward { dx, write, dy, y, log, cols } = self;
        let cols = cols.max(1);
        let rows = dx.chunks_exact_mut(cols).zip(dy.chunks_exact(cols)).zip(y.chunks_exact(cols));
        for ((dx, dy), y) in rows {
            let mut sum = s.zero();
            for (dy, y) in dy.chunks(S::LANES).zip(y.chunks(S::LANES)) {
                let dy = s.read(dy);
                sum = if log { s.add(sum, dy) } else { s.fma(dy, s.read(y), sum) };
            }
            let sum = s.splat(s.reduce_sum(sum));
            let vectors = dx.chunks_mut(S::LANES).zip(dy.chunks(S::LANES)).zip(y.chunks(S::LANES));
            for ((dx, dy), y) in vectors {
                let (dy, y) = (s.read(dy), s.read(y));
                let v = if log {
                    s.sub(dy, s.mul(math::exp(s, y), sum))
                } else {
                    s.mul(y, s.sub(dy, sum))
                };
                put(s, dx, write, v);
            }
        }
    }
}

#[inline(always)]
fn put<S: Simd>(s: S, dx: &mut [f32], write: Write, v: S::F32) {
    let v = if write == Write::Add { s.add(s.read(dx), v) } else { v };
    s.write(dx, v);
}

struct CrossEntropy<'a> {
    losses: &'a mut [f32],
    log_probs: &'a mut [f32],
    logits: &'a [f32],
    targets: &'a [usize],
    smoothing: f32,
    c: usize,
}

impl SimdKernel for CrossEntropy<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let CrossEntropy { losses, log_probs, logits, targets, smoothing, c } = self;
        let rows = log_probs.chunks_exact_mut(c).zip(logits.chunks_exact(c));
        for ((loss, &target), (log_probs, logits)) in losses.iter_mut().zip(targets).zip(rows) {
            log_softmax_row(s, log_probs, logits);
            *loss = -(1.0 - smoothing) * log_probs[target];
            if smoothing != 0.0 {
                *loss -= smoothing / c as f32 * reduce::sum_short(s, log_probs);
            }
        }
    }
}

struct CrossEntropyBackward<'a> {
    dlogits: &'a mut [f32],
    write: Write,
    dlosses: &'a [f32],
    log_probs: &'a [f32],
    targets: &'a [usize],
    smoothing: f32,
    c: usize,
}

impl SimdKernel for CrossEntropyBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let CrossEntropyBackward { dlogits, write, dlosses, log_probs, targets, smoothing, c } =
            self;
        let everywhere = s.splat(smoothing / c as f32);
        let rows = dlogits.chunks_exact_mut(c).zip(log_probs.chunks_exact(c));
        for ((&dloss, &target), (dlogits, log_probs)) in dlosses.iter().zip(targets).zip(rows) {
            for (dx, log_p) in dlogits.chunks_mut(S::LANES).zip(log_probs.chunks(S::LANES)) {
                let p = math::exp(s, s.read(log_p));
                put(s, dx, write, s.mul(s.splat(dloss), s.sub(p, everywhere)));
            }
            dlogits[target] -= dloss * (1.0 - smoothing);
        }
    }
}
