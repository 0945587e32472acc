//! The backend that serves a reactor's requests: an io_uring or, if that is refused, `poll(2)`.

use std::os::fd::RawFd;
use std::time::Duration;

use super::enter::{Completion, Wait};
use super::fallback::Poller;
use super::fault::Fault;
#[cfg(feature = "record")]
use super::file_op::FileRequest;
use super::ring_timer::Setting;
use super::token::Token;
use super::uring::Uring;

#[derive(Debug)]
pub(super) enum Engine {
    Uring(Uring),
    Poll(Poller),
}

impl Engine {
    /// Queues a poll, which may post many completions unless it `is_oneshot`. The queue must have room.
    pub(super) fn push_poll(&mut self, fd: RawFd, events: u32, token: Token, is_oneshot: bool) {
        match self {
            Self::Uring(uring) => uring.push_poll(fd, events, token, !is_oneshot),
            Self::Poll(poller) => poller.push_poll(fd, events, token),
        }
    }

    /// Queues a kick. A silent kick posts a completion only if it fails, as far as the kernel supports that.
    /// The queue must have room.
    pub(super) fn push_kick(&mut self, fd: RawFd, token: Token, is_silent: bool) {
        match self {
            Self::Uring(uring) => uring.push_kick(fd, token, is_silent),
            Self::Poll(poller) => poller.push_kick(fd, token),
        }
    }

    /// Queues an operation on a file. The queue must have room. Without io_uring, it is done at once.
    #[cfg(feature = "record")]
    pub(super) fn push_file(&mut self, request: FileRequest<'_>, token: Token) {
        match self {
            Self::Uring(uring) => uring.push_file(request, token),
            Self::Poll(poller) => poller.push_file(request, token),
        }
    }

    /// Queues the cancellation of an op. The queue must have room.
    pub(super) fn push_cancel(&mut self, token: Token) {
        match self {
            Self::Uring(uring) => uring.push_cancel(token),
            Self::Poll(poller) => poller.push_cancel(token),
        }
    }

    /// Returns whether this engine has a timer that can be set.
    pub(super) fn has_ring_timer(&self) -> bool {
        matches!(self, Self::Uring(_))
    }

    /// Queues the timer, or moves it to an earlier time. The queue must have room.
    pub(super) fn push_ring_timer(&mut self, setting: Setting, time: Duration) {
        match self {
            Self::Uring(uring) => uring.push_ring_timer(setting, time),
            Self::Poll(_) => {} // it has no timer
        }
    }

    /// Returns whether there is no room for another request until the next enter.
    pub(super) fn is_full(&mut self) -> bool {
        match self {
            Self::Uring(uring) => uring.is_full(),
            Self::Poll(_) => false,
        }
    }

    /// Returns whether the kernel has yet to take queued requests.
    pub(super) fn has_queued(&mut self) -> bool {
        match self {
            Self::Uring(uring) => uring.has_queued(),
            Self::Poll(poller) => poller.has_queued(),
        }
    }

    /// Returns whether a turn has to enter.
    pub(super) fn needs_enter(&mut self) -> bool {
        match self {
            Self::Uring(uring) => uring.needs_enter(),
            Self::Poll(poller) => poller.needs_enter(),
        }
    }

    /// Returns whether the kernel has announced completions that it will post with the next enter.
    pub(super) fn is_announced(&mut self) -> bool {
        match self {
            Self::Uring(uring) => !uring.is_foreign() && uring.is_announced(),
            Self::Poll(_) => false,
        }
    }

    pub(super) fn has_overflowed(&mut self) -> bool {
        match self {
            Self::Uring(uring) => uring.has_overflowed(),
            Self::Poll(_) => false,
        }
    }

    /// Submits queued requests and, if asked, waits for a completion.
    pub(super) fn enter(&mut self, wait: Wait) -> Result<(), Fault> {
        match self {
            Self::Uring(uring) => uring.enter(wait),
            Self::Poll(poller) => poller.enter(wait),
        }
    }

    /// Moves the available completions to `into`.
    pub(super) fn reap(&mut self, into: &mut Vec<Completion>) {
        match self {
            Self::Uring(uring) => into.extend(uring.reap()),
            Self::Poll(poller) => poller.reap(into),
        }
    }

    /// Returns whether this process is a forked child, which does not own the engine.
    pub(super) fn is_foreign(&self) -> bool {
        match self {
            Self::Uring(uring) => uring.is_foreign(),
            Self::Poll(poller) => poller.is_foreign(),
        }
    }

    /// Returns whether polls report each event once instead of for as long as a state lasts.
    pub(super) fn is_edge_triggered(&self) -> bool {
        matches!(self, Self::Uring(_))
    }

    /// Closes the engine: the kernel cancels pending requests and releases the engine in its own time.
    pub(super) fn close(self) {
        match self {
            Self::Uring(uring) => uring.close(),
            Self::Poll(_) => {}
        }
    }
}
