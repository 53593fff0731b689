//! Forward and the gradient of the input: the sums run over channels.
//!
//! ```text
//! transform the kernels into panels [place][channel in][16 channels out]
//! for each block of tiles:                  (threads split images, then panels)
//!   inputs[place][tile][channel in] = B' d B
//!   for each place, each panel, each 6 tiles:
//!     products[place][tile][channel out] = inputs * panel, over channels, in registers
//!   A' products A, plus bias, transposed into y
//! ```

use super::{Block, Layout, PLACES, Strip, Tiling, Window};
use crate::{
    Write,
    conv2d::{
        channels::{PackPanel, PanelWidth},
        sweep::{Sweep, by_group},
    },
    isa::Isa,
    par::{self, Shared, Work},
    scratch,
    simd::{Simd, SimdKernel},
    tile::{Tile, emit, outer, panel, row_tiles, sized, transpose_into},
    tuning::winograd::{FAR_TILES, NEAR, PART, TILES},
};
use std::ops::Range;

/// Computes `out [images, groups * lanes, channel]` of a sweep with one phase, stride 1 and 3 x 3 adjoining taps.
pub(in crate::conv2d) fn run(sweep: &Sweep, out: Shared) {
    let isa = Isa::current();
    let wide = isa.dispatch(PanelWidth);
    let per_group = sweep.lanes.div_ceil(wide);
    let panels = sweep.groups * per_group;
    let panel_len = PLACES * Layout::place_step(sweep.planes.count, wide);
    let mut packed = scratch::floats(panels * (panel_len + wide));
    let (bias, kernels) = packed.split_at_mut(panels * wide);
    sweep.pad_bias(bias, per_group * wide);
    let rows = par::Rows { data: &mut kernels[..], row: panel_len };
    par::split(Work::Elements(panels * panel_len), panels, rows, |range, rows| {
        for (panel, to) in range.zip(rows.data.chunks_exact_mut(panel_len)) {
            let (group, first) = (panel / per_group, panel % per_group * wide);
            isa.dispatch(Kernels { sweep, to, group, first });
        }
    });
    sweep.each_piece(panels, usize::MAX, |images, panels| {
        isa.dispatch(Piece { sweep, images, panels, per_group, kernels, bias, out: out.get() });
    });
}

/// `to[place][channel in][lane] = G g G'` of one panel.
struct Kernels<'a> {
    sweep: &'a Sweep<'a>,
    to: &'a mut [f32],
    group: usize,
    first: usize,
}

impl SimdKernel for Kernels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { sweep, to, group, first } = self;
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
                let mut rows = [[s.zero(); 3]; 4];
                for j in 0..3 {
                    let column = kernel_line(s, [g[0][j], g[1][j], g[2][j]]);
                    for i in 0..4 {
                        rows[i][j] = column[i];
                    }
                }
                for i in 0..4 {
                    let line = kernel_line(s, rows[i]);
                    for j in 0..4 {
                        s.write(&mut to[(i * 4 + j) * place_step + c * wide + lane..], line[j]);
                    }
                }
            }
        }
    }
}

/// `G g`
#[inline(always)]
fn kernel_line<S: Simd>(s: S, g: [S::F32; 3]) -> [S::F32; 4] {
    let half = s.splat(0.5);
    let (outer, inner) = (s.mul(half, s.add(g[0], g[2])), s.mul(half, g[1]));
    [g[0], s.add(outer, inner), s.sub(outer, inner), g[2]]
}

/// `A' m`
#[inline(always)]
fn output_line<S: Simd>(s: S, m: [S::F32; 4]) -> [S::F32; 2] {
    [s.add(s.add(m[0], m[1]), m[2]), s.sub(s.sub(m[1], m[2]), m[3])]
}

/// Some panels of some images, on one thread.
struct Piece<'a> {
    sweep: &'a Sweep<'a>,
    images: Range<usize>,
    panels: Range<usize>,
    per_group: usize,
    kernels: &'a [f32],
    bias: &'a [f32],
    out: *mut f32,
}

impl SimdKernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (group, panels) in by_group(self.panels.clone(), self.per_group) {
            self.group(s, group, panels);
        }
    }
}

