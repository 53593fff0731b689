//! The convolution loop: lanes are output channels, rows are output pixels.
//!
//! An output pixel is a sum over taps (channel, kernel row, kernel column) of an input element and
//! a vector of weights, one for each output channel. With the image padded, the element is at
//! `pixel offset + tap offset`: both come from tables, so stride, dilation and phase cost nothing
//! and every pixel fills a tile's row, at the edges too.
//!
//! ```text
//! pack the weights into panels [tap][two vectors of output channels]
//! for each run of images:                    (threads split images, then panels of channels)
//!   copy them with zeros around              (unless there is no padding)
//!   for each block of pixels:                sums[pixel][channel], L2
//!     for each part of the taps:             one panel of weights, L1
//!       for each panel, for each few pixels:
//!         tile: sums[pixels, panel] += image[pixel + tap] * panel[tap], over taps, in registers
//!     transpose the sums into y[channel][pixel]
//! ```
//!
//! The gradient of the input is the same sweep over `dy`, see
//! [`backward_input`](super::backward_input()).
//!
//! Fast paths: images without padding are read where they lie; where an image has few pixels,
//! several are swept together; weights that follow each other are packed by transposing squares.

use super::sweep::{Phase, Sweep, by_group, pixel_offsets};
use crate::{
    Write,
    isa::Isa,
    par::{self, Shared, Work},
    scratch,
    simd::{Simd, SimdKernel},
    tile::{Tile, VECTORS, emit, outer, panel, row_tiles, sized, transpose_into},
    tuning::{
        conv2d::{AT_ONCE, BLOCK, SUMS},
        tile::PANEL,
    },
};
use std::{hint::black_box, ops::Range};

/// Computes `out [images, groups * out_channels, channel]`.
pub(super) fn run(sweep: &Sweep, out: Shared) {
    let isa = Isa::current();
    let wide = VECTORS * isa.lanes();
    let per_group = sweep.out_channels.div_ceil(wide);
    let panels = sweep.groups * per_group;
    let taps = sweep.taps();
    let mut packed = scratch::floats(panels * wide * (taps + 1));
    let (bias, weights) = packed.split_at_mut(panels * wide);
    sweep.pad_bias(bias, per_group * wide);
    let rows = par::Rows { data: &mut weights[..], row: taps * wide };
    par::split(Work::Elements(taps * panels * wide), panels, rows, |range, rows| {
        for (panel, to) in range.zip(rows.data.chunks_exact_mut((taps * wide).max(1))) {
            let (group, first) = (panel / per_group, panel % per_group * wide);
            isa.dispatch(PackPanel { sweep, to, group, first });
        }
    });
    // Small images are swept together, so that a panel of weights serves more than a few pixels.
    let pixels = sweep.phases.iter().map(Phase::pixels).max().unwrap_or(0);
    let at_once = sweep.planes.images_at_once(AT_ONCE / pixels.max(1), sweep.groups);
    sweep.each_piece(panels, at_once, |images, panels| {
        isa.dispatch(Piece { sweep, images, panels, per_group, weights, bias, out: out.get() });
    });
}

/// Packs `to[phase][tap][lane]` of one panel, zero beyond the last lane.
pub(super) struct PackPanel<'a> {
    pub(super) sweep: &'a Sweep<'a>,
    pub(super) to: &'a mut [f32],
    pub(super) group: usize,
    pub(super) first: usize,
}

impl SimdKernel for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let wide = panel::<S>();
        let Sweep { weights, channel_step, group_step, out_channels, ref phases, .. } = *self.sweep;
        let lanes = wide.min(out_channels - self.first);
        let from = &weights[self.group * group_step + self.first * channel_step..];
        let mut to = self.to;
        if lanes < wide {
            to.fill(0.0);
        }
        for phase in phases {
            let (mut here, rest) = to.split_at_mut(phase.taps.len() * wide);
            to = rest;
            // Weights that follow each other can be transposed. In the gradient of the input that
            // is a kernel at a time.
            for taps in phase.taps.chunk_by(|a, b| a.weight + 1 == b.weight) {
                let (to, rest) = std::mem::take(&mut here).split_at_mut(taps.len() * wide);
                here = rest;
                let from = &from[taps[0].weight as usize..];
                assert!(from.len() >= (lanes - 1) * channel_step + taps.len());
                let to = to.as_mut_ptr();
                // SAFETY: `lanes` rows of taps.len() weights, channel_step apart, were just checked
                // to be there; `to` is taps.len() rows of `wide`.
                unsafe {
                    let from = from.as_ptr();
                    transpose_into(s, to, wide, from, channel_step, lanes, taps.len(), Write::Set);
                }
            }
        }
    }
}

