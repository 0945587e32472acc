//! Loaded BPF programs, for tests that need one: only the machine's root may load them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Whether this process was root before it entered any namespace.
pub fn is_privileged() -> bool {
    crate::bootstrap::was_root()
}

/// A socket-filter program that returns `value` for every packet; `None`, said loudly, where an
/// ordinary user may not load one.
///
/// # Panics
/// Where root may not, and nothing may be skipped.
pub fn socket_filter_returning(value: i32) -> Option<OwnedFd> {
    // mov r0, value; exit
    socket_filter(&[0xb7 | (value as u32 as u64) << 32, 0x95])
}

/// One that accepts frames whose source port, behind an IPv4 header without options, is even.
///
/// # Panics
/// As [`socket_filter_returning`].
pub fn socket_filter_of_even_ports() -> Option<OwnedFd> {
    socket_filter(&[
        0x16bf,              // r6 = r1, the context of what follows
        0x28 | 34 << 32,     // r0 = the half word at 34
        0x57 | 1 << 32,      // r0 &= 1
        0x0002_0015,         // if it is 0, on two instructions further
        0xb7,                // r0 = 0
        0x95,                // return it
        0xb7 | 0xffff << 32, // r0 = as much as there is
        0x95,
    ])
}

fn socket_filter(instructions: &[u64]) -> Option<OwnedFd> {
    let licence = c"MIT";
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        licence: u64,
        rest: [u64; 12],
    }
    let load = Load {
        kind: 1, // BPF_PROG_TYPE_SOCKET_FILTER
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        licence: licence.as_ptr() as u64,
        rest: [0; 12],
    };
    let (command, size) = (5, size_of::<Load>()); // BPF_PROG_LOAD
    // SAFETY: the struct, the instructions and the licence are readable during the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const load, size) };
    if fd < 0 {
        let why = format!("loading BPF: {}; it needs root", io::Error::last_os_error());
        if is_privileged() {
            crate::skip(&why);
        } else {
            eprintln!("SKIPPED, as for any ordinary user: {why}");
        }
        return None;
    }
    // SAFETY: a fresh descriptor.
    Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether the kernel takes a program of classic BPF, its instructions as `code, jt, jf, k`, as a socket's filter.
pub fn attach_classic(socket: impl AsFd, program: &[(u16, u8, u8, u32)]) -> bool {
    let mut instructions: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let program = libc::sock_fprog {
        len: instructions.len() as libc::c_ushort,
        filter: instructions.as_mut_ptr(),
    };
    // SAFETY: the program and its instructions are readable during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    result == 0
}
