//! AF_PACKET sockets: opening, binding, and querying the binding.

#![allow(unsafe_code, reason = "system calls with pointers")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::sockopt;
use crate::error::{Error, Result, Step};

/// Opens a packet socket that receives nothing yet; its packets begin with their link-layer headers.
pub(crate) fn open() -> Result<OwnedFd> {
    open_kind(libc::SOCK_RAW)
}

/// Opens a packet socket that receives nothing yet; its packets are cooked, that is, the kernel has removed their
/// link-layer headers.
pub(crate) fn open_cooked() -> Result<OwnedFd> {
    open_kind(libc::SOCK_DGRAM)
}

/// The protocol is 0: with `ETH_P_ALL`, unfiltered packets of all interfaces would be queued until `bind`
/// names one.
fn open_kind(kind: i32) -> Result<OwnedFd> {
    // SAFETY: plain system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(Error::os(Step::OpenSocket, io::Error::last_os_error()));
    }
    // SAFETY: a fresh descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// All protocols, for [`bind`].
pub(crate) const ALL: u16 = libc::ETH_P_ALL as u16;

/// The index that stands for all interfaces, for [`bind`].
pub(crate) const ANY: u32 = 0;

/// Binds to an interface and starts receiving the given protocol; 0 receives nothing.
pub(crate) fn bind(socket: BorrowedFd<'_>, index: u32, protocol: u16) -> Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is readable for its size and the kernel copies it.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(Error::os(Step::Bind, io::Error::last_os_error())) }
}

/// Sends a frame to the interface that the socket is bound to.
pub(crate) fn send(socket: BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
    // SAFETY: the frame is readable for its length.
    let sent = unsafe {
        libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT)
    };
    if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns whether a packet waits in the queue of a socket without a ring.
pub(crate) fn has_packet(socket: BorrowedFd<'_>) -> bool {
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    // SAFETY: no byte is written.
    unsafe { libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), 0, flags) >= 0 }
}

/// Tells the kernel to look at the transmit ring. Never blocks; the result says why the kernel went no
/// further, not how far it got.
pub(crate) fn kick(socket: BorrowedFd<'_>) -> io::Result<()> {
    kick_fd(socket.as_raw_fd())
}

/// Does what [`kick`] does, given only the descriptor's number; a closed descriptor yields `EBADF`.
pub(crate) fn kick_fd(socket: RawFd) -> io::Result<()> {
    // SAFETY: a send of no bytes, without an address.
    let sent = unsafe {
        libc::sendto(socket, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
    };
    if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns whether the interface that the socket was bound to is gone.
///
/// `packet_notifier` sets the socket's index to -1 when the interface is unregistered; if the interface was
/// down before, that is the only trace of it (net/packet/af_packet.c).
pub(crate) fn is_orphaned(socket: BorrowedFd<'_>) -> bool {
    binding(socket).is_some_and(|address| address.sll_ifindex == -1)
}

/// Returns whether the socket was bound to an interface or receives a protocol.
pub(crate) fn is_bound(socket: BorrowedFd<'_>) -> bool {
    binding(socket).is_some_and(|address| address.sll_ifindex != 0 || address.sll_protocol != 0)
}

fn binding(socket: BorrowedFd<'_>) -> Option<libc::sockaddr_ll> {
    let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the buffer is writable for `len` bytes.
    let result =
        unsafe { libc::getsockname(socket.as_raw_fd(), address.as_mut_ptr().cast(), &raw mut len) };
    // SAFETY: zeroed before the call, and a struct of integers.
    let address = unsafe { address.assume_init() };
    (result == 0).then_some(address)
}

/// Takes the pending error from the socket; returns `None` if there is none.
pub(crate) fn take_error(socket: BorrowedFd<'_>) -> Result<Option<io::Error>> {
    let errno: i32 = sockopt::get(socket, sockopt::SOCKET_ERROR)?;
    Ok((errno != 0).then(|| io::Error::from_raw_os_error(errno)))
}

/// Puts the interface into promiscuous mode for as long as the socket lives.
pub(crate) fn promiscuous(socket: BorrowedFd<'_>, index: u32) -> Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: index as i32,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    sockopt::set(socket, sockopt::ADD_MEMBERSHIP, &request)
}
