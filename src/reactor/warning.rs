//! Saying once that io_uring is not to be had.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::fault::Fault;
use crate::Error;

static SAID: AtomicBool = AtomicBool::new(false);

/// Writes one line to standard error, once in a process: everything works, but at another price.
pub(super) fn io_uring_is_refused(fault: Fault) {
    // Relaxed: it is only said once.
    if !SAID.swap(true, Ordering::Relaxed) {
        // Where nobody reads it, nobody minds.
        let _ = writeln!(io::stderr(), "ringtap: going on with poll(2): {}", Error::from(fault));
    }
}
