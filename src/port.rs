//! The interface between the async layer and the sockets, which implement it beside themselves.

use std::io;
use std::iter::FusedIterator;
use std::os::fd::BorrowedFd;

use crate::error::Result;
use crate::ring::batch::PacketBatch;
use crate::wait::{Empty, KickOutcome, StopHandle};

/// A bound socket as [`AsyncReceiver`](crate::capture::AsyncReceiver) sees it.
///
/// Sealed: only this crate's sockets implement it, and its methods cannot be called from outside:
///
/// ```compile_fail
/// fn take<P: ringtap::capture::RxPort>(port: &mut P) {
///     let _ = port.take();
/// }
/// ```
#[expect(private_bounds, reason = "only sockets of this crate are ports")]
pub trait RxPort: Receive {}

/// What the async layer asks of a [`RxPort`].
pub(crate) trait Receive: Unpin + 'static {
    /// Returns the descriptor to poll.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// Takes the next batch; if a stop was requested, the intake is closed first.
    fn take(&mut self) -> Result<Option<PacketBatch>>;
    /// Returns whether [`take`](Self::take) would return a batch.
    fn is_ready(&self) -> bool;
    /// Returns what to do when there is no batch.
    fn when_empty(&mut self) -> Result<Empty>;
    /// Checks the link.
    fn check_link(&mut self) -> Result<()>;
    /// Returns whether the link must be checked while waiting.
    fn must_check_link(&self) -> bool;
    /// Creates or returns the stop handle.
    fn stop_handle(&mut self) -> Result<StopHandle>;
    /// Returns the stop handle, if one was created.
    fn known_stop(&self) -> Option<&StopHandle>;
}

/// A bound sending socket as [`AsyncSender`](crate::inject::AsyncSender) sees it.
///
/// Sealed, like [`RxPort`](crate::capture::RxPort).
#[expect(private_bounds, reason = "only sockets of this crate are ports")]
pub trait TxPort: Transmit {}

/// What the async layer asks of a [`TxPort`].
pub(crate) trait Transmit: Unpin + 'static {
    /// Options of a frame beside its bytes.
    type Extra: Copy + Default;

    /// Returns the descriptor to kick.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// Kicks once, if there is anything to hand over, and returns the outcome.
    fn kick(&mut self) -> Result<KickOutcome>;
    /// Returns the outcome of a kick that was answered with `answer`.
    fn judge(&mut self, answer: io::Result<()>) -> Result<KickOutcome>;
    /// Returns the number of committed frames that the kernel has not begun to send.
    fn pending(&mut self) -> usize;
    /// Returns whether everything that was committed is sent.
    fn is_drained(&mut self) -> bool;
    /// Returns the most bytes of a frame that is written in place.
    fn capacity(&self) -> usize;
    /// Returns whether there is room now for a frame of `len` bytes. `len` may exceed the capacity if such a frame
    /// can be sent.
    fn has_room(&mut self, len: usize) -> bool;
    /// Checks whether `frame` can be sent at all.
    fn check_frame(&mut self, frame: &[u8]) -> Result<()>;
    /// Commits a copy of a frame that was checked, and for which there is room.
    fn copy(&mut self, frame: &[u8]) -> Result<()>;
    /// Returns the most bytes that a frame may have.
    fn most(&self) -> usize;
    /// Returns the first `len` bytes of the next free slot, which must exist.
    fn vacant_ref(&self, len: usize) -> &[u8];
    /// Returns the first `len` bytes of the next free slot for writing.
    fn vacant_bytes(&mut self, len: usize) -> &mut [u8];
    /// Commits the next free slot.
    fn commit(&mut self, len: usize, extra: Self::Extra) -> Result<()>;
}

/// An iterator that waits for each batch of a socket, until a [`StopHandle`] ends it; an error is its last item. From
/// [`Capture::batches`](crate::Capture::batches) and [`XdpReceiver::batches`](crate::xdp::XdpReceiver::batches).
#[derive(Debug)]
pub struct Batches<'a, P> {
    port: &'a mut P,
    wait: fn(&mut P) -> Result<Option<PacketBatch>>,
    is_over: bool,
}

impl<'a, P> Batches<'a, P> {
    pub(crate) fn new(port: &'a mut P, wait: fn(&mut P) -> Result<Option<PacketBatch>>) -> Self {
        Self { port, wait, is_over: false }
    }
}

impl<P> Iterator for Batches<'_, P> {
    type Item = Result<PacketBatch>;

    fn next(&mut self) -> Option<Result<PacketBatch>> {
        if self.is_over {
            return None;
        }
        let next = (self.wait)(self.port).transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl<P> FusedIterator for Batches<'_, P> {}
