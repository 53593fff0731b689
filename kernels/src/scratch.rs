//! Reusable working memory: panels, padded images, partial sums.
//!
//! Each thread keeps a stack of buffers. [`with`] pops one, grows it if it is too small and pushes it back afterwards,
//! so a kernel that runs again allocates nothing, and nested uses, also those of a task that rayon runs while this one
//! waits, get buffers of their own. Being a stack, it hands the same buffer to the same use in every step.

use std::cell::RefCell;

/// One cache line, so that buffers start on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` floats that start on a cache line (64 bytes). What they hold is unspecified; NaN in debug builds, so that a
/// kernel which reads what it has not written is found out.
pub fn with<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    if lines.len() * LINE < len {
        // Not `resize`: the old contents need not move.
        lines = vec![Line([0.0; LINE]); len.div_ceil(LINE)];
    }
    // SAFETY: `lines` holds lines.len() * 16 >= len initialised floats; Line is an array of f32 and nothing else.
    let floats = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), len) };
    if cfg!(debug_assertions) {
        floats.fill(f32::NAN);
    }
    let result = f(floats);
    BUFFERS.with_borrow_mut(|buffers| buffers.push(lines));
    result
}

/// The same for `len` offsets.
pub fn with_offsets<R>(len: usize, f: impl FnOnce(&mut [u32]) -> R) -> R {
    with(len, |floats| {
        // SAFETY: u32 has the size and alignment of f32, and any bits are a u32.
        f(unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast::<u32>(), len) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_distinct_and_reused() {
        let use_both = || {
            with(100, |a| {
                with(1000, |b| {
                    a.fill(1.0);
                    b.fill(2.0);
                    assert!(a.iter().all(|&a| a == 1.0));
                    assert_eq!((a.len(), b.len()), (100, 1000));
                    assert_eq!((a.as_ptr() as usize % 64, b.as_ptr() as usize % 64), (0, 0));
                    (a.as_ptr() as usize, b.as_ptr() as usize)
                })
            })
        };
        let first = use_both();
        assert_eq!(first, use_both());
        assert_ne!(first.0, first.1);
        with(0, |nothing| assert!(nothing.is_empty()));
    }
}
