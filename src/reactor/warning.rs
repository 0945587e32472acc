//! Saying once that io_uring is not to be had, be it later.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::fault::Fault;
use crate::error::Error;

static SAID: AtomicBool = AtomicBool::new(false);
static SAID_KEPT: AtomicBool = AtomicBool::new(false);

/// Writes one line to standard error, once in a process: everything works, but at another price.
pub(super) fn io_uring_is_refused(fault: Fault) {
    // Relaxed: it is only said once.
    if !SAID.swap(true, Ordering::Relaxed) {
        // Where nobody reads it, nobody minds.
        let _ = writeln!(io::stderr(), "ringtap: going on with poll(2): {}", Error::from(fault));
    }
}

/// The same where a ring that was closed stays open until its thread ends, and with it what it waits on.
pub(super) fn ring_is_kept(error: &io::Error) {
    // Relaxed: it is only said once.
    if !SAID_KEPT.swap(true, Ordering::Relaxed) {
        let text = "a closed io_uring, and sockets it waited on, stay until their thread ends";
        let remedy = "permit io_uring_register to the end where it was permitted at first";
        // Where nobody reads it, nobody minds.
        let _ = writeln!(io::stderr(), "ringtap: {text}: io_uring_register: {error}; {remedy}");
    }
}
