//! The gradient of the weights as a sum over pixels: lanes are output channels, rows are taps.
//!
//! `dw[tap][o] = sum over pixels of x[pixel + tap] * dy[pixel][o]` is the
//! [`sweep`](super::channels) with pixels and taps changing places: again the image is read one
//! float at a time at `pixel offset + tap offset`, and `dy`, transposed, as vectors.
//!
//! ```text
//! for each run of images:                 (threads split panels of output channels, or taps)
//!   copy them with zeros around           (unless there is no padding)
//!   for each block of pixels:
//!     transpose dy into panels [pixel][two vectors of output channels], L1, L2
//!     for each panel, for each R taps:
//!       tile: sums[R, panel] += image[pixel + tap] * dy[pixel], over the block, in registers
//! transpose the sums into dw[o][tap]
//! ```
//!
//! Fast paths: images without padding are read where they lie, several together where they have few
//! pixels; of padded ones only the planes are copied that the taps of a thread read.

use super::{
    Conv2dDims,
    planes::Planes,
    sweep::{by_group, pixel_offsets},
};
use crate::{
    Write,
    isa::Isa,
    par::{self, Shared, Work},
    scratch,
    simd::{Simd, SimdKernel},
    tile::{Tile, VECTORS, emit, outer, panel, row_tiles, sized, transpose_into},
    tuning::conv2d::PIXELS,
};
use std::ops::Range;

/// `dw [o, taps]` from `dy` and `x`; tap `t` reads the image at `taps[t]`, a pixel at `row *
/// step[0] + col * step[1]`.
pub(super) struct WeightSums<'a> {
    pub(super) dy: &'a [f32],
    pub(super) x: &'a [f32],
    pub(super) d: &'a Conv2dDims,
    pub(super) planes: Planes,
    pub(super) taps: &'a [u32],
    pub(super) step: [usize; 2],
}

impl WeightSums<'_> {
    pub(super) fn run(&self, dw: &mut [f32], write: Write) {
        let isa = Isa::current();
        let wide = VECTORS * isa.lanes();
        let per_group = self.d.o_group().div_ceil(wide);
        let panels = self.d.groups * per_group;
        let work = Work::MultiplyAdds(self.d.multiply_adds());
        let out = Shared(dw.as_mut_ptr());
        let taps = 0..self.taps.len();
        let piece = |group: usize, panels: Range<usize>, taps: Range<usize>| {
            isa.dispatch(Piece { sums: self, group, panels, taps, out: out.get(), write });
        };
        if panels >= 2 * work.pieces() {
            par::split(work, panels, (), |panels, ()| {
                for (group, panels) in by_group(panels, per_group) {
                    let first = group * per_group;
                    piece(group, panels.start - first..panels.end - first, taps.clone());
                }
            });
        } else {
            let high = isa.tile_rows();
            par::split(work, taps.len().div_ceil(high), (), |units, ()| {
                let taps = units.start * high..taps.end.min(units.end * high);
                for group in 0..self.d.groups {
                    piece(group, 0..per_group, taps.clone());
                }
            });
        }
    }
}

/// Some panels of one group and some taps, on one thread.
struct Piece<'a> {
    sums: &'a WeightSums<'a>,
    group: usize,
    panels: Range<usize>,
    taps: Range<usize>,
    out: *mut f32,
    write: Write,
}

impl SimdKernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let WeightSums { x, d, planes, taps, .. } = *self.sums;
        let wide = panel::<S>();
        let width = wide * self.panels.len();
        let first_lane = self.panels.start * wide;
        let lanes = width.min(d.o_group() - first_lane);
        let pixels = d.oh() * d.ow();
        let kernel = d.kernel[0] * d.kernel[1];
        // Only the planes that these taps read.
        let channels = self.taps.start / kernel..self.taps.end.div_ceil(kernel);
        let base = channels.start * planes.plane();
        let at_once = planes.images_at_once(PIXELS / pixels, d.groups).min(d.n);
        let plane = d.h * d.w;
        let mut sums = scratch::floats(self.taps.len() * width);
        sums.fill(0.0);
        let len = channels.len() * planes.plane();
        let mut padded = scratch::floats(if planes.in_place() { 0 } else { at_once * len });
        padded.fill(0.0);
        for image in (0..d.n).step_by(at_once) {
            let images = image..d.n.min(image + at_once);
            let channel =
                |image: usize| (image * d.groups + self.group) * d.c_group() + channels.start;
            if planes.in_place() {
                let from = &x[channel(images.start) * plane..];
                self.images(s, &mut sums, images, from, d.c * plane, base);
            } else {
                for (image, to) in images.clone().zip(padded.chunks_exact_mut(len)) {
                    planes.fill(s, to, &x[channel(image) * plane..][..channels.len() * plane]);
                }
                self.images(s, &mut sums, images, &padded, len, base);
            }
        }
        // SAFETY: dw has `lanes` rows of taps.len() floats from here on, and no other piece has
        // this part of them.
        unsafe {
            let first = (self.group * d.o_group() + first_lane) * taps.len() + self.taps.start;
            let to = self.out.add(first);
            transpose_into(
                s,
                to,
                taps.len(),
                sums.as_ptr(),
                width,
                self.taps.len(),
                lanes,
                self.write,
            );
        }
    }
}

