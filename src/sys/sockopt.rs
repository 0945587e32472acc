//! `setsockopt` and `getsockopt`, with the option names that errors report.

#![allow(unsafe_code, reason = "system calls with pointers")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{Error, Result, Step};
use crate::options::BusyPoll;

/// A socket option: its level, its number, and its name for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opt {
    level: i32,
    name: i32,
    label: &'static str,
}

macro_rules! options {
    ($($id:ident = $level:expr, $name:expr, $label:literal;)*) => {
        $(pub(crate) const $id: Opt = Opt { level: $level, name: $name, label: $label };)*
    };
}

options! {
    VERSION = libc::SOL_PACKET, libc::PACKET_VERSION, "PACKET_VERSION";
    TX_RING = libc::SOL_PACKET, libc::PACKET_TX_RING, "PACKET_TX_RING";
    QDISC_BYPASS = libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, "PACKET_QDISC_BYPASS";
    VNET_HDR = libc::SOL_PACKET, libc::PACKET_VNET_HDR, "PACKET_VNET_HDR";
    RX_RING = libc::SOL_PACKET, libc::PACKET_RX_RING, "PACKET_RX_RING";
    STATISTICS = libc::SOL_PACKET, libc::PACKET_STATISTICS, "PACKET_STATISTICS";
    TIMESTAMP = libc::SOL_PACKET, libc::PACKET_TIMESTAMP, "PACKET_TIMESTAMP";
    FANOUT = libc::SOL_PACKET, libc::PACKET_FANOUT, "PACKET_FANOUT";
    FANOUT_DATA = libc::SOL_PACKET, libc::PACKET_FANOUT_DATA, "PACKET_FANOUT_DATA";
    ADD_MEMBERSHIP = libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, "PACKET_ADD_MEMBERSHIP";
    IGNORE_OUTGOING = libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING";
    SOCKET_DOMAIN = libc::SOL_SOCKET, libc::SO_DOMAIN, "SO_DOMAIN";
    SOCKET_TYPE = libc::SOL_SOCKET, libc::SO_TYPE, "SO_TYPE";
    SOCKET_ERROR = libc::SOL_SOCKET, libc::SO_ERROR, "SO_ERROR";
    SNDBUF = libc::SOL_SOCKET, libc::SO_SNDBUF, "SO_SNDBUF";
    SNDBUF_FORCE = libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, "SO_SNDBUFFORCE";
    TIMESTAMPING = libc::SOL_SOCKET, libc::SO_TIMESTAMPING, "SO_TIMESTAMPING";
    RCVBUF = libc::SOL_SOCKET, libc::SO_RCVBUF, "SO_RCVBUF";
    RCVBUF_FORCE = libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, "SO_RCVBUFFORCE";
    BUSY_POLL = libc::SOL_SOCKET, libc::SO_BUSY_POLL, "SO_BUSY_POLL";
    PREFER_BUSY_POLL = libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, "SO_PREFER_BUSY_POLL";
    BUSY_POLL_BUDGET = libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, "SO_BUSY_POLL_BUDGET";
    ATTACH_BPF = libc::SOL_SOCKET, libc::SO_ATTACH_BPF, "SO_ATTACH_BPF";
    LOCK_FILTER = libc::SOL_SOCKET, libc::SO_LOCK_FILTER, "SO_LOCK_FILTER";
    ATTACH_FILTER = libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, "SO_ATTACH_FILTER";
    DETACH_FILTER = libc::SOL_SOCKET, libc::SO_DETACH_FILTER, "SO_DETACH_FILTER";
}

#[cfg(feature = "record")]
options! {
    RESERVE = libc::SOL_PACKET, libc::PACKET_RESERVE, "PACKET_RESERVE";
}

