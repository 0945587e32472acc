//! Async sockets: one receiver for every socket that is a [`RxPort`], and transmission.
//!
//! The ring is authoritative, and a completion only a hint to look at it: every wait first takes from the ring, and
//! sleeps only if it is empty. So nothing is lost between looking and sleeping, whatever the kernel coalesces, and
//! dropping a wait at any point loses nothing either.

mod pacer;
mod transmit;
#[cfg(feature = "af-xdp")]
mod xdp;

use std::fmt;
use std::future::{Future, poll_fn};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_core::Stream;
use futures_core::stream::FusedStream;
use ringtap_filter::BpfFilter;

pub use self::pacer::Pacer;
pub use self::transmit::{AsyncInjector, AsyncSender, AsyncTxSlot, TxRef};
#[cfg(feature = "af-xdp")]
pub use self::xdp::{AsyncXdpReceiver, AsyncXdpSender, AsyncXdpSocket};
use crate::afpacket::{Capture, FilterHandle, StatsHandle};
use crate::error::{Error, Result};
use crate::packet::{LinkType, Packet};
use crate::port::RxPort;
use crate::reactor::{Reactor, Registration};
use crate::ring::batch::PacketBatch;
use crate::stats::CaptureStats;
use crate::time::{self, Budget, Sleep};
use crate::wait::{Empty, StopHandle};

/// A receiving socket on this thread's reactor. See [`AsyncCapture`].
///
/// The receiver stays on its thread; its batches can be sent to others.
///
/// Dropping it cancels its poll and closes the socket at the reactor's next turn; [`close`](Self::close) waits for
/// that.
pub struct AsyncReceiver<S: RxPort> {
    // Dropped before the port: the poll is cancelled while its descriptor is still open.
    registration: Registration,
    stop: Option<Registration>,
    /// Set while the ring must be checked without a notification (the link is down, or the socket drains): when, and the
    /// sleep until then.
    look_again: Option<(Instant, Sleep)>,
    budget: Budget,
    has_failed: bool,
    /// Whether there are no more batches.
    is_over: bool,
    port: S,
}

/// Captures packets on this thread's reactor: a `Stream` of zero-copy batches.
///
/// ```no_run
/// use ringtap::{AsyncCapture, executor};
///
/// # fn main() -> ringtap::Result<()> {
/// executor::block_on(async {
///     let mut capture = AsyncCapture::open("eth0")?;
///     while let Some(batch) = capture.next_batch().await? {
///         for packet in &batch {
///             println!("{} {} bytes", packet.timestamp(), packet.len());
///         }
///     }
///     Ok(())
/// })
/// # }
/// ```
///
/// The capture cannot leave its thread (a `Send` one, for `tokio::spawn`, is `ringtap_tokio::Capture`; for any executor it is
/// `channel::ChannelCapture`), but its batches can:
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// # fn f(capture: ringtap::AsyncCapture) {
/// send(capture); // belongs to its thread's reactor
/// # }
/// ```
/// ```
/// fn send<T: Send + Sync + 'static>() {}
/// send::<ringtap::PacketBatch>();
/// ```
pub type AsyncCapture = AsyncReceiver<Capture>;

impl<S: RxPort> AsyncReceiver<S> {
    /// Registers a socket with this thread's reactor.
    ///
    /// # Errors
    /// [`Error::NoReactor`](crate::Error::NoReactor), [`Error::IoUringRefused`](crate::Error::IoUringRefused), or
    /// [`Error::TooManyOps`](crate::Error::TooManyOps).
    pub fn new(port: S) -> Result<Self> {
        Self::attach(port).map_err(|lost| lost.0)
    }

    /// Returns the receiver itself, which is already a stream of batches; the name is netring's.
    pub fn into_stream(self) -> Self {
        self
    }

    /// Registers a socket like [`new`](Self::new), but returns the socket on failure.
    pub(crate) fn attach(port: S) -> Result<Self, Box<(Error, S)>> {
        let register = || {
            let reactor = Reactor::current()?;
            let registration = Registration::new(&reactor, port.as_fd())?;
            let stop = match port.known_stop() {
                Some(stop) => Some(Registration::new(&reactor, stop.as_fd())?),
                None => None,
            };
            Ok((registration, stop))
        };
        match register() {
            Ok((registration, stop)) => {
                let (look_again, budget) = (None, Budget::new());
                let (has_failed, is_over) = (false, false);
                Ok(Self { registration, stop, look_again, budget, has_failed, is_over, port })
            }
            Err(error) => Err(Box::new((error, port))),
        }
    }

