//! The gradient of the weights: the sums run over tiles.
//!
//! ```text
//! for each 16 blocks of tiles:           (threads split channels in, then panels of channels out)
//!   for each block:
//!     inputs[place][channel in][tile] = B' d B, a vector of channels at a time
//!     grads[place][panel][tile][two vectors of channels out] = A dy A'
//!     for each place, each panel, each few channels in:
//!       sums[number][panel][channel in][two vectors of channels out] += inputs * grads,
//!             over tiles, in registers
//!   dw += G' sums G, transposed
//! ```
//!
//! There is one path for each transform; blocks are larger where the sums come from memory.
//!
//! A number is one of the transformed kernel's: places that take the same one share a sum.
//!
//! So a sum over many tiles is made on three levels, in a block, in 16 blocks and in `dw`, and
//! rounding errors stay small.

use super::{
    Block, Layout, Tiling, Window, reach,
    transform::{Halving, KERNELS, LINE, Transposed, Unit},
};
use crate::{
    Write,
    conv2d::{
        Conv2dDims,
        sweep::{by_group, rectangles},
    },
    isa::Isa,
    par::{self, Shared, Work},
    scratch,
    simd::{Simd, SimdKernel},
    tile::{Tile, VECTORS, emit, outer, panel, row_tiles, sized, transpose_into},
    tuning::winograd::{FAR_WEIGHT_TILES, NEAR, WEIGHT_BLOCKS, WEIGHT_TILES},
};
use std::{hint::black_box, marker::PhantomData, ops::Range};

/// `dw` of a convolution for which Winograd's products [pay](super::pays).
pub(in crate::conv2d) fn backward_weight(
    dw: &mut [f32],
    write: Write,
    dy: &[f32],
    x: &[f32],
    d: &Conv2dDims,
) {
    match d.stride[0] {
        1 => backward_with::<Unit>(dw, write, dy, x, d),
        _ => backward_with::<Halving>(dw, write, dy, x, d),
    }
}

fn backward_with<T: Transposed>(
    dw: &mut [f32],
    write: Write,
    dy: &[f32],
    x: &[f32],
    d: &Conv2dDims,
) {
    let transform = PhantomData::<T>;
    let isa = Isa::current();
    let wide = VECTORS * isa.lanes();
    let panels = d.o_group().div_ceil(wide);
    let lanes = wide / VECTORS;
    let vectors = d.c_group().div_ceil(lanes);
    let out = Shared(dw.as_mut_ptr());
    let work = Work::MultiplyAdds(d.multiply_adds());
    par::split(work, d.groups * vectors * panels, (), |units, ()| {
        for (rows, panels) in rectangles(units, panels, usize::MAX) {
            for (group, rows) in by_group(rows, vectors) {
                let first = group * vectors;
                let end = d.c_group().min((rows.end - first) * lanes);
                let channels = (rows.start - first) * lanes..end;
                let panels = panels.clone();
                let out = out.get();
                isa.dispatch(Piece { transform, dy, x, d, group, channels, panels, out, write });
            }
        }
    });
}

/// Some channels in and some panels of channels out of a group, on one thread.
struct Piece<'a, T> {
    transform: PhantomData<T>,
    dy: &'a [f32],
    x: &'a [f32],
    d: &'a Conv2dDims,
    group: usize,
    channels: Range<usize>,
    panels: Range<usize>,
    out: *mut f32,
    write: Write,
}

impl<T: Transposed> SimdKernel for Piece<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let tiling = Tiling::of::<T>([self.d.oh(), self.d.ow()]);
        let tiles = self.d.n * tiling.rows * tiling.cols;
        // Whatever the number of threads, which must not decide where sums are cut.
        let all_sums = KERNELS * KERNELS * self.d.c_group() * self.d.o_group();
        let most = if all_sums > NEAR { FAR_WEIGHT_TILES } else { WEIGHT_TILES };
        // At least two blocks: the sum of a few tiles, too, is made in parts.
        let mut blocks = tiling.blocks(0..self.d.n, most.min(tiles.div_ceil(2))).peekable();
        let mut sums = scratch::floats(KERNELS * KERNELS * self.sums_step::<S>());
        let mut write = self.write;
        while blocks.peek().is_some() {
            for (i, block) in blocks.by_ref().take(WEIGHT_BLOCKS).enumerate() {
                let write = if i == 0 { Write::Set } else { Write::Add };
                self.sum(s, &mut sums, write, &block);
            }
            self.write_out(s, &sums, write);
            write = Write::Add;
        }
    }
}

