//! Classic BPF programs on a socket; bpf(2) programs come with AF_XDP.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use ringtap_filter::{BpfInsn, MAX_INSTRUCTIONS, ProgramFault};

use super::sockopt::{self, Opt};
use crate::error::{Error, Result, Step};

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
