//! What forward and the gradient of the input have in common: every output pixel is a sum over
//! taps.
//!
//! A [`Sweep`] says which element of the padded image and which weight each tap of each pixel
//! takes. Five engines run it: [`channels`], [`pixels`] and [`images`], named after what their
//! vectors hold, [`winograd`] and [`rows`].

use super::{Conv2dDims, channels, cost::Sums, images, pixels, planes::Planes, rows, winograd};
use crate::{
    Write,
    par::{self, Shared, Work},
};
use std::ops::Range;

/// One sweep, in which all groups and images are alike.
pub(super) struct Sweep<'a> {
    /// `[images, groups * planes.count, size]`
    pub(super) source: &'a [f32],
    pub(super) planes: Planes,
    pub(super) images: usize,
    pub(super) groups: usize,
    /// Output channels in a group.
    pub(super) out_channels: usize,
    /// The weight of output channel `o` at a tap is at `group * group_step + o * channel_step +
    /// tap.weight`.
    pub(super) weights: &'a [f32],
    pub(super) group_step: usize,
    pub(super) channel_step: usize,
    /// One value for each output channel of all groups.
    pub(super) bias: Option<&'a [f32]>,
    /// Each covers some of the output pixels; together all of them.
    pub(super) phases: Vec<Phase>,
    /// Floats in an output channel.
    pub(super) channel: usize,
    pub(super) write: Write,
    pub(super) multiply_adds: usize,
    pub(super) engine: Engine,
}

/// What the vectors hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// One pixel of several output channels.
    Channels,
    /// Several pixels of one output channel.
    Pixels,
    /// Channels again, with fewer products: [`winograd`].
    Winograd(winograd::Tiles),
    /// One pixel of one output channel, of several images.
    Images,
    /// Columns of one output channel: [`rows`].
    Rows,
}

/// What a sweep computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    BackwardInput,
}

impl Engine {
    /// The one that is fastest, by its [cost](super::cost).
    pub(super) fn choose(d: &Conv2dDims, direction: Direction) -> Self {
        if winograd::pays(d) {
            return Engine::Winograd(match (d.stride[0], direction) {
                (1, _) => winograd::Tiles::Unit,
                (_, Direction::Forward) => winograd::Tiles::Halving,
                (_, Direction::BackwardInput) => winograd::Tiles::Doubling,
            });
        }
        let sums = match direction {
            Direction::Forward => Sums::of_output(d),
            Direction::BackwardInput => Sums::of_input(d),
        };
        if rows::pays(d, sums.out_channels, sums.taps / 9) {
            return Engine::Rows;
        }
        let mut best = (sums.in_channels(), Engine::Channels);
        for (cost, engine) in
            [(sums.in_pixels(), Engine::Pixels), (sums.in_images(), Engine::Images)]
        {
            if let Some(cost) = cost.filter(|&cost| cost < best.0) {
                best = (cost, engine);
            }
        }
        best.1
    }
}

/// A grid of output pixels that share their taps.
pub(super) struct Phase {
    /// Pixels in the grid, vertically and horizontally.
    pub(super) grid: [usize; 2],
    /// Offset in the source from one pixel to the next.
    pub(super) source_step: [usize; 2],
    /// Offset in the output channel of the first pixel.
    pub(super) first: usize,
    /// Offset in the output channel from one pixel to the next.
    pub(super) step: [usize; 2],
    /// What each output pixel sums over.
    pub(super) taps: Vec<Tap>,
}

/// One term of the sum of every output pixel.
#[derive(Clone, Copy)]
pub(super) struct Tap {
    /// Offset from a pixel's source to the element.
    pub(super) source: u32,
    /// Offset from a lane's weights to the weight.
    pub(super) weight: u32,
    /// Row of the padded plane that the element of a pixel in row 0 lies in.
    pub(super) row: u32,
}

impl Tap {
    pub(super) fn new(source: u32, weight: u32, planes: &Planes) -> Self {
        Self { source, weight, row: source % planes.plane() as u32 / planes.padded[1] as u32 }
    }
}

impl Phase {
    pub(super) fn pixels(&self) -> usize {
        self.grid[0] * self.grid[1]
    }
}

/// The source offsets of pixels from number `first` on, which are counted over images of `grid`
/// pixels: `step` is from one image, row and column to the next.
pub(super) fn pixel_offsets(
    first: usize,
    grid: [usize; 2],
    step: [usize; 3],
) -> impl Iterator<Item = u32> {
    // Counted on, as three divisions for each pixel cost a tenth of a small convolution.
    let [mut image, mut row, mut col] =
        [first / (grid[0] * grid[1]), first / grid[1] % grid[0], first % grid[1]];
    std::iter::repeat_with(move || {
        let offset = image * step[0] + row * step[1] + col * step[2];
        col += 1;
        if col == grid[1] {
            (row, col) = (row + 1, 0);
        }
        if row == grid[0] {
            (image, row) = (image + 1, 0);
        }
        offset as u32
    })
}

/// Cuts a range of panels, of which each group has `per_group`, where the group changes: the
/// groups, each with its panels.
pub(super) fn by_group(
    panels: Range<usize>,
    per_group: usize,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    (panels.start / per_group..panels.end.div_ceil(per_group)).map(move |group| {
        let of_group = group * per_group..(group + 1) * per_group;
        (group, panels.start.max(of_group.start)..panels.end.min(of_group.end))
    })
}

