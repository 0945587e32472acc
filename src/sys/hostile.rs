//! Fuzzer input for the code that reads the kernel's messages.

use super::{netlink, tx_timestamp};

/// Reads an answer of rtnetlink or generic netlink.
///
/// # Panics
/// Never: a panic is a bug.
pub fn netlink_answer(bytes: &[u8]) {
    netlink::read_any(bytes);
}

/// Reads the control messages that come with a transmit timestamp.
///
/// # Panics
/// Never: a panic is a bug.
pub fn control_messages(bytes: &[u8]) {
    let _ = tx_timestamp::parse(bytes);
}
