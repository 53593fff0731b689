//! Winograd's F(2x2, 3x3): a 3 x 3 kernel of stride 1 with 16 products for 4 outputs instead of 36.
//!
//! Four outputs in a square depend on a 4 x 4 tile `d` of each input channel. With the kernel `g`,
//!
//! ```text
//! y = A' [sum over channels of (G g G') * (B' d B)] A        * is element by element, ' transposes
//!
//!      1  0 -1  0          1    0    0          1  0
//! B' = 0  1  1  0      G = 1/2  1/2  1/2    A = 1  1
//!      0 -1  1  0          1/2 -1/2  1/2        1 -1
//!      0  1  0 -1          0    0    1          0 -1
//! ```
//!
//! (Lavin and Gray, "Fast Algorithms for Convolutional Networks", 2016). The sum over channels is 16 matrix products, one
//! for each of the 16 places in a tile; around them lie only additions, with lanes for channels:
//!
//! ```text
//! transform the kernels into panels [place][channel in][16 channels out]
//! for each block of tiles:                  (threads split images, then panels)
//!   transpose the rows of pixels it reads:  band[pixel][channel in], zeros around
//!   inputs[place][tile][channel in] = B' d B
//!   for each place, each panel, each 6 tiles:
//!     products[place][tile][channel out] = inputs * panel, over channels, in registers
//!   A' products A, plus bias, transposed into y
//! ```
//!
//! The transforms multiply by 1, -1 and 1/2 only, and the channels are summed in parts, so the error is no larger than
//! that of the direct loops. But an infinity or a NaN in the input reaches all four outputs of a tile.

#![allow(clippy::needless_range_loop)] // index loops over small arrays read like the formulas

use super::{
    Conv2dDims,
    channels::{PackPanel, PanelWidth},
    sweep::{Sweep, by_group},
};
use crate::{
    Write,
    isa::Isa,
    par::{self, Shared, Work},
    scratch,
    simd::{Simd, SimdKernel},
    tile::{VECTORS, emit, outer, panel, transpose_into},
    tuning::winograd::{FAR_TILES, MIN_CHANNELS, MIN_PIXELS, NEAR, PART, TILES},
};
use std::{cell::Cell, ops::Range, sync::OnceLock};

/// Places in a tile of the input.
const PLACES: usize = 16;

thread_local! {
    static ALLOWED: Cell<bool> = const { Cell::new(true) };
}

/// Runs `f`, whose convolutions on this thread take the direct loops; so does the whole process with
/// `FERROTAPE_WINOGRAD=0` in its environment. For tests and benches.
pub fn without_winograd<R>(f: impl FnOnce() -> R) -> R {
    struct PutBack(bool);
    impl Drop for PutBack {
        fn drop(&mut self) {
            ALLOWED.set(self.0);
        }
    }
    let _put_back = PutBack(ALLOWED.replace(false));
    f()
}

fn allowed() -> bool {
    static PROCESS: OnceLock<bool> = OnceLock::new();
    let process =
        PROCESS.get_or_init(|| std::env::var_os("FERROTAPE_WINOGRAD").is_none_or(|v| v != "0"));
    *process && ALLOWED.get()
}

/// Whether a convolution from `channels` to `lanes` channels in each group is possible here, and faster.
pub(super) fn pays(d: &Conv2dDims, lanes: usize, channels: usize) -> bool {
    d.kernel == [3, 3]
        && d.stride == [1, 1]
        && d.dilation == [1, 1]
        && lanes.min(channels) >= MIN_CHANNELS
        && d.oh().min(d.ow()) > 1
        && d.n * d.oh() * d.ow() >= MIN_PIXELS
        && allowed()
}

