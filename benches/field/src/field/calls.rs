//! How many system calls a thread makes, and those that it starts: counted by the kernel (`raw_syscalls:sys_enter`),
//! which slows every call down a little, so it is done in the round that does not count otherwise.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::FromRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this is the round in which calls are counted.
static IS_COUNTED: AtomicBool = AtomicBool::new(false);

pub(crate) fn count_them(is_counted: bool) {
    IS_COUNTED.store(is_counted, Ordering::Relaxed);
}

/// Calls of the thread that made it.
#[derive(Debug)]
pub(crate) struct Calls(File);

impl Calls {
    /// `None` in the other rounds, and where they cannot be counted.
    pub(crate) fn of_this_thread() -> Option<Self> {
        const TRACEPOINT: u64 = 2;
        const SIZE: u64 = 128;
        const INHERITED: u64 = 1 << 1;
        if !IS_COUNTED.load(Ordering::Relaxed) {
            return None;
        }
        let id: u64 = fs::read_to_string(tracing()?.join("events/raw_syscalls/sys_enter/id"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        // `struct perf_event_attr`: type and size, configuration, …, flags.
        let mut attributes = [0_u64; SIZE as usize / 8];
        (attributes[0], attributes[1], attributes[5]) = (TRACEPOINT | SIZE << 32, id, INHERITED);
        // SAFETY: the attributes have the size they say.
        let fd =
            unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0) };
        // SAFETY: a fresh descriptor that the kernel has just returned.
        (fd >= 0).then(|| Self(unsafe { File::from_raw_fd(fd as i32) }))
    }

    pub(crate) fn count(&self) -> u64 {
        let mut bytes = [0; 8];
        (&self.0).read_exact(&mut bytes).map_or(0, |()| u64::from_ne_bytes(bytes))
    }
}

/// Where tracefs is; mounted, if it is not and this is root.
fn tracing() -> Option<&'static Path> {
    let place = Path::new("/sys/kernel/tracing");
    if !place.join("events").exists() {
        let path = c"/sys/kernel/tracing";
        // SAFETY: strings that end, and no data.
        unsafe {
            libc::mount(path.as_ptr(), path.as_ptr(), c"tracefs".as_ptr(), 0, std::ptr::null())
        };
    }
    place.join("events").exists().then_some(place)
}
