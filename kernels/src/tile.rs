//! The register tiles: the innermost loops of every matrix product and convolution.
//!
//! All keep `R x V` accumulators in registers and do nothing but load and multiply-add:
//!
//! - [`outer`]: `acc[i][v] += a[i][k] * b[k][v]`. `b` is read as vectors, `a` one float at a time
//!   from *anywhere*: a row is a pointer, a step along `k` is an offset. With packed rows that is
//!   matrix multiplication; with the pixels of an image as rows and a table of kernel taps as
//!   offsets it is a convolution, for any padding, stride and dilation, and no matrix of patches is
//!   ever built.
//! - [`spread`]: `acc[r][v] += w[k][r] * x[v][k]`, with `x` read as vectors from anywhere and `w` one
//!   float at a time: the pixels, or images, are in the lanes.
//! - [`dot`]: `acc[i][j] += a[i][k..] . b[j][k..]`, both read as vectors along `k`; the lanes are
//!   summed at the end.
//!
//! An FMA takes 4 cycles and two start in each, so at least 8 accumulators must be in flight. 6 x 2
//! = 12 need 2 + 6 loads for 12 FMAs, well below the two loads a cycle that the processor can do; 8
//! x 2 = 16 need 2 + 8 for 16. One accumulator spilled to the stack costs a factor of two, so the
//! order below matters: vectors of `b` first, then one broadcast at a time.
//!
//! How many rows and columns are left is known only at run time: [`row_tiles`] cuts the rows, and
//! [`sized`] turns both numbers into constants.

// A matrix is a pointer and a step, and index loops over small arrays read like the formulas.
#![allow(clippy::too_many_arguments, clippy::needless_range_loop)]

use crate::{
    Write,
    simd::{Simd, prefetch},
    tuning::tile::AHEAD,
};
use std::ops::Range;

/// Vectors in a row of the outer tile.
pub(crate) const VECTORS: usize = 2;

/// Rows of the largest outer tile of any instruction set.
pub(crate) const MAX_ROWS: usize = 8;

/// Columns of the outer tile: the width of a packed panel.
pub(crate) const fn panel<S: Simd>() -> usize {
    VECTORS * S::LANES
}

/// Cuts `rows` rows into as few tiles as possible, all but the last equally high: at most
/// [`Simd::TILE_ROWS`].
pub(crate) fn row_tiles<S: Simd>(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let high = row_height(rows, S::TILE_ROWS);
    (0..rows).step_by(high).map(move |start| start..rows.min(start + high))
}

/// The height of all tiles of [`row_tiles`] but the last, where they have at most `most` rows.
pub(crate) const fn row_height(rows: usize, most: usize) -> usize {
    if rows == 0 { 1 } else { rows.div_ceil(rows.div_ceil(most)) }
}

/// What is done with a tile of `R x V` vectors.
pub(crate) trait Tile<S: Simd> {
    /// Computes and writes the tile.
    ///
    /// # Safety
    /// Whatever the tile reads and writes must be there for `R` rows and `V` vectors.
    unsafe fn run<const R: usize, const V: usize>(self, s: S);
}

/// Runs a tile from [`row_tiles`] that is `rows` high, where `cols` columns are left; no more than
/// a panel of them is computed.
///
/// # Safety
/// That of [`Tile::run`] for `R = rows`, and as many vectors as cover `cols`, at most [`VECTORS`].
#[inline(always)]
pub(crate) unsafe fn sized<S: Simd>(s: S, rows: usize, cols: usize, tile: impl Tile<S>) {
    // SAFETY: the caller's promise.
    unsafe {
        if cols > S::LANES {
            with_rows::<S, VECTORS>(s, rows, tile);
        } else {
            with_rows::<S, 1>(s, rows, tile);
        }
    }
}

#[inline(always)]
unsafe fn with_rows<S: Simd, const V: usize>(s: S, rows: usize, tile: impl Tile<S>) {
    const { assert!(S::TILE_ROWS >= 2 && S::TILE_ROWS <= MAX_ROWS) };
    // SAFETY: the caller's promise. The conditions are constants, which remove what an instruction
    // set has no registers for.
    unsafe {
        match rows {
            1 => tile.run::<1, V>(s),
            2 => tile.run::<2, V>(s),
            3 if S::TILE_ROWS >= 3 => tile.run::<3, V>(s),
            4 if S::TILE_ROWS >= 4 => tile.run::<4, V>(s),
            5 if S::TILE_ROWS >= 5 => tile.run::<5, V>(s),
            6 if S::TILE_ROWS >= 6 => tile.run::<6, V>(s),
            7 if S::TILE_ROWS >= 7 => tile.run::<7, V>(s),
            8 if S::TILE_ROWS >= 8 => tile.run::<8, V>(s),
            _ => unreachable!("a tile of {rows} rows"),
        }
    }
}