    /// Waits for the next batch.
    ///
    /// Returns `None` once a [`StopHandle`] has ended the capture and all packets are delivered, and after an
    /// error.
    ///
    /// Cancel-safe: a wait that is dropped has taken nothing. After 200 µs without a wait it gives the rest of the thread
    /// a turn, so that a flood starves neither its other tasks nor the I/O of a host; within a batch,
    /// [`for_each_packet`](Self::for_each_packet) and [`Budget`] do that.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`](crate::Error::InterfaceGone) once the interface was removed and its last packets
    /// are delivered; [`Error::ReactorGone`](crate::Error::ReactorGone) outside of the executor in which the socket
    /// was created. An interface that is down is not an error: packets arrive again when it is up.
    pub async fn next_batch(&mut self) -> Result<Option<PacketBatch>> {
        poll_fn(|cx| self.poll_next_batch(cx)).await.transpose()
    }

    /// Calls `each` for each packet until the capture ends, and gives the rest of the thread a turn about every 200 µs,
    /// also within a batch ([`Budget`]).
    ///
    /// Cancel-safe in the sense that nothing stays behind; packets of the current batch that `each` has not been called
    /// for are lost.
    ///
    /// # Errors
    /// The errors of [`next_batch`](Self::next_batch).
    pub async fn for_each_packet(&mut self, mut each: impl FnMut(Packet<'_>)) -> Result<()> {
        while let Some(batch) = self.next_batch().await? {
            for packet in &batch {
                each(packet);
                self.budget.spend().await;
            }
        }
        Ok(())
    }

    /// Waits until a batch is ready or the capture has ended, without taking anything. Cancel-safe.
    ///
    /// # Errors
    /// The errors of [`next_batch`](Self::next_batch).
    pub async fn readable(&mut self) -> Result<()> {
        poll_fn(|cx| {
            loop {
                if self.has_failed || self.port.is_ready() {
                    return Poll::Ready(Ok(()));
                }
                if let Filled::End = ready!(self.poll_filled(cx))? {
                    return Poll::Ready(Ok(()));
                }
            }
        })
        .await
    }

    /// Returns a handle that ends this capture from any thread; see [`Capture::stop_handle`].
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) if there is no descriptor left for it,
    /// [`Error::TooManyOps`](crate::Error::TooManyOps), [`Error::ReactorGone`](crate::Error::ReactorGone).
    pub fn stop_handle(&mut self) -> Result<StopHandle> {
        let handle = self.port.stop_handle()?;
        if self.stop.is_none() {
            self.stop = Some(self.registration.sibling(handle.as_fd())?);
        }
        Ok(handle)
    }

    /// Returns the socket.
    pub fn get_ref(&self) -> &S {
        &self.port
    }

    /// Takes the socket back, for blocking use or for another thread's reactor.
    ///
    /// The reactor cancels its poll at the next turn; if the socket is dropped before that, it stays open until
    /// then.
    pub fn into_inner(self) -> S {
        self.port
    }

    /// Closes the socket. When this completes, the socket is gone from the kernel and from its fanout group.
    ///
    /// If this future is dropped before it completes, the socket is still closed, at the reactor's next turn.
    pub async fn close(self) {
        drop(self.release().await);
    }

    /// Waits until the reactor has let go of the socket.
    pub(crate) async fn release(self) -> S {
        let Self { registration, stop, port, .. } = self;
        let registrations: [Option<Registration>; 2] = [Some(registration), stop];
        registrations.iter().flatten().for_each(Registration::release);
        for registration in registrations.iter().flatten() {
            poll_fn(|cx| registration.poll_released(cx)).await;
        }
        port
    }

