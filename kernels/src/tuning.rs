//! The numbers that were found by measuring, with what was measured.
//!
//! Each on one core of a virtual machine, single precision, medians; in GFLOP/s unless it says
//! otherwise, which count the products of the direct algorithm, so that leaving some out can be
//! above the peak:
//!
//! - without a name a Zen 3 with AVX2: 32 KiB of L1, 512 KiB of L2, peak 98;
//! - Zen 4 with AVX-512, unless AVX2 stands there: 32 KiB of L1, 1 MiB of L2, peak 115;
//! - Xeon (Emerald Rapids) with AVX-512: 48 KiB of L1, 2 MiB of L2, peak 170; its ratios are medians
//!   of pairs taken in turns in one process.
//!
//! They are no part of any result's meaning, but they are part of its bits: they decide where a sum
//! is cut.
//!
//! To measure anew: change one, and `cargo bench --bench report -- W1 W2 --threads 1`. Where no
//! figure stands, none was kept. The errors are those that
//! `winograd_is_as_exact_as_the_direct_loops` in `tests/conv2d.rs` compares.

/// See `tile.rs`.
pub(crate) mod tile {
    /// Floats of a packed panel at most, 32 KiB: it meets one tile after the other, so L1 should
    /// hold it. That is 512 of depth for panels of AVX2, 256 for those of AVX-512. AVX2, 1024^3: 89
    /// at depth 256, 90 at 384, 92 at 512, 93 at 768. Direct sums, 64 channels of 56 x 56: 89 at
    /// 128, 90 at 256 and 512, 86 at 1024; 256 channels of 14 x 14: 92, 94, 95, 95. AVX-512 on the
    /// Xeon: the direct sums of 128 channels of 28 x 28 are 1.25 times as fast with 256 as with
    /// 512, 1024^3 1.0 to 1.3 times; with 144 direct sums are 1.00 to 1.08 times as
    /// fast as with 256, products 0.95 to 1.02 times.
    pub(crate) const PANEL: usize = 1 << 13;
    /// Floats ahead in each row of a transposition that are fetched. Zen 4, best of several, for
    /// nothing ahead, 16, 32, 64 and 128: 128 channels of 28 x 28 with stride 2 forward 117, 122,
    /// 128, 127, 124, the gradient of the weights 108, 112, 123, 119, 116; 64 channels of 56 x 56
    /// 183, 172, 185, 188, 184. No difference where the images are in the caches. Of the rows that
    /// are written, on the Xeon: writing the outputs of 32 images of 64 channels of 56 x 56 takes
    /// 7.5 ms without, 3.7 ms with it; 128 channels of 28 x 28 4.4 and 2.4.
    pub(crate) const AHEAD: usize = 32;
}

/// See [`mod@crate::gemm`].
pub(crate) mod gemm {
    use std::ops::RangeInclusive;

    /// Rows of a packed block of A: MC x KC floats = 192 KiB, under half of L2. A multiple of the
    /// rows of every tile: 2, 6, 8. 1024^3: 93 at 48, 92 at 72, 93 at 96, 92 at 144.
    pub(crate) const MC: usize = 96;
    /// Columns of a packed block of B: KC x NC floats = 4 MiB (2 with AVX-512), a part of L3.
    /// 1024^3: 88 at 512, 1024, 2048 and 4096 alike.
    pub(crate) const NC: usize = 2048;
    /// Up to so many floats (256 KiB, half of L2) A is packed as a whole, and blocks of B have as
    /// many. 256 x 64 by 64 x 3136, with C in memory, on two threads: 30 ms for 32 images in the
    /// five loops, 23 ms so.
    pub(crate) const RESIDENT: usize = 1 << 16;
    /// Columns of B that are packed together, while the next ones are fetched: a row of B may be a
    /// page away from the next, and its parts arrive faster the longer they are. Zen 4, 64 x 256 by
    /// 256 x 3136 from memory: 64 with 32 columns and nothing fetched ahead, 70 with 32
    /// columns and 64 ahead, 78 with 128 and 128 ahead, 74 with 256 and 128 ahead.
    pub(crate) const AT_ONCE: usize = 128;
    /// With fewer rows than this, packing B costs more than it saves where B's rows are contiguous.
    /// Zen 4, 512 x 512, not packed and packed: 116 and 95 (AVX2 87 and 85) for 32 rows, 116 and
    /// 101 (AVX2 92 and 98) for 48.
    pub(crate) const SHORT: usize = 48;
    /// The same where B is too large for L2 and L3: read where it lies, each panel takes a few
    /// floats of every row, and the rest of their cache lines is gone before the next panel asks
    /// for it. Zen 4, 2048 x 2048, not packed and packed: 8 rows 24 and 22 (AVX2 21 and 29), 16
    /// rows 34 and 46 (AVX2 17 and 41).
    pub(crate) const FAR_SHORT: usize = 8;
    /// Floats of a B that L2 and L3 still hold, 8 MiB: 2^21 behave as [`SHORT`] says, 2^22 as
    /// [`FAR_SHORT`].
    pub(crate) const NEAR: usize = 1 << 21;
    /// Where a B is transposed, dot products do without packing it, but sum the lanes of each: they
    /// pay where A has fewer rows than depth / DOT_DEPTH. Zen 4, dot products and packed: 64 rows
    /// 107 and 105 (AVX2 97 and 101) at depth 512, 87 and 107 (92 and 103) at 128; 48 rows 71 and
    /// 102 (78 and 95) at 64; 80 rows 107 and 96 (106 and 99) at 1176.
    pub(crate) const DOT_DEPTH: usize = 8;
    /// The bounds of that quotient: Zen 4, 16 rows at depth 128 88 and 82, 96 at 3136 80 and 104.
    pub(crate) const DOT_SHORT: RangeInclusive<usize> = 16..=96;
    /// For so few columns of C, rows of A are not packed if contiguous: Zen 4, 512 x 512, not
    /// packed and packed: 115 and 109 (AVX2 110 and 106) for 256 columns, 109 and 110 for 512.
    pub(crate) const FEW: usize = 256;
    /// Nor does packing pay for matrices of this many floats, which L1 and L2 hold as they are: Zen
    /// 4, not packed and packed, 115 and 111 for 96 x 96, 115 and 112 for 128 x 128, 113 and 114
    /// for 160.
    pub(crate) const SMALL: usize = 1 << 14;
    /// Up to this depth a product is bound by writing C, which is fastest row by row: 120 x 1 x
    /// 1176 takes 14 us so, 29 us in tiles of 6 rows.
    pub(crate) const SHALLOW: usize = 4;
}

