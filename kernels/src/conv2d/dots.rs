//! The gradient of the weights as dot products over pixels: lanes are pixels.
//!
//! `dw[o][tap]` is the dot product of `dy`'s channel `o` with the image shifted by the tap. A tile
//! computes `R` channels by `T` taps, reading both operands as vectors along the rows: for few
//! channels or few taps, where transposing `dy` would cost as much as the products.
//!
//! ```text
//! for each image, for each group:            (threads split the tiles)
//!   copy its planes with zeros around        (unless there is no padding)
//!   for each R channels, for each T taps:
//!     tile: acc[R, T] += dy[R][pixels] * image[pixels + T], over the rows, in registers
//! sum the lanes of each acc into dw
//! ```
//!
//! The last vector of a row is moved back to end with the row; the pixels it has in common with the
//! one before count as zeros of `dy`.
//!
//! Fast paths: images without padding or stride are read where they lie; the nine taps of a 3 x 3
//! square are one tile, for one channel, which goes down the rows: see [`down_rows`]. There the end
//! of a row is read as a part of a vector.

#![allow(clippy::needless_range_loop)] // index loops over small arrays read like the formulas

use super::{Conv2dDims, planes::Planes};
use crate::{
    Write,
    isa::Isa,
    par::{self, Shared, Work},
    scratch,
    simd::{Simd, SimdKernel},
    tile::multiply_add,
};
use std::ops::Range;

/// `dw [o, taps]` from `dy` and `x`; tap `t` reads the image at `taps[t]`, a pixel at `row * step +
/// col`.
pub(super) struct DotSums<'a> {
    pub(super) dy: &'a [f32],
    pub(super) x: &'a [f32],
    pub(super) d: &'a Conv2dDims,
    pub(super) planes: Planes,
    pub(super) taps: &'a [u32],
    pub(super) step: usize,
}

impl DotSums<'_> {
    pub(super) fn run(&self, dw: &mut [f32], write: Write) {
        let isa = Isa::current();
        let (r, t) = tile_shape(self.d, isa.tile_rows());
        let (out_channels, taps) = (self.d.o_group(), self.taps.len());
        let tiles = self.d.groups * out_channels.div_ceil(r) * taps.div_ceil(t);
        let out = Shared(dw.as_mut_ptr());
        par::split(Work::MultiplyAdds(self.d.multiply_adds()), tiles, (), |tiles, ()| {
            isa.dispatch(Piece { sums: self, tiles, out: out.get(), write });
        });
    }
}

/// The channels and taps of a tile: 9 to 12 accumulators, and at most 3 registers for the rest; for
/// many channels 20 to 24 where there are 32 registers.
fn tile_shape(d: &Conv2dDims, tile_rows: usize) -> (usize, usize) {
    match (d.o_group(), tile_rows) {
        (_, 6..) if d.is_square(1) => (1, 9),
        (1, 6..) => (1, 9),
        (2, 6..) => (2, 6),
        (3, 6..) => (3, 3),
        (o, 8) if o.is_multiple_of(6) => (6, 4),
        (_, 8) => (4, 5),
        (o, 6) if d.taps().is_multiple_of(3) && !o.is_multiple_of(6) => (3, 3),
        (_, 6) => (6, 2),
        // Portable vectors are two registers each.
        (1, _) => (1, 3),
        _ => (2, 2),
    }
}

/// Some tiles, on one thread.
struct Piece<'a> {
    sums: &'a DotSums<'a>,
    tiles: Range<usize>,
    out: *mut f32,
    write: Write,
}

impl SimdKernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match tile_shape(self.sums.d, S::TILE_ROWS) {
            (1, 9) if self.sums.d.is_square(1) => self.tiles::<S, 1, 9, true>(s),
            (1, 9) => self.tiles::<S, 1, 9, false>(s),
            (2, 6) => self.tiles::<S, 2, 6, false>(s),
            (3, 3) => self.tiles::<S, 3, 3, false>(s),
            (6, 2) => self.tiles::<S, 6, 2, false>(s),
            (6, 4) => self.tiles::<S, 6, 4, false>(s),
            (4, 5) => self.tiles::<S, 4, 5, false>(s),
            (1, 3) => self.tiles::<S, 1, 3, false>(s),
            _ => self.tiles::<S, 2, 2, false>(s),
        }
    }
}

