//! Winograd's F(2x2, 3x3): a 3 x 3 kernel with 16 products for 4 outputs instead of 36, or 25 where
//! the stride is 2.
//!
//! Four outputs in a square depend on a tile `d` of each input channel. With the kernel `g`,
//!
//! ```text
//! y = A' [sum over channels of (G g G') * (B' d B)] A        * is element by element, ' transposes
//! ```
//!
//! with the small matrices in `transform.rs` (for stride 1: Lavin and Gray, "Fast Algorithms for
//! Convolutional Networks", 2016; for stride 2 the same idea for the elements that the stride tells
//! apart). This is linear in `g`, so the gradient of `g` is its transpose, with the same matrices:
//! `dg = G' [sum over tiles of (A dy A') * (B' d B)] G`. Either sum is a matrix product for each
//! place in a transformed tile; around them lie only additions, with lanes for channels:
//!
//! ```text
//! for each block of tiles:
//!   transpose the rows of pixels it reads:  band[pixel][channel in], zeros around
//!   inputs[place] = B' d B
//!   for each place: a matrix product        sweep.rs: forward and the gradient of the input,
//!                                           weights.rs: that of the weights
//! ```
//!
//! The transforms multiply by 1, -1 and 1/2 only, and the sums are made in parts, so the error is
//! no larger than that of the direct loops. But an infinity or a NaN in the input reaches all
//! outputs of its tile.
//!
//! Paths: a [`Transform`] for each of stride 1 (`Unit`), stride 2 (`Halving`) and the gradient of
//! the input of stride 2 (`Doubling`); larger blocks of tiles where the transformed kernels or the
//! sums come from beyond the caches.

#![allow(clippy::needless_range_loop)] // index loops over small arrays read like the formulas

mod sweep;
mod transform;
mod weights;

pub(super) use {sweep::run, weights::backward_weight};

use self::transform::{LINE, Transform};
use super::Conv2dDims;
use crate::{
    Write, scratch,
    simd::Simd,
    tile::transpose_into,
    tuning::winograd::{MIN_CHANNELS, MIN_CHANNELS_HALVING, MIN_PIXELS},
};
use std::{cell::Cell, ops::Range, sync::OnceLock};

/// Which [transform](transform::Transform) a sweep takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tiles {
    Unit,
    Halving,
    Doubling,
}

thread_local! {
    static ALLOWED: Cell<bool> = const { Cell::new(true) };
}

/// Whether this process may use Winograd's products: unless `FERROTAPE_WINOGRAD` is `0`. Read once.
///
/// # Errors
/// If it is neither `0` nor `1`.
pub fn winograd_from_env() -> Result<bool, &'static str> {
    static PROCESS: OnceLock<Result<bool, String>> = OnceLock::new();
    let found = PROCESS.get_or_init(|| match std::env::var("FERROTAPE_WINOGRAD").as_deref() {
        Ok("1") | Err(std::env::VarError::NotPresent) => Ok(true),
        Ok("0") => Ok(false),
        Ok(other) => Err(format!("FERROTAPE_WINOGRAD={other}: it can be 0 or 1")),
        Err(e) => Err(format!("FERROTAPE_WINOGRAD: {e}")),
    });
    found.as_ref().copied().map_err(String::as_str)
}

/// Runs `f`, whose convolutions on this thread take the direct loops; so does the whole process
/// with `FERROTAPE_WINOGRAD=0` in its environment. For tests and benches.
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
    let process = winograd_from_env().unwrap_or_else(|reason| panic!("{reason}"));
    process && ALLOWED.get()
}

/// Whether a convolution is possible here, and faster.
pub(super) fn pays(d: &Conv2dDims) -> bool {
    let least = if d.is_square(1) { MIN_CHANNELS } else { MIN_CHANNELS_HALVING };
    (d.is_square(1) || d.is_square(2))
        && d.c_group().min(d.o_group()) >= least
        && d.oh().min(d.ow()) > 1
        && d.n * d.oh() * d.ow() >= MIN_PIXELS
        && allowed()
}

/// `rows x cols` tiles, which cover an image.
#[derive(Clone, Copy)]
struct Tiling {
    rows: usize,
    cols: usize,
}

impl Tiling {
    /// Of tiles of `T::OUT x T::OUT` outputs.
    fn of<T: Transform>(grid: [usize; 2]) -> Self {
        let [rows, cols] = grid.map(|side| side.div_ceil(T::OUT));
        Self { rows, cols }
    }

    /// Cuts the tiles of some images into blocks of about `tiles`, in whole rows.
    fn blocks(self, images: Range<usize>, tiles: usize) -> impl Iterator<Item = Block> {
        let rows = images.start * self.rows..images.end * self.rows;
        let most = (tiles / self.cols).max(1);
        let block = rows.len().div_ceil(rows.len().div_ceil(most));
        rows.clone()
            .step_by(block)
            .map(move |first| Block { tiling: self, rows: first..rows.end.min(first + block) })
    }
}

/// Rows of tiles, counted over all images.
struct Block {
    tiling: Tiling,
    rows: Range<usize>,
}

