//! Reusable working memory: panels, padded images, partial sums.
//!
//! Each thread keeps a stack of buffers. [`floats`] pops one and grows it if it is too small;
//! dropping it pushes it back. So a kernel that runs again allocates nothing, and nested uses, also
//! those of a task that rayon runs while this one waits, get buffers of their own. Being a stack,
//! it hands the same buffer to the same use in every step.
//!
//! Buffers are values rather than arguments of closures, because a closure would be a function of
//! its own, compiled without the instructions of the kernel that it is part of (see
//! [`simd`](crate::simd)).

use std::{
    cell::RefCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

/// One cache line, so that buffers start on one.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// A borrowed buffer of `T`, which is `f32` or `u32`; it goes back to this thread's stack when
/// dropped.
#[derive(Debug)]
pub struct Buffer<T> {
    lines: Vec<Line>,
    len: usize,
    elements: PhantomData<T>,
}

/// `len` floats that start on a cache line (64 bytes). What they hold is unspecified; NaN in debug
/// builds, so that a kernel which reads what it has not written is found out.
pub fn floats(len: usize) -> Buffer<f32> {
    let mut buffer = take(len);
    if cfg!(debug_assertions) {
        buffer.fill(f32::NAN);
    }
    buffer
}

/// `len` offsets, whose values are unspecified.
pub fn offsets(len: usize) -> Buffer<u32> {
    take(len)
}

/// Calls `f` with [`floats`], for callers outside of kernels.
pub fn with<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    f(&mut floats(len))
}

/// In debug builds, what follows a buffer: NaN to who reads it, and a panic to who writes there.
const CANARY: u32 = 0x7fc0_1234;

fn take<T>(len: usize) -> Buffer<T> {
    let mut lines = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    let needed = len.div_ceil(LINE) + cfg!(debug_assertions) as usize;
    if lines.len() < needed {
        // Not `resize`: the old contents need not move.
        lines = vec![Line([0.0; LINE]); needed];
    }
    let mut buffer = Buffer { lines, len, elements: PhantomData };
    if cfg!(debug_assertions) {
        buffer.behind().for_each(|x| *x = f32::from_bits(CANARY));
    }
    buffer
}

impl<T> Buffer<T> {
    /// The rest of the last line, and the line after it.
    fn behind(&mut self) -> impl Iterator<Item = &mut f32> {
        let lines = &mut self.lines[self.len / LINE..=self.len.div_ceil(LINE)];
        lines.iter_mut().flat_map(|line| &mut line.0).skip(self.len % LINE)
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if cfg!(debug_assertions) && !std::thread::panicking() {
            let intact = self.behind().all(|x| x.to_bits() == CANARY);
            assert!(intact, "a kernel wrote behind a scratch buffer of {}", self.len);
        }
        let lines = std::mem::take(&mut self.lines);
        BUFFERS.with_borrow_mut(|buffers| buffers.push(lines));
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `lines` holds lines.len() * 16 >= len initialised floats: Line is an array of f32
        // and nothing else. T is f32 or u32, for only `floats` and `offsets` make buffers, and any
        // bits are a value of either.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<T>(), self.len) }
    }
}

impl<T> DerefMut for Buffer<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for deref, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<T>(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_distinct_and_reused() {
        let use_both = || {
            let (mut a, mut b) = (floats(100), offsets(1000));
            a.fill(1.0);
            b.fill(2);
            assert!(a.iter().all(|&a| a == 1.0));
            assert_eq!((a.len(), b.len()), (100, 1000));
            let places = (a.as_ptr() as usize, b.as_ptr() as usize);
            assert_eq!((places.0 % 64, places.1 % 64), (0, 0));
            drop(b);
            places
        };
        let first = use_both();
        assert_eq!(first, use_both());
        assert_ne!(first.0, first.1);
        assert!(floats(0).is_empty());
    }
}