impl Piece<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const T: usize, const SQUARE: bool>(&self, s: S) {
        let DotSums { dy, x, d, planes, taps, step } = *self.sums;
        let (rows, cols) = (d.oh(), d.ow());
        let (out_channels, pixels) = (d.o_group(), rows * cols);
        let across = taps.len().div_ceil(T);
        let per_group = out_channels.div_ceil(R) * across;
        let tile_len = R * T * S::LANES;
        let mut sums = scratch::floats(self.tiles.len() * tile_len);
        sums.fill(0.0);
        let mut list = scratch::offsets(2 * rows * cols.div_ceil(S::LANES));
        let (list, _) = list.as_chunks_mut::<2>();
        let (whole, last) = list.split_at_mut(rows * (cols / S::LANES));
        let starts = |col: usize| {
            (0..rows).map(move |row| [(row * cols + col) as u32, (row * step + col) as u32])
        };
        let inside = (0..rows).flat_map(|row| {
            (0..cols / S::LANES)
                .map(move |v| [row * cols + v * S::LANES, row * step + v * S::LANES])
        });
        whole.iter_mut().zip(inside).for_each(|(to, at)| *to = at.map(|at| at as u32));
        last.iter_mut().zip(starts(cols.saturating_sub(S::LANES))).for_each(|(to, at)| *to = at);
        let places = Places { cols, whole, last };
        let furthest = taps.iter().max().map_or(0, |&t| t as usize) + (rows - 1) * step + cols;
        let mut padded = scratch::floats(if planes.in_place() { 0 } else { planes.len() });
        padded.fill(0.0);
        let plane_len = planes.count * planes.size[0] * planes.size[1];
        for image in 0..d.n {
            for group in self.tiles.start / per_group..self.tiles.end.div_ceil(per_group) {
                let unit = image * d.groups + group;
                let from = &x[unit * plane_len..][..plane_len];
                let from = if planes.in_place() {
                    from
                } else {
                    planes.fill(s, &mut padded, from);
                    &padded[..]
                };
                assert!(furthest <= from.len(), "conv2d: a tap beyond the image");
                let dy = &dy[unit * out_channels * pixels..][..out_channels * pixels];
                let first = self.tiles.start.max(group * per_group);
                for tile in first..self.tiles.end.min((group + 1) * per_group) {
                    let (o, t) = place::<R, T>(tile - group * per_group, across);
                    // Beyond the last channel or tap the last one is computed again, and not used.
                    // SAFETY: furthest is inside the image, and all channels of dy have `pixels`
                    // elements.
                    let acc: [[S::F32; T]; R] = unsafe {
                        let dy = std::array::from_fn(|r| {
                            dy.as_ptr().add((o + r).min(out_channels - 1) * pixels)
                        });
                        let x = std::array::from_fn(|i| {
                            from.as_ptr().add(taps[(t + i).min(taps.len() - 1)] as usize)
                        });
                        if SQUARE {
                            let sums = down_rows(s, [rows, cols], dy[0], x[0], step);
                            std::array::from_fn(|_| std::array::from_fn(|i| sums[i]))
                        } else {
                            products(s, &places, dy, x)
                        }
                    };
                    let to = &mut sums[(tile - self.tiles.start) * tile_len..][..tile_len];
                    for r in 0..R {
                        for i in 0..T {
                            let to = &mut to[(r * T + i) * S::LANES..][..S::LANES];
                            let sum = s.add(s.read(to), acc[r][i]);
                            s.write(to, sum);
                        }
                    }
                }
            }
        }
        for (tile, sums) in self.tiles.clone().zip(sums.chunks_exact(tile_len)) {
            let (group, (o, t)) = (tile / per_group, place::<R, T>(tile % per_group, across));
            for (i, sum) in sums.chunks_exact(S::LANES).enumerate() {
                let (o, t) = (o + i / T, t + i % T);
                if o < out_channels && t < taps.len() {
                    let sum = s.reduce_sum(s.read(sum));
                    // SAFETY: dw has this channel and tap, and no other piece has this tile.
                    unsafe {
                        let to = self.out.add((group * out_channels + o) * taps.len() + t);
                        *to = if self.write == Write::Add { *to + sum } else { sum };
                    }
                }
            }
        }
    }
}

