//! AF_XDP sockets: UMEM, rings, binding, and statistics (Documentation/networking/af_xdp.rst).

#![allow(unsafe_code, reason = "system calls with pointers")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::sockopt::{self, Opt};
use super::{Mapping, memlock_retry};
use crate::error::{Error, Result, Step};

/// Opens an AF_XDP socket.
pub(crate) fn open() -> Result<OwnedFd> {
    // SAFETY: plain system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(Error::os(Step::OpenXdpSocket, io::Error::last_os_error()));
    }
    // SAFETY: a fresh descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The description of a UMEM for the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UmemSpec {
    pub(crate) base: u64,
    pub(crate) len: u64,
    pub(crate) chunk_size: u32,
    /// Bytes kept free before a packet, in addition to the 256 that always are.
    pub(crate) headroom: u32,
    /// Bytes of metadata before a frame to send; 0 for none.
    pub(crate) metadata: u32,
    /// Whether the kernel computes checksums instead of the card.
    pub(crate) software_checksums: bool,
}

/// Registers memory as the socket's UMEM. It must stay mapped for as long as the socket lives.
pub(crate) fn register_umem(socket: BorrowedFd<'_>, spec: &UmemSpec) -> Result<()> {
    let &UmemSpec { base: addr, len, chunk_size, headroom, metadata, software_checksums } = spec;
    // The first version of the structure, without transmit metadata, which every kernel accepts.
    let plain = || {
        let umem = libc::xdp_umem_reg_v1 { addr, len, chunk_size, headroom };
        sockopt::try_set(socket, sockopt::XDP_UMEM_REG, &umem)
    };
    if metadata == 0 {
        return memlock_retry::patiently(libc::ENOBUFS, plain)
            .map_err(|source| Error::os(Step::RegisterUmem, source));
    }
    let software = if software_checksums { libc::XDP_UMEM_TX_SW_CSUM } else { 0 };
    let set = |flags, tx_metadata_len| {
        let umem = libc::xdp_umem_reg { addr, len, chunk_size, headroom, flags, tx_metadata_len };
        sockopt::try_set(socket, sockopt::XDP_UMEM_REG, &umem)
    };
    // Kernels from 6.8 on always read the length, without knowing a flag for it; later ones require the flag
    // (Documentation/networking/xsk-tx-metadata.rst). Earlier ones ignore the length, whatever it is.
    let with_metadata = || match set(libc::XDP_UMEM_TX_METADATA_LEN | software, metadata) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let no_length = metadata + 4; // it has to be a multiple of 8
            match set(software, no_length) {
                Ok(()) => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set(software, metadata),
                other => other,
            }
        }
        other => other,
    };
    memlock_retry::patiently(libc::ENOBUFS, with_metadata).map_err(|source| {
        let is_metadata = match source.raw_os_error() {
            Some(libc::EOPNOTSUPP) => true,
            // If this succeeds, the metadata was at fault. The caller drops the socket either way.
            Some(libc::EINVAL) => plain().is_ok(),
            _ => false,
        };
        let step = if is_metadata { Step::RegisterTxMetadata } else { Step::RegisterUmem };
        Error::os(step, source)
    })
}

/// Lets a kick send as many frames as the TX ring has entries, if the kernel supports it (6.17).
pub(crate) fn raise_budget(socket: BorrowedFd<'_>, entries: u32) {
    // Otherwise a kick sends 32 frames and returns EAGAIN, which is handled.
    let _ = sockopt::try_set(socket, sockopt::XDP_MAX_TX_SKB_BUDGET, &entries);
}

/// One of the four rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Fill,
    Completion,
    Rx,
    Tx,
}

impl Which {
    fn option(self) -> Opt {
        match self {
            Self::Fill => sockopt::XDP_FILL_RING,
            Self::Completion => sockopt::XDP_COMPLETION_RING,
            Self::Rx => sockopt::XDP_RX_RING,
            Self::Tx => sockopt::XDP_TX_RING,
        }
    }

    fn page_offset(self) -> i64 {
        match self {
            Self::Rx => libc::XDP_PGOFF_RX_RING,
            Self::Tx => libc::XDP_PGOFF_TX_RING,
            Self::Fill => libc::XDP_UMEM_PGOFF_FILL_RING as i64,
            Self::Completion => libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64,
        }
    }
}

/// Creates a ring of `entries` entries without mapping it.
pub(crate) fn set_ring(socket: BorrowedFd<'_>, which: Which, entries: u32) -> Result<()> {
    sockopt::set(socket, which.option(), &entries)
}

/// Creates a ring of `entries` entries of `entry_size` bytes and maps it; returns its memory and the offsets
/// of its parts.
pub(crate) fn create_ring(
    socket: BorrowedFd<'_>,
    which: Which,
    entries: u32,
    entry_size: usize,
) -> Result<(Mapping, libc::xdp_ring_offset)> {
    set_ring(socket, which, entries)?;
    let offsets: libc::xdp_mmap_offsets = sockopt::get(socket, sockopt::XDP_MMAP_OFFSETS)?;
    let offset = match which {
        Which::Fill => offsets.fr,
        Which::Completion => offsets.cr,
        Which::Rx => offsets.rx,
        Which::Tx => offsets.tx,
    };
    let len = offset.desc as usize + entries as usize * entry_size;
    let mapping = Mapping::of_file(socket, len, which.page_offset())
        .map_err(|source| Error::os(Step::MapRing, source))?;
    Ok((mapping, offset))
}

/// Binds to a queue of an interface, with the UMEM of another socket if one is given.
pub(crate) fn bind(
    socket: BorrowedFd<'_>,
    (index, queue): (u32, u32),
    flags: u16,
    shared: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let flags = if shared.is_some() { libc::XDP_SHARED_UMEM } else { flags };
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: index,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared.map_or(0, |shared| shared.as_raw_fd() as u32),
    };
    // SAFETY: the address is readable for its size and the kernel copies it.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns the kernel's counters.
pub(crate) fn statistics(socket: BorrowedFd<'_>) -> Result<libc::xdp_statistics> {
    sockopt::get(socket, sockopt::XDP_STATISTICS)
}

/// Returns whether frames are received and sent without being copied.
pub(crate) fn is_zerocopy(socket: BorrowedFd<'_>) -> Result<bool> {
    let options: libc::xdp_options = sockopt::get(socket, sockopt::XDP_OPTIONS)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// Tells a sleeping driver that the fill ring has entries.
pub(crate) fn wake_fill(socket: BorrowedFd<'_>) {
    // SAFETY: a receive of no bytes, without an address.
    unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}
