//! When and how work is split over threads.
//!
//! Outputs are split, sums never are: each output element is computed by one thread, in an order
//! that its shape and the instruction set decide. So the bits of a result do not depend on the
//! number of threads. (The chunks that `reduce::total` splits a long sum into are such outputs.)
//!
//! Work is cut once, into one contiguous piece per thread of the current rayon pool: finer pieces
//! would balance better, but cost more to hand over. Small work is not cut at all. Until a while
//! after the last cut, all threads of the pool stay awake (see `awake.rs`).
//!
//! ```
//! use ferrotape_kernels::par::{self, Work};
//! let (x, mut y) = (vec![1.0f32; 1 << 20], vec![0.0f32; 1 << 20]);
//! par::split(Work::Elements(y.len()), y.len(), (&mut y[..], &x[..]), |_, (y, x)| {
//!     for (y, x) in y.iter_mut().zip(x) {
//!         *y = 2.0 * x;
//!     }
//! });
//! assert!(y.iter().all(|&y| y == 2.0));
//! ```

use crate::{
    awake,
    tuning::par::{MIN_ELEMENTS, MIN_MULTIPLY_ADDS, MIN_WEIGHTS},
};
use std::ops::Range;

/// How much there is to do: decides whether a second thread is worth waking.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Multiply-adds that run near the peak.
    MultiplyAdds(usize),
    /// Elements that are read or written, with a few operations each.
    Elements(usize),
    /// Weights to be updated, most of which are in the cache of the current thread.
    Weights(usize),
}

impl Work {
    /// The number of pieces to cut into: 1, or the number of threads of the current pool.
    pub fn pieces(self) -> usize {
        let worth_it = match self {
            Work::MultiplyAdds(n) => n >= MIN_MULTIPLY_ADDS,
            Work::Elements(n) => n >= MIN_ELEMENTS,
            Work::Weights(n) => n >= MIN_WEIGHTS,
        };
        if worth_it { rayon::current_num_threads() } else { 1 }
    }
}

/// Data that can be cut in two at a unit.
pub trait Split: Sized + Send {
    /// The first `mid` units and the rest.
    fn split_at(self, mid: usize) -> (Self, Self);
}

/// One unit is one element.
impl<T: Sync> Split for &[T] {
    fn split_at(self, mid: usize) -> (Self, Self) {
        self.split_at(mid)
    }
}

/// One unit is one element.
impl<T: Send> Split for &mut [T] {
    fn split_at(self, mid: usize) -> (Self, Self) {
        self.split_at_mut(mid)
    }
}

/// One unit is one element of each.
impl<T: Sync, const N: usize> Split for [&[T]; N] {
    fn split_at(self, mid: usize) -> (Self, Self) {
        (self.map(|x| &x[..mid]), self.map(|x| &x[mid..]))
    }
}

/// A slice of which one unit is `row` elements: an image, a row of a matrix, a block aligned to
/// vectors. The last unit may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Rows<S> {
    /// The elements.
    pub data: S,
    /// Elements in a unit.
    pub row: usize,
}

impl<T: Sync> Split for Rows<&[T]> {
    fn split_at(self, mid: usize) -> (Self, Self) {
        let (a, b) = self.data.split_at((mid * self.row).min(self.data.len()));
        (Rows { data: a, row: self.row }, Rows { data: b, row: self.row })
    }
}

impl<T: Send> Split for Rows<&mut [T]> {
    fn split_at(self, mid: usize) -> (Self, Self) {
        let mid = (mid * self.row).min(self.data.len());
        let (a, b) = self.data.split_at_mut(mid);
        (Rows { data: a, row: self.row }, Rows { data: b, row: self.row })
    }
}

/// Nothing to hand out but the range of units.
impl Split for () {
    fn split_at(self, _mid: usize) -> (Self, Self) {
        ((), ())
    }
}

impl<D: Split> Split for Option<D> {
    fn split_at(self, mid: usize) -> (Self, Self) {
        self.map(|d| d.split_at(mid)).unzip()
    }
}

