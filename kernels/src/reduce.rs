//! Sums: of everything, or along chosen axes.
//!
//! Rounding errors of a sum grow with the number of additions that one accumulator sees, so each
//! sum is made in two levels: runs of about a thousand numbers in `f32`, at vector speed, and their
//! totals in `f64`. The order of additions depends on the shape and the instruction set only.
//!
//! ```text
//! everything:         cut into pieces of the same length (threads split them), each in runs:
//!                       four vectors of sums in f32, their lanes to f64
//! axes that are last: each sum is one run after the other          (threads split the sums)
//! other axes:         a tile of columns, 64 rows at a time:        (threads split the sums)
//!                       vectors of sums in f32, then added to f64
//! none of these:      element by element in f64
//! ```

use crate::{
    Write,
    isa::Isa,
    nest::{self, Axis, MAX_RANK, Nest},
    par::{self, Rows, Work},
    simd::{Simd, SimdKernel},
    tuning::reduce::{MAX_PIECES, MIN_PIECE, RUN, RUN_ROWS, TILE},
};

/// The sum of `x [len]`.
///
/// Accurate to about `1e-6` of the sum of absolute values, for any length.
pub fn sum(x: &[f32]) -> f32 {
    total(x, sum_run) as f32
}

/// The sum of the squares of `x [len]`: the square of its Euclidean norm.
///
/// Accurate to about `1e-6` of itself. Infinite if `x` holds a number above about `1e19`, whose
/// square is beyond `f32`; not finite if `x` holds a number that is not.
pub fn sum_squares(x: &[f32]) -> f64 {
    total(x, |isa, x| isa.dispatch(SumSquares(x)))
}

/// The sum over `x` of what `sum_piece` makes of its pieces.
fn total(x: &[f32], sum_piece: impl Fn(Isa, &[f32]) -> f64 + Sync) -> f64 {
    // The pieces depend on the length alone, so that the thread count cannot change the bits.
    let piece = x.len().div_ceil(MAX_PIECES).max(MIN_PIECE);
    let mut totals = [0.0f64; MAX_PIECES];
    let totals = &mut totals[..x.len().div_ceil(piece)];
    let isa = Isa::current();
    let data = (&mut *totals, Rows { data: x, row: piece });
    par::split(Work::Elements(x.len()), data.0.len(), data, |_, (totals, x)| {
        for (total, x) in totals.iter_mut().zip(x.data.chunks(piece)) {
            *total = sum_piece(isa, x);
        }
    });
    totals.iter().sum()
}

/// The sum of a contiguous piece, by one thread.
pub(crate) fn sum_run(isa: Isa, x: &[f32]) -> f64 {
    isa.dispatch(SumRun(x))
}

struct SumRun<'a>(&'a [f32]);

impl SimdKernel for SumRun<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let mut total = 0.0;
        for run in self.0.chunks(RUN) {
            total += f64::from(sum_short(s, run));
        }
        total
    }
}

struct SumSquares<'a>(&'a [f32]);

impl SimdKernel for SumSquares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let mut total = 0.0;
        for run in self.0.chunks(RUN) {
            let mut sums = [s.zero(); 4];
            let blocks = run.chunks_exact(4 * S::LANES);
            let rest = blocks.remainder();
            for block in blocks {
                for (sum, x) in sums.iter_mut().zip(block.chunks_exact(S::LANES)) {
                    let x = s.read(x);
                    *sum = s.fma(x, x, *sum);
                }
            }
            for (sum, x) in sums.iter_mut().zip(rest.chunks(S::LANES)) {
                let x = s.read(x);
                *sum = s.fma(x, x, *sum);
            }
            let [a, b, c, d] = sums;
            total += f64::from(s.reduce_sum(s.add(s.add(a, b), s.add(c, d))));
        }
        total
    }
}

/// The sum of numbers that are few enough for `f32`, in four vectors of partial sums.
#[inline(always)]
pub(crate) fn sum_short<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sums = [s.zero(); 4];
    let blocks = x.chunks_exact(4 * S::LANES);
    let rest = blocks.remainder();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block.chunks_exact(S::LANES)) {
            *sum = s.add(*sum, s.read(x));
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest.chunks(S::LANES)) {
        *sum = s.add(*sum, s.read(x));
    }
    let [a, b, c, d] = sums;
    s.reduce_sum(s.add(s.add(a, b), s.add(c, d)))
}

