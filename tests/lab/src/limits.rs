//! Limits that a test sets on its process or thread, for good: in a child only.

/// Sets a resource limit, soft and hard.
///
/// # Panics
/// Where the kernel refuses: limits only go down.
pub fn set(resource: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the struct is readable.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Gives up all capabilities of this thread but those of the mask (capset(2)).
///
/// # Panics
/// Where the thread does not have those.
pub fn keep_capabilities(mask: u32) {
    let header: [u32; 2] = [0x2008_0522, 0]; // _LINUX_CAPABILITY_VERSION_3, this thread
    let kept = [mask, mask, 0, 0, 0, 0];
    // SAFETY: both arrays have the sizes this version has.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), kept.as_ptr()) };
    assert_eq!(result, 0);
}
