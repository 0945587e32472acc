//! The interface between the sockets, which implement it beside themselves, and whatever waits for them: the async
//! layer, or a waiter of the user's own.

use std::io;
use std::iter::FusedIterator;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ring::batch::PacketBatch;
use crate::wait::{Empty, KickOutcome, Stall, StopHandle};

/// A bound receiving socket, as whatever waits for it sees it.
///
/// Where a reactor fits, [`AsyncReceiver`](crate::capture::AsyncReceiver) waits. A waiter of your own, on `poll(2)`, epoll or a
/// runtime's readiness, follows this protocol, which makes no call that sleeps:
///
/// 1. Call [`try_next`](Self::try_next) until it is not a batch. [`TryNext::End`] and an error are final.
/// 2. On [`TryNext::Wait`], wait for the first of: the socket's descriptor is readable; it has an error
///    (`POLLERR`, `EPOLLERR`); the [`StopHandle`] is readable, if `stop` asks for that; `at_most` is over.
/// 3. If the descriptor had an error, call [`check_error`](Self::check_error). Begin again.
///
/// Errors must be waited for as well: the kernel reports an interface that goes down or is removed in no other way, and a
/// waiter for reading alone would never learn of it. Edges are enough (`EPOLLET`); with levels, a block that is still held
/// keeps the socket readable, and the waiter would spin.
///
/// ```no_run
/// use std::os::fd::AsRawFd;
/// use ringtap::capture::{Capture, RxPort, TryNext};
///
/// # fn main() -> ringtap::Result<()> {
/// let mut capture = Capture::open("eth0")?;
/// loop {
///     match capture.try_next()? {
///         TryNext::Batch(batch) => println!("{} packets", batch.len()),
///         TryNext::Wait { at_most, .. } => { // no stop handle was made here
///             let mut poll = libc::pollfd { fd: capture.as_raw_fd(), events: libc::POLLIN, revents: 0 };
///             let limit = at_most.map_or(-1, |most| most.as_millis() as i32 + 1);
///             // SAFETY: `poll` is one entry.
///             unsafe { libc::poll(&mut poll, 1, limit) };
///             if poll.revents & libc::POLLERR != 0 {
///                 capture.check_error()?;
///             }
///         }
///         _ => return Ok(()),
///     }
/// }
/// # }
/// ```
///
/// Sealed: only this crate's sockets implement it, and what it builds on cannot be called from outside:
///
/// ```compile_fail
/// fn take<P: ringtap::capture::RxPort>(port: &mut P) {
///     let _ = port.take();
/// }
/// ```
#[expect(private_bounds, reason = "only sockets of this crate are ports")]
pub trait RxPort: Receive + AsFd + AsRawFd + Send + Sync {
    /// Takes the next batch, or returns what to wait for. Never waits, and as a rule makes no system call while batches are
    /// there: the kernel is asked for its losses now and then, for a stop, and by AF_XDP to take buffers back if the driver
    /// wants to be told.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`](crate::Error::InterfaceGone) once the interface was removed and its last packets are
    /// delivered; [`Error::Os`](crate::Error::Os) if the kernel refuses statistics or a filter while the socket is being
    /// stopped.
    fn try_next(&mut self) -> Result<TryNext> {
        // Looked at first: a stop that comes in between must still be waited for.
        let stop = self.known_stop().is_some_and(|stop| !stop.is_stopped());
        if let Some(batch) = self.take()? {
            return Ok(TryNext::Batch(batch));
        }
        if self.must_check_link() {
            self.check_link()?;
        }
        Ok(match self.when_empty()? {
            Empty::Wait => TryNext::Wait { at_most: None, stop },
            Empty::WaitAtMost(time) => TryNext::Wait { at_most: Some(time), stop },
            Empty::End => TryNext::End,
        })
    }

    /// Finds out what an error on the descriptor meant.
    ///
    /// # Errors
    /// The errors of [`try_next`](Self::try_next). An interface that is down is not an error: packets arrive again when
    /// it is up.
    fn check_error(&mut self) -> Result<()> {
        self.check_link()
    }

    /// Creates or returns the handle that ends receiving; see [`Capture::stop_handle`](crate::Capture::stop_handle).
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) if there is no descriptor left for it.
    fn stop_handle(&mut self) -> Result<StopHandle>;

    /// Returns the stop handle, if one was created.
    fn known_stop(&self) -> Option<&StopHandle>;
}

/// What a receiving socket has; from [`RxPort::try_next`].
#[derive(Debug)]
#[non_exhaustive]
pub enum TryNext {
    /// The next batch.
    Batch(PacketBatch),
    /// Nothing now: wait for the socket.
    #[non_exhaustive]
    Wait {
        /// How long to wait before the next look in any case.
        at_most: Option<Duration>,
        /// Whether to wait for the [`StopHandle`], too. Once stopped it stays readable, and the socket needs time to
        /// drain.
        stop: bool,
    },
    /// A [`StopHandle`] has ended the socket, and all packets are delivered.
    End,
}

