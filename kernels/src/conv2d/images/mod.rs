//! Images in the lanes: for few channels of small images, in batches.
//!
//! A vector holds one pixel of as many images as it has lanes. So rows may have any width, no pixel
//! is computed twice, and taps that reach beyond the edge are left out, where other engines
//! multiply zeros: in the gradient of a 14 x 14 image through 5 x 5 those are half of all products.
//! The price is transposing the batch: [`gather`] on the way in, and back on the way out.
//!
//! `sweep.rs` is forward and the gradient of the input, `weights.rs` that of the weights.

mod sweep;
mod weights;

pub(super) use {sweep::run, weights::backward_weight};

use super::Conv2dDims;
use crate::{Write, simd::Simd, tile::transpose_into};
use std::ops::Range;

/// Whether this is possible.
pub(super) fn can(d: &Conv2dDims) -> bool {
    d.stride == [1, 1] && d.dilation == [1, 1] && d.x_len() > 0 && d.y_len() > 0
}

/// Products for one image, in each direction.
pub(super) fn products(d: &Conv2dDims) -> usize {
    let window = Window::new(d);
    let [rows, cols] = [(0, d.oh()), (1, d.ow())]
        .map(|(axis, out)| (0..out).map(|at| window.inside(axis, at).0.len()).sum::<usize>());
    d.c_group() * d.o * rows * cols
}

/// The rectangle of elements that each output pixel reads.
#[derive(Clone, Copy)]
struct Window {
    /// Where that of the first pixel starts, counted from the corner of the image: with padding
    /// before it.
    corner: [isize; 2],
    size: [usize; 2],
    image: [usize; 2],
}

impl Window {
    fn new(d: &Conv2dDims) -> Self {
        Self { corner: d.padding.map(|p| -(p as isize)), size: d.kernel, image: [d.h, d.w] }
    }

    /// Which rows (axis 0) or columns of the window of pixel `at` are inside the image, and where
    /// the first of them lies.
    #[inline(always)]
    fn inside(&self, axis: usize, at: usize) -> (Range<usize>, usize) {
        let (start, image) = (at as isize + self.corner[axis], self.image[axis] as isize);
        let first = start.clamp(0, image);
        let end = (start + self.size[axis] as isize).clamp(first, image);
        let before = (first - start).max(0);
        (before as usize..(before + end - first) as usize, first as usize)
    }

    /// Which of `pixels` pixels meet the image with row (axis 0) or column `tap` of their windows.
    #[inline(always)]
    fn meeting(&self, axis: usize, tap: usize, pixels: usize) -> Range<usize> {
        let start = tap as isize + self.corner[axis];
        let first = (-start).clamp(0, pixels as isize);
        first as usize..(self.image[axis] as isize - start).clamp(first, pixels as isize) as usize
    }
}

/// Some pixels of some channels, where they lie in a batch.
struct Source<'a> {
    /// From the first pixel of the first channel of the first image on.
    from: &'a [f32],
    /// From one image to the next.
    image: usize,
    /// From one channel to the next.
    plane: usize,
    channels: usize,
    pixels: usize,
}

/// `to[pixel][channel][image]`, with `wide` images of which the first `images` are there; zero in
/// the others.
#[inline(always)]
fn gather<S: Simd>(s: S, to: &mut [f32], wide: usize, images: usize, source: &Source) {
    let Source { from, image, plane, channels, pixels } = *source;
    assert!(from.len() >= (images - 1) * image + (channels - 1) * plane + pixels);
    assert!(to.len() >= pixels * channels * wide);
    if images < wide {
        to.fill(0.0);
    }
    for at in (0..images).step_by(S::LANES) {
        let some = S::LANES.min(images - at);
        for channel in 0..channels {
            // SAFETY: so many pixels are in `from` for these images, and so many vectors in `to`,
            // as was checked.
            unsafe {
                let from = from.as_ptr().add(at * image + channel * plane);
                let to = to.as_mut_ptr().add(channel * wide + at);
                transpose_into(s, to, channels * wide, from, image, some, pixels, Write::Set);
            }
        }
    }
}
