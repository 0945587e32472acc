//! Which network namespace a capture is in.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::error::{Error, Result, Step};
use crate::sys::netns;

/// A network namespace other than this process's, by any of its names (network_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NetNs {
    /// By the name that `ip netns add` gave it.
    Name(String),
    /// That of a process, such as a container's first.
    Pid(u32),
    /// By any file that stands for it.
    Path(PathBuf),
}

impl NetNs {
    /// By the name that `ip netns add` gave it.
    pub fn name(name: impl Into<String>) -> Self {
        Self::Name(name.into())
    }

    /// That of a process.
    pub fn pid(pid: u32) -> Self {
        Self::Pid(pid)
    }

    /// By any file that stands for it.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self::Path(path.into())
    }

    fn file(&self) -> PathBuf {
        match self {
            // Of what is no name of a file there is none.
            Self::Name(name) => PathBuf::from("/run/netns").join(name.replace('/', "\u{fffd}")),
            Self::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            Self::Path(path) => path.clone(),
        }
    }

    /// What `work` returns in there: a socket made in it stays in it, and works from everywhere.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.file();
        let fault = |source| Error::os(Step::EnterNamespace, source).of(path.display());
        let file = File::open(&path).map_err(fault)?;
        netns::within(file.as_fd(), work).map_err(fault)?
    }
}
