//! The transforms of one axis: `B'`, `G`, `A` and their transposes, for each stride.

use crate::{
    simd::Simd,
    tuning::winograd::{PART, PART_DOUBLING},
};

/// The most numbers that a line of a tile has, before and after its transform.
pub(super) const LINE: usize = 5;

/// Numbers that a line of the kernel is transformed into, whatever the stride.
pub(super) const KERNELS: usize = 4;

/// A row or column of a tile, of which the first few are used.
pub(super) type Line<S> = [<S as Simd>::F32; LINE];

/// What depends on the stride, and on the direction.
pub(super) trait Transform: Copy + Sync {
    /// Elements in a line of a tile of the input, and from one tile to the next.
    const IN: usize;
    const STEP: usize;
    /// Outputs in a line of a tile.
    const OUT: usize;
    /// Channels in a part of the sums.
    const PART: usize;
    /// Which of the transformed kernel's numbers each product in a line takes. One that is taken
    /// again is its own index no more.
    const PLACES: &'static [usize];

    /// Number `place` of `B' d`.
    fn input<S: Simd>(s: S, place: usize, d: impl Fn(usize) -> S::F32) -> S::F32;

    /// `G g`
    fn kernel<S: Simd>(s: S, g: [S::F32; 3]) -> [S::F32; KERNELS];

    /// `A' m`
    fn output<S: Simd>(s: S, m: Line<S>) -> Line<S>;

    /// For outputs whose first would be that of a convolution of stride 1 at place `corner` of the
    /// input: the place of the first tile's first element, and how many of its outputs come before
    /// the first.
    fn origin(corner: isize) -> (isize, usize) {
        (corner, 0)
    }
}

/// The other two, which the gradient of the weights needs.
pub(super) trait Transposed: Transform {
    /// `A d`
    fn gradient<S: Simd>(s: S, d: Line<S>) -> Line<S>;

    /// `G' m`, where products that take the same number of the kernel have been added up.
    fn weight<S: Simd>(s: S, m: [S::F32; KERNELS]) -> [S::F32; 3];
}

/// Stride 1: four elements, two outputs, four products instead of six.
///
/// ```text
///      1  0 -1  0          1    0    0          1  0
/// B' = 0  1  1  0      G = 1/2  1/2  1/2    A = 1  1
///      0 -1  1  0          1/2 -1/2  1/2        1 -1
///      0  1  0 -1          0    0    1          0 -1
/// ```
#[derive(Clone, Copy)]
pub(super) struct Unit;

impl Transform for Unit {
    const IN: usize = 4;
    const STEP: usize = 2;
    const OUT: usize = 2;
    const PART: usize = PART;
    const PLACES: &'static [usize] = &[0, 1, 2, 3];

    #[inline(always)]
    fn input<S: Simd>(s: S, place: usize, d: impl Fn(usize) -> S::F32) -> S::F32 {
        match place {
            0 => s.sub(d(0), d(2)),
            1 => s.add(d(1), d(2)),
            2 => s.sub(d(2), d(1)),
            _ => s.sub(d(1), d(3)),
        }
    }

    #[inline(always)]
    fn kernel<S: Simd>(s: S, g: [S::F32; 3]) -> [S::F32; KERNELS] {
        let half = s.splat(0.5);
        let (outer, inner) = (s.mul(half, s.add(g[0], g[2])), s.mul(half, g[1]));
        [g[0], s.add(outer, inner), s.sub(outer, inner), g[2]]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: Line<S>) -> Line<S> {
        let zero = s.zero();
        let sum = s.add(s.add(m[0], m[1]), m[2]);
        [sum, s.sub(s.sub(m[1], m[2]), m[3]), zero, zero, zero]
    }
}

impl Transposed for Unit {
    #[inline(always)]
    fn gradient<S: Simd>(s: S, d: Line<S>) -> Line<S> {
        [d[0], s.add(d[0], d[1]), s.sub(d[0], d[1]), s.neg(d[1]), s.zero()]
    }

