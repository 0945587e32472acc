//! Saying once that io_uring is not to be had.

use std::sync::Once;

use super::fault::Fault;
use crate::Error;

static SAID: Once = Once::new();

/// Writes one line to standard error, once in a process: everything works, but at another price.
pub(super) fn io_uring_is_refused(fault: Fault) {
    SAID.call_once(|| {
        eprintln!("ringtap: going on with poll(2): {}", Error::from(fault));
    });
}
