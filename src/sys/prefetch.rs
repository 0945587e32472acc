//! Hints to the processor and the kernel about memory, which change nothing that a program could observe but its speed.

#![allow(unsafe_code, reason = "the hints are an intrinsic function and a system call")]

/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes of a huge page, on the architectures that have them of this size.
const HUGE: usize = 2 << 20;

/// Brings the first two cache lines of a value into the cache, if the architecture has a hint for it.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let first: *const i8 = std::ptr::from_ref(value).cast();
        // SAFETY: the hint does not access memory as the program sees it, and faults on no address; SSE is part
        // of every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(first) };
        if size_of::<T>() > LINE {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(LINE)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, LINE);
}

/// Asks for huge pages for the memory of a vector, including what it has not used yet, so that random access to it
/// misses the processor's table of pages less often (madvise(2), `MADV_HUGEPAGE`). The kernel may refuse.
pub(crate) fn huge_pages<T>(memory: &Vec<T>) {
    let start = memory.as_ptr().addr();
    let end = start.saturating_add(memory.capacity().saturating_mul(size_of::<T>()));
    let (first, last) = (start.next_multiple_of(HUGE), end / HUGE * HUGE);
    if first < last {
        let first = memory.as_ptr().cast::<u8>().wrapping_add(first - start);
        // SAFETY: the range lies within the vector's allocation, and the advice changes no contents.
        unsafe { libc::madvise(first.cast_mut().cast(), last - first.addr(), libc::MADV_HUGEPAGE) };
    }
}
