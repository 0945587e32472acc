//! Refusing system calls, as containers do.

/// From now on, calls of this thread, and of those it starts, are refused with `errno`.
///
/// # Panics
/// Where the kernel has no seccomp.
pub fn refuse(call: i64, errno: i32) {
    let insn = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let (load, equal, ret) = (0x20, 0x15, 0x06);
    let mut program = [
        insn(load, 0, 0, 0), // seccomp_data.nr
        insn(equal, 0, 1, call as u32),
        insn(ret, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        insn(ret, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: no memory involved.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is readable; the kernel copies it.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0);
}
