//! Forward and the gradient of the input: the sums run over channels.
//!
//! ```text
//! transform the kernels into panels [number][channel in][two vectors of channels out]
//! for each block of tiles:                  (threads split images, then panels)
//!   inputs[place][tile][channel in] = B' d B
//!   for each place, each panel, each few tiles:
//!     products[place][tile][channel out] = inputs * panel, over channels, in registers
//!   A' products A, plus bias, transposed into y
//! ```
//!
//! There is one path for each transform; blocks are larger where the kernels come from memory.

use super::{
    Block, Layout, Strip, Tiles, Tiling, Window, reach,
    transform::{Doubling, Halving, KERNELS, LINE, Transform, Unit},
};
use crate::{
    Write,
    conv2d::{
        channels::PackPanel,
        sweep::{Sweep, by_group},
    },
    isa::Isa,
    par::{self, Shared, Work},
    scratch,
    simd::{Simd, SimdKernel},
    tile::{Tile, VECTORS, emit, outer, panel, row_tiles, sized, transpose_into},
    tuning::winograd::{FAR_TILES, NEAR, TILES},
};
use std::{marker::PhantomData, ops::Range};

/// Computes `out [images, groups * out_channels, channel]` of a sweep with one phase, whose taps
/// are those of a stride of 1, a 3 x 3 square; the tiles stand for the stride there is.
pub(in crate::conv2d) fn run(sweep: &Sweep, tiles: Tiles, out: Shared) {
    match tiles {
        Tiles::Unit => run_with::<Unit>(sweep, out),
        Tiles::Halving => run_with::<Halving>(sweep, out),
        Tiles::Doubling => run_with::<Doubling>(sweep, out),
    }
}

fn run_with<T: Transform>(sweep: &Sweep, out: Shared) {
    let transform = PhantomData::<T>;
    let isa = Isa::current();
    let wide = VECTORS * isa.lanes();
    let per_group = sweep.out_channels.div_ceil(wide);
    let panels = sweep.groups * per_group;
    let panel_len = KERNELS * KERNELS * Layout::place_step(sweep.planes.count, wide);
    let mut packed = scratch::floats(panels * (panel_len + wide));
    let (bias, kernels) = packed.split_at_mut(panels * wide);
    sweep.pad_bias(bias, per_group * wide);
    let rows = par::Rows { data: &mut kernels[..], row: panel_len };
    par::split(Work::Elements(panels * panel_len), panels, rows, |range, rows| {
        for (panel, to) in range.zip(rows.data.chunks_exact_mut(panel_len)) {
            let (group, first) = (panel / per_group, panel % per_group * wide);
            isa.dispatch(Kernels { sweep, transform, to, group, first });
        }
    });
    sweep.each_piece(panels, usize::MAX, |images, panels| {
        let out = out.get();
        isa.dispatch(Piece { sweep, transform, images, panels, per_group, kernels, bias, out });
    });
}

/// `to[number][channel in][lane] = G g G'` of one panel.
struct Kernels<'a, T> {
    sweep: &'a Sweep<'a>,
    transform: PhantomData<T>,
    to: &'a mut [f32],
    group: usize,
    first: usize,
}

impl<T: Transform> SimdKernel for Kernels<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { sweep, to, group, first, .. } = self;
        let wide = panel::<S>();
        let depth = sweep.planes.count;
        let place_step = Layout::place_step(depth, wide);
        let (_, places) = sweep.square();
        let mut packed = scratch::floats(9 * depth * wide);
        PackPanel { sweep, to: &mut packed, group, first }.run(s);
        for (c, packed) in packed.chunks_exact(9 * wide).enumerate() {
            for lane in (0..wide).step_by(S::LANES) {
                let mut g = [[s.zero(); 3]; 3];
                for (packed, place) in packed.chunks_exact(wide).zip(places) {
                    g[place / 3][place % 3] = s.read(&packed[lane..]);
                }
                let mut rows = [[s.zero(); 3]; KERNELS];
                for j in 0..3 {
                    let column = T::kernel(s, [g[0][j], g[1][j], g[2][j]]);
                    for i in 0..KERNELS {
                        rows[i][j] = column[i];
                    }
                }
                for i in 0..KERNELS {
                    let line = T::kernel(s, rows[i]);
                    for j in 0..KERNELS {
                        let number = i * KERNELS + j;
                        s.write(&mut to[number * place_step + c * wide + lane..], line[j]);
                    }
                }
            }
        }
    }
}