impl Piece<'_> {
    /// All blocks of one group.
    #[inline(always)]
    fn group<S: Simd>(&self, s: S, group: usize, panels: Range<usize>) {
        let tiles = if self.kernels.len() > NEAR { FAR_TILES } else { TILES };
        for block in Tiling::of(self.sweep.phases[0].grid).blocks(self.images.clone(), tiles) {
            self.block(s, group, panels.clone(), &block);
        }
    }

    #[inline(always)]
    fn block<S: Simd>(&self, s: S, group: usize, panels: Range<usize>, block: &Block) {
        let planes = &self.sweep.planes;
        let depth = planes.count;
        let channels = depth.next_multiple_of(S::LANES);
        let tiles = block.tiles();
        let (corner, _) = self.sweep.square();
        let [top, left] = [corner / planes.padded[1], corner % planes.padded[1]];
        let layout =
            Layout { place: Layout::place_step(tiles, channels), tile: channels, channel: 1 };
        let mut inputs = scratch::floats(PLACES * layout.place);
        for strip in block.strips() {
            let window = Window {
                planes: self.sweep.group_of(strip.image, group),
                depth,
                size: planes.size,
                corner: [
                    (2 * strip.rows.start + top) as isize - planes.before[0] as isize,
                    left as isize - planes.before[1] as isize,
                ],
                cols: 2 * block.tiling.cols + 2,
            };
            let to = &mut inputs[strip.before * layout.tile..];
            window.transform(s, to, layout, [strip.rows.len(), block.tiling.cols]);
        }
        let wide = panel::<S>();
        let width = wide * panels.len();
        let product_step = Layout::place_step(tiles, width);
        let mut products = scratch::floats(PLACES * product_step);
        for place in 0..PLACES {
            let inputs = &inputs[place * layout.place..][..tiles * channels];
            let products = &mut products[place * product_step..][..tiles * width];
            for (p, panel) in panels.clone().enumerate() {
                let first = (panel * PLACES + place) * Layout::place_step(depth, wide);
                let kernels = &self.kernels[first..][..depth * wide];
                let lanes = self.sweep.lanes - panel % self.per_group * wide;
                for rows in row_tiles::<S>(tiles) {
                    let inputs = &inputs[rows.start * channels..rows.end * channels];
                    let high = rows.len();
                    let products = &mut products[rows.start * width..rows.end * width];
                    let lane = p * wide;
                    let product =
                        Product { inputs, channels, kernels, depth, products, lane, width };
                    // SAFETY: `high` rows of inputs and of products, and a panel.
                    unsafe { sized(s, high, lanes, product) };
                }
            }
        }
        for strip in block.strips() {
            self.write_out(s, &products[strip.before * width..], product_step, &panels, &strip);
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
    ) {
        let Sweep { lanes, groups, channel, write, phases, .. } = self.sweep;
        let [oh, ow] = phases[0].grid;
        let width = panel::<S>() * panels.len();
        let tile_cols = ow.div_ceil(2);
        let first_row = 2 * strip.rows.start;
        let rows = (2 * strip.rows.end).min(oh) - first_row;
        let bias = &self.bias[panels.start * panel::<S>()..][..width];
        let mut sums = scratch::floats(rows * ow * width);
        let tiles = strip.rows.len() * tile_cols;
        assert!(products.len() >= (PLACES - 1) * product_step + tiles * width);
        for tile in 0..tiles {
            let (row, col) = (2 * (tile / tile_cols), 2 * (tile % tile_cols));
            for lane in (0..width).step_by(S::LANES) {
                let mut rows_of_tile = [[s.zero(); 4]; 2];
                for j in 0..4 {
                    let mut m = [s.zero(); 4];
                    for i in 0..4 {
                        // SAFETY: checked above.
                        m[i] = unsafe {
                            s.load(
                                products
                                    .as_ptr()
                                    .add((i * 4 + j) * product_step + tile * width + lane),
                            )
                        };
                    }
                    let column = output_line(s, m);
                    for i in 0..2 {
                        rows_of_tile[i][j] = column[i];
                    }
                }
                let bias = s.read(&bias[lane..]);
                for i in 0..2 {
                    let line = output_line(s, rows_of_tile[i]);
                    for j in 0..2 {
                        if row + i < rows && col + j < ow {
                            let to = &mut sums[((row + i) * ow + col + j) * width + lane..];
                            s.write(to, s.add(line[j], bias));
                        }
                    }
                }
            }
        }
        let group = panels.start / self.per_group;
        let first_lane = panels.start % self.per_group * panel::<S>();
        let channels = (strip.image * groups + group) * lanes + first_lane;
        // SAFETY: the output has these channels of this image, and in each of them these rows; no other piece has them.
        unsafe {
            let to = self.out.add(channels * channel + first_row * ow);
            let count = width.min(lanes - first_lane);
            transpose_into(s, to, *channel, sums.as_ptr(), width, rows * ow, count, *write);
        }
    }
}

/// A few tiles, one place, one panel: `products [tiles, width] = inputs [tiles, channels] * kernels [depth, wide]`.
struct Product<'a> {
    inputs: &'a [f32],
    channels: usize,
    kernels: &'a [f32],
    depth: usize,
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
        let part = self.depth.div_ceil(self.depth.div_ceil(PART));
        for first in (0..self.depth).step_by(part) {
            let write = if first > 0 { Write::Add } else { Write::Set };
            let part = part.min(self.depth - first);
            // SAFETY: R rows of at least `depth` channels, checked above; the kernels are `depth` rows of a panel, and the
            // panel lies inside the width.
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
