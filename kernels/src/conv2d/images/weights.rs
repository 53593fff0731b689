//! The gradient of the weights: a tile is R output channels by two input channels, and the sum runs
//! over pixels and images.
//!
//! ```text
//! for each R output channels and row of the window:        (threads split these)
//!   for each vector of images:
//!     gather them:                  x[pixel][channel][image], dy[pixel][output channel][image], L2
//!     for some rows of pixels that meet this row of the window:    L1
//!       for each column of the window, for each two channels:
//!         tile: sums[R, 2] += dy[pixel][R] * x[pixel + tap][2], over the pixels, in registers
//!   sum the lanes into dw
//! ```
//!
//! There is one path; only the last vector of a batch may be partly empty.

use super::{
    super::{Conv2dDims, sweep::by_group},
    Source, Window, gather,
};
use crate::{
    Write,
    isa::Isa,
    par::{self, Shared, Work},
    scratch,
    simd::{Simd, SimdKernel},
    tile::{Tile, VECTORS, emit, multiply_add, row_height, sized},
    tuning::images::IN_L1,
};
use std::ops::Range;

/// `dw [o, c / groups, kh, kw]`; where [`can`](super::can) says so.
pub(in super::super) fn backward_weight(
    dw: &mut [f32],
    write: Write,
    dy: &[f32],
    x: &[f32],
    d: &Conv2dDims,
) {
    let isa = Isa::current();
    let high = row_height(d.o_group(), isa.tile_rows());
    let per_group = d.o_group().div_ceil(high) * d.kernel[0];
    let (out, work) = (Shared(dw.as_mut_ptr()), Work::MultiplyAdds(d.multiply_adds()));
    par::split(work, d.groups * per_group, (), |units, ()| {
        for (group, units) in by_group(units, per_group) {
            let first = group * per_group;
            let units = units.start - first..units.end - first;
            isa.dispatch(Piece { dy, x, d, group, units, out: out.get(), write });
        }
    });
}

/// Some units of a group, on one thread: a unit is a tile of output channels and a row of the
/// window.
struct Piece<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    d: &'a Conv2dDims,
    group: usize,
    units: Range<usize>,
    out: *mut f32,
    write: Write,
}

impl SimdKernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let d = self.d;
        let [kh, kw] = d.kernel;
        let (channels, out_channels, image, pixels) =
            (d.c_group(), d.o_group(), d.h * d.w, d.oh() * d.ow());
        let high = row_height(out_channels, S::TILE_ROWS);
        let tile = |at: usize| at * high..out_channels.min((at + 1) * high);
        let tiles = self.units.start / kh..self.units.end.div_ceil(kh);
        let unit_len = high * kw * channels * S::LANES;
        let mut sums = scratch::floats(self.units.len() * unit_len);
        sums.fill(0.0);
        let mut x = scratch::floats(image * channels * S::LANES);
        let mut dy = scratch::floats(tiles.len() * pixels * high * S::LANES);
        for first in (0..d.n).step_by(S::LANES) {
            let images = S::LANES.min(d.n - first);
            let from = Source {
                from: &self.x[(first * d.groups + self.group) * channels * image..],
                image: d.c * image,
                plane: image,
                channels,
                pixels: image,
            };
            gather(s, &mut x, S::LANES, images, &from);
            for (at, dy) in tiles.clone().zip(dy.chunks_exact_mut(pixels * high * S::LANES)) {
                let tile = tile(at);
                let from = Source {
                    from: &self.dy
                        [((first * d.groups + self.group) * out_channels + tile.start) * pixels..],
                    image: d.o * pixels,
                    plane: pixels,
                    channels: tile.len(),
                    pixels,
                };
                gather(s, dy, S::LANES, images, &from);
            }
            for (unit, sums) in self.units.clone().zip(sums.chunks_exact_mut(unit_len)) {
                let (at, row) = (unit / kh, unit % kh);
                let dy = &dy[(at - tiles.start) * pixels * high * S::LANES..];
                self.unit(s, sums, dy, &x, tile(at).len(), row);
            }
        }
        for (unit, sums) in self.units.clone().zip(sums.chunks_exact(unit_len)) {
            let (tile, i) = (tile(unit / kh), unit % kh);
            for (output, sums) in tile.zip(sums.chunks_exact(kw * channels * S::LANES)) {
                for (at, sum) in sums.chunks_exact(S::LANES).enumerate() {
                    let (j, c) = (at / channels, at % channels);
                    let to = ((self.group * out_channels + output) * channels + c) * kh * kw
                        + i * kw
                        + j;
                    let sum = s.reduce_sum(s.read(sum));
                    // SAFETY: this weight is in dw, and no other piece writes it.
                    unsafe {
                        let to = self.out.add(to);
                        *to = if self.write == Write::Add { *to + sum } else { sum };
                    }
                }
            }
        }
    }
}

