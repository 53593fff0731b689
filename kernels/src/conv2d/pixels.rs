//! The sweep with pixels in the lanes: for few output channels, or few taps.
//!
//! A vector holds neighbouring pixels of one output row, and a tile is R output channels by V
//! vectors. The weights are read one at a time, the padded image as vectors, each tap at its
//! offset; a stride is dealt with by sorting the columns of the padded copy (see
//! [`Planes`](super::planes::Planes)), so that the neighbours' elements are neighbours.
//!
//! ```text
//! sort the taps, pack the weights: [6 output channels][tap][channel]
//! for each image and group:               (threads split these)
//!   copy its planes with zeros around
//!   for each 24 vectors of pixels, in each phase:   their part of the image: L1, L2
//!     for each R output channels, for each V vectors:
//!       tile: acc[R, V] += weights[tap][R] * image[V + tap], over taps, in registers,
//!             written where it belongs
//! ```
//!
//! Taps are sorted by kernel row. Those of a pixel near the upper or lower edge that meet nothing
//! but zeros are then at the ends of the list, and are left out: a quarter of all products in the
//! gradient of a 14 x 14 image through 5 x 5.
//!
//! The last vector of a row is moved back to end with the row, and computes some pixels again; so
//! nothing but whole vectors is read and written, unless the row is shorter than one.
//!
//! Fast paths: images are read where they lie unless there is padding or stride, or the last vector
//! reached beyond them; columns are sorted two vectors at a time for stride 2.
//!
//! With 16 registers or more there are 8 to 12 accumulators: 6, 5 and 4 x 2, 3 x 3, 2 x 6, 1 x 8.
//! (4 x 3 and 3 x 4 would need all 16 registers, and one accumulator ends up on the stack.)

#![allow(clippy::needless_range_loop)] // index loops over small arrays read like the formulas

use super::{
    planes::Planes,
    sweep::{Phase, Sweep, Tap},
};
use crate::{
    Write,
    isa::Isa,
    par::Shared,
    scratch,
    simd::{Simd, SimdKernel},
    tile::spread,
    tuning::conv2d::VECTORS,
};
use std::ops::Range;

/// Computes `out [images, groups * out_channels, channel]`.
pub(super) fn run(sweep: &mut Sweep, out: Shared) {
    let channel = sweep.channel;
    assert!(
        u32::try_from(channel).is_ok(),
        "conv2d: an output plane of {channel} pixels is beyond 2^32 - 1"
    );
    for phase in &mut sweep.phases {
        phase.taps.sort_by_key(|tap| tap.row);
    }
    let isa = Isa::current();
    let high = most_channels(isa.tile_rows());
    let taps = sweep.taps();
    let mut weights = scratch::floats(sweep.groups * sweep.out_channels * taps);
    for (group, to) in weights.chunks_exact_mut((sweep.out_channels * taps).max(1)).enumerate() {
        pack(sweep, to, group, high);
    }
    sweep.each_piece(sweep.groups, sweep.images, |images, groups| {
        isa.dispatch(Piece { sweep, images, groups, weights: &weights, out: out.get() });
    });
}

/// Output channels in a tile: the tiles below have at most 6.
fn most_channels(tile_rows: usize) -> usize {
    tile_rows.min(6)
}

/// Packs the weights of one group: `to[phase][tile][tap][output channel]`.
pub(super) fn pack(sweep: &Sweep, to: &mut [f32], group: usize, high: usize) {
    let from = &sweep.weights[group * sweep.group_step..];
    let mut to = to.iter_mut();
    for phase in &sweep.phases {
        for first in (0..sweep.out_channels).step_by(high) {
            for tap in &phase.taps {
                for output in first..sweep.out_channels.min(first + high) {
                    if let Some(to) = to.next() {
                        *to = from[output * sweep.channel_step + tap.weight as usize];
                    }
                }
            }
        }
    }
}

/// Some groups of some images, on one thread.
struct Piece<'a> {
    sweep: &'a Sweep<'a>,
    images: Range<usize>,
    groups: Range<usize>,
    weights: &'a [f32],
    out: *mut f32,
}

