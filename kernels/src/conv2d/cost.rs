//! What a convolution costs in each engine, by which one is chosen where neither a matrix product
//! nor [`winograd`](super::winograd) nor [`rows`](super::rows) has come first: the products that
//! the engine really makes, in whole vectors, and the price of what else it does, in products. Only
//! ratios count. The prices are in [`tuning`](crate::tuning::cost), with how good the choices are.

use super::{Conv2dDims, images};
use crate::{isa::Isa, tuning::cost::*};

/// The sums of an output: `taps` products for each of `out_channels` channels in each group, on a
/// grid of pixels.
pub(super) struct Sums<'a> {
    d: &'a Conv2dDims,
    pub(super) out_channels: usize,
    pub(super) taps: usize,
    grid: [usize; 2],
    /// What lanes of pixels pay for [sorting](super::planes::Planes) the columns of the image.
    sorting: usize,
}

impl<'a> Sums<'a> {
    /// Those of `y`. For `dw`, where pixels and taps change places, the products are the same.
    pub(super) fn of_output(d: &'a Conv2dDims) -> Self {
        let rows = if d.stride[1] > 1 { d.c * d.h } else { 0 };
        let sorting = rows * (SORTING_ROW + d.w * SORTING);
        Self { d, out_channels: d.o_group(), taps: d.taps(), grid: [d.oh(), d.ow()], sorting }
    }

    /// Those of `dx`, which has as many phases as the stride makes.
    pub(super) fn of_input(d: &'a Conv2dDims) -> Self {
        let [kernel, stride] = [d.kernel, d.stride].map(|[rows, cols]| rows * cols);
        let taps = d.o_group() * kernel.div_ceil(stride);
        let grid = [d.h.div_ceil(d.stride[0]), d.w.div_ceil(d.stride[1])];
        Self { d, out_channels: d.c_group(), taps, grid, sorting: 0 }
    }

    /// `channels.rs` and `weights.rs`: lanes are channels, by 16; each sum, or element of `dy`, is
    /// transposed.
    pub(super) fn in_channels(&self) -> usize {
        let pixels = self.d.groups * self.grid[0] * self.grid[1];
        pixels * self.out_channels.next_multiple_of(16) * (self.taps + CHANNELS_MOVING)
    }

    /// `pixels.rs`, where the weights of a tile fit L1: lanes are pixels of a row.
    pub(super) fn in_pixels(&self) -> Option<usize> {
        (self.out_channels.min(6) * self.taps < PIXELS_WEIGHTS).then(|| {
            let products = self.out_channels * (self.taps + PIXELS_WRITING) * self.whole_rows();
            times(products, PIXELS_PRODUCTS) + self.sorting
        })
    }

    /// `dots.rs`, where the sums, which are vectors, fit L2: lanes are pixels of a row.
    pub(super) fn in_dots(&self) -> Option<usize> {
        (self.out_channels * self.taps < DOTS_SUMS).then(|| {
            let products = self.out_channels * (self.taps + DOTS_READING) * self.whole_rows();
            times(products, DOTS_PRODUCTS) + self.sorting
        })
    }

    /// `images/sweep.rs`
    pub(super) fn in_images(&self) -> Option<usize> {
        self.batch([1, 1])
    }

    /// `images/weights.rs`: two input channels at a time.
    pub(super) fn in_images_for_weights(&self) -> Option<usize> {
        let channels = self.d.c_group();
        let [numerator, denominator] = IMAGES_WEIGHTS_PRODUCTS;
        self.batch([channels.next_multiple_of(2) * numerator, channels * denominator])
    }

    /// Lanes are images, by 16, where a batch fits L2 and there are channels enough to keep the
    /// multipliers busy. The products are multiplied with a fraction.
    fn batch(&self, fraction: [usize; 2]) -> Option<usize> {
        let Conv2dDims { n, c, h, w, o, .. } = *self.d;
        let (x, y) = (c * h * w, o * self.d.oh() * self.d.ow());
        let fits = x <= IMAGES_INPUT && y <= IMAGES_OUTPUT && self.out_channels >= IMAGES_LANES;
        (images::can(self.d) && fits).then(|| {
            let products = times(images::products(self.d), fraction);
            (products + IMAGES_MOVING * (x + y)) * n.next_multiple_of(16) / n
        })
    }

    /// Pixels in the vectors that cover all rows.
    fn whole_rows(&self) -> usize {
        let lanes = Isa::current().lanes();
        self.d.groups * self.grid[0] * self.grid[1].next_multiple_of(lanes)
    }
}

fn times(products: usize, [numerator, denominator]: [usize; 2]) -> usize {
    products * numerator / denominator
}