/// What the async layer asks of a [`RxPort`].
pub(crate) trait Receive: AsFd + Unpin + 'static {
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
}

/// A bound sending socket, as whatever waits for it sees it.
///
/// Where a reactor fits, [`AsyncSender`](crate::inject::AsyncSender) waits. A waiter of your own commits frames until there is
/// no room ([`try_send`](Self::try_send), or the socket's own slots), hands them over with [`try_flush`](Self::try_flush), and
/// waits for what that returns. No method here sleeps.
///
/// Sealed, like [`RxPort`](crate::capture::RxPort).
#[expect(private_bounds, reason = "only sockets of this crate are ports")]
pub trait TxPort: Transmit + AsFd + AsRawFd + Send + Sync {
    /// Commits a copy of `frame`. Returns false if there is no room for it now. Makes no system call, but for a frame longer
    /// than the MTU was when it was last asked for.
    ///
    /// # Errors
    /// [`Error::FrameLength`](crate::Error::FrameLength).
    fn try_send(&mut self, frame: &[u8]) -> Result<bool> {
        self.check_frame(frame)?;
        if !self.has_room(frame.len()) {
            return Ok(false);
        }
        self.copy(frame)?;
        Ok(true)
    }

    /// Returns whether there is room now for a frame of `len` bytes. `len` may exceed what is written in place if such a
    /// frame can be sent.
    fn has_room(&mut self, len: usize) -> bool;

    /// Returns the most bytes that a frame may have.
    fn most(&self) -> usize;

    /// Returns the most bytes of a frame that is written in place.
    fn frame_capacity(&self) -> usize {
        self.capacity()
    }

    /// Returns the number of committed frames that the kernel has not begun to send.
    fn pending(&mut self) -> usize;

    /// Returns whether everything that was committed is sent.
    fn is_drained(&mut self) -> bool;

    /// Writes a frame of `len` bytes in place with `fill`, and commits it. Returns `None`, and does not call `fill`, if there is
    /// no room for it now. The bytes that `fill` finds are those of an earlier frame. Makes no system call.
    ///
    /// # Errors
    /// [`Error::FrameLength`](crate::Error::FrameLength); the frame is then not committed.
    fn try_write<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> Result<Option<R>>
    where
        Self: Sized,
    {
        let most = self.capacity();
        if len > most {
            return Err(Error::FrameLength { len, least: 0, most });
        }
        if !self.has_room(len) {
            return Ok(None);
        }
        let output = fill(self.vacant_bytes(len));
        self.commit(len, Self::Extra::default())?;
        Ok(Some(output))
    }

    /// Hands over committed frames, with as many kicks as the kernel takes frames from, and returns what to wait for until
    /// the next call if frames are left.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`](crate::Error::InterfaceGone) once the interface was removed;
    /// [`Error::Os`](crate::Error::Os) otherwise. An interface that is down is not an error here.
    fn try_flush(&mut self) -> Result<TryFlush> {
        loop {
            return Ok(match self.kick()?.stall {
                Stall::Again => continue,
                Stall::Done => TryFlush::Done,
                Stall::Buffer => TryFlush::BufferFull,
                Stall::Queue => TryFlush::QueueFull,
                Stall::Link => TryFlush::LinkDown,
            });
        }
    }
}

/// Why frames are left, and so what to wait for; from [`TxPort::try_flush`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryFlush {
    /// No frames are left.
    Done,
    /// The socket's send buffer is full: wait until the descriptor is writable, and look again after 5 ms at the latest. With
    /// time stamps that nobody has read, the descriptor has an error all the time: take a pause only.
    BufferFull,
    /// The interface's queue is full, and nothing reports when that ends: look again after a pause, of 20 µs at first,
    /// twice as long each time up to 5 ms.
    QueueFull,
    /// The interface is down: look again every 20 ms or so. The frames stay, and are sent once it is up.
    LinkDown,
}

/// What the async layer asks of a [`TxPort`].
pub(crate) trait Transmit: AsFd + Unpin + 'static {
    /// Options of a frame beside its bytes.
    type Extra: Copy + Default;

    /// Kicks once, if there is anything to hand over, and returns the outcome.
    fn kick(&mut self) -> Result<KickOutcome>;
    /// Returns the outcome of a kick that was answered with `answer`.
    fn judge(&mut self, answer: io::Result<()>) -> Result<KickOutcome>;
    /// Returns the most bytes of a frame that is written in place.
    fn capacity(&self) -> usize;
    /// Checks whether `frame` can be sent at all.
    fn check_frame(&mut self, frame: &[u8]) -> Result<()>;
    /// Commits a copy of a frame that was checked, and for which there is room.
    fn copy(&mut self, frame: &[u8]) -> Result<()>;
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
