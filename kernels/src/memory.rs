//! Asking the system for large pages.
//!
//! Memory comes from the system in pages of 4 KiB, one page fault each on first use. For hundreds
//! of megabytes that are written once, as when a file is loaded, the faults take longer than
//! everything else.

use std::mem::MaybeUninit;

/// Suggests that memory which is about to be written for the first time be backed by pages of 2
/// MiB. A hint: it changes no content, it may do nothing, and it does nothing where it is not known
/// to help.
pub fn prefer_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    #[cfg(all(target_os = "linux", not(miri)))]
    linux::prefer_huge_pages(memory);
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = memory;
}

#[cfg(all(target_os = "linux", not(miri)))]
mod linux {
    use std::ffi::{c_int, c_void};
    use std::mem::MaybeUninit;

    /// The advice must begin and end between two pages; none are larger than this.
    const PAGE: usize = 64 << 10;
    const HUGE_PAGE: usize = 2 << 20;
    /// From Linux, `include/uapi/asm-generic/mman-common.h`.
    const MADV_HUGEPAGE: c_int = 14;

    unsafe extern "C" {
        fn madvise(start: *mut c_void, len: usize, advice: c_int) -> c_int;
    }

    pub(super) fn prefer_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
        let len = size_of_val(memory);
        let start: *mut u8 = memory.as_mut_ptr().cast();
        let skip = start.addr().next_multiple_of(PAGE) - start.addr();
        let len = len.saturating_sub(skip) / PAGE * PAGE;
        if len < HUGE_PAGE {
            return;
        }
        // SAFETY: the range lies within `memory`, which is borrowed exclusively. This advice
        // changes neither content nor permissions, and whatever is wrong with it is an error
        // number, which does not matter.
        unsafe { madvise(start.wrapping_add(skip).cast(), len, MADV_HUGEPAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_memory_keeps_its_content() {
        for len in [0, 1, 1000, 600_000, 3_000_000] {
            let mut values = vec![1.5_f32; len];
            values.reserve_exact(len + 7);
            prefer_huge_pages(values.spare_capacity_mut());
            assert_eq!(values, vec![1.5; len]);
            values.resize(2 * len + 7, 2.5);
            assert_eq!(values[len..], vec![2.5; len + 7]);
        }
    }
}