impl SimdKernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let sweep = self.sweep;
        let planes = sweep.planes;
        let taps_len: usize = sweep.taps();
        let most =
            sweep.phases.iter().map(vectors::<S>).max().unwrap_or(0).next_multiple_of(VECTORS);
        let mut taps = scratch::offsets(taps_len);
        for (to, tap) in taps.iter_mut().zip(sweep.phases.iter().flat_map(|p| &p.taps)) {
            *to = tap.source;
        }
        let mut list = scratch::offsets(sweep.phases.len() * most * FIELDS);
        let mut furthest = 0;
        for (phase, list) in sweep.phases.iter().zip(list.chunks_exact_mut((FIELDS * most).max(1)))
        {
            list_vectors::<S>(phase, &planes, list);
            furthest = furthest.max(reach(phase, list));
        }
        // Where the image cannot be read as it lies, or vectors of a short row reach beyond it.
        let copy = !planes.in_place() || furthest + S::LANES > planes.len();
        let mut padded = scratch::floats(if copy { furthest + S::LANES + planes.len() } else { 0 });
        padded.fill(0.0);
        for image in self.images.clone() {
            for group in self.groups.clone() {
                let from = sweep.group_of(image, group);
                let from = if copy {
                    planes.fill(s, &mut padded[..planes.len()], from);
                    &padded[..]
                } else {
                    from
                };
                assert!(furthest + S::LANES <= from.len(), "conv2d: a tap beyond the image");
                let bias = sweep
                    .bias
                    .map(|bias| &bias[group * sweep.out_channels..][..sweep.out_channels]);
                let first = (image * sweep.groups + group) * sweep.out_channels * sweep.channel;
                // SAFETY: the output has this image's group, and no other piece writes it.
                let out = unsafe { self.out.add(first) };
                let weights = &self.weights[group * sweep.out_channels * taps_len..]
                    [..sweep.out_channels * taps_len];
                for first in (0..most).step_by(VECTORS) {
                    let mut before = 0;
                    for (phase, list) in sweep.phases.iter().zip(list.chunks_exact(FIELDS * most)) {
                        let here = before..before + phase.taps.len();
                        before = here.end;
                        let job = Job {
                            image: from,
                            taps: &taps[here.clone()],
                            weights: &weights
                                [here.start * sweep.out_channels..here.end * sweep.out_channels],
                            bias,
                            out_channels: sweep.out_channels,
                            out,
                            channel: sweep.channel,
                            cols: phase.grid[1],
                            step: phase.step[1],
                            write: sweep.write,
                            plain: sweep.write == Write::Set
                                && phase.step[1] == 1
                                && phase.grid[1] >= S::LANES,
                        };
                        let count = vectors::<S>(phase).saturating_sub(first).min(VECTORS);
                        job.run(s, &list[FIELDS * first..FIELDS * (first + VECTORS)], count);
                    }
                }
            }
        }
    }
}

/// Vectors that cover the rows of a phase.
fn vectors<S: Simd>(phase: &Phase) -> usize {
    phase.grid[0] * phase.grid[1].div_ceil(S::LANES)
}

/// A vector in the list: its offset in the source, its offset in the output channel, how many
/// leading pixels an earlier vector has, and the range of taps that meet more than zeros.
type Vector = [u32; FIELDS];
const FIELDS: usize = 5;

/// Lists the vectors of a phase, row by row, filled up with vectors that have nothing new.
#[inline(always)]
fn list_vectors<S: Simd>(phase: &Phase, planes: &Planes, list: &mut [u32]) {
    let (list, _) = list.as_chunks_mut::<FIELDS>();
    let mut list = list.iter_mut();
    let mut last = [0; FIELDS];
    for row in 0..phase.grid[0] {
        let source = row * phase.source_step[0];
        let taps = [0, planes.size[0]].map(|edge| {
            let edge = planes.before[0] + edge;
            let above = |tap: &Tap| source / planes.padded[1] + (tap.row as usize) < edge;
            phase.taps.partition_point(above) as u32
        });
        for col in (0..phase.grid[1]).step_by(S::LANES) {
            let start = col.min(phase.grid[1].saturating_sub(S::LANES));
            let source = source + start * phase.source_step[1];
            let out = phase.first + row * phase.step[0] + start * phase.step[1];
            last = [source as u32, out as u32, (col - start) as u32, taps[0], taps[1]];
            if let Some(to) = list.next() {
                *to = last;
            }
        }
    }
    last[2] = S::LANES as u32;
    list.for_each(|to| *to = last);
}

