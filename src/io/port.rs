//! What the async layer needs of a socket.

use std::os::fd::{AsFd, BorrowedFd};

use crate::wait::{Empty, StopHandle};
use crate::{Capture, PacketBatch, Result};

/// A bound socket as [`Async`](super::Async) sees it. Sealed: implemented by this crate's sockets.
pub trait Port: Sealed {}

/// The methods of [`Port`], which are nobody else's business.
pub trait Sealed: Unpin + 'static {
    /// The descriptor to poll.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// The next batch; where a stop was asked for, no further packet gets in from here on.
    fn take(&mut self) -> Result<Option<PacketBatch>>;
    /// Whether [`take`](Self::take) would return a batch.
    fn is_ready(&self) -> bool;
    /// What to do now that there is none.
    fn when_empty(&mut self) -> Result<Empty>;
    /// Looks after the link.
    fn check_link(&mut self) -> Result<()>;
    /// Whether the link must be looked after while waiting.
    fn is_link_down(&self) -> bool;
    /// Makes or returns the stop handle.
    fn stop_handle(&mut self) -> Result<StopHandle>;
    /// The stop handle, if one was made.
    fn known_stop(&self) -> Option<&StopHandle>;
}

impl Port for Capture {}

impl Sealed for Capture {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn take(&mut self) -> Result<Option<PacketBatch>> {
        self.take()
    }

    fn is_ready(&self) -> bool {
        self.has_ready_batch()
    }

    fn when_empty(&mut self) -> Result<Empty> {
        self.when_empty()
    }

    fn check_link(&mut self) -> Result<()> {
        self.check_link()
    }

    fn is_link_down(&self) -> bool {
        self.is_link_down()
    }

    fn stop_handle(&mut self) -> Result<StopHandle> {
        self.stop_handle()
    }

    fn known_stop(&self) -> Option<&StopHandle> {
        self.known_stop()
    }
}
