//! The time at which the kernel sent a frame: software transmit timestamps, read from the error queue.

#![allow(unsafe_code, reason = "a system call with pointers, and control messages")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::packet::Timestamp;

/// Flags for `SO_TIMESTAMPING`: stamp and number sent frames, and return only the stamp.
pub(crate) const SOFTWARE: u32 = libc::SOF_TIMESTAMPING_TX_SOFTWARE
    | libc::SOF_TIMESTAMPING_SOFTWARE
    | libc::SOF_TIMESTAMPING_OPT_ID
    | libc::SOF_TIMESTAMPING_OPT_TSONLY;

const CONTROL_LEN: usize = 256;

/// A buffer for control messages, with their alignment.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// Reads the next timestamp and the number of the frame it belongs to; returns `None` if there is none yet.
pub(crate) fn read(socket: BorrowedFd<'_>) -> io::Result<Option<(u32, Timestamp)>> {
    let mut control = Control([0; CONTROL_LEN]);
    // SAFETY: a C struct of integers and pointers; all zero is valid.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN as _; // 32 bits wide with musl
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the message has no data buffers, and its control buffer is writable for its length.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    if received < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock => Ok(None),
            _ => Err(error),
        };
    }
    #[allow(clippy::unnecessary_cast, reason = "of 32 bits with musl")]
    let filled = message.msg_controllen as usize;
    Ok(parse(&control.0[..filled.min(CONTROL_LEN)]))
}

/// Finds the timestamp and the number among the control messages (each a kernel `struct cmsghdr`, 8-aligned).
pub(super) fn parse(mut control: &[u8]) -> Option<(u32, Timestamp)> {
    let header_len = size_of::<libc::cmsghdr>();
    let (mut number, mut timestamp) = (None, None);
    while let Some(header) = control.get(..header_len) {
        let len = usize::from_ne_bytes(header[..8].try_into().ok()?);
        let kind = (i32_at(header, 8)?, i32_at(header, 12)?);
        let data = control.get(header_len..len)?;
        match kind {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) => {
                let secs = i64::from_ne_bytes(data.get(..8)?.try_into().ok()?);
                let nanos = i64::from_ne_bytes(data.get(8..16)?.try_into().ok()?);
                timestamp = Some(Timestamp { secs: secs as u32, nanos: nanos as u32 });
            }
            // In struct sock_extended_err, the number is ee_data, at offset 12.
            (libc::SOL_PACKET, libc::PACKET_TX_TIMESTAMP) => {
                number = Some(i32_at(data, 12)? as u32);
            }
            _ => {}
        }
        control = control.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    Some((number?, timestamp?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
