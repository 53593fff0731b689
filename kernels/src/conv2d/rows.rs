//! The sweep down the rows: 3 x 3 kernels to one output channel from any number, so also depthwise
//! convolutions.
//!
//! With so few channels a product is cheap, and finding its operands is not. A row of the image
//! meets three rows of the output, so a vector that goes down its columns loads three neighbours
//! for nine products, and keeps all weights in registers. Several input channels are added one
//! after the other.
//!
//! ```text
//! for each image, for each output channel:    (threads split these)
//!   for each input channel:
//!     copy it between zeros                   L1, L2
//!     for each vector of columns, for each row:
//!       the output rows above, here and below += 3 x 3 weights * left, centre, right;
//!       the one above is finished
//! ```
//!
//! There is one path; only the ends of rows are written as parts of vectors.

#![allow(clippy::needless_range_loop)] // index loops over small arrays read like the formulas

use super::{Conv2dDims, planes::Planes, sweep::Sweep};
use crate::{
    Write,
    isa::Isa,
    par::Shared,
    scratch,
    simd::{Simd, SimdKernel},
};
use std::ops::Range;

/// Whether a convolution from `channels` to `out_channels` channels in each group is possible here,
/// and faster. It would be possible with any number of those, but [`pixels`](super::pixels) loads
/// less for several.
pub(super) fn pays(d: &Conv2dDims, out_channels: usize, channels: usize) -> bool {
    d.is_square(1) && out_channels == 1 && channels > 0 && d.h * d.w > 0
}

/// Computes `out [images, groups, channel]` of a sweep with one phase, stride 1 and 3 x 3 adjoining
/// taps.
pub(super) fn run(sweep: &Sweep, out: Shared) {
    let isa = Isa::current();
    sweep.each_piece(sweep.groups, usize::MAX, |images, groups| {
        isa.dispatch(Piece { sweep, images, groups, out: out.get() });
    });
}

/// Some groups of some images, on one thread.
struct Piece<'a> {
    sweep: &'a Sweep<'a>,
    images: Range<usize>,
    groups: Range<usize>,
    out: *mut f32,
}

impl SimdKernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sweep { planes, weights, bias, write, channel, .. } = *self.sweep;
        let phase = &self.sweep.phases[0];
        let [rows, cols] = phase.grid;
        let (corner, places) = self.sweep.square();
        let (x_step, plane) = (planes.padded[1], Planes { count: 1, ..planes });
        assert!(
            corner + (rows + 1) * x_step + cols + 2 <= plane.len(),
            "conv2d: a tap beyond the image"
        );
        // The last vector of the last row reaches beyond it.
        let mut padded = scratch::floats(plane.len() + S::LANES);
        padded.fill(0.0);
        for image in self.images {
            for group in self.groups.clone() {
                let from = self.sweep.group_of(image, group);
                let weights = &weights[group * self.sweep.group_step..];
                let (mut write, mut bias) = (write, bias.map_or(0.0, |bias| bias[group]));
                for (from, taps) in from
                    .chunks_exact(planes.size[0] * planes.size[1])
                    .zip(phase.taps.chunks_exact(9))
                {
                    plane.fill(s, &mut padded, from);
                    let mut w = [[s.zero(); 3]; 3];
                    for (tap, place) in taps.iter().zip(places) {
                        w[place / 3][place % 3] = s.splat(weights[tap.weight as usize]);
                    }
                    let columns =
                        Columns { x_step, y_step: cols, rows, bias: s.splat(bias), write };
                    // SAFETY: rows + 2 rows of cols + 2 floats are in the plane, by the assertion,
                    // and a vector after them; the output has this group, and no other piece writes
                    // it.
                    unsafe {
                        let x = padded.as_ptr().add(corner);
                        let y = self.out.add((image * self.sweep.groups + group) * channel);
                        for col in (0..cols).step_by(S::LANES) {
                            columns.run(s, x.add(col), y.add(col), S::LANES.min(cols - col), &w);
                        }
                    }
                    (write, bias) = (Write::Add, 0.0);
                }
            }
        }
    }
}

/// What all vectors of columns of a plane have in common.
struct Columns<S: Simd> {
    x_step: usize,
    y_step: usize,
    /// Rows of the output, two less than of the input.
    rows: usize,
    bias: S::F32,
    write: Write,
}

impl<S: Simd> Columns<S> {
    /// A vector of columns, of which the first `wide` are written.
    ///
    /// # Safety
    /// `rows + 2` rows at `x`, `x_step` apart, must have LANES + 2 readable floats; `rows` rows at
    /// `y`, `y_step` apart, `wide` floats that are writable, and readable where they are added to.
    #[inline(always)]
    unsafe fn run(
        &self,
        s: S,
        mut x: *const f32,
        mut y: *mut f32,
        wide: usize,
        w: &[[S::F32; 3]; 3],
    ) {
        // SAFETY: the caller's promises.
        unsafe {
            let [_, _, below] = products(s, x, w);
            let mut above = s.add(self.bias, below);
            x = x.wrapping_add(self.x_step);
            let [_, here, below] = products(s, x, w);
            above = s.add(above, here);
            let mut here = s.add(self.bias, below);
            for _ in 0..self.rows {
                x = x.wrapping_add(self.x_step);
                let [last, middle, first] = products(s, x, w);
                let mut done = s.add(above, last);
                (above, here) = (s.add(here, middle), s.add(self.bias, first));
                if wide == S::LANES {
                    if self.write == Write::Add {
                        done = s.add(s.load(y), done);
                    }
                    s.store(y, done);
                } else {
                    if self.write == Write::Add {
                        done = s.add(s.load_partial(y, wide), done);
                    }
                    s.store_partial(y, done, wide);
                }
                y = y.wrapping_add(self.y_step);
            }
        }
    }
}

/// What a row of the image adds to the output rows above, here and below it. Summed before it is
/// added, or each row would wait for nine multiply-adds of the last.
///
/// # Safety
/// LANES + 2 floats must be readable at `x`.
#[inline(always)]
unsafe fn products<S: Simd>(s: S, x: *const f32, w: &[[S::F32; 3]; 3]) -> [S::F32; 3] {
    // SAFETY: the caller's promise.
    let x = unsafe { [s.load(x), s.load(x.add(1)), s.load(x.add(2))] };
    let mut sums = [s.zero(); 3];
    for i in 0..3 {
        let w = w[2 - i];
        sums[i] = s.fma(x[2], w[2], s.fma(x[1], w[1], s.mul(x[0], w[0])));
    }
    sums
}