impl<A: Split, B: Split> Split for (A, B) {
    fn split_at(self, mid: usize) -> (Self, Self) {
        let (a, b) = (self.0.split_at(mid), self.1.split_at(mid));
        ((a.0, b.0), (a.1, b.1))
    }
}

impl<A: Split, B: Split, C: Split> Split for (A, B, C) {
    fn split_at(self, mid: usize) -> (Self, Self) {
        let (a, b, c) = (self.0.split_at(mid), self.1.split_at(mid), self.2.split_at(mid));
        ((a.0, b.0, c.0), (a.1, b.1, c.1))
    }
}

impl<A: Split, B: Split, C: Split, D: Split> Split for (A, B, C, D) {
    fn split_at(self, mid: usize) -> (Self, Self) {
        let (ab, cd) = ((self.0, self.1).split_at(mid), (self.2, self.3).split_at(mid));
        let ((a0, b0), (a1, b1)) = ab;
        let ((c0, d0), (c1, d1)) = cd;
        ((a0, b0, c0, d0), (a1, b1, c1, d1))
    }
}

/// Cuts `units` units and `data` alike into one contiguous piece per thread, or into one piece
/// where `work` is small, and calls `f` with the range of units and the data of each. `f` is not
/// called for zero units.
pub fn split<D: Split>(work: Work, units: usize, data: D, f: impl Fn(Range<usize>, D) + Sync) {
    if units > 0 {
        let n = work.pieces().min(units);
        if n > 1 {
            awake::keep();
            pieces(n, 0..units, data, &f);
        } else {
            f(0..units, data);
        }
    }
}

fn pieces<D: Split>(n: usize, units: Range<usize>, data: D, f: &(impl Fn(Range<usize>, D) + Sync)) {
    let _piece = awake::Piece::begin();
    if n <= 1 {
        return f(units, data);
    }
    let (left, right) = (n / 2, n - n / 2);
    let mid = units.len() * left / n;
    let (a, b) = data.split_at(mid);
    let at = units.start + mid;
    rayon::join(|| pieces(left, units.start..at, a, f), || pieces(right, at..units.end, b, f));
}

/// A pointer to an output of which several threads write disjoint parts that are no slices, such as
/// blocks of columns.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub(crate) *mut f32);

// SAFETY: only a pointer; whoever dereferences it answers for the parts being disjoint.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The pointer. (A method, so that closures capture the wrapper.)
    pub(crate) fn get(&self) -> *mut f32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_once_for_any_number_of_threads() {
        for threads in [1, 2, 3, 4, 7, 16] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for units in [0, 1, 2, 5, 16, 33] {
                let mut y = vec![0u32; units];
                let mut rows = vec![0u32; (units * 3).saturating_sub(1)]; // the last unit is short
                let x: Vec<u32> = (0..units as u32).collect();
                pool.install(|| {
                    let rows = Rows { data: &mut rows[..], row: 3 };
                    split(
                        Work::Elements(usize::MAX),
                        units,
                        (&mut y[..], &x[..], rows),
                        |range, (y, x, rows)| {
                            assert_eq!((range.len(), x.len()), (y.len(), y.len()));
                            for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
                                *y += x + 1;
                                assert_eq!(*x as usize, range.start + i);
                            }
                            rows.data.iter_mut().for_each(|r| *r += 1);
                        },
                    );
                });
                assert!(y.iter().enumerate().all(|(i, &y)| y == i as u32 + 1));
                assert!(rows.iter().all(|&r| r == 1));
            }
        }
    }

    #[test]
    fn small_work_stays_in_one_piece() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        pool.install(|| {
            assert_eq!(Work::Elements(MIN_ELEMENTS - 1).pieces(), 1);
            assert_eq!(Work::Elements(MIN_ELEMENTS).pieces(), 4);
            assert_eq!(Work::MultiplyAdds(MIN_MULTIPLY_ADDS - 1).pieces(), 1);
        });
    }
}