/// The rows of a block that lie in one image.
struct Strip {
    image: usize,
    rows: Range<usize>,
    /// Tiles of the block before it.
    before: usize,
}

impl Block {
    fn tiles(&self) -> usize {
        self.rows.len() * self.tiling.cols
    }

    fn strips(&self) -> impl Iterator<Item = Strip> {
        let Tiling { rows: per_image, cols } = self.tiling;
        (self.rows.start / per_image..self.rows.end.div_ceil(per_image)).map(move |image| {
            let first = self.rows.start.max(image * per_image);
            let end = self.rows.end.min((image + 1) * per_image);
            Strip {
                image,
                rows: first - image * per_image..end - image * per_image,
                before: (first - self.rows.start) * cols,
            }
        })
    }
}

/// Where transformed tiles go: a channel of a tile, at a place, to `place * self.place + tile *
/// self.tile + channel * self.channel`; vectors of channels stay together.
#[derive(Clone, Copy)]
struct Layout {
    place: usize,
    tile: usize,
    channel: usize,
}

impl Layout {
    fn at(self, [place, tile, channel]: [usize; 3]) -> usize {
        place * self.place + tile * self.tile + channel * self.channel
    }

    /// A little more than the tiles need, as 16 places a power of two apart would compete for one
    /// set of L1.
    fn place_step(tiles: usize, channels: usize) -> usize {
        tiles * channels + 16
    }
}

/// A part of the planes of one image, and beyond their edges.
struct Window<'a> {
    /// `[depth, size]`
    planes: &'a [f32],
    depth: usize,
    size: [usize; 2],
    /// Its first pixel, counted from that of the planes.
    corner: [isize; 2],
    cols: usize,
}

/// Elements in a line of so many tiles.
const fn reach<T: Transform>(tiles: usize) -> usize {
    T::STEP * (tiles - 1) + T::IN
}

impl Window<'_> {
    /// Channels in a pixel of the band: whole vectors.
    fn channels<S: Simd>(&self) -> usize {
        self.depth.next_multiple_of(S::LANES)
    }

    /// `band[pixel][channel]` for as many rows as the band has, zero beyond the edges of the image.
    #[inline(always)]
    fn fill<S: Simd>(&self, s: S, band: &mut [f32]) {
        let Self { planes, depth, size: [h, w], corner: [top, left], cols } = *self;
        let channels = self.channels::<S>();
        // Columns of the band that lie inside the image, and the first of them there.
        let start = (-left).max(0).unsigned_abs().min(cols);
        let skipped = left.max(0).unsigned_abs();
        let inside = w.saturating_sub(skipped).min(cols - start);
        for (r, band) in band.chunks_exact_mut(cols * channels).enumerate() {
            let row = usize::try_from(top + r as isize).ok().filter(|&row| row < h && inside > 0);
            let Some(row) = row else {
                band.fill(0.0);
                continue;
            };
            band[..start * channels].fill(0.0);
            band[(start + inside) * channels..].fill(0.0);
            let from = &planes[row * w + skipped..];
            assert!(from.len() >= (depth - 1) * h * w + inside);
            // SAFETY: `inside` pixels of each channel are left in `from`, and there is room for
            // them in the band.
            unsafe {
                let to = band.as_mut_ptr().add(start * channels);
                transpose_into(s, to, channels, from.as_ptr(), h * w, depth, inside, Write::Set);
            }
        }
    }

    /// `inputs = B' d B` for `rows x cols` tiles, of which the first begins at the window's corner.
    #[inline(always)]
    fn transform<S: Simd, T: Transform>(
        &self,
        s: S,
        inputs: &mut [f32],
        layout: Layout,
        tiles: [usize; 2],
    ) {
        let channels = self.channels::<S>();
        let [tile_rows, tile_cols] = tiles;
        let (rows, cols) = (reach::<T>(tile_rows), self.cols);
        let mut band = scratch::floats(rows * cols * channels);
        self.fill(s, &mut band);
        let tiles = tile_rows * tile_cols;
        let places = T::PLACES.len();
        let furthest = [places * places - 1, tiles - 1, channels - S::LANES];
        assert!(cols >= reach::<T>(tile_cols) && layout.at(furthest) + S::LANES <= inputs.len());
        for tile in 0..tiles {
            let corner = T::STEP * (tile / tile_cols * cols + tile % tile_cols);
            for channel in (0..channels).step_by(S::LANES) {
                // SAFETY: the pixels of the tile, from the corner on, are inside the band; the
                // furthest place was checked.
                unsafe {
                    let from = band.as_ptr().add(corner * channels + channel);
                    let to = inputs.as_mut_ptr().add(layout.at([0, tile, channel]));
                    for i in 0..places {
                        let mut line = [s.zero(); LINE];
                        for j in 0..T::IN {
                            let row = |row| s.load(from.add((row * cols + j) * channels));
                            line[j] = T::input(s, i, row);
                        }
                        for j in 0..places {
                            let product = T::input(s, j, |col| line[col]);
                            s.store(to.add((i * places + j) * layout.place), product);
                        }
                    }
                }
            }
        }
    }
}
