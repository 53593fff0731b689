//! The sweep down the rows: 3 x 3 kernels to one output channel from any number, so also depthwise convolutions.
//!
//! With so few channels a product is cheap, and finding its operands is not. A row of the image meets three rows of the
//! output, so a vector that goes down its columns loads three neighbours for nine products, and keeps all weights in
//! registers. Several input channels are added one after the other.
//!
//! ```text
//! for each image, for each output channel:    (threads split these)
//!   copy the planes of its group between zeros
//!   for each input channel, for each vector of columns:
//!     for each row of the image:
//!       the output rows above, here and below += 3 x 3 weights * left, centre, right; the one above is finished
//! ```

use super::{Conv2dDims, sweep::Sweep};
use crate::{
    Write,
    isa::Isa,
    par::Shared,
    scratch,
    simd::{Simd, SimdKernel},
};
use std::ops::Range;

/// Whether a convolution to `lanes` channels in each group is possible here, and faster. It would be possible with any
/// number, but [`pixels`](super::pixels) loads less for several.
pub(super) fn pays(d: &Conv2dDims, lanes: usize) -> bool {
    d.kernel == [3, 3]
        && d.stride == [1, 1]
        && d.dilation == [1, 1]
        && lanes == 1
        && d.w_len() > 0
}

/// Computes `out [images, groups * lanes, channel]` of a sweep with one phase, stride 1 and 3 x 3 adjoining taps.
pub(super) fn run(sweep: &Sweep, out: Shared) {
    let isa = Isa::current();
    sweep.each_piece(sweep.groups * sweep.lanes, usize::MAX, |images, channels| {
        isa.dispatch(Piece { sweep, images, channels, out: out.get() });
    });
}

/// Some output channels of some images, on one thread.
struct Piece<'a> {
    sweep: &'a Sweep<'a>,
    images: Range<usize>,
    channels: Range<usize>,
    out: *mut f32,
}

impl SimdKernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sweep { planes, groups, lanes, bias, write, channel: len, .. } = *self.sweep;
        let phase = &self.sweep.phases[0];
        let (corner, places) = self.sweep.square();
        // The last vector of the last row reaches beyond it.
        let mut padded = scratch::floats(planes.len() + S::LANES);
        padded.fill(0.0);
        let furthest =
            planes.len() - planes.plane() + corner + (phase.grid[0] + 1) * planes.padded[1];
        assert!(furthest + phase.grid[1] + 2 <= planes.len(), "conv2d: a tap beyond the image");
        for image in self.images {
            for channel in self.channels.clone() {
                let (group, lane) = (channel / lanes, channel % lanes);
                if lane == 0 || channel == self.channels.start {
                    planes.fill_inside(s, &mut padded, self.sweep.group_of(image, group));
                }
                let weights = &self.sweep.weights[group * self.sweep.group_step..];
                let weights = &weights[lane * self.sweep.lane_step..];
                for (plane, taps) in phase.taps.chunks_exact(9).enumerate() {
                    let mut w = [[s.zero(); 3]; 3];
                    for (tap, place) in taps.iter().zip(places) {
                        w[place / 3][place % 3] = s.splat(weights[tap.weight as usize]);
                    }
                    let first = plane == 0;
                    let bias = bias.filter(|_| first).map_or(0.0, |bias| bias[channel]);
                    let columns = Columns {
                        x_step: planes.padded[1],
                        y_step: phase.grid[1],
                        rows: phase.grid[0],
                        bias: s.splat(bias),
                        write: if first { write } else { Write::Add },
                    };
                    // SAFETY: rows + 2 rows of cols + 2 floats are in the plane, by the assertion, and a vector after them;
                    // the output has this channel, and no other piece writes it.
                    unsafe {
                        let x = padded.as_ptr().add(plane * planes.plane() + corner);
                        let y = self.out.add((image * groups * lanes + channel) * len);
                        for col in (0..phase.grid[1]).step_by(S::LANES) {
                            let wide = S::LANES.min(phase.grid[1] - col);
                            columns.run(s, x.add(col), y.add(col), wide, &w);
                        }
                    }
                }
            }
        }
    }
}

/// A vector of columns.
struct Columns<S: Simd> {
    x_step: usize,
    y_step: usize,
    /// Rows of the output, two less than of the input.
    rows: usize,
    bias: S::F32,
    write: Write,
}

impl<S: Simd> Columns<S> {
    /// The first `wide` columns.
    ///
    /// # Safety
    /// Of each row of `x` LANES + 2 floats must be readable, of each row of `y` `wide` floats writable.
    #[inline(always)]
    unsafe fn run(
        &self,
        s: S,
        mut x: *const f32,
        mut y: *mut f32,
        wide: usize,
        w: &[[S::F32; 3]; 3],
    ) {
        let (mut above, mut here) = (self.bias, self.bias);
        for row in 0..self.rows + 2 {
            // SAFETY: the caller's promises; the first two rows finish none.
            unsafe {
                let x_row = [0, 1, 2].map(|i| s.load(x.add(i)));
                // Summed before they are added, or each row would wait for nine multiply-adds of the last.
                let products = |w: [S::F32; 3]| {
                    s.fma(x_row[2], w[2], s.fma(x_row[1], w[1], s.mul(x_row[0], w[0])))
                };
                let done = s.add(above, products(w[2]));
                above = s.add(here, products(w[1]));
                here = s.add(self.bias, products(w[0]));
                x = x.wrapping_add(self.x_step);
                if row < 2 {
                    continue;
                }
                match (self.write, wide == S::LANES) {
                    (Write::Set, true) => s.store(y, done),
                    (Write::Add, true) => s.store(y, s.add(s.load(y), done)),
                    (Write::Set, false) => s.store_partial(y, done, wide),
                    (Write::Add, false) => {
                        s.store_partial(y, s.add(s.load_partial(y, wide), done), wide);
                    }
                }
                y = y.wrapping_add(self.y_step);
            }
        }
    }
}