impl Piece<'_> {
    /// Adds what some images contribute. Element `taps[t] - base + pixel` of `x` belongs to the
    /// first image, the next is `image_step` further.
    #[inline(always)]
    fn images<S: Simd>(
        &self,
        s: S,
        sums: &mut [f32],
        images: Range<usize>,
        x: &[f32],
        image_step: usize,
        base: usize,
    ) {
        let WeightSums { d, taps, step, .. } = *self.sums;
        let wide = panel::<S>();
        let width = wide * self.panels.len();
        let per_image = d.oh() * d.ow();
        let total = images.len() * per_image;
        let block = total.div_ceil(total.div_ceil(PIXELS));
        let taps = &taps[self.taps.clone()];
        let mut dy = scratch::floats(block * width);
        let mut offsets = scratch::offsets(block);
        for first in (0..total).step_by(block) {
            let block = first..total.min(first + block);
            let pixels = &mut offsets[..block.len()];
            let all = pixel_offsets(first, [d.oh(), d.ow()], [image_step, step[0], step[1]]);
            pixels.iter_mut().zip(all).for_each(|(to, offset)| *to = offset);
            let furthest = taps.iter().max().map_or(0, |&tap| tap as usize - base)
                + pixels[pixels.len() - 1] as usize;
            assert!(furthest < x.len(), "conv2d: a tap beyond the image");
            self.pack_dy(s, &mut dy, images.start, block.clone());
            for (p, dy) in dy.chunks_exact(block.len() * wide).take(self.panels.len()).enumerate() {
                let lanes = d.o_group() - (self.panels.start + p) * wide;
                for rows in row_tiles::<S>(taps.len()) {
                    let to = &mut sums[rows.start * width + p * wide..];
                    let taps = &taps[rows];
                    assert!(to.len() >= (taps.len() - 1) * width + wide);
                    let tile = TapTile { x, base, taps, pixels, dy, to, width };
                    // SAFETY: as many taps as rows, and room for their sums; all were checked to be
                    // inside the image, and `dy` is a panel for each pixel.
                    unsafe { sized(s, taps.len(), lanes, tile) };
                }
            }
        }
    }

    /// `to[panel][pixel][lane] = dy[lane][pixel]`, zero beyond the last lane.
    #[inline(always)]
    fn pack_dy<S: Simd>(&self, s: S, to: &mut [f32], first_image: usize, block: Range<usize>) {
        let WeightSums { dy, d, .. } = *self.sums;
        let wide = panel::<S>();
        let per_image = d.oh() * d.ow();
        for (p, to) in self.panels.clone().zip(to.chunks_exact_mut(block.len() * wide)) {
            let first_lane = p * wide;
            let lanes = wide.min(d.o_group() - first_lane);
            if lanes < wide {
                to.fill(0.0);
            }
            let mut pixel = block.start;
            while pixel < block.end {
                let (i, at) = (pixel / per_image, pixel % per_image);
                let run = (per_image - at).min(block.end - pixel);
                let channel =
                    ((first_image + i) * d.groups + self.group) * d.o_group() + first_lane;
                let from = &dy[channel * per_image..][..lanes * per_image];
                let to = &mut to[(pixel - block.start) * wide..][..run * wide];
                // SAFETY: the run is inside each of the `lanes` channels in `from`, and `to` has a
                // row for each pixel.
                unsafe {
                    transpose_into(
                        s,
                        to.as_mut_ptr(),
                        wide,
                        from.as_ptr().add(at),
                        per_image,
                        lanes,
                        run,
                        Write::Set,
                    );
                }
                pixel += run;
            }
        }
    }
}

/// A few taps and one panel of output channels.
struct TapTile<'a> {
    x: &'a [f32],
    base: usize,
    taps: &'a [u32],
    pixels: &'a [u32],
    dy: &'a [f32],
    to: &'a mut [f32],
    width: usize,
}

impl<S: Simd> Tile<S> for TapTile<'_> {
    #[inline(always)]
    unsafe fn run<const R: usize, const V: usize>(self, s: S) {
        // SAFETY: `images` checked that the furthest pixel and tap are inside x, and the lengths of
        // the others.
        unsafe {
            let rows = std::array::from_fn(|r| {
                self.x.as_ptr().add(*self.taps.get_unchecked(r) as usize - self.base)
            });
            let pixels = self.pixels.iter().map(|&pixel| pixel as usize);
            let (dy, wide) = (self.dy.as_ptr(), panel::<S>());
            let acc = outer::<S, R, V>(s, pixels, rows, dy, wide);
            emit(s, acc, self.to.as_mut_ptr(), self.width, V * S::LANES, Write::Add);
        }
    }
}
