//! Detects that the process has forked.
//!
//! A child that enters its parent's io_uring breaks it for the parent. So a reactor remembers the number of
//! forks at its creation, and refuses to work once that number has changed.

#![allow(unsafe_code, reason = "registers a fork handler")]

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

static FORKS: AtomicU32 = AtomicU32::new(0);
static WATCH: Once = Once::new();

extern "C" fn in_child() {
    // Relaxed: the child has a single thread, which also makes the comparison.
    FORKS.store(FORKS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Returns the number of forks between this process and the one that first called this.
pub(crate) fn generation() -> u32 {
    WATCH.call_once(|| {
        // SAFETY: the handler touches one atomic, which is async-signal-safe.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    FORKS.load(Ordering::Relaxed)
}
