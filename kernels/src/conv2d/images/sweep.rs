//! Forward and the gradient of the input: a tile is R output channels by two vectors of images.
//!
//! ```text
//! sort the taps by row, column, channel; pack the weights: [R output channels][tap][channel]
//! for each two vectors of images, for some rows of the output:          (threads split these)
//!   gather what they read:          source[pixel][channel][image], L2
//!   for each R output channels:
//!     for each pixel:
//!       tile: acc[R, 2] = bias + sum of weights[tap][R] * source[pixel + tap], in registers, over
//!             the taps inside the image; those in one row of the window lie one after the other
//!     transpose the tiles into out[image][channel][pixel]
//! ```
//!
//! There is one path; only the last vectors of a batch may be partly empty.

#![allow(clippy::needless_range_loop)] // index loops over small arrays read like the formulas

use super::{
    super::{
        pixels::pack,
        sweep::{Sweep, rectangles},
    },
    Source, Window, gather,
};
use crate::{
    Write,
    isa::Isa,
    par::{self, Shared, Work},
    scratch,
    simd::{Simd, SimdKernel},
    tile::{Tile, VECTORS, emit, panel, row_height, row_tiles, sized, spread, transpose_into},
};
use std::ops::Range;

/// Computes `out [images, groups * out_channels, channel]` of a sweep with one phase, stride 1 and
/// adjoining taps.
pub(in super::super) fn run(sweep: &mut Sweep, out: Shared) {
    let plane = sweep.planes.plane() as u32;
    sweep.phases[0].taps.sort_by_key(|tap| (tap.source % plane, tap.source / plane));
    let isa = Isa::current();
    let (wide, high) = (VECTORS * isa.lanes(), row_height(sweep.out_channels, isa.tile_rows()));
    let group_len = sweep.out_channels * sweep.taps();
    let mut weights = scratch::floats(sweep.groups * group_len);
    for (group, to) in weights.chunks_exact_mut(group_len).enumerate() {
        pack(sweep, to, group, high);
    }
    let window = window(sweep);
    assert_eq!(sweep.taps(), window.size[0] * window.size[1] * sweep.planes.count);
    let (rows, batches) = (sweep.phases[0].grid[0], sweep.images.div_ceil(wide));
    let work = Work::MultiplyAdds(sweep.multiply_adds);
    par::split(work, batches * sweep.groups * rows, (), |units, ()| {
        for (at, rows) in rectangles(units, rows, 1) {
            let (first, group) = (at.start / sweep.groups * wide, at.start % sweep.groups);
            let images = first..sweep.images.min(first + wide);
            let weights = &weights[group * group_len..][..group_len];
            isa.dispatch(Piece { sweep, window, images, group, rows, weights, out: out.get() });
        }
    });
}

/// The window of a sweep whose taps are sorted.
fn window(sweep: &Sweep) -> Window {
    let (planes, taps) = (sweep.planes, &sweep.phases[0].taps);
    let place = |tap: usize| {
        let at = taps[tap].source as usize % planes.plane();
        [at / planes.padded[1], at % planes.padded[1]]
    };
    let (first, last) = (place(0), place(taps.len() - 1));
    Window {
        corner: [0, 1].map(|axis| first[axis] as isize - planes.before[axis] as isize),
        size: [0, 1].map(|axis| last[axis] - first[axis] + 1),
        image: planes.size,
    }
}

/// Some output rows of one group of at most two vectors of images, on one thread.
struct Piece<'a> {
    sweep: &'a Sweep<'a>,
    window: Window,
    images: Range<usize>,
    group: usize,
    rows: Range<usize>,
    /// Of this group.
    weights: &'a [f32],
    out: *mut f32,
}

