//! A network namespace for one test.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use crate::link::{self, Veth};

/// A network namespace that the calling thread, and the threads it starts, are in until this is
/// dropped on the same thread.
///
/// It has no name, so nothing of it can be left behind: the kernel removes it, and the interfaces
/// in it, with the last thread and socket in it, even if the process is killed.
#[derive(Debug)]
pub struct Namespace {
    outside: File,
    pairs: std::cell::Cell<u32>,
}

impl Namespace {
    /// Makes a namespace and enters it with the calling thread. IPv6 is off in it, so that the
    /// kernel sends no frames of its own.
    ///
    /// # Errors
    /// Why there can be none, and how to allow it.
    pub fn enter() -> Result<Self, String> {
        crate::bootstrap::enter()?;
        let outside = current().map_err(|error| format!("the thread's namespace: {error}"))?;
        unshare()?;
        Ok(Self { outside, pairs: std::cell::Cell::new(0) })
    }

    /// A veth pair, both ends here, up, with one queue.
    ///
    /// # Panics
    /// Where the kernel refuses: every kernel that has namespaces has veth.
    pub fn veth(&self) -> Veth {
        self.veth_with_queues(1)
    }

    /// A veth pair, both ends here, up, with so many queues in each direction.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn veth_with_queues(&self, queues: u32) -> Veth {
        let number = self.pairs.replace(self.pairs.get() + 1);
        let veth = Veth { left: format!("left{number}"), right: format!("right{number}") };
        link::create_veth(&veth, queues)
            .unwrap_or_else(|error| panic!("creating {veth:?}: {error}"));
        veth.up();
        veth
    }

    /// Brings the loopback up.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn loopback_up(&self) {
        link::set_up("lo", true).expect("the loopback can be set up");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = enter(&self.outside) {
            eprintln!("could not leave the namespace: {error}");
        }
    }
}

/// The calling thread's namespace.
pub fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Puts the calling thread into a new namespace, in which IPv6 is off.
pub fn unshare() -> Result<(), String> {
    // SAFETY: affects the calling thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        let error = io::Error::last_os_error();
        return Err(format!("no network namespace: {error}; run as root or outside a container"));
    }
    for which in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        match fs::write(&path, "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("{path}: {error}"));
            }
            _ => {} // a kernel without IPv6 has nothing to switch off
        }
    }
    Ok(())
}

/// Puts the calling thread into a namespace that there is.
pub fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: affects the calling thread only.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