/// Some panels of some images, on one thread.
struct Piece<'a, T> {
    sweep: &'a Sweep<'a>,
    transform: PhantomData<T>,
    images: Range<usize>,
    panels: Range<usize>,
    per_group: usize,
    kernels: &'a [f32],
    bias: &'a [f32],
    out: *mut f32,
}

impl<T: Transform> SimdKernel for Piece<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (group, panels) in by_group(self.panels.clone(), self.per_group) {
            self.group(s, group, panels);
        }
    }
}

impl<T: Transform> Piece<'_, T> {
    /// For each axis, the place in the unpadded planes where the first tile begins, and how many of
    /// its outputs come before the first.
    fn origin(&self) -> [(isize, usize); 2] {
        let planes = &self.sweep.planes;
        let (corner, _) = self.sweep.square();
        let corner = [corner / planes.padded[1], corner % planes.padded[1]];
        [0, 1].map(|axis| T::origin(corner[axis] as isize - planes.before[axis] as isize))
    }

    /// All blocks of one group.
    #[inline(always)]
    fn group<S: Simd>(&self, s: S, group: usize, panels: Range<usize>) {
        let tiles = if self.kernels.len() > NEAR { FAR_TILES } else { TILES };
        let (grid, origin) = (self.sweep.phases[0].grid, self.origin());
        let tiling = Tiling::of::<T>([0, 1].map(|axis| grid[axis] + origin[axis].1));
        for block in tiling.blocks(self.images.clone(), tiles) {
            self.block(s, group, panels.clone(), &block);
        }
    }

    #[inline(always)]
    fn block<S: Simd>(&self, s: S, group: usize, panels: Range<usize>, block: &Block) {
        let planes = &self.sweep.planes;
        let depth = planes.count;
        let channels = depth.next_multiple_of(S::LANES);
        let tiles = block.tiles();
        let [(top, _), (left, _)] = self.origin();
        let layout =
            Layout { place: Layout::place_step(tiles, channels), tile: channels, channel: 1 };
        let places = T::PLACES.len();
        let mut inputs = scratch::floats(places * places * layout.place);
        for strip in block.strips() {
            let window = Window {
                planes: self.sweep.group_of(strip.image, group),
                depth,
                size: planes.size,
                corner: [(T::STEP * strip.rows.start) as isize + top, left],
                cols: reach::<T>(block.tiling.cols),
            };
            let to = &mut inputs[strip.before * layout.tile..];
            window.transform::<S, T>(s, to, layout, [strip.rows.len(), block.tiling.cols]);
        }
        let wide = panel::<S>();
        let width = wide * panels.len();
        let product_step = Layout::place_step(tiles, width);
        let mut products = scratch::floats(places * places * product_step);
        for place in 0..places * places {
            let number = T::PLACES[place / places] * KERNELS + T::PLACES[place % places];
            let inputs = &inputs[place * layout.place..][..tiles * channels];
            let products = &mut products[place * product_step..][..tiles * width];
            for (p, panel) in panels.clone().enumerate() {
                let first = (panel * KERNELS * KERNELS + number) * Layout::place_step(depth, wide);
                let kernels = &self.kernels[first..][..depth * wide];
                let lanes = self.sweep.out_channels - panel % self.per_group * wide;
                for rows in row_tiles::<S>(tiles) {
                    let inputs = &inputs[rows.start * channels..rows.end * channels];
                    let high = rows.len();
                    let products = &mut products[rows.start * width..rows.end * width];
                    let lane = p * wide;
                    let part = T::PART;
                    let product =
                        Product { inputs, channels, kernels, depth, part, products, lane, width };
                    // SAFETY: `high` rows of inputs and of products, and a panel.
                    unsafe { sized(s, high, lanes, product) };
                }
            }
        }
        for strip in block.strips() {
            let products = &products[strip.before * width..];
            self.write_out(s, products, product_step, &panels, &strip, block.tiling.cols);
        }
    }

    /// `y = A' m A + bias` for the tiles of a strip.
    #[inline(always)]
    fn write_out<S: Simd>(
        &self,
        s: S,
        products: &[f32],
        product_step: usize,
        panels: &Range<usize>,
        strip: &Strip,
        tile_cols: usize,
    ) {
        let Sweep { out_channels, groups, channel, write, phases, .. } = self.sweep;
        let [oh, ow] = phases[0].grid;
        let width = panel::<S>() * panels.len();
        let [(_, above), (_, left)] = self.origin();
        let first_row = (T::OUT * strip.rows.start).saturating_sub(above);
        let rows = (T::OUT * strip.rows.end - above).min(oh) - first_row;
        // Rows of the first tile that come before the first row of the strip.
        let above = above.saturating_sub(T::OUT * strip.rows.start);
        let bias = &self.bias[panels.start * panel::<S>()..][..width];
        let mut sums = scratch::floats(rows * ow * width);
        let tiles = strip.rows.len() * tile_cols;
        let places = T::PLACES.len();
        assert!(products.len() >= (places * places - 1) * product_step + tiles * width);
        for tile in 0..tiles {
            let (row, col) = (T::OUT * (tile / tile_cols), T::OUT * (tile % tile_cols));
            for lane in (0..width).step_by(S::LANES) {
                let mut rows_of_tile = [[s.zero(); LINE]; LINE];
                for j in 0..places {
                    let mut m = [s.zero(); LINE];
                    for i in 0..places {
                        let at = (i * places + j) * product_step + tile * width + lane;
                        // SAFETY: checked above.
                        m[i] = unsafe { s.load(products.as_ptr().add(at)) };
                    }
                    let column = T::output(s, m);
                    for i in 0..T::OUT {
                        rows_of_tile[i][j] = column[i];
                    }
                }
                let bias = s.read(&bias[lane..]);
                for i in 0..T::OUT {
                    let line = T::output(s, rows_of_tile[i]);
                    for j in 0..T::OUT {
                        // Those before the first row or column wrap around, and are no less outside
                        // than those after the last.
                        let (row, col) =
                            ((row + i).wrapping_sub(above), (col + j).wrapping_sub(left));
                        if row < rows && col < ow {
                            let to = &mut sums[(row * ow + col) * width + lane..];
                            s.write(to, s.add(line[j], bias));
                        }
                    }
                }
            }
        }
        let group = panels.start / self.per_group;
        let first_lane = panels.start % self.per_group * panel::<S>();
        let channels = (strip.image * groups + group) * out_channels + first_lane;
        // SAFETY: the output has these channels of this image, and in each of them these rows; no
        // other piece has them.
        unsafe {
            let to = self.out.add(channels * channel + first_row * ow);
            let count = width.min(out_channels - first_lane);
            transpose_into(s, to, *channel, sums.as_ptr(), width, rows * ow, count, *write);
        }
    }
}