impl<T: Transposed> Piece<'_, T> {
    fn sums_step<S: Simd>(&self) -> usize {
        self.panels.len() * self.channels.len() * panel::<S>()
    }

    /// `sums[number][panel][channel][lane]` of a block.
    #[inline(always)]
    fn sum<S: Simd>(&self, s: S, sums: &mut [f32], write: Write, block: &Block) {
        let wide = panel::<S>();
        let depth = self.channels.len();
        let channels = depth.next_multiple_of(S::LANES);
        let tiles = block.tiles();
        let place = Layout::place_step(tiles, channels);
        let sums_step = self.sums_step::<S>();
        let layout = Layout { place, tile: S::LANES, channel: tiles };
        let places = T::PLACES.len();
        let mut inputs = scratch::floats(places * places * place);
        self.transform_inputs(s, &mut inputs, layout, block);
        let grads_step = Layout::place_step(tiles, self.panels.len() * wide);
        let mut grads = scratch::floats(places * places * grads_step);
        self.transform_grads(s, &mut grads, grads_step, block);
        for place in 0..places * places {
            let at = [place / places, place % places];
            let number = at.map(|place| T::PLACES[place]);
            let write = if at == number { write } else { Write::Add };
            let sums = &mut sums[(number[0] * KERNELS + number[1]) * sums_step..][..sums_step];
            let inputs = &inputs[place * layout.place..][..tiles * channels];
            let grads = grads[place * grads_step..].chunks_exact(tiles * wide);
            for ((grads, sums), panel) in
                grads.zip(sums.chunks_exact_mut(depth * wide)).zip(self.panels.clone())
            {
                let lanes = self.d.o_group() - panel * wide;
                for rows in row_tiles::<S>(depth) {
                    let sums = &mut sums[rows.start * wide..rows.end * wide];
                    let product = Product { sums, write, inputs, first: rows.start, grads };
                    // SAFETY: the channels are in `inputs`, and there is room for their sums.
                    unsafe { sized(s, rows.len(), lanes, product) };
                }
            }
        }
    }

    #[inline(always)]
    fn transform_inputs<S: Simd>(&self, s: S, inputs: &mut [f32], layout: Layout, block: &Block) {
        let d = self.d;
        let plane = d.h * d.w;
        for strip in block.strips() {
            let first = (strip.image * d.groups + self.group) * d.c_group() + self.channels.start;
            let window = Window {
                planes: &self.x[first * plane..][..self.channels.len() * plane],
                depth: self.channels.len(),
                size: [d.h, d.w],
                corner: [
                    (T::STEP * strip.rows.start) as isize - d.padding[0] as isize,
                    -(d.padding[1] as isize),
                ],
                cols: reach::<T>(block.tiling.cols),
            };
            let to = &mut inputs[strip.before * layout.tile..];
            window.transform::<S, T>(s, to, layout, [strip.rows.len(), block.tiling.cols]);
        }
    }

    /// `to[place][panel][tile][lane] = A dy A'`
    #[inline(always)]
    fn transform_grads<S: Simd>(&self, s: S, to: &mut [f32], place_step: usize, block: &Block) {
        let d = self.d;
        let wide = panel::<S>();
        let plane = d.oh() * d.ow();
        let (places, cols) = (T::PLACES.len(), T::OUT * block.tiling.cols);
        for strip in block.strips() {
            let tiles = strip.rows.len() * block.tiling.cols;
            let first_lane = self.panels.start * wide;
            let count = (self.panels.end * wide).min(d.o_group()) - first_lane;
            let first = (strip.image * d.groups + self.group) * d.o_group() + first_lane;
            let window = Window {
                planes: &self.dy[first * plane..][..count * plane],
                depth: count,
                size: [d.oh(), d.ow()],
                corner: [(T::OUT * strip.rows.start) as isize, 0],
                cols,
            };
            let channels = window.channels::<S>();
            let mut band = scratch::floats(T::OUT * strip.rows.len() * cols * channels);
            window.fill(s, &mut band);
            for tile in 0..tiles {
                let corner = T::OUT * (tile / block.tiling.cols * cols + tile % block.tiling.cols);
                for lane in (0..channels).step_by(S::LANES) {
                    let mut rows = [[s.zero(); LINE]; LINE];
                    for j in 0..T::OUT {
                        let mut column = [s.zero(); LINE];
                        for i in 0..T::OUT {
                            column[i] = s.read(&band[(corner + i * cols + j) * channels + lane..]);
                        }
                        let column = T::gradient(s, column);
                        for i in 0..places {
                            rows[i][j] = column[i];
                        }
                    }
                    let panel = lane / wide * block.tiles() + strip.before + tile;
                    let to = &mut to[panel * wide + lane % wide..];
                    for i in 0..places {
                        let line = T::gradient(s, rows[i]);
                        for j in 0..places {
                            s.write(&mut to[(i * places + j) * place_step..], line[j]);
                        }
                    }
                }
            }
        }
    }

    /// `dw = G' sums G`
    #[inline(always)]
    fn write_out<S: Simd>(&self, s: S, sums: &[f32], write: Write) {
        let d = self.d;
        let wide = panel::<S>();
        let depth = self.channels.len();
        let sums_step = self.sums_step::<S>();
        let mut taps = scratch::floats(9 * depth * wide);
        for (p, panel) in self.panels.clone().enumerate() {
            let sums = &sums[p * depth * wide..];
            for (c, taps) in taps.chunks_exact_mut(9 * wide).enumerate() {
                for lane in (0..wide).step_by(S::LANES) {
                    let mut rows = [[s.zero(); KERNELS]; 3];
                    for j in 0..KERNELS {
                        let mut m = [s.zero(); KERNELS];
                        for i in 0..KERNELS {
                            let number = i * KERNELS + j;
                            m[i] = s.read(&sums[number * sums_step + c * wide + lane..]);
                        }
                        let column = T::weight(s, m);
                        for i in 0..3 {
                            rows[i][j] = column[i];
                        }
                    }
                    for i in 0..3 {
                        let line = T::weight(s, rows[i]);
                        for j in 0..3 {
                            s.write(&mut taps[(i * 3 + j) * wide + lane..], line[j]);
                        }
                    }
                }
            }
            let lanes = wide.min(d.o_group() - panel * wide);
            let first = self.group * d.o_group() + panel * wide;
            // SAFETY: dw has `lanes` rows of taps() floats from row `first` on, and no other piece
            // has the taps of these channels in them.
            unsafe {
                let to = self.out.add(first * d.taps() + self.channels.start * 9);
                let from = taps.as_ptr();
                transpose_into(s, to, d.taps(), from, wide, 9 * depth, lanes, write);
            }
        }
    }
}