/// Some panels of some images, on one thread.
struct Piece<'a> {
    sweep: &'a Sweep<'a>,
    images: Range<usize>,
    panels: Range<usize>,
    per_group: usize,
    weights: &'a [f32],
    bias: &'a [f32],
    out: *mut f32,
}

impl SimdKernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let planes = self.sweep.planes;
        let copies = if planes.in_place() { 0 } else { self.images.len() };
        let mut padded = scratch::floats(copies * planes.len());
        padded.fill(0.0);
        for (group, here) in by_group(self.panels.clone(), self.per_group) {
            if planes.in_place() {
                let image_len = planes.len() * self.sweep.groups;
                let first = self.images.start * image_len + group * planes.len();
                self.phases(s, &self.sweep.source[first..], image_len, here);
            } else {
                for (image, to) in
                    self.images.clone().zip(padded.chunks_exact_mut(planes.len().max(1)))
                {
                    planes.fill(s, to, self.sweep.group_of(image, group));
                }
                self.phases(s, &padded, planes.len(), here);
            }
        }
    }
}

impl Piece<'_> {
    /// All phases of one group: `image` holds the planes of the first image, the next is
    /// `image_step` further.
    #[inline(always)]
    fn phases<S: Simd>(&self, s: S, image: &[f32], image_step: usize, panels: Range<usize>) {
        let wide = panel::<S>() * panels.len();
        let block = (SUMS / wide).clamp(S::TILE_ROWS, BLOCK) / S::TILE_ROWS * S::TILE_ROWS;
        let mut taps_before = 0;
        for phase in &self.sweep.phases {
            let total = self.images.len() * phase.pixels();
            let block = block.min(total.next_multiple_of(S::TILE_ROWS));
            let mut sums = scratch::floats(block * wide);
            let mut offsets = scratch::offsets(block + phase.taps.len());
            let (taps, pixels) = offsets.split_at_mut(phase.taps.len());
            for (to, tap) in taps.iter_mut().zip(&phase.taps) {
                *to = tap.source;
            }
            for first in (0..total).step_by(block) {
                let block = first..(first + block).min(total);
                let pixels = &mut pixels[..block.len()];
                let step = [image_step, phase.source_step[0], phase.source_step[1]];
                let offsets = pixel_offsets(first, phase.grid, step);
                pixels.iter_mut().zip(offsets).for_each(|(to, offset)| *to = offset);
                self.sum(s, &mut sums, image, pixels, taps, taps_before, panels.clone());
                self.write_out(s, &sums, phase, block, panels.clone());
            }
            taps_before += phase.taps.len();
        }
    }

    /// `sums[pixel][panel][lane] = bias + sum over taps`
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn sum<S: Simd>(
        &self,
        s: S,
        sums: &mut [f32],
        image: &[f32],
        pixels: &[u32],
        taps: &[u32],
        taps_before: usize,
        panels: Range<usize>,
    ) {
        let wide = panel::<S>();
        let width = wide * panels.len();
        let panel_len = self.weights.len() / (self.sweep.groups * self.per_group);
        let parts = taps.len().div_ceil(PANEL / wide).max(1);
        let part = taps.len().div_ceil(parts).max(1);
        // The furthest element that is read: one check for all.
        if let (Some(&pixel), Some(&tap)) = (pixels.iter().max(), taps.iter().max()) {
            assert!(image.len() > pixel as usize + tap as usize, "conv2d: a tap beyond the image");
        }
        for first in (0..taps.len().max(1)).step_by(part) {
            // Opaque, or LLVM computes its end anew for every tap.
            let some = black_box(&taps[first..taps.len().min(first + part)]);
            for (p, panel) in panels.clone().enumerate() {
                let weights = &self.weights[panel * panel_len + (taps_before + first) * wide..]
                    [..some.len() * wide];
                let bias = (first == 0).then(|| &self.bias[panel * wide..][..wide]);
                let lanes = self.sweep.out_channels - panel % self.per_group * wide;
                for rows in row_tiles::<S>(pixels.len()) {
                    let to = &mut sums[rows.start * width..rows.end * width];
                    let pixels = &pixels[rows];
                    let tile = PixelTile {
                        image,
                        pixels,
                        taps: some,
                        weights,
                        bias,
                        to,
                        width,
                        lane: p * wide,
                    };
                    // SAFETY: as many pixels as rows, and as much room for their sums; all were
                    // checked to be inside the image.
                    unsafe { sized(s, pixels.len(), lanes, tile) };
                }
            }
        }
    }

    /// Transposes the sums of a block of pixels into the output channels.
    #[inline(always)]
    fn write_out<S: Simd>(
        &self,
        s: S,
        sums: &[f32],
        phase: &Phase,
        block: Range<usize>,
        panels: Range<usize>,
    ) {
        let Sweep { out_channels, groups, channel, write, .. } = *self.sweep;
        let wide = panel::<S>();
        let width = wide * panels.len();
        let group = panels.start / self.per_group;
        let first_lane = panels.start % self.per_group * wide;
        let count = width.min(out_channels - first_lane);
        let contiguous = phase.step[1] == 1 && phase.step[0] == phase.grid[1];
        let mut pixel = block.start;
        while pixel < block.end {
            let (i, at) = (pixel / phase.pixels(), pixel % phase.pixels());
            let from = &sums[(pixel - block.start) * width..];
            let channels = ((self.images.start + i) * groups + group) * out_channels + first_lane;
            // SAFETY: the output has `count` channels from here on, and the pixels of this run in
            // each of them.
            unsafe {
                let to = self.out.add(channels * channel + phase.first);
                if contiguous {
                    let run = (phase.pixels() - at).min(block.end - pixel);
                    transpose_into(s, to.add(at), channel, from.as_ptr(), width, run, count, write);
                    pixel += run;
                } else {
                    let to = to.add(
                        at / phase.grid[1] * phase.step[0] + at % phase.grid[1] * phase.step[1],
                    );
                    for (lane, &sum) in from[..count].iter().enumerate() {
                        let to = to.add(lane * channel);
                        *to = if write == Write::Add { *to + sum } else { sum };
                    }
                    pixel += 1;
                }
            }
        }
    }
}

