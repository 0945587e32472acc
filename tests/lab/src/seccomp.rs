//! Refusing system calls, as containers do.

/// From now on, calls of this thread, and of those it starts, are refused with `errno`.
///
/// # Panics
/// Where the kernel has no seccomp.
pub fn refuse(call: i64, errno: i32) {
    let (load, equal) = (0x20, 0x15);
    install(&[
        insn(load, 0, 0, NUMBER),
        insn(equal, 0, 1, call as u32),
        insn(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        insn(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// What `work` returns in a thread whose calls are refused with `errno`: all of this name, or those whose argument,
/// counted from 0, has this value.
///
/// # Panics
/// Where the kernel has no seccomp, or `work` panics.
pub fn without<T: Send>(
    call: i64,
    argument: Option<(u32, i64)>,
    errno: i32,
    work: impl FnOnce() -> T + Send,
) -> T {
    let (load, equal) = (0x20, 0x15);
    let crippled = || {
        let Some((at, value)) = argument else {
            refuse(call, errno);
            return work();
        };
        let low_half = ARGUMENTS + 8 * at; // of a little-endian machine
        install(&[
            insn(load, 0, 0, NUMBER),
            insn(equal, 0, 3, call as u32),
            insn(load, 0, 0, low_half),
            insn(equal, 0, 1, value as u32),
            insn(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            insn(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]);
        work()
    };
    match std::thread::scope(|scope| scope.spawn(crippled).join()) {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

// struct seccomp_data, linux/seccomp.h
const NUMBER: u32 = 0;
const ARGUMENTS: u32 = 16;
const RETURN: u16 = 0x06;

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn install(program: &[libc::sock_filter]) {
    let mut program = program.to_vec();
    let len = program.len() as u16;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: no memory involved.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is readable; the kernel copies it.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0);
}