#[cfg(feature = "af-xdp")]
options! {
    NETNS_COOKIE = libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, "SO_NETNS_COOKIE";
    XDP_MMAP_OFFSETS = libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, "XDP_MMAP_OFFSETS";
    XDP_RX_RING = libc::SOL_XDP, libc::XDP_RX_RING, "XDP_RX_RING";
    XDP_TX_RING = libc::SOL_XDP, libc::XDP_TX_RING, "XDP_TX_RING";
    XDP_UMEM_REG = libc::SOL_XDP, libc::XDP_UMEM_REG, "XDP_UMEM_REG";
    XDP_FILL_RING = libc::SOL_XDP, libc::XDP_UMEM_FILL_RING, "XDP_UMEM_FILL_RING";
    XDP_COMPLETION_RING = libc::SOL_XDP, libc::XDP_UMEM_COMPLETION_RING, "XDP_UMEM_COMPLETION_RING";
    XDP_STATISTICS = libc::SOL_XDP, libc::XDP_STATISTICS, "XDP_STATISTICS";
    XDP_OPTIONS = libc::SOL_XDP, libc::XDP_OPTIONS, "XDP_OPTIONS";
    // linux/if_xdp.h, 6.17
    XDP_MAX_TX_SKB_BUDGET = libc::SOL_XDP, 9, "XDP_MAX_TX_SKB_BUDGET";
}

/// A plain C value that the kernel may read or write bytewise.
///
/// # Safety
/// Every bit pattern must be a valid value: integers, and `repr(C)` structs of integers and raw pointers.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers take every bit pattern.
unsafe impl Plain for i32 {}
// SAFETY: an integer.
#[cfg(feature = "af-xdp")]
unsafe impl Plain for u64 {}
// SAFETY: integers take every bit pattern.
unsafe impl Plain for u32 {}
// SAFETY: a repr(C) struct of integers.
unsafe impl Plain for libc::tpacket_req {}
// SAFETY: a repr(C) struct of integers.
unsafe impl Plain for libc::tpacket_req3 {}
// SAFETY: a repr(C) struct of integers.
unsafe impl Plain for libc::tpacket_stats_v3 {}
// SAFETY: a repr(C) struct of integers.
unsafe impl Plain for libc::packet_mreq {}
// SAFETY: a repr(C) struct of an integer and a raw pointer.
unsafe impl Plain for libc::sock_fprog {}

#[cfg(feature = "af-xdp")]
mod xdp {
    use super::Plain;

    // SAFETY: a repr(C) struct of integers.
    unsafe impl Plain for libc::xdp_umem_reg {}
    // SAFETY: a repr(C) struct of integers.
    unsafe impl Plain for libc::xdp_umem_reg_v1 {}
    // SAFETY: a repr(C) struct of integers.
    unsafe impl Plain for libc::xdp_mmap_offsets {}
    // SAFETY: a repr(C) struct of integers.
    unsafe impl Plain for libc::xdp_statistics {}
    // SAFETY: a repr(C) struct of integers.
    unsafe impl Plain for libc::xdp_options {}
}

/// Sets the busy polling options that are given; see [`BusyPoll`].
pub(crate) fn set_busy_poll(socket: BorrowedFd<'_>, options: &BusyPoll) -> Result<()> {
    if let Some(us) = options.us {
        set(socket, BUSY_POLL, &us)?;
    }
    if let Some(prefer) = options.prefer {
        set(socket, PREFER_BUSY_POLL, &i32::from(prefer))?;
    }
    if let Some(budget) = options.budget {
        set(socket, BUSY_POLL_BUDGET, &i32::from(budget))?;
    }
    Ok(())
}

/// Sets an option; returns the raw error, for callers that distinguish errnos.
pub(crate) fn try_set<T: Plain>(socket: BorrowedFd<'_>, option: Opt, value: &T) -> io::Result<()> {
    // SAFETY: the value is readable for its size, and the kernel copies it before it returns. The caller in
    // `sys/cbpf.rs` keeps alive what a `sock_fprog` points to.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            option.level,
            option.name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets an option; the error names the option.
pub(crate) fn set<T: Plain>(socket: BorrowedFd<'_>, option: Opt, value: &T) -> Result<()> {
    try_set(socket, option, value)
        .map_err(|source| Error::os(Step::SetOption(option.label), source))
}

/// Reads an option of fixed size; the error names the option.
pub(crate) fn get<T: Plain>(socket: BorrowedFd<'_>, option: Opt) -> Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the buffer is writable for `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            option.level,
            option.name,
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        let source = io::Error::last_os_error();
        return Err(Error::os(Step::GetOption(option.label), source));
    }
    // SAFETY: zeroed before the call and `Plain`, so initialised and valid whatever was written.
    Ok(unsafe { value.assume_init() })
}