/// `acc[i][v] = sum over k of a[i][offset k] * b[k * b_step + v * LANES ..]`
///
/// # Safety
/// `a[i] + offset` must be readable for every `i` and offset, and `V * LANES` floats at `b + k *
/// b_step`.
#[inline(always)]
pub(crate) unsafe fn outer<S: Simd, const R: usize, const V: usize>(
    s: S,
    offsets: impl Iterator<Item = usize>,
    a: [*const f32; R],
    mut b: *const f32,
    b_step: usize,
) -> [[S::F32; V]; R] {
    let mut acc = [[s.zero(); V]; R];
    for offset in offsets {
        let mut bs = [s.zero(); V];
        for v in 0..V {
            // SAFETY: the caller's promise about b.
            bs[v] = unsafe { s.load(b.add(v * S::LANES)) };
        }
        for i in 0..R {
            // SAFETY: the caller's promise about a.
            let x = s.splat(unsafe { *a[i].add(offset) });
            for v in 0..V {
                acc[i][v] = s.fma(x, bs[v], acc[i][v]);
            }
        }
        // A pointer that moves on needs one register; a start and a count need two, and R pointers
        // are there already.
        b = b.wrapping_add(b_step);
    }
    acc
}

/// `acc[r][v] + sum over k < depth of w[k * R + r] * x[v][at(k)..]`: [`outer`] with the vectors
/// read from anywhere.
///
/// # Safety
/// `LANES` floats must be readable at `x[v] + at(k)` for every `v` and `k < depth`, and `depth * R`
/// floats at `w`.
#[inline(always)]
pub(crate) unsafe fn spread<S: Simd, const R: usize, const V: usize>(
    s: S,
    mut acc: [[S::F32; V]; R],
    depth: usize,
    w: *const f32,
    x: [*const f32; V],
    at: impl Fn(usize) -> usize,
) -> [[S::F32; V]; R] {
    for k in 0..depth {
        let offset = at(k);
        // SAFETY: the caller's promises about w and x.
        unsafe {
            multiply_add(s, &mut acc, |r| s.splat(*w.add(k * R + r)), |v| s.load(x[v].add(offset)));
        }
    }
    acc
}

/// Writes or adds a tile to the matrix at `c`, whose rows are `c_step` apart: the first `cols <= V
/// * LANES` columns.
///
/// # Safety
/// `cols` floats at `c + i * c_step` must be writable for every `i < R`, and readable if they are
/// added to.
#[inline(always)]
pub(crate) unsafe fn emit<S: Simd, const R: usize, const V: usize>(
    s: S,
    acc: [[S::F32; V]; R],
    c: *mut f32,
    c_step: usize,
    cols: usize,
    write: Write,
) {
    for i in 0..R {
        for v in 0..V {
            let n = cols.saturating_sub(v * S::LANES).min(S::LANES);
            // SAFETY: n floats are left in this row, by the caller's promise; no more are touched.
            unsafe {
                let at = c.add(i * c_step + v * S::LANES);
                let mut x = acc[i][v];
                if n == S::LANES {
                    if write == Write::Add {
                        x = s.add(s.load(at), x);
                    }
                    s.store(at, x);
                } else if n > 0 {
                    if write == Write::Add {
                        x = s.add(s.load_partial(at, n), x);
                    }
                    s.store_partial(at, x, n);
                }
            }
        }
    }
}

/// `acc[i][j] += a(i) * b(j)`: the fewer operands are kept in registers, the others pass by one at
/// a time.
#[inline(always)]
pub(crate) fn multiply_add<S: Simd, const I: usize, const J: usize>(
    s: S,
    acc: &mut [[S::F32; J]; I],
    a: impl Fn(usize) -> S::F32,
    b: impl Fn(usize) -> S::F32,
) {
    if I < J {
        let mut kept = [s.zero(); I];
        for i in 0..I {
            kept[i] = a(i);
        }
        for j in 0..J {
            let b = b(j);
            for i in 0..I {
                acc[i][j] = s.fma(kept[i], b, acc[i][j]);
            }
        }
    } else {
        let mut kept = [s.zero(); J];
        for j in 0..J {
            kept[j] = b(j);
        }
        for i in 0..I {
            let a = a(i);
            for j in 0..J {
                acc[i][j] = s.fma(a, kept[j], acc[i][j]);
            }
        }
    }
}