/// A few tiles, one place, one panel: `products [tiles, width] = inputs [tiles, channels] * kernels
/// [depth, wide]`.
struct Product<'a> {
    inputs: &'a [f32],
    channels: usize,
    kernels: &'a [f32],
    depth: usize,
    /// Most channels in a part of the sums.
    part: usize,
    products: &'a mut [f32],
    /// Where in a row of products the panel is.
    lane: usize,
    width: usize,
}

impl<S: Simd> Tile<S> for Product<'_> {
    #[inline(always)]
    unsafe fn run<const R: usize, const V: usize>(self, s: S) {
        let wide = panel::<S>();
        assert!(self.inputs.len() >= R * self.channels && self.products.len() >= R * self.width);
        let part = self.depth.div_ceil(self.depth.div_ceil(self.part));
        for first in (0..self.depth).step_by(part) {
            let write = if first > 0 { Write::Add } else { Write::Set };
            let part = part.min(self.depth - first);
            // SAFETY: R rows of at least `depth` channels, checked above; the kernels are `depth`
            // rows of a panel, and the panel lies inside the width.
            unsafe {
                let inputs = self.inputs.as_ptr();
                let rows = std::array::from_fn(|r| inputs.add(r * self.channels + first));
                let kernels = self.kernels.as_ptr().add(first * wide);
                let acc = outer::<S, R, V>(s, 0..part, rows, kernels, wide);
                let to = self.products.as_mut_ptr().add(self.lane);
                emit(s, acc, to, self.width, V * S::LANES, write);
            }
        }
    }
}