    fn poll_next_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<PacketBatch>>> {
        if self.has_failed {
            return Poll::Ready(None);
        }
        if self.budget.is_spent() {
            ready!(self.budget.poll_turn(cx));
        }
        loop {
            match self.port.take() {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    self.registration.was_of_use();
                    self.budget.look();
                    return Poll::Ready(Some(Ok(batch)));
                }
                Err(error) => {
                    self.has_failed = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
            match ready!(self.poll_filled(cx)) {
                Ok(Filled::LookAgain) => {}
                Ok(Filled::End) => {
                    self.is_over = true;
                    return Poll::Ready(None);
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Waits on an empty ring until it is worth another look.
    fn poll_filled(&mut self, cx: &mut Context<'_>) -> Poll<Result<Filled>> {
        let polled = self.try_poll_filled(cx);
        match &polled {
            Poll::Ready(Err(_)) => self.has_failed = true,
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => self.budget.renew(),
        }
        polled
    }

    fn try_poll_filled(&mut self, cx: &mut Context<'_>) -> Poll<Result<Filled>> {
        // Checked before the port is asked: a stop that comes in between must still be waited for.
        let was_stopped = self.port.known_stop().is_some_and(StopHandle::is_stopped);
        match self.port.when_empty()? {
            Empty::End => return Poll::Ready(Ok(Filled::End)),
            Empty::Wait => self.look_again = None,
            Empty::WaitAtMost(step) => {
                // Never later than the port asks for now, whatever it asked for before.
                let due = Instant::now() + step;
                if self.look_again.as_ref().is_none_or(|(sooner, _)| due < *sooner) {
                    self.look_again = Some((due, time::sleep(step)));
                }
            }
        }
        let mut look = false;
        if let Poll::Ready(ready) = self.registration.poll_ready(cx) {
            if ready?.has_error() {
                self.port.check_link()?;
            }
            look = true;
        }
        // Once the stop is known, the port decides what to wait for.
        if let Some(stop) = &self.stop
            && !was_stopped
        {
            look |= stop.poll_ready(cx).map(|ready| ready.map(|_| ()))?.is_ready();
        }
        if let Some((_, sleep)) = &mut self.look_again
            && Pin::new(sleep).poll(cx).is_ready()
        {
            self.look_again = None;
            if self.port.must_check_link() {
                self.port.check_link()?;
            }
            look = true;
        }
        if look { Poll::Ready(Ok(Filled::LookAgain)) } else { Poll::Pending }
    }
}

/// The result of a wait on an empty ring.
enum Filled {
    LookAgain,
    End,
}

impl AsyncReceiver<Capture> {
    /// Opens a capture with the default options on an interface of this network namespace.
    ///
    /// # Errors
    /// The errors of [`CaptureBuilder::build`](crate::capture::CaptureBuilder::build) and [`new`](Self::new).
    pub fn open(interface: &str) -> Result<Self> {
        Self::new(Capture::open(interface)?)
    }

    /// Returns the running totals; see [`Capture::stats`].
    ///
    /// # Errors
    /// The errors of [`Capture::stats`].
    pub fn stats(&self) -> Result<CaptureStats> {
        self.port.stats()
    }

    /// Returns a handle to read the statistics from other threads.
    pub fn stats_handle(&self) -> StatsHandle {
        self.port.stats_handle()
    }

    /// Replaces the filter; see [`Capture::set_filter`].
    ///
    /// # Errors
    /// The errors of [`Capture::set_filter`].
    pub fn set_filter(&self, filter: &BpfFilter) -> Result<()> {
        self.port.set_filter(filter)
    }

    /// Removes the filter: all packets pass from now on.
    ///
    /// # Errors
    /// The errors of [`Capture::set_filter`].
    pub fn clear_filter(&self) -> Result<()> {
        self.port.clear_filter()
    }

    /// Returns the name of the interface, as it was when the socket was opened.
    pub fn interface(&self) -> &str {
        self.port.interface()
    }

    /// Returns the type of header that packets begin with.
    pub fn link_type(&self) -> LinkType {
        self.port.link_type()
    }

    /// Returns a handle to change the filter from other threads, or after a stream has taken over this capture.
    pub fn filter_handle(&self) -> FilterHandle {
        self.port.filter_handle()
    }
}

/// Yields batches until the capture is stopped; an error is the last item.
impl<S: RxPort> Stream for AsyncReceiver<S> {
    type Item = Result<PacketBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_batch(cx)
    }
}

impl<S: RxPort> FusedStream for AsyncReceiver<S> {
    fn is_terminated(&self) -> bool {
        self.is_over || self.has_failed
    }
}

impl<S: RxPort + fmt::Debug> fmt::Debug for AsyncReceiver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncReceiver").field("port", &self.port).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
    use std::time::Duration;

    use super::*;
    use crate::executor::block_on;
    use crate::port::Receive;

    /// A port that has nothing, and is in more of a hurry each time.
    struct Hurrying {
        silent: std::os::unix::net::UnixStream,
        _far: std::os::unix::net::UnixStream,
        asked: u32,
    }

    impl AsFd for Hurrying {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.silent.as_fd()
        }
    }

    impl AsRawFd for Hurrying {
        fn as_raw_fd(&self) -> RawFd {
            self.silent.as_raw_fd()
        }
    }

    impl RxPort for Hurrying {
        fn stop_handle(&mut self) -> Result<StopHandle> {
            StopHandle::new()
        }

        fn known_stop(&self) -> Option<&StopHandle> {
            None
        }
    }

    impl Receive for Hurrying {
        fn take(&mut self) -> Result<Option<PacketBatch>> {
            Ok(None)
        }

        fn is_ready(&self) -> bool {
            false
        }

        fn when_empty(&mut self) -> Result<Empty> {
            self.asked += 1;
            Ok(match self.asked {
                1 => Empty::WaitAtMost(Duration::from_secs(3600)),
                2 => Empty::WaitAtMost(Duration::from_millis(1)),
                _ => Empty::End,
            })
        }

        fn check_link(&mut self) -> Result<()> {
            Ok(())
        }

        fn must_check_link(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_port_that_wants_to_be_asked_sooner_than_before_is_asked_sooner() {
        let (silent, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let port = Hurrying { silent, _far: far, asked: 0 };
        let ended = block_on(async {
            let mut receiver = AsyncReceiver::new(port).unwrap();
            let mut polls = 0;
            let wait = poll_fn(|cx| {
                polls += 1;
                if polls == 1 {
                    cx.waker().wake_by_ref();
                }
                receiver.poll_next_batch(cx)
            });
            time::timeout(Duration::from_secs(60), wait).await
        });
        assert!(matches!(ended, Ok(None)), "it slept on");
    }
}