    #[inline(always)]
    fn weight<S: Simd>(s: S, m: [S::F32; KERNELS]) -> [S::F32; 3] {
        let half = s.splat(0.5);
        let sum = s.mul(half, s.add(m[1], m[2]));
        [s.add(m[0], sum), s.mul(half, s.sub(m[1], m[2])), s.add(sum, m[3])]
    }
}

/// Stride 2: five elements, two outputs, five products instead of six. Even elements meet the outer
/// two of the kernel as in a convolution of stride 1, where three products give two outputs; odd
/// ones meet the middle one only.
///
/// ```text
///      1  0 -1  0  0          1  0  0          1  0
///      0  0  1  0  0          1  0  1          1  1
/// B' = 0  0 -1  0  1      G = 0  0  1      A = 0  1
///      0  1  0  0  0          0  1  0          1  0
///      0  0  0  1  0          0  1  0          0  1
/// ```
#[derive(Clone, Copy)]
pub(super) struct Halving;

impl Transform for Halving {
    const IN: usize = 5;
    const STEP: usize = 4;
    const OUT: usize = 2;
    const PART: usize = PART;
    const PLACES: &'static [usize] = &[0, 1, 2, 3, 3];

    #[inline(always)]
    fn input<S: Simd>(s: S, place: usize, d: impl Fn(usize) -> S::F32) -> S::F32 {
        match place {
            0 => s.sub(d(0), d(2)),
            1 => d(2),
            2 => s.sub(d(4), d(2)),
            3 => d(1),
            _ => d(3),
        }
    }

    #[inline(always)]
    fn kernel<S: Simd>(s: S, g: [S::F32; 3]) -> [S::F32; KERNELS] {
        [g[0], s.add(g[0], g[2]), g[2], g[1]]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: Line<S>) -> Line<S> {
        let zero = s.zero();
        let [first, second] = [s.add(s.add(m[0], m[1]), m[3]), s.add(s.add(m[1], m[2]), m[4])];
        [first, second, zero, zero, zero]
    }
}

impl Transposed for Halving {
    #[inline(always)]
    fn gradient<S: Simd>(s: S, d: Line<S>) -> Line<S> {
        [d[0], s.add(d[0], d[1]), d[1], d[0], d[1]]
    }

    #[inline(always)]
    fn weight<S: Simd>(s: S, m: [S::F32; KERNELS]) -> [S::F32; 3] {
        [s.add(m[0], m[1]), m[3], s.add(m[1], m[2])]
    }
}

/// The gradient of the input of [`Halving`]: three elements of `dy`, and with the kernel turned
/// around four of `dx`, an odd one first, from five products instead of six.
///
/// ```text
///      1 -1  0                         0  1  0  0
///      0  1  0                         0  1  0  1
/// B' = 0 -1  1      G as above     A = 0  0  0  1
///      1  0  0                         1  0  0  0
///      0  1  0                         0  0  1  0
/// ```
#[derive(Clone, Copy)]
pub(super) struct Doubling;

impl Transform for Doubling {
    const IN: usize = 3;
    const STEP: usize = 2;
    const OUT: usize = 4;
    const PART: usize = PART_DOUBLING;
    const PLACES: &'static [usize] = Halving::PLACES;

    #[inline(always)]
    fn input<S: Simd>(s: S, place: usize, d: impl Fn(usize) -> S::F32) -> S::F32 {
        match place {
            0 => s.sub(d(0), d(1)),
            2 => s.sub(d(2), d(1)),
            3 => d(0),
            _ => d(1),
        }
    }

    #[inline(always)]
    fn kernel<S: Simd>(s: S, g: [S::F32; 3]) -> [S::F32; KERNELS] {
        Halving::kernel(s, g)
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: Line<S>) -> Line<S> {
        [m[3], s.add(m[0], m[1]), m[4], s.add(m[1], m[2]), s.zero()]
    }

    /// With padding `p` the kernel's last row meets row 0 of `dx` at row `p - 2` of the `dy` of
    /// stride 1. Row 0 of `dx` is even or odd as `p` is, and the first odd one up to it meets row
    /// `(p - 1) / 2` of our `dy`, rounded down.
    fn origin(corner: isize) -> (isize, usize) {
        let odd = corner + 1;
        (odd.div_euclid(2), odd.rem_euclid(2).unsigned_abs())
    }
}