/// A few channels and one panel: sets `sums[channel][lane]` to, or adds to it, the sum over tiles
/// of `inputs[channel][tile] * grads[tile][lane]`, which is made in parts for exactness.
struct Product<'a> {
    sums: &'a mut [f32],
    write: Write,
    inputs: &'a [f32],
    /// The first of the channels, in `inputs`.
    first: usize,
    grads: &'a [f32],
}

impl<S: Simd> Tile<S> for Product<'_> {
    #[inline(always)]
    unsafe fn run<const R: usize, const V: usize>(self, s: S) {
        let wide = panel::<S>();
        let tiles = self.grads.len() / wide;
        assert!(self.inputs.len() >= (self.first + R).next_multiple_of(S::LANES) * tiles);
        assert!(self.sums.len() >= R * wide);
        // SAFETY: a vector of channels is `tiles` rows of LANES floats, and the last one that is
        // read is inside, by the first assertion; `grads` is `tiles` rows of a panel, and `sums` R
        // rows, by the second.
        unsafe {
            let rows = std::array::from_fn(|r| {
                let (vector, lane) = ((self.first + r) / S::LANES, (self.first + r) % S::LANES);
                // Opaque, or LLVM computes them anew for every tile.
                black_box(self.inputs.as_ptr().add(vector * tiles * S::LANES + lane))
            });
            let part = tiles.div_ceil(tiles.div_ceil(WEIGHT_TILES));
            for first in (0..tiles).step_by(part) {
                let write = if first > 0 { Write::Add } else { self.write };
                let offsets = (first..tiles.min(first + part)).map(|tile| tile * S::LANES);
                let grads = self.grads.as_ptr().add(first * wide);
                let acc = outer::<S, R, V>(s, offsets, rows, grads, wide);
                emit(s, acc, self.sums.as_mut_ptr(), wide, V * S::LANES, write);
            }
        }
    }
}
