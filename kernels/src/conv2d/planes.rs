//! Zero-padded copies of images, so that a tap may reach beyond the edge without anybody asking.

use crate::{elements, simd::Simd};

/// How the planes (channels) of one group of an image are laid out for reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planes {
    /// Planes in a group.
    pub(super) count: usize,
    /// Size of a plane.
    pub(super) size: [usize; 2],
    /// Zeros above and to the left.
    pub(super) before: [usize; 2],
    /// Size of a plane with its zeros.
    pub(super) padded: [usize; 2],
    /// The columns of a padded row are sorted by their remainder modulo this: where it is the
    /// stride, elements that neighbouring output pixels take through one tap are neighbours.
    pub(super) sorted: usize,
}

impl Planes {
    /// Planes of `size` of which places from `-before` to `reach` (exclusive) are read.
    ///
    /// # Panics
    /// If they are too large for the 32 bits of the engines' offsets.
    pub(super) fn new(
        count: usize,
        size: [usize; 2],
        before: [usize; 2],
        reach: [usize; 2],
        sorted: usize,
    ) -> Self {
        let [h, w] = [0, 1].map(|axis| before[axis] + size[axis].max(reach[axis]));
        let padded = [h, w.next_multiple_of(sorted)];
        assert!(
            u32::try_from(elements(&[count, padded[0], padded[1]])).is_ok(),
            "conv2d: a group of {count} planes of {padded:?}, with padding, is beyond 2^32 - 1"
        );
        Self { count, size, before, padded, sorted }
    }

    /// Whether the image can be read where it lies.
    pub(super) fn in_place(&self) -> bool {
        self.size == self.padded && self.sorted == 1
    }

    /// Floats from one padded plane to the next.
    pub(super) fn plane(&self) -> usize {
        self.padded[0] * self.padded[1]
    }

    /// Floats in one group with its zeros.
    pub(super) fn len(&self) -> usize {
        self.count * self.plane()
    }

    /// How many images to take at once where `wanted` were good: as many as 32 bits reach.
    pub(super) fn images_at_once(&self, wanted: usize, groups: usize) -> usize {
        wanted.min(u32::MAX as usize / (self.len() * groups).max(1)).max(1)
    }

    /// The offset of place `at`, counted from the corner of the unpadded plane.
    pub(super) fn offset(&self, plane: usize, at: [isize; 2]) -> u32 {
        let row = at[0] + self.before[0] as isize;
        let col = at[1] + self.before[1] as isize;
        debug_assert!(row >= 0 && col >= 0);
        (plane * self.plane() + row as usize * self.padded[1] + self.column(col as usize)) as u32
    }

    /// Where a column of a padded row is kept.
    fn column(&self, col: usize) -> usize {
        col % self.sorted * (self.padded[1] / self.sorted) + col / self.sorted
    }

    /// Copies whole planes from `from` into `to`, which has the zeros around each already.
    #[inline(always)]
    pub(super) fn fill<S: Simd>(&self, s: S, to: &mut [f32], from: &[f32]) {
        let ([h, w], [top, left]) = (self.size, self.before);
        if h * w == 0 {
            return;
        }
        let wide = self.padded[1];
        for (to, from) in to.chunks_exact_mut(self.plane()).zip(from.chunks_exact(h * w)) {
            let rows = to.chunks_exact_mut(wide).skip(top).zip(from.chunks_exact(w));
            if self.sorted == 1 {
                for (to, from) in rows {
                    copy(s, &mut to[left..left + w], from);
                }
                continue;
            }
            for (to, from) in rows {
                if self.sorted == 2 {
                    let (even, odd) = to.split_at_mut(wide / 2);
                    if left.is_multiple_of(2) {
                        deal(s, &mut even[left / 2..], &mut odd[left / 2..], from);
                    } else {
                        deal(s, &mut odd[left / 2..], &mut even[left / 2 + 1..], from);
                    }
                    continue;
                }
                for (i, to) in to.chunks_exact_mut(wide / self.sorted).enumerate() {
                    let first = (i + self.sorted - left % self.sorted) % self.sorted;
                    let from = from.iter().skip(first).step_by(self.sorted);
                    let to = &mut to[(left + first) / self.sorted..];
                    to.iter_mut().zip(from).for_each(|(to, &x)| *to = x);
                }
            }
        }
    }
}

/// Copies the elements of a row at even places into `even`, the others into `odd`.
#[inline(always)]
fn deal<S: Simd>(s: S, even: &mut [f32], odd: &mut [f32], from: &[f32]) {
    let whole = from.len() / (2 * S::LANES) * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        let from = &from[2 * i..2 * (i + S::LANES)];
        let (a, b) = s.deinterleave(s.read(&from[..S::LANES]), s.read(&from[S::LANES..]));
        s.write(&mut even[i..i + S::LANES], a);
        s.write(&mut odd[i..i + S::LANES], b);
    }
    for (i, pair) in from[2 * whole..].chunks(2).enumerate() {
        even[whole + i] = pair[0];
        if let Some(&last) = pair.get(1) {
            odd[whole + i] = last;
        }
    }
}

/// Copies a row. Rows are short: a call of `memcpy` for each would cost more than the copying.
#[inline(always)]
fn copy<S: Simd>(s: S, to: &mut [f32], from: &[f32]) {
    if from.len() < S::LANES {
        to.iter_mut().zip(from).for_each(|(to, &x)| *to = x);
    } else {
        for i in (0..from.len()).step_by(S::LANES) {
            let i = i.min(from.len() - S::LANES);
            let x = s.read(&from[i..i + S::LANES]);
            s.write(&mut to[i..i + S::LANES], x);
        }
    }
}
