//! One-time warnings that io_uring is unavailable, from the start or later on.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::fault::Fault;
use crate::error::Error;

static SAID: AtomicBool = AtomicBool::new(false);
static SAID_KEPT: AtomicBool = AtomicBool::new(false);

/// Writes one line to standard error, once per process: everything works, but at a different cost.
pub(super) fn io_uring_is_refused(fault: Fault) {
    // Relaxed: it only has to be said once.
    if !SAID.swap(true, Ordering::Relaxed) {
        // A failed write does not matter.
        let _ = writeln!(io::stderr(), "ringtap: going on with poll(2): {}", Error::from(fault));
    }
}

/// Warns in the same way that a closed ring stays open until its thread ends, along with the sockets it waits
/// on.
pub(super) fn ring_is_kept(error: &io::Error) {
    // Relaxed: it only has to be said once.
    if !SAID_KEPT.swap(true, Ordering::Relaxed) {
        let text = "a closed io_uring, and sockets it waited on, stay until their thread ends";
        let remedy = "permit io_uring_register to the end where it was permitted at first";
        // A failed write does not matter.
        let _ = writeln!(io::stderr(), "ringtap: {text}: io_uring_register: {error}; {remedy}");
    }
}
