//! Loaded BPF programs, for tests that need one: only the machine's root may load them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub use ringtap_lab_wire::bpf::pin;

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
    match ringtap_lab_wire::bpf::returning(value) {
        Ok(program) => Some(program),
        Err(error) => {
            let why = format!("loading BPF: {error}; it needs root");
            if is_privileged() {
                crate::skip(&why);
            } else {
                eprintln!("SKIPPED, as for any ordinary user: {why}");
            }
            None
        }
    }
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
