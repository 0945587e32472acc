//! What the async layer needs of a socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::afpacket::{Capture, Injector};
use crate::error::Result;
use crate::packet::Offload;
use crate::ring::batch::PacketBatch;
use crate::wait::{Empty, KickOutcome, StopHandle};

/// A bound socket as [`AsyncReceiver`](super::AsyncReceiver) sees it. Sealed: implemented by this crate's sockets.
pub trait RxPort: Sealed {}

/// The methods of [`RxPort`], which are nobody else's business.
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

impl RxPort for Capture {}

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

/// A bound socket that sends, as [`AsyncSender`](super::AsyncSender) sees it. Sealed: implemented by this crate's
/// sockets.
pub trait TxPort: SealedTx {}

/// The methods of [`TxPort`], which are nobody else's business.
pub trait SealedTx: Unpin + 'static {
    /// What a frame has beside its bytes.
    type Extra: Copy + Default;

    /// The descriptor to kick.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// One kick, if there is anything to hand over, and what it came to.
    fn kick(&mut self) -> Result<KickOutcome>;
    /// What a kick came to that was answered like this.
    fn judge(&mut self, answer: io::Result<()>) -> Result<KickOutcome>;
    /// Frames committed that the kernel has not begun to send.
    fn pending(&mut self) -> usize;
    /// Whether everything that was committed is sent.
    fn is_drained(&mut self) -> bool;
    /// The most bytes of a frame that is written in place.
    fn capacity(&self) -> usize;
    /// Whether a frame of `len` bytes, which may be above the capacity where it can be sent, has room now.
    fn has_room(&mut self, len: usize) -> bool;
    /// Whether `frame` can be sent at all.
    fn check_frame(&mut self, frame: &[u8]) -> Result<()>;
    /// Commits a copy of a frame that was checked, and for which there is room.
    fn copy(&mut self, frame: &[u8]) -> Result<()>;
    /// The most bytes that a frame may have.
    fn most(&self) -> usize;
    /// The first `len` bytes of the next free slot, which there is.
    fn vacant_ref(&self, len: usize) -> &[u8];
    /// The same, to be written.
    fn vacant_bytes(&mut self, len: usize) -> &mut [u8];
    /// Commits the next free slot.
    fn commit(&mut self, len: usize, extra: Self::Extra) -> Result<()>;
}

impl TxPort for Injector {}

impl SealedTx for Injector {
    type Extra = Offload;

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn kick(&mut self) -> Result<KickOutcome> {
        self.kick()
    }

    fn judge(&mut self, answer: io::Result<()>) -> Result<KickOutcome> {
        self.judge(answer)
    }

    fn pending(&mut self) -> usize {
        self.pending()
    }

    fn is_drained(&mut self) -> bool {
        self.available_slots() == self.frame_count()
    }

    fn capacity(&self) -> usize {
        self.frame_capacity()
    }

    fn has_room(&mut self, _len: usize) -> bool {
        self.has_vacant()
    }

    fn check_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.check_frame(frame)
    }

    fn copy(&mut self, frame: &[u8]) -> Result<()> {
        self.send(frame)
    }

    fn most(&self) -> usize {
        self.frame_capacity()
    }

    fn vacant_ref(&self, len: usize) -> &[u8] {
        self.vacant_ref(len)
    }

    fn vacant_bytes(&mut self, len: usize) -> &mut [u8] {
        self.vacant_bytes(len)
    }

    fn commit(&mut self, len: usize, offload: Offload) -> Result<()> {
        self.commit(len, offload)
    }
}