/// The furthest element that a vector of the phase starts at.
fn reach(phase: &Phase, list: &[u32]) -> usize {
    let vector = list.iter().step_by(FIELDS).max().copied().unwrap_or(0);
    let tap = phase.taps.iter().map(|tap| tap.source).max().unwrap_or(0);
    (vector + tap) as usize
}

/// Some vectors of one phase of one group of one image.
struct Job<'a> {
    image: &'a [f32],
    taps: &'a [u32],
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    out_channels: usize,
    out: *mut f32,
    channel: usize,
    /// Pixels in a row, and the distance between them.
    cols: usize,
    step: usize,
    write: Write,
    /// Whether vectors can be stored as they are.
    plain: bool,
}

impl Job<'_> {
    #[inline(always)]
    fn run<S: Simd>(&self, s: S, list: &[u32], count: usize) {
        let (list, _) = list.as_chunks::<FIELDS>();
        let most = most_channels(S::TILE_ROWS);
        for first in (0..self.out_channels).step_by(most) {
            let high = most.min(self.out_channels - first);
            // Portable vectors are two registers each.
            match (high, most) {
                (1, 6) => self.tiles::<S, 1, 8>(s, list, count, first),
                (2, 6) => self.tiles::<S, 2, 6>(s, list, count, first),
                (3, _) => self.tiles::<S, 3, 3>(s, list, count, first),
                (4, _) => self.tiles::<S, 4, 2>(s, list, count, first),
                (5, _) => self.tiles::<S, 5, 2>(s, list, count, first),
                (6, _) => self.tiles::<S, 6, 2>(s, list, count, first),
                (2, _) => self.tiles::<S, 2, 2>(s, list, count, first),
                _ => self.tiles::<S, 1, 4>(s, list, count, first),
            }
        }
    }

    /// `R` output channels from `first` on, the first `count` vectors of the list.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const V: usize>(
        &self,
        s: S,
        list: &[Vector],
        count: usize,
        first: usize,
    ) {
        let weights = &self.weights[first * self.taps.len()..][..R * self.taps.len()];
        let mut bias = [0.0; R];
        if let Some(from) = self.bias {
            bias.copy_from_slice(&from[first..first + R]);
        }
        let (tiles, _) = list.as_chunks::<V>();
        for vectors in &tiles[..count.div_ceil(V)] {
            // The further down, the fewer rows of zeros above, and the more below: both limits
            // fall.
            let ([.., start, _], [.., end]) = (vectors[V - 1], vectors[0]);
            let taps = &self.taps[start as usize..end as usize];
            let weights = &weights[R * start as usize..R * end as usize];
            // SAFETY: the furthest vector and tap are inside the image, as was checked; the weights
            // are R for each tap; the output has R channels from `first` on, each with the places
            // in the list.
            unsafe {
                let x = vectors.map(|[source, ..]| self.image.as_ptr().add(source as usize));
                let at = |k: usize| *taps.get_unchecked(k) as usize;
                let acc = [[s.zero(); V]; R];
                let acc = spread::<S, R, V>(s, acc, taps.len(), weights.as_ptr(), x, at);
                for r in 0..R {
                    let bias = s.splat(bias[r]);
                    let channel = self.out.add((first + r) * self.channel);
                    for v in 0..V {
                        let [_, to, old, ..] = vectors[v];
                        let (to, x) = (channel.add(to as usize), s.add(acc[r][v], bias));
                        if self.plain {
                            s.store(to, x);
                        } else {
                            self.store(s, to, x, old as usize);
                        }
                    }
                }
            }
        }
    }

    /// Writes a vector of pixels; where they are added, all but the first `old`.
    ///
    /// # Safety
    /// The pixels must be writable.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, s: S, to: *mut f32, mut x: S::F32, old: usize) {
        // SAFETY: no more than the vector's pixels are touched.
        unsafe {
            if self.step == 1 && self.cols >= S::LANES {
                if self.write == Write::Add {
                    if old > 0 {
                        let mut ones = [1.0; 16];
                        ones[..old].fill(0.0);
                        x = s.select(s.gt(s.read(&ones), s.zero()), x, s.zero());
                    }
                    x = s.add(s.load(to), x);
                }
                s.store(to, x);
            } else {
                let mut lanes = [0.0; 16];
                s.write(&mut lanes, x);
                for i in old..S::LANES.min(self.cols) {
                    let to = to.add(i * self.step);
                    *to = if self.write == Write::Add { *to + lanes[i] } else { lanes[i] };
                }
            }
        }
    }
}