/// Cuts a range of units, counted row by row with `per_row` in each, into rectangles: the rest of a
/// row that was cut, at most `at_once` whole rows at a time, and the start of one that is cut. Each
/// is its rows, and where it lies in them.
pub(super) fn rectangles(
    mut units: Range<usize>,
    per_row: usize,
    at_once: usize,
) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    std::iter::from_fn(move || {
        if units.is_empty() {
            return None;
        }
        let (row, first) = (units.start / per_row, units.start % per_row);
        let whole = if first == 0 { (units.len() / per_row).min(at_once) } else { 0 };
        let (rows, end) = match whole {
            0 => (row..row + 1, per_row.min(first + units.len())),
            _ => (row..row + whole, per_row),
        };
        units.start = (rows.end - 1) * per_row + end;
        Some((rows, first..end))
    })
}

impl Sweep<'_> {
    /// Computes `out [images, groups * out_channels, channel]`.
    pub(super) fn run(mut self, out: &mut [f32]) {
        assert_eq!(out.len(), self.images * self.groups * self.out_channels * self.channel);
        for Phase { grid, first, step, .. } in self.phases.iter().filter(|p| p.pixels() > 0) {
            let last = first + (grid[0] - 1) * step[0] + (grid[1] - 1) * step[1];
            assert!(last < self.channel, "conv2d: a pixel beyond its channel");
        }
        if !out.is_empty() {
            let out = Shared(out.as_mut_ptr());
            match self.engine {
                Engine::Channels => channels::run(&self, out),
                Engine::Pixels => pixels::run(&mut self, out),
                Engine::Winograd(tiles) => winograd::run(&self, tiles, out),
                Engine::Rows => rows::run(&self, out),
                Engine::Images => images::run(&mut self, out),
            }
        }
    }

    /// Taps of all phases.
    pub(super) fn taps(&self) -> usize {
        self.phases.iter().map(|p| p.taps.len()).sum()
    }

    /// For a sweep whose taps are a 3 x 3 square of each plane: the corner of the square in the
    /// padded plane, and the place in it of each tap.
    pub(super) fn square(&self) -> (usize, [usize; 9]) {
        let taps = &self.phases[0].taps[..9];
        let corner = taps.iter().map(|tap| tap.source as usize).min().unwrap_or(0);
        let place = |at: usize| at / self.planes.padded[1] * 3 + at % self.planes.padded[1];
        (corner, std::array::from_fn(|t| place(taps[t].source as usize - corner)))
    }

    /// The planes of one group of one image.
    pub(super) fn group_of(&self, image: usize, group: usize) -> &[f32] {
        let len = self.planes.count * self.planes.size[0] * self.planes.size[1];
        &self.source[(image * self.groups + group) * len..][..len]
    }

    /// Writes the bias of each group, if there is one, to the start of its `width` floats, and zero
    /// to the others.
    pub(super) fn pad_bias(&self, to: &mut [f32], width: usize) {
        to.fill(0.0);
        let groups = self.bias.unwrap_or_default().chunks_exact(self.out_channels);
        for (to, from) in to.chunks_exact_mut(width).zip(groups) {
            to[..self.out_channels].copy_from_slice(from);
        }
    }

    /// Cuts the work for the threads, where an image consists of `panels`, and calls `f` with
    /// images and panels: all panels of at most `at_once` images, or some panels of one image.
    pub(super) fn each_piece(
        &self,
        panels: usize,
        at_once: usize,
        f: impl Fn(Range<usize>, Range<usize>) + Sync,
    ) {
        let work = Work::MultiplyAdds(self.multiply_adds);
        par::split(work, self.images * panels, (), |units, ()| {
            rectangles(units, panels, at_once).for_each(|(images, panels)| f(images, panels));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Isa, with_isa};

    /// A layer of each kind goes to the engine that was made for it.
    #[test]
    fn shapes_find_their_engine() {
        use {Direction::*, Engine::*};
        let layer = |n, c, side, o, k, stride, padding| Conv2dDims {
            n,
            c,
            h: side,
            w: side,
            o,
            kernel: [k; 2],
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [1; 2],
            groups: 1,
        };
        let depthwise = Conv2dDims { groups: 128, ..layer(32, 128, 28, 128, 3, 1, 1) };
        for (d, forward, backward) in [
            (layer(1, 3, 32, 6, 5, 1, 0), Pixels, Pixels),
            (layer(64, 1, 28, 32, 3, 1, 1), Pixels, Rows),
            (layer(8, 3, 224, 64, 7, 2, 3), Pixels, Pixels),
            (layer(64, 6, 14, 16, 5, 1, 0), Images, Images),
            (layer(32, 8, 8, 16, 3, 1, 1), Images, Images),
            (layer(1, 8, 32, 8, 3, 1, 1), Pixels, Pixels),
            (
                layer(32, 64, 56, 64, 3, 1, 1),
                Winograd(winograd::Tiles::Unit),
                Winograd(winograd::Tiles::Unit),
            ),
            (
                layer(32, 128, 28, 128, 3, 2, 1),
                Winograd(winograd::Tiles::Halving),
                Winograd(winograd::Tiles::Doubling),
            ),
            (depthwise, Rows, Rows),
        ] {
            for isa in Isa::available() {
                with_isa(isa, || {
                    assert_eq!(Engine::choose(&d, Forward), forward, "forward {d:?}");
                    assert_eq!(Engine::choose(&d, BackwardInput), backward, "dx {d:?}");
                });
            }
        }
    }
}