impl SimdKernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sweep { planes, groups, out_channels, channel, bias, write, .. } = *self.sweep;
        let (wide, cols) = (panel::<S>(), self.sweep.phases[0].grid[1]);
        let (_, top) = self.window.inside(0, self.rows.start);
        let (last, bottom) = self.window.inside(0, self.rows.end - 1);
        let read = top..bottom + last.len();
        let [h, w] = planes.size;
        let first = (self.images.start * groups + self.group) * planes.count * h * w;
        let from = Source {
            from: &self.sweep.source[first + read.start * w..],
            image: groups * planes.count * h * w,
            plane: h * w,
            channels: planes.count,
            pixels: read.len() * w,
        };
        let mut source = scratch::floats(read.len() * w * planes.count * wide);
        gather(s, &mut source, wide, self.images.len(), &from);

        let (pixels, taps) = (self.rows.len() * cols, self.sweep.taps());
        let mut sums = scratch::floats(row_height(out_channels, S::TILE_ROWS) * pixels * wide);
        for tile in row_tiles::<S>(out_channels) {
            let outputs =
                self.group * out_channels + tile.start..self.group * out_channels + tile.end;
            let image_tile = ImageTile {
                window: self.window,
                rows: self.rows.clone(),
                cols,
                source: &source,
                top,
                channels: planes.count,
                weights: &self.weights[tile.start * taps..tile.end * taps],
                bias: bias.map(|bias| &bias[outputs.clone()]),
                sums: &mut sums[..tile.len() * pixels * wide],
            };
            // SAFETY: the source has the rows that the windows of these rows have in the image;
            // there are as many weights and sums as the tile has rows.
            unsafe { sized(s, tile.len(), self.images.len(), image_tile) };
            for (sums, output) in sums.chunks_exact(pixels * wide).zip(outputs) {
                for at in (0..self.images.len()).step_by(S::LANES) {
                    let image = (self.images.start + at) * groups * out_channels + output;
                    let (from, images) = (&sums[at..], S::LANES.min(self.images.len() - at));
                    // SAFETY: the output has these rows of this channel in each image, and no other
                    // piece writes them.
                    unsafe {
                        let to = self.out.add(image * channel + self.rows.start * cols);
                        let to_step = groups * out_channels * channel;
                        transpose_into(s, to, to_step, from.as_ptr(), wide, pixels, images, write);
                    }
                }
            }
        }
    }
}

/// A few output channels of all pixels of some rows.
struct ImageTile<'a> {
    window: Window,
    rows: Range<usize>,
    cols: usize,
    /// `[row][column][channel][image]`, from row `top` of the image on.
    source: &'a [f32],
    top: usize,
    channels: usize,
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    /// `[output channel][pixel][image]`
    sums: &'a mut [f32],
}

impl<S: Simd> Tile<S> for ImageTile<'_> {
    #[inline(always)]
    unsafe fn run<const R: usize, const V: usize>(self, s: S) {
        let (wide, pixels) = (panel::<S>(), self.rows.len() * self.cols);
        let mut start = [[s.zero(); V]; R];
        if let Some(bias) = self.bias {
            for r in 0..R {
                start[r] = [s.splat(bias[r]); V];
            }
        }
        let mut to = self.sums.as_mut_ptr();
        for row in self.rows {
            let (high, y) = self.window.inside(0, row);
            for col in 0..self.cols {
                let (across, x) = self.window.inside(1, col);
                let mut acc = start;
                for (i, y) in high.clone().zip(y - self.top..) {
                    let tap = (i * self.window.size[1] + across.start) * self.channels;
                    let place = (y * self.window.image[1] + x) * self.channels * wide;
                    // SAFETY: this row of the window is inside the image; R weights belong to each
                    // tap.
                    unsafe {
                        let source = self.source.as_ptr().add(place);
                        let source = std::array::from_fn(|v| source.wrapping_add(v * S::LANES));
                        let weights = self.weights.as_ptr().add(tap * R);
                        let depth = across.len() * self.channels;
                        acc = spread::<S, R, V>(s, acc, depth, weights, source, |k| k * wide);
                    }
                }
                // SAFETY: each of the R channels has two vectors for each pixel.
                unsafe {
                    emit(s, acc, to, pixels * wide, V * S::LANES, Write::Set);
                    to = to.wrapping_add(wide);
                }
            }
        }
    }
}
