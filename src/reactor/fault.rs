//! Why a reactor has no ring to work with.

use std::io;

use crate::{Error, Step};

/// What ended a reactor's use of io_uring, or kept it from beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `io_uring_setup` answered this errno.
    Refused(i32),
    /// `io_uring_enter` answered this errno.
    Enter(i32),
    /// The poll that ends parks answered this errno.
    Poll(i32),
    /// This process is a child of the one that made the ring.
    Forked,
    /// The reactor was shut down.
    Ended,
}

impl Fault {
    pub(super) fn of_setup(error: &io::Error) -> Self {
        Self::Refused(error.raw_os_error().unwrap_or(libc::EIO))
    }

    pub(super) fn of_poll(error: &io::Error) -> Self {
        Self::Poll(error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// Whether `poll(2)` may do what io_uring did not.
    pub(super) fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::Refused(libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL | libc::ENOMEM)
                | Self::Enter(libc::EPERM | libc::EACCES | libc::ENOSYS)
        )
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(errno) => {
                Self::IoUringRefused { source: io::Error::from_raw_os_error(errno) }
            }
            Fault::Enter(errno) => Self::os(Step::EnterRing, io::Error::from_raw_os_error(errno)),
            Fault::Poll(errno) => Self::os(Step::PollSocket, io::Error::from_raw_os_error(errno)),
            Fault::Forked => Self::Forked,
            Fault::Ended => Self::ReactorGone,
        }
    }
}