/// See [`mod@crate::conv2d`].
pub(crate) mod conv2d {
    /// Floats of a block of direct sums: 256 KiB, half of L2. 91 from 2^15 to 2^16, 90 at 2^14 and
    /// 2^17.
    pub(crate) const SUMS: usize = 1 << 16;
    /// Pixels in such a block at most. Xeon, times as fast as with 512: 0.99 to 1.01 with 256, 1.00
    /// to 1.03 with 1024.
    pub(crate) const BLOCK: usize = 512;
    /// Images are swept together up to so many pixels. Xeon, 64 images of 4 x 4, 64 channels: 1.01
    /// times as fast with 64, 1.02 times with 1024.
    pub(crate) const AT_ONCE: usize = 256;
    /// Pixels in a block of the sums for the weights: a panel of `dy` is 512 x 16 floats = 32 KiB
    /// with AVX2, 64 with AVX-512, which come from L2: on the Xeon 256 are between 0.95 and 1.03
    /// times as fast. 64 channels of 56 x 56: 90 at 64, 91 at 128, 92 at 256, 94 at 512; 128
    /// channels with stride 2: 81, 87, 90, 90.
    pub(crate) const PIXELS: usize = 512;
    /// Vectors of pixels that all output channels visit while their part of the image is hot: a
    /// multiple of every V. Xeon, times as fast as with 24: images of 224 x 224, 7 x 7, stride 2
    /// 0.93 with 12, 1.01 with 48; 1 to 32 channels 0.99 and 1.05.
    pub(crate) const VECTORS: usize = 24;
}

