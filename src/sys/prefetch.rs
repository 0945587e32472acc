//! A hint to the processor.

#![allow(unsafe_code, reason = "the hint is an intrinsic function")]

/// Brings the first cache line of a value into the cache, if the architecture has a hint for it. It changes
/// nothing that a program could observe but its speed.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the hint does not access memory as the program sees it, and faults on no address; SSE is part
        // of every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