impl Piece<'_> {
    /// `sums[output channel][column of the window][channel] += ` what one vector of images
    /// contributes to a tile of output channels.
    #[inline(always)]
    fn unit<S: Simd>(
        &self,
        s: S,
        sums: &mut [f32],
        dy: &[f32],
        x: &[f32],
        out_channels: usize,
        row: usize,
    ) {
        let (d, window) = (self.d, Window::new(self.d));
        let ([_, kw], channels) = (d.kernel, d.c_group());
        let meeting = window.meeting(0, row, d.oh());
        let block = (IN_L1 / ((out_channels * d.ow() + channels * d.w) * S::LANES)).max(1);
        for first in meeting.clone().step_by(block) {
            let rows = block.min(meeting.end - first);
            for j in 0..kw {
                let cols = window.meeting(1, j, d.ow());
                if cols.is_empty() {
                    continue;
                }
                let pixel = first * d.ow() + cols.start;
                let place = (first + row - d.padding[0]) * d.w + cols.start + j - d.padding[1];
                for c in (0..channels).step_by(VECTORS) {
                    let tile = PixelsTile {
                        grid: [rows, cols.len()],
                        dy: &dy[pixel * out_channels * S::LANES..],
                        dy_row: d.ow() * out_channels,
                        x: &x[(place * channels + c) * S::LANES..],
                        x_row: d.w * channels,
                        channels,
                        sums: &mut sums[(j * channels + c) * S::LANES..],
                        sums_step: kw * channels * S::LANES,
                    };
                    // SAFETY: the pixels meet the image here, so both have a vector for each of
                    // them and each of their channels, and the sums one for each two channels.
                    unsafe { sized(s, out_channels, (channels - c) * S::LANES, tile) };
                }
            }
        }
    }
}

/// Some rows of pixels, at one place of the window, for a few output channels and one or two input
/// channels.
struct PixelsTile<'a> {
    /// Rows and columns of pixels.
    grid: [usize; 2],
    /// From the first pixel on: a vector of images for each of the R output channels.
    dy: &'a [f32],
    /// Vectors from one row of `dy` to the next.
    dy_row: usize,
    /// From the first of the two channels on: a vector of images for each of the `channels` of a
    /// pixel.
    x: &'a [f32],
    x_row: usize,
    channels: usize,
    sums: &'a mut [f32],
    sums_step: usize,
}

impl<S: Simd> Tile<S> for PixelsTile<'_> {
    #[inline(always)]
    unsafe fn run<const R: usize, const V: usize>(self, s: S) {
        let mut acc = [[s.zero(); V]; R];
        for row in 0..self.grid[0] {
            let mut dy = self.dy.as_ptr().wrapping_add(row * self.dy_row * S::LANES);
            let mut x = self.x.as_ptr().wrapping_add(row * self.x_row * S::LANES);
            for _ in 0..self.grid[1] {
                // SAFETY: the caller's promise about the pixels of the grid.
                unsafe {
                    let dy = |r: usize| s.load(dy.add(r * S::LANES));
                    multiply_add(s, &mut acc, dy, |v| s.load(x.add(v * S::LANES)));
                }
                dy = dy.wrapping_add(R * S::LANES);
                x = x.wrapping_add(self.channels * S::LANES);
            }
        }
        // SAFETY: the caller's promise about the sums.
        unsafe {
            let to = self.sums.as_mut_ptr();
            emit(s, acc, to, self.sums_step, V * S::LANES, Write::Add);
        }
    }
}