/// Computes `out [images, groups * lanes, channel]` of a sweep with one phase, stride 1 and 3 x 3 adjoining taps.
pub(super) fn run(sweep: &Sweep, out: Shared) {
    let isa = Isa::current();
    let wide = isa.dispatch(PanelWidth);
    let per_group = sweep.lanes.div_ceil(wide);
    let panels = sweep.groups * per_group;
    let panel_len = PLACES * sweep.planes.count * wide;
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

/// The corner of the taps in the padded plane, and the place in the 3 x 3 kernel of each tap of a plane.
fn taps(sweep: &Sweep) -> (usize, [usize; 9]) {
    let taps = &sweep.phases[0].taps[..9];
    let corner = taps.iter().map(|tap| tap.source as usize).min().unwrap_or(0);
    let place = |at: usize| at / sweep.planes.padded[1] * 3 + at % sweep.planes.padded[1];
    (corner, std::array::from_fn(|t| place(taps[t].source as usize - corner)))
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
        let (_, places) = taps(sweep);
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
                        s.write(&mut to[((i * 4 + j) * depth + c) * wide + lane..], line[j]);
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

/// `B' d`
#[inline(always)]
fn input_line<S: Simd>(s: S, d: [S::F32; 4]) -> [S::F32; 4] {
    [s.sub(d[0], d[2]), s.add(d[1], d[2]), s.sub(d[2], d[1]), s.sub(d[1], d[3])]
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

/// Rows of tiles of one image.
struct Strip {
    image: usize,
    rows: Range<usize>,
}

impl Piece<'_> {
    /// All blocks of one group.
    #[inline(always)]
    fn group<S: Simd>(&self, s: S, group: usize, panels: Range<usize>) {
        let [tile_rows, tile_cols] = self.sweep.phases[0].grid.map(|side| side.div_ceil(2));
        let total = self.images.len() * tile_rows;
        let far = self.kernels.len() > NEAR;
        let block = (if far { FAR_TILES } else { TILES } / tile_cols).max(1);
        let block = total.div_ceil(total.div_ceil(block));
        for first in (0..total).step_by(block) {
            let block = first..total.min(first + block);
            let strips = (block.start / tile_rows..block.end.div_ceil(tile_rows)).map(|i| {
                let rows = block.start.max(i * tile_rows)..block.end.min((i + 1) * tile_rows);
                let rows = rows.start - i * tile_rows..rows.end - i * tile_rows;
                Strip { image: self.images.start + i, rows }
            });
            self.block(s, group, panels.clone(), strips, block.len() * tile_cols);
        }
    }

    #[inline(always)]
    fn block<S: Simd>(
        &self,
        s: S,
        group: usize,
        panels: Range<usize>,
        strips: impl Iterator<Item = Strip> + Clone,
        tiles: usize,
    ) {
        let width = panel::<S>() * panels.len();
        let depth = self.sweep.planes.count;
        let channels = depth.next_multiple_of(S::LANES);
        let tile_cols = self.sweep.phases[0].grid[1].div_ceil(2);
        // One more cache line than the tiles need: 16 places a power of two apart would compete for one set of L1.
        let (input_step, product_step) = (tiles * channels + 16, tiles * width + 16);
        let mut inputs = scratch::floats(PLACES * input_step);
        let mut tile = 0;
        for strip in strips.clone() {
            self.transform_inputs(s, &mut inputs[tile * channels..], input_step, group, &strip);
            tile += strip.rows.len() * tile_cols;
        }
        let mut products = scratch::floats(PLACES * product_step);
        for place in 0..PLACES {
            let inputs = &inputs[place * input_step..][..tiles * channels];
            let products = &mut products[place * product_step..][..tiles * width];
            for (p, panel) in panels.clone().enumerate() {
                let wide = crate::tile::panel::<S>();
                let kernels =
                    &self.kernels[(panel * PLACES + place) * depth * wide..][..depth * wide];
                let product = Product { inputs, channels, kernels, depth, lane: p * wide, width };
                product.run(s, products);
            }
        }
        let mut tile = 0;
        for strip in strips {
            self.transform_products(s, &products[tile * width..], product_step, &panels, &strip);
            tile += strip.rows.len() * tile_cols;
        }
    }

    /// `inputs[place][tile][channel] = B' d B` for the tiles of a strip.
    #[inline(always)]
    fn transform_inputs<S: Simd>(
        &self,
        s: S,
        inputs: &mut [f32],
        input_step: usize,
        group: usize,
        strip: &Strip,
    ) {
        let planes = &self.sweep.planes;
        let channels = planes.count.next_multiple_of(S::LANES);
        let tile_cols = self.sweep.phases[0].grid[1].div_ceil(2);
        let (rows, cols) = (2 * strip.rows.len() + 2, 2 * tile_cols + 2);
        let mut band = scratch::floats(rows * cols * channels);
        self.fill_band(s, &mut band, group, 2 * strip.rows.start, cols, strip.image);
        let tiles = strip.rows.len() * tile_cols;
        assert!(inputs.len() >= (PLACES - 1) * input_step + tiles * channels);
        for tile in 0..tiles {
            let corner = 2 * (tile / tile_cols * cols + tile % tile_cols);
            for channel in (0..channels).step_by(S::LANES) {
                // SAFETY: the 4 x 4 pixels from the corner on are inside the band; the tile's place in `inputs` was checked.
                unsafe {
                    let from = band.as_ptr().add(corner * channels + channel);
                    let to = inputs.as_mut_ptr().add(tile * channels + channel);
                    for i in 0..4 {
                        let mut line = [s.zero(); 4];
                        for j in 0..4 {
                            let [a, b, c, d] =
                                [0, 1, 2, 3].map(|row| from.add((row * cols + j) * channels));
                            line[j] = match i {
                                0 => s.sub(s.load(a), s.load(c)),
                                1 => s.add(s.load(b), s.load(c)),
                                2 => s.sub(s.load(c), s.load(b)),
                                _ => s.sub(s.load(b), s.load(d)),
                            };
                        }
                        let line = input_line(s, line);
                        for j in 0..4 {
                            s.store(to.add((i * 4 + j) * input_step), line[j]);
                        }
                    }
                }
            }
        }
    }

    /// `band[pixel][channel]` of the padded image, from row `first` on, zero beyond its edges.
    #[inline(always)]
    fn fill_band<S: Simd>(
        &self,
        s: S,
        band: &mut [f32],
        group: usize,
        first: usize,
        cols: usize,
        image: usize,
    ) {
        let planes = &self.sweep.planes;
        let channels = planes.count.next_multiple_of(S::LANES);
        let (corner, _) = taps(self.sweep);
        let [h, w] = planes.size;
        let top = first + corner / planes.padded[1];
        let left = corner % planes.padded[1];
        let from = self.sweep.group_of(image, group);
        // Columns of the band that lie inside the image, and the first of them there.
        let start = planes.before[1].saturating_sub(left).min(cols);
        let skipped = left.saturating_sub(planes.before[1]);
        let count = w.saturating_sub(skipped).min(cols - start);
        for (r, band) in band.chunks_exact_mut(cols * channels).enumerate() {
            let row = (top + r).checked_sub(planes.before[0]).filter(|&row| row < h && count > 0);
            let Some(row) = row else {
                band.fill(0.0);
                continue;
            };
            band[..start * channels].fill(0.0);
            band[(start + count) * channels..].fill(0.0);
            let from = &from[row * w + skipped..];
            assert!(from.len() >= (planes.count - 1) * h * w + count);
            // SAFETY: `count` pixels of each channel are left in `from`, and there is room for them in the band.
            unsafe {
                let to = band.as_mut_ptr().add(start * channels);
                transpose_into(
                    s,
                    to,
                    channels,
                    from.as_ptr(),
                    h * w,
                    planes.count,
                    count,
                    Write::Set,
                );
            }
        }
    }

    /// `y = A' m A + bias` for the tiles of a strip.
    #[inline(always)]
    fn transform_products<S: Simd>(
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

/// One place, one panel: `products [tiles, width] = inputs [tiles, channels] * kernels [depth, wide]`.
struct Product<'a> {
    inputs: &'a [f32],
    channels: usize,
    kernels: &'a [f32],
    depth: usize,
    /// Where in a row of products the panel is.
    lane: usize,
    width: usize,
}

impl Product<'_> {
    #[inline(always)]
    fn run<S: Simd>(&self, s: S, products: &mut [f32]) {
        let rows = self.inputs.chunks(S::TILE_ROWS * self.channels);
        for (inputs, products) in rows.zip(products.chunks_mut(S::TILE_ROWS * self.width)) {
            match inputs.len() / self.channels {
                6 => self.tile::<S, 6>(s, inputs, products),
                5 => self.tile::<S, 5>(s, inputs, products),
                4 => self.tile::<S, 4>(s, inputs, products),
                3 => self.tile::<S, 3>(s, inputs, products),
                2 => self.tile::<S, 2>(s, inputs, products),
                _ => self.tile::<S, 1>(s, inputs, products),
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&self, s: S, inputs: &[f32], products: &mut [f32]) {
        let wide = panel::<S>();
        assert!(inputs.len() >= R * self.channels && products.len() >= R * self.width);
        let part = self.depth.div_ceil(self.depth.div_ceil(PART));
        for first in (0..self.depth).step_by(part) {
            let write = if first > 0 { Write::Add } else { Write::Set };
            let part = part.min(self.depth - first);
            // SAFETY: R rows of at least `depth` channels, checked above; the kernels are `depth` rows of a panel, and the
            // panel lies inside the width.
            unsafe {
                let rows = std::array::from_fn(|r| inputs.as_ptr().add(r * self.channels + first));
                let kernels = self.kernels.as_ptr().add(first * wide);
                let acc = outer::<S, R, VECTORS>(s, part, rows, |k| k, kernels, wide);
                emit(s, acc, products.as_mut_ptr().add(self.lane), self.width, wide, write);
            }
        }
    }
}
