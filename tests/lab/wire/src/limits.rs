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
    stay_on(&alone(this_core()));
}

/// The core that the calling thread runs on.
pub fn this_core() -> usize {
    // SAFETY: takes nothing.
    let core = unsafe { libc::sched_getcpu() };
    usize::try_from(core).expect("there is a core")
}

/// Keeps the calling thread on a core while this lives, and lets it go where it could before.
#[derive(Debug)]
pub struct OnCore {
    before: libc::cpu_set_t,
}

impl OnCore {
    /// For the reason that [`stay_on_this_core`] has.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn new(core: usize) -> Self {
        let mut before = empty();
        // SAFETY: the set is writable in the length given.
        let got = unsafe { libc::sched_getaffinity(0, size_of_val(&before), &raw mut before) };
        assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
        stay_on(&alone(core));
        Self { before }
    }
}

impl Drop for OnCore {
    fn drop(&mut self) {
        stay_on(&self.before);
    }
}

fn empty() -> libc::cpu_set_t {
    // SAFETY: a set of bits, of which none is set.
    unsafe { std::mem::zeroed() }
}

fn alone(core: usize) -> libc::cpu_set_t {
    let mut set = empty();
    // SAFETY: the kernel numbers cores from 0, and the macro checks the bound.
    unsafe { libc::CPU_SET(core, &mut set) };
    set
}

fn stay_on(set: &libc::cpu_set_t) {
    // SAFETY: the set is readable in the length given.
    let answer = unsafe { libc::sched_setaffinity(0, size_of_val(set), set) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}

/// How many descriptors this process has open.
///
/// # Panics
/// Without `/proc`.
pub fn open_descriptors() -> usize {
    // The one that reads the directory is among them, each time.
    std::fs::read_dir("/proc/self/fd").expect("there is /proc").count()
}
