//! Limits that a test sets on its process or thread, for good.
//!
//! Those of the process belong in a child only.

/// One of `RLIMIT_*`, which have another type with musl.
#[cfg(target_env = "musl")]
pub type Resource = libc::c_int;
/// One of `RLIMIT_*`.
#[cfg(not(target_env = "musl"))]
pub type Resource = libc::__rlimit_resource_t;

/// Sets a resource limit, soft and hard.
///
/// # Panics
/// Where the kernel refuses: limits only go down.
pub fn set(resource: Resource, bytes: u64) {
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

/// Keeps this thread, and those it starts from now on, on the core it is on.
///
/// Between two ends of a veth pair the kernel keeps order for each core only: what a sender hands over goes
/// into the backlog of the core it runs on (`netif_rx`, `net/core/dev.c`). A thread that moves between two
/// bursts, or a queueing discipline's timer on another core, may thus be overtaken. A test of the order
/// behind a shaped interface stays on one core.
///
/// # Panics
/// Where the kernel refuses, which it does not for a core the thread is on.
pub fn stay_on_this_core() {
    // SAFETY: takes nothing.
    let core = unsafe { libc::sched_getcpu() };
    // SAFETY: a set of bits, of which none is set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel numbers cores from 0, and the macro checks the bound.
    unsafe { libc::CPU_SET(core as usize, &mut set) };
    // SAFETY: the set is readable in the length given.
    assert_eq!(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) }, 0);
}

/// How many descriptors this process has open.
///
/// # Panics
/// Without `/proc`.
pub fn open_descriptors() -> usize {
    // The one that reads the directory is among them, each time.
    std::fs::read_dir("/proc/self/fd").expect("there is /proc").count()
}
