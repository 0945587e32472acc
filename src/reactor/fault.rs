//! The reasons why a reactor has no ring to work with.

use std::io;
use std::time::Duration;

use crate::error::{Error, Step};

/// The reason why a reactor's use of io_uring ended or never began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `io_uring_setup` failed with this errno.
    Refused(i32),
    /// No mode of io_uring signals a host for each completion.
    Unsignalled,
    /// `io_uring_enter` failed with this errno.
    Enter(i32),
    /// The poll that ends parks failed with this errno.
    Poll(i32),
    /// This process is a child of the process that created the ring.
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

    /// Returns whether `poll(2)` may take over from io_uring.
    pub(super) fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::Refused(
                libc::EPERM
                    | libc::EACCES
                    | libc::ENOSYS
                    | libc::EINVAL
                    | libc::ENOMEM
                    | libc::EAGAIN
                    | libc::EOPNOTSUPP
                    | libc::EMFILE
                    | libc::ENFILE
            ) | Self::Enter(
                libc::EPERM
                    | libc::EACCES
                    | libc::ENOSYS
                    // Returned for so long that retrying is pointless.
                    | libc::EAGAIN
                    | libc::EBUSY
                    | libc::EINTR
            )
        )
    }
}

/// The number of consecutive enters that the kernel refused without doing anything.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Fruitless(u32);

impl Fruitless {
    /// Refusals that signals can explain; they are not followed by a pause.
    const SIGNALS: u32 = 8;
    /// Refusals, each followed by a pause, before the ring is given up: about one second in all.
    const PAUSES: u32 = 64;
    const PAUSES_HOSTED: u32 = 1024;
    const LONGEST: Duration = Duration::from_millis(16);
    /// Shorter, since a host has other tasks.
    const LONGEST_HOSTED: Duration = Duration::from_millis(1);

    /// Counts a refusal and returns whether there were more than signals can explain.
    pub(super) fn count_refusal(&mut self) -> bool {
        self.0 += 1;
        self.0 > Self::SIGNALS
    }

    /// Returns how long to pause before the next round, or `None` after too many refusals.
    pub(super) fn pause(self, is_hosted: bool) -> Option<Duration> {
        let round = self.0.saturating_sub(Self::SIGNALS);
        let (rounds, longest) = match is_hosted {
            true => (Self::PAUSES_HOSTED, Self::LONGEST_HOSTED),
            false => (Self::PAUSES, Self::LONGEST),
        };
        if round > rounds {
            return None;
        }
        Some(Duration::from_millis(1 << round.min(4)).min(longest))
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(errno) => {
                Self::IoUringRefused { source: io::Error::from_raw_os_error(errno) }
            }
            Fault::Unsignalled => Self::HostUnsignalled,
            Fault::Enter(errno) => Self::os(Step::EnterRing, io::Error::from_raw_os_error(errno)),
            Fault::Poll(errno) => Self::os(Step::PollSocket, io::Error::from_raw_os_error(errno)),
            Fault::Forked => Self::Forked,
            Fault::Ended => Self::ReactorGone,
        }
    }
}
