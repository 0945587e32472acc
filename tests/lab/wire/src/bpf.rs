//! eBPF programs that filter sockets, and names in a file system for programs and maps. Only root may have them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const PROG_LOAD: i32 = 5;
const OBJ_PIN: i32 = 6;

/// A socket-filter program that returns `value` for every packet.
///
/// # Errors
/// The kernel's.
pub fn returning(value: i32) -> io::Result<OwnedFd> {
    // mov r0, value; exit
    load(&[0xb7 | u64::from(value as u32) << 32, 0x95])
}

/// One that accepts frames whose source port, behind an IPv4 header without options, is even.
///
/// # Errors
/// The kernel's.
pub fn even_ports() -> io::Result<OwnedFd> {
    load(&[
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

fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
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
    let size = size_of::<Load>();
    // SAFETY: the struct, the instructions and the licence are readable during the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Gives a loaded program, or a map, a name in a file system of the kind `bpf`.
///
/// # Errors
/// The kernel's.
///
/// # Panics
/// Where the path has a zero in it.
pub fn pin(program_or_map: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path without a zero");
    let attributes: [u64; 2] = [path.as_ptr() as u64, u64::from(program_or_map.as_raw_fd() as u32)];
    // SAFETY: the attributes and the path are readable during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, OBJ_PIN, attributes.as_ptr(), size_of_val(&attributes))
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
