//! Clocks of the kernel that the standard library does not read.

#![allow(unsafe_code, reason = "a system call with a pointer")]

use std::mem::MaybeUninit;

/// Returns what `CLOCK_TAI` is ahead of `CLOCK_REALTIME`, in nanoseconds: whole seconds, and 0 if nobody has told the kernel
/// (`adjtimex(2)`).
pub(crate) fn tai_offset() -> u64 {
    const SECOND: u64 = 1_000_000_000;
    loop {
        let [before, tai, after] =
            [libc::CLOCK_REALTIME, libc::CLOCK_TAI, libc::CLOCK_REALTIME].map(nanos);
        // A moment passes between the two clocks; not a long one, unless this thread was stopped, or the time was set.
        if after.wrapping_sub(before) < SECOND / 4 {
            return (tai.saturating_sub(before) + SECOND / 2) / SECOND * SECOND;
        }
    }
}

/// Returns a clock's time in nanoseconds; 0 before 1970.
fn nanos(clock: libc::clockid_t) -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the structure is writable for its size. Every kernel since 3.10 has these clocks.
    let _ = unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) };
    // SAFETY: zeroed before the call, and a struct of integers.
    let time = unsafe { time.assume_init() };
    time.tv_sec.max(0) as u64 * 1_000_000_000 + time.tv_nsec as u64
}