/// See `conv2d/cost.rs`: prices in products. Fitted to 816 measurements on one core of a Zen 4 (1
/// MiB of L2): 137 shapes with 1 to 64 images, 1 to 48 channels, 5 to 56 pixels wide, kernels of 2
/// to 7, stride 1 and 2, in all three directions, with AVX2 and AVX-512, each in every engine that
/// can. The choice has 98.7% of the best engine's speed in the geometric mean. In brackets what
/// other prices have.
pub(crate) mod cost {
    /// Transposing a sum, or an element of `dy`, in lanes of channels (98.5% at 16, 98.4% at 32).
    pub(crate) const CHANNELS_MOVING: usize = 24;
    /// Writing a sum in lanes of pixels (98.4% at 0, 98.7% at 4).
    pub(crate) const PIXELS_WRITING: usize = 2;
    /// What their products cost, as a fraction of those in lanes of channels (98.4% at 1, 98.6% at
    /// 5/4).
    pub(crate) const PIXELS_PRODUCTS: [usize; 2] = [9, 8];
    /// Weights of a tile that fit L1 (98.6% at 6144, no difference above; 95.7% with at most 1024
    /// taps).
    pub(crate) const PIXELS_WEIGHTS: usize = 8192;
    /// Reading an element of `dy` in dot products (98.4% at 1 and at 16).
    pub(crate) const DOTS_READING: usize = 8;
    /// What their products cost (98.4% at 9/8, 98.5% at 3/2).
    pub(crate) const DOTS_PRODUCTS: [usize; 2] = [5, 4];
    /// Vectors of sums, one for each weight (98.7% at half as many and at twice as many).
    pub(crate) const DOTS_SUMS: usize = 8192;
    /// Sorting a row of the image by columns (97.6% where it costs nothing, 98.3% at 0, 98.5% at
    /// 300).
    pub(crate) const SORTING_ROW: usize = 600;
    /// The same for each element (98.5% at 0, 98.7% at 24).
    pub(crate) const SORTING: usize = 12;
    /// Moving an element between images and lanes (98.6% at 4, 98.4% at 12).
    pub(crate) const IMAGES_MOVING: usize = 8;
    /// With fewer rows in a tile, too few products are under way at a time (98.6% at 4, 98.7% at
    /// 6).
    pub(crate) const IMAGES_LANES: usize = 5;
    /// What the products of the weights' gradient cost in lanes of images: a fifth more, for
    /// reading and writing the sums with every few rows.
    pub(crate) const IMAGES_WEIGHTS_PRODUCTS: [usize; 2] = [6, 5];
    /// Floats of an image and of its output, up to which batches stay in L2. In GFLOP/s, of other
    /// engines and of this: with 6272 and 6272 87 and 97, with 8192 and 24576 106 and 91, with 784
    /// and 25088 65 and 54. Going by blocks of rows instead is slower, at any length.
    pub(crate) const IMAGES_INPUT: usize = 1 << 13;
    /// See [`IMAGES_INPUT`].
    pub(crate) const IMAGES_OUTPUT: usize = 1 << 14;
}

/// See `conv2d/images`.
pub(crate) mod images {
    /// Floats of `x` and `dy`, for a vector of images, in the rows that are summed at a time: 32
    /// KiB. Zen 4, 12 channels of 8 x 8, 7 x 7 to 12: 121 at 2^11, 118 at 2^12, 154 at 2^13 and
    /// beyond; 3 of 32 x 32, 5 x 5 to 6: 77 up to 2^13, 55 where it has no end.
    pub(crate) const IN_L1: usize = 1 << 13;
}

/// See `conv2d/winograd`.
pub(crate) mod winograd {
    /// Tiles in a block: so many share one reading of the transformed kernels, and with 64 channels
    /// they fill L2. 64 channels of 14 x 14, in terms of the direct products: 139 to 146 up to 64
    /// tiles, 109 to 117 from 96 on. Xeon, 64 channels of 56 x 56: 64 tiles, two rows of them, are
    /// 1.2 times as fast as 48, of which only one row is taken; 96 are 1.0 and, for 128 channels of
    /// 28 x 28, 0.97 times as fast as 64.
    pub(crate) const TILES: usize = 64;
    /// The same where the transformed kernels come from beyond L2 and L3. 512 channels: 137 with
    /// 192 tiles, 122 with 48. Xeon: 1.05 times as fast with 512 as with 192 and 256.
    pub(crate) const FAR_TILES: usize = 512;
    /// Tiles in a block of the sums for the weights, which are read and written once for each. 64
    /// channels of 56 x 56, 256 of 14 x 14, 512 of 7 x 7, best of 15: 135, 154, 124 with 32 tiles,
    /// 136, 150, 125 with 48, 146, 163, 127 with 96.
    pub(crate) const WEIGHT_TILES: usize = 96;
    /// The same where the sums are beyond L2 and L3: Zen 4, 512 channels, two threads 213 with 96
    /// tiles, 240 with 160, 266 with 256. With 256 channels 198, 171, 174 on one. Still they are
    /// summed up in parts of at most [`WEIGHT_TILES`]: without, the error is 1.3 times that of the
    /// direct loops.
    pub(crate) const FAR_WEIGHT_TILES: usize = 256;
    /// Blocks summed up before the sum is added to `dw`, for exactness: without, the error over
    /// 25,088 tiles is 1.2 times that of the direct loops; with it, 0.7 times, at the same speed.
    pub(crate) const WEIGHT_BLOCKS: usize = 16;
    /// Floats of transformed kernels that the caches can be hoped to keep: 8 MiB.
    pub(crate) const NEAR: usize = 1 << 21;
    /// Channels summed up before the sum is added to those of the other parts. In one part, the
    /// error with 512 channels is twice that of the direct loops. With parts of 64 it is 1.05 times
    /// theirs for 64 channels with AVX-512, whose direct loops make shorter parts than those of
    /// AVX2; with 48 it is less than theirs for any number. Xeon: 48 take 0 to 4% more time than
    /// 64.
    pub(crate) const PART: usize = 48;
    /// The same for the gradient of the input where the stride is 2, whose direct loops sum fewer
    /// products: with 64 the error would be 1.06 times theirs for 64 channels.
    pub(crate) const PART_DOUBLING: usize = 32;
    /// With fewer channels in or out than this the transforms cost more than the products they
    /// save: 16 to 16 channels are 1.2 times as fast as in the direct loops, 8 to 16 channels
    /// between 0.9 and 1.1 times.
    pub(crate) const MIN_CHANNELS: usize = 16;
    /// The same with stride 2, where there is less to save and the gradient of the input is a short
    /// sum in the direct loops: with 16 and 32 channels its error would be 1.05 to 1.19 times
    /// theirs, from 48 on it is 0.5 to 0.85 times. 128 channels of 28 x 28 with AVX-512: 228 -> 265
    /// forward, 197 -> 265 for the gradient of the input, 236 -> 238 for that of the weights, with
    /// any number of tiles in a block from 14 to 98.
    pub(crate) const MIN_CHANNELS_HALVING: usize = 64;
    /// With fewer pixels in the batch than this, transforming the kernels costs more than it saves,
    /// and the gradient of the weights is less exact than that of the direct loops: 64 pixels 1.1
    /// times its error, 128 pixels 0.9 times.
    pub(crate) const MIN_PIXELS: usize = 128;
}