/// `y` = `x` summed over `axes`.
///
/// y: the product of the other axes, in their order; x: `shape`
///
/// # Panics
/// If the lengths don't fit, an axis is out of range or named twice, or there are more than 8 axes.
#[track_caller]
pub fn sum_axes(y: &mut [f32], x: &[f32], shape: &[usize], axes: &[usize]) {
    let rank = shape.len();
    assert!(rank <= MAX_RANK, "sum_axes: shape {shape:?} has more than {MAX_RANK} axes");
    let mut kept = [0; MAX_RANK];
    kept[..rank].copy_from_slice(shape);
    for (i, &axis) in axes.iter().enumerate() {
        assert!(axis < rank, "sum_axes: axis {axis} of {axes:?} is not one of shape {shape:?}");
        assert!(!axes[..i].contains(&axis), "sum_axes: axis {axis} appears twice in {axes:?}");
        kept[axis] = 1;
    }
    sum_to("sum_axes", ("y", y), Write::Set, &kept[..rank], ("x", x), shape);
}

/// `dx (=|+=) dy` summed over the axes that `x_shape` lacks or has with extent 1.
///
/// dx: `x_shape`, dy: `y_shape`
#[track_caller]
pub(crate) fn sum_to(
    op: &str,
    (dx_name, dx): (&str, &mut [f32]),
    write: Write,
    x_shape: &[usize],
    (dy_name, dy): (&str, &[f32]),
    y_shape: &[usize],
) {
    nest::check_len(op, dx_name, dx.len(), x_shape);
    nest::check_len(op, dy_name, dy.len(), y_shape);
    let (mut kept, mut summed) = (Nest::default(), Nest::default());
    for axis in nest::broadcast(op, x_shape, y_shape) {
        (if axis.a == 0 { &mut summed } else { &mut kept }).push(axis);
    }
    let isa = Isa::current();
    if kept.axes().is_empty()
        && let [Axis { b: 1, .. }] = summed.axes()
    {
        let total = sum(dy);
        match write {
            Write::Set => dx[0] = total,
            Write::Add => dx[0] += total,
        }
        return;
    }
    par::split(Work::Elements(dy.len()), dx.len(), dx, |range, dx| {
        isa.dispatch(SumTo { dx, first: range.start, write, dy, kept: &kept, summed: &summed });
    });
}

/// Sums for the outputs from number `first`.
///
/// If the innermost axis of `dy` is kept, a tile of neighbouring columns is summed at a time, row
/// by row; if it is summed, one output is, run by run.
struct SumTo<'a> {
    dx: &'a mut [f32],
    first: usize,
    write: Write,
    dy: &'a [f32],
    kept: &'a Nest,
    summed: &'a Nest,
}

impl SimdKernel for SumTo<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SumTo { dx, first, write, dy, kept, summed } = self;
        let (rows, column) = kept.split_inner();
        let columns_adjoin = column.b == 1;
        let (runs, run) = summed.split_inner();
        let mut done = 0;
        while done < dx.len() {
            let (row, col) = ((first + done) / column.extent, (first + done) % column.extent);
            let start = rows.addresses(row).1 + col * column.b;
            let width = if columns_adjoin { TILE.min(column.extent - col) } else { 1 };
            let width = width.min(dx.len() - done);
            let mut tile = [0.0f64; TILE];
            let totals = &mut tile[..width];
            if columns_adjoin {
                sum_rows(s, totals, &dy[start..], summed);
            } else if run.b == 1 {
                for (_, b) in runs.iter() {
                    for run in dy[start + b..][..run.extent].chunks(RUN) {
                        totals[0] += f64::from(sum_short(s, run));
                    }
                }
            } else {
                totals[0] = summed.iter().map(|(_, b)| f64::from(dy[start + b])).sum();
            }
            for (dx, &sum) in dx[done..].iter_mut().zip(&tile[..width]) {
                match write {
                    Write::Set => *dx = sum as f32,
                    Write::Add => *dx += sum as f32,
                }
            }
            done += width;
        }
    }
}

/// Adds up neighbouring columns over the rows at the addresses `summed`.
#[inline(always)]
fn sum_rows<S: Simd>(s: S, totals: &mut [f64], dy: &[f32], summed: &Nest) {
    let width = totals.len();
    let mut partial = [0.0f32; TILE];
    let mut rows = summed.iter();
    loop {
        let partial = &mut partial[..width];
        partial.fill(0.0);
        let mut any = false;
        for (_, b) in rows.by_ref().take(RUN_ROWS) {
            any = true;
            let row = &dy[b..b + width];
            for (partial, x) in partial.chunks_mut(S::LANES).zip(row.chunks(S::LANES)) {
                let sum = s.add(s.read(partial), s.read(x));
                s.write(partial, sum);
            }
        }
        if !any {
            return;
        }
        for (total, partial) in totals.iter_mut().zip(partial) {
            *total += f64::from(*partial);
        }
    }
}
