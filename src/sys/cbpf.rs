//! Classic BPF programs on a socket; bpf(2) programs come with AF_XDP.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::sockopt::{self, Opt};
use crate::error::{Error, ProgramFault, Result, Step};

/// One instruction of classic BPF (`struct sock_filter`, include/uapi/linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct BpfInsn {
    /// The operation code.
    pub code: u16,
    /// Number of instructions to skip if a comparison is true.
    pub jt: u8,
    /// Number of instructions to skip if a comparison is false.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl BpfInsn {
    /// Creates `ret #bytes`, which accepts that many bytes of the packet; 0 drops it.
    pub(crate) const fn ret(bytes: u32) -> Self {
        Self { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: bytes }
    }
}

/// Maximum number of instructions of a classic program (`BPF_MAXINSNS`).
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;

/// Sets the socket's filter to `program`, replacing the previous one without a gap.
pub(crate) fn attach(socket: BorrowedFd<'_>, program: &[BpfInsn]) -> Result<()> {
    load(socket, sockopt::ATTACH_FILTER, program, Step::SetFilter)
}

/// Sets the socket's filter to a loaded program.
pub(crate) fn attach_extended(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    sockopt::try_set(socket, sockopt::ATTACH_BPF, &program.as_raw_fd())
        .map_err(|source| Error::os(Step::SetFilter, source))
}

/// Locks the filter against changes.
pub(crate) fn lock(socket: BorrowedFd<'_>) -> Result<()> {
    sockopt::set(socket, sockopt::LOCK_FILTER, &1_i32)
}

/// Removes the socket's filter; it is not an error if there is none.
pub(crate) fn detach(socket: BorrowedFd<'_>) -> Result<()> {
    match sockopt::try_set(socket, sockopt::DETACH_FILTER, &0_i32) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
            Err(Error::os(Step::SetFilter, error))
        }
        _ => Ok(()),
    }
}

/// Sets the program of a `Cbpf` fanout group.
pub(crate) fn fanout_classic(socket: BorrowedFd<'_>, program: &[BpfInsn]) -> Result<()> {
    load(socket, sockopt::FANOUT_DATA, program, Step::SetOption("PACKET_FANOUT_DATA"))
}

/// Sets the program of an `Ebpf` fanout group, a loaded `BPF_PROG_TYPE_SOCKET_FILTER`.
pub(crate) fn fanout_extended(socket: BorrowedFd<'_>, program: &OwnedFd) -> Result<()> {
    sockopt::set(socket, sockopt::FANOUT_DATA, &program.as_raw_fd())
}

fn load(socket: BorrowedFd<'_>, option: Opt, program: &[BpfInsn], step: Step) -> Result<()> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(Error::Program(ProgramFault::Length { instructions: program.len() }));
    }
    let program = libc::sock_fprog {
        len: program.len() as u16,
        // The kernel only reads; the pointer is mutable because that is how C declares it.
        filter: program.as_ptr().cast_mut().cast(),
    };
    sockopt::try_set(socket, option, &program).map_err(|source| Error::os(step, source))
}

const _: () = assert!(size_of::<BpfInsn>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<BpfInsn>() == align_of::<libc::sock_filter>());