/// See [`mod@crate::par`].
pub(crate) mod par {
    use std::time::Duration;

    /// Below this many multiply-adds a second thread does not pay: 2^20 take 20 us on one core at
    /// 100 GFLOP/s, and what another core has to read from this one's cache, and back, takes nearly
    /// as long. Zen 4, two threads, training step of the benches' `seednet` for 4 images: 223 us at
    /// 2^19, 140 at 2^20, 159 at 2^21; for 32 images 630 to 660 at all three.
    pub(crate) const MIN_MULTIPLY_ADDS: usize = 1 << 20;
    /// The same for elements, 2^17 floats in and out of the L2 cache take about 10 us: for 32
    /// images 625 us at 2^15 and 2^16, 640 at 2^17, 730 at 2^18.
    pub(crate) const MIN_ELEMENTS: usize = 1 << 17;
    /// The same for weights: 2^18 with momentum and gradient are 3 MiB. With 155 thousand the
    /// training step for one image takes 81 us on one thread, and 120 where a second one updates
    /// half of them.
    pub(crate) const MIN_WEIGHTS: usize = 1 << 18;
    /// How long threads wait for more work: longer than the pauses in the training step of a small
    /// network, in which one thread works alone. Nothing is gained by a whole millisecond.
    pub(crate) const AWAKE: Duration = Duration::from_micros(200);
    /// After so long a thread that stays awake goes back to where it was called, as somebody there
    /// may be waiting for something else; the next cut asks it again, which takes microseconds.
    pub(crate) const AT_MOST: Duration = Duration::from_millis(5);
    /// Questions that may be under way: those to a thread whose work never waits would fill the
    /// memory. Not measured.
    pub(crate) const UNANSWERED: usize = 8;
}

/// See [`mod@crate::reduce`]: for exactness first, then for speed.
pub(crate) mod reduce {
    /// Numbers that are added up in `f32` before the total goes to `f64`: 128 per lane of AVX2, and
    /// 32 per accumulator. Xeon: 512 and 2048 are as fast.
    pub(crate) const RUN: usize = 1024;
    /// Rows that are added up in `f32` before their totals go to `f64`. Xeon: 0.7 times as fast
    /// with 16 rows and tiles of 32 columns.
    pub(crate) const RUN_ROWS: usize = 64;
    /// Columns that are summed together. Xeon, times as fast as with 64: 4096 x 256 1.03 to 1.09,
    /// 512 x 100 1.1 to 1.7.
    pub(crate) const TILE: usize = 128;
    /// The largest number of pieces of a total sum: more than there are threads. Not measured.
    pub(crate) const MAX_PIECES: usize = 64;
    /// The smallest piece of a total sum: what a thread does in a few microseconds. Not measured.
    pub(crate) const MIN_PIECE: usize = 1 << 15;
}

/// See [`mod@crate::layout`].
pub(crate) mod layout {
    /// Side of the square tiles of a transposition: one cache line of floats each way. Xeon, times
    /// as fast as with 16: 64 x 64 0.94 with 8, 1.06 with 32; 1024 x 1024 0.83 and 0.74.
    pub(crate) const TILE: usize = 16;
}

/// See [`mod@crate::elementwise`].
pub(crate) mod elementwise {
    /// From this many floats on (32 MiB) an output is written past the caches, which could not keep
    /// it for the next kernel anyway. Xeon, ReLU of 2^23 and 2^24 floats: 0.83 to 0.9 times as fast
    /// through the caches.
    pub(crate) const STREAM_FROM: usize = 1 << 23;
}
