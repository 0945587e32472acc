//! The network namespace of a capture.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::error::{Error, Result, Step};
use crate::sys::netns;

/// A network namespace other than this process's, by any of its names (network_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NetNs {
    /// The name that `ip netns add` gave it.
    Name(String),
    /// The id of a process in it, such as the first process of a container.
    Pid(u32),
    /// The path of any file that refers to it.
    Path(PathBuf),
}

impl NetNs {
    /// Selects a namespace by the name that `ip netns add` gave it.
    pub fn name(name: impl Into<String>) -> Self {
        Self::Name(name.into())
    }

    /// Selects the namespace of a process.
    pub fn pid(pid: u32) -> Self {
        Self::Pid(pid)
    }

    /// Selects a namespace by the path of any file that refers to it.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self::Path(path.into())
    }

    fn file(&self) -> PathBuf {
        match self {
            // A name that is not a valid file name matches no file.
            Self::Name(name) => PathBuf::from("/run/netns").join(name.replace('/', "\u{fffd}")),
            Self::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            Self::Path(path) => path.clone(),
        }
    }

    /// Runs `work` in the namespace, on a thread of its own, and returns its result. A socket created there stays there,
    /// and works from everywhere.
    ///
    /// For what is about the calling thread's namespace, such as names of interfaces in a filter:
    ///
    /// ```no_run
    /// use ringtap::BpfFilter;
    /// use ringtap::capture::NetNs;
    /// use ringtap::interface::LocalNames;
    ///
    /// # fn main() -> ringtap::Result<()> {
    /// let names = LocalNames::default();
    /// let filter = NetNs::name("blue").within(|| Ok(BpfFilter::parse_with("ifname eth0", &names)?))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Os`] if there is no such namespace, or entering it is refused (it takes `CAP_SYS_ADMIN`); the errors of
    /// `work`.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.file();
        let fault = |source| Error::os(Step::EnterNamespace, source).of(path.display());
        let file = File::open(&path).map_err(fault)?;
        netns::within(file.as_fd(), work).map_err(fault)?
    }
}