/// A few pixels and one panel of output channels.
struct PixelTile<'a> {
    image: &'a [f32],
    pixels: &'a [u32],
    taps: &'a [u32],
    weights: &'a [f32],
    /// For the first part of the taps.
    bias: Option<&'a [f32]>,
    /// Rows of `width` sums, of which this panel's start at `lane`.
    to: &'a mut [f32],
    width: usize,
    lane: usize,
}

impl<S: Simd> Tile<S> for PixelTile<'_> {
    #[inline(always)]
    unsafe fn run<const R: usize, const V: usize>(self, s: S) {
        // SAFETY: `sum` checked that the furthest pixel and tap are inside the image; the weights
        // are taps.len() rows of a panel, `to` is R rows of `width`, and the panel is inside that
        // width.
        unsafe {
            let rows = std::array::from_fn(|r| {
                self.image.as_ptr().add(*self.pixels.get_unchecked(r) as usize)
            });
            let taps = self.taps.iter().map(|&tap| tap as usize);
            let (weights, wide) = (self.weights.as_ptr(), panel::<S>());
            let mut acc = outer::<S, R, V>(s, taps, rows, weights, wide);
            let write = match self.bias {
                Some(bias) => {
                    for row in &mut acc {
                        for (v, x) in row.iter_mut().enumerate() {
                            *x = s.add(*x, s.load(bias.as_ptr().add(v * S::LANES)));
                        }
                    }
                    Write::Set
                }
                None => Write::Add,
            };
            let to = self.to.as_mut_ptr().add(self.lane);
            emit(s, acc, to, self.width, V * S::LANES, write);
        }
    }
}