/// The first channel and tap of a tile, of which there are `across` for the same channels.
fn place<const R: usize, const T: usize>(tile: usize, across: usize) -> (usize, usize) {
    (tile / across * R, tile % across * T)
}

/// [`products`] for one channel and the nine taps of a plane, of which the first is at the `corner`
/// of the 3 x 3 square. A row of the image meets three rows of `dy`, so a vector that goes down its
/// columns loads four vectors for nine products.
///
/// # Safety
/// `dy` must be readable for `rows` rows of `cols`, and `corner` for two more, `step` apart and two
/// floats longer.
#[inline(always)]
unsafe fn down_rows<S: Simd>(
    s: S,
    [rows, cols]: [usize; 2],
    dy: *const f32,
    corner: *const f32,
    step: usize,
) -> [S::F32; 9] {
    let mut acc = [s.zero(); 9];
    for col in (0..cols).step_by(S::LANES) {
        let wide = S::LANES.min(cols - col);
        // The rows of dy that meet this row of the image through the upper, middle and lower row of
        // the square.
        let mut dys = [s.zero(); 3];
        for row in 0..rows + 2 {
            // SAFETY: `wide` columns are left in each row, by the caller's promise.
            unsafe {
                let read = |at: *const f32| {
                    if wide == S::LANES { s.load(at) } else { s.load_partial(at, wide) }
                };
                let next = if row < rows { read(dy.add(row * cols + col)) } else { s.zero() };
                dys = [next, dys[0], dys[1]];
                for j in 0..3 {
                    let x = read(corner.add(row * step + col + j));
                    for i in 0..3 {
                        acc[i * 3 + j] = s.fma(dys[i], x, acc[i * 3 + j]);
                    }
                }
            }
        }
    }
    acc
}

/// Where the vectors of an image start, as `[offset in dy, offset in x]`.
struct Places<'a> {
    cols: usize,
    /// Vectors inside the rows.
    whole: &'a [[u32; 2]],
    /// The last of each row where its length is no multiple of a vector's: moved back to end with
    /// the row, or shorter.
    last: &'a [[u32; 2]],
}

/// `acc[r][t] = sum of dy[r][pixel] * x[t][pixel]`, over the pixels of an image.
///
/// # Safety
/// Every `dy` and `x` must be readable for a vector, or a row if that is shorter, at its places.
#[inline(always)]
unsafe fn products<S: Simd, const R: usize, const T: usize>(
    s: S,
    places: &Places,
    dy: [*const f32; R],
    x: [*const f32; T],
) -> [[S::F32; T]; R] {
    let mut acc = [[s.zero(); T]; R];
    // SAFETY: every place in the lists is LANES, or `cols` if that is less, pixels away from the
    // end of its row.
    unsafe {
        for &[y_at, x_at] in places.whole {
            let y = |r: usize| s.load(dy[r].add(y_at as usize));
            let x = |t: usize| s.load(x[t].add(x_at as usize));
            multiply_add(s, &mut acc, y, x);
        }
        if places.cols >= S::LANES {
            // Of the vector that ends with the row, the lanes that no whole vector has had.
            let mut ones = [0.0; 16];
            ones[S::LANES - places.cols % S::LANES..S::LANES].fill(1.0);
            let new = s.gt(s.read(&ones), s.zero());
            for &[y_at, x_at] in places.last {
                let y = |r: usize| s.select(new, s.load(dy[r].add(y_at as usize)), s.zero());
                let x = |t: usize| s.load(x[t].add(x_at as usize));
                multiply_add(s, &mut acc, y, x);
            }
        } else {
            for &[y_at, x_at] in places.last {
                let y = |r: usize| s.load_partial(dy[r].add(y_at as usize), places.cols);
                let x = |t: usize| s.load_partial(x[t].add(x_at as usize), places.cols);
                multiply_add(s, &mut acc, y, x);
            }
        }
    }
    acc
}