/// `sum over k < depth of a[i][k] * b[j][k]` for each `i` and `j`.
///
/// # Safety
/// `depth` floats must be readable at every `a[i]` and `b[j]`.
#[inline(always)]
pub(crate) unsafe fn dot<S: Simd, const I: usize, const J: usize>(
    s: S,
    depth: usize,
    a: [*const f32; I],
    b: [*const f32; J],
) -> [[f32; J]; I] {
    let mut acc = [[s.zero(); J]; I];
    let whole = depth / S::LANES * S::LANES;
    let mut k = 0;
    // SAFETY: a whole vector, or `depth - whole` floats, are left in each row.
    unsafe {
        while k < whole {
            multiply_add(s, &mut acc, |i| s.load(a[i].add(k)), |j| s.load(b[j].add(k)));
            k += S::LANES;
        }
        if k < depth {
            let n = depth - k;
            multiply_add(
                s,
                &mut acc,
                |i| s.load_partial(a[i].add(k), n),
                |j| s.load_partial(b[j].add(k), n),
            );
        }
    }
    let mut sums = [[0.0; J]; I];
    for i in 0..I {
        for j in 0..J {
            sums[i][j] = s.reduce_sum(acc[i][j]);
        }
    }
    sums
}

/// Transposes the `LANES x LANES` square in the first `LANES` vectors of `square`.
///
/// Interleaving vector `i` with vector `i + LANES / 2` is a perfect shuffle of the square's
/// elements; after `log2(LANES)` of them the row and column bits of every index have changed
/// places.
#[inline(always)]
pub(crate) fn transpose<S: Simd>(s: S, square: &mut [S::F32; 16]) {
    let half = S::LANES / 2;
    let mut stages = S::LANES;
    while stages > 1 {
        let from = *square;
        for i in 0..half {
            (square[2 * i], square[2 * i + 1]) = s.interleave(from[i], from[i + half]);
        }
        stages /= 2;
    }
}

/// `to[c][r] = from[r][c]` for a `rows x cols` matrix, `LANES x LANES` squares at a time, along the
/// rows of the matrix that has them further apart: across them every square would be in other pages
/// than the one before. What follows in each row is fetched meanwhile: so many rows are more than
/// the processor foresees.
///
/// # Safety
/// `cols` floats must be readable at `from + r * from_step` for `r < rows`, and `rows` floats
/// writable at `to + c * to_step` for `c < cols`, and readable if they are added to; the two must
/// not overlap.
#[inline(always)]
pub(crate) unsafe fn transpose_into<S: Simd>(
    s: S,
    to: *mut f32,
    to_step: usize,
    from: *const f32,
    from_step: usize,
    rows: usize,
    cols: usize,
    write: Write,
) {
    let along_to = to_step > from_step;
    let [outer, inner] = if along_to { [cols, rows] } else { [rows, cols] };
    for i in (0..outer).step_by(S::LANES) {
        for j in (0..inner).step_by(S::LANES) {
            let [r, c] = if along_to { [j, i] } else { [i, j] };
            let (high, wide) = (S::LANES.min(rows - r), S::LANES.min(cols - c));
            // SAFETY: rows r .. r + high and columns c .. c + wide are inside both matrices.
            unsafe {
                let (to, from) = (to.add(c * to_step + r), from.add(r * from_step + c));
                if high == S::LANES && wide == S::LANES {
                    // The same, but with constants that unroll its loops.
                    transpose_square(s, to, to_step, from, from_step, S::LANES, S::LANES, write);
                } else {
                    transpose_square(s, to, to_step, from, from_step, high, wide, write);
                }
            }
        }
    }
}

/// [`transpose_into`] for at most `LANES` rows and columns.
#[inline(always)]
unsafe fn transpose_square<S: Simd>(
    s: S,
    to: *mut f32,
    to_step: usize,
    from: *const f32,
    from_step: usize,
    rows: usize,
    cols: usize,
    write: Write,
) {
    let mut square = [s.zero(); 16];
    // SAFETY: the caller's promises.
    unsafe {
        for i in 0..rows {
            let at = from.add(i * from_step);
            prefetch(at.wrapping_add(AHEAD));
            square[i] = if cols == S::LANES { s.load(at) } else { s.load_partial(at, cols) };
        }
        transpose(s, &mut square);
        for j in 0..cols {
            let at = to.add(j * to_step);
            prefetch(at.wrapping_add(AHEAD));
            let mut x = square[j];
            if rows == S::LANES {
                if write == Write::Add {
                    x = s.add(s.load(at), x);
                }
                s.store(at, x);
            } else {
                if write == Write::Add {
                    x = s.add(s.load_partial(at, rows), x);
                }
                s.store_partial(at, x, rows);
            }
        }
    }
}
