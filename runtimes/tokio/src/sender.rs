//! A sending socket that is `Send`: it waits with tokio's own readiness, on the packet socket itself.

use std::fmt;
use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_sink::Sink;
use ringtap::inject::{TryFlush, TxPort};
use ringtap::{Error, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep};

use crate::watch;

/// The first pause where nothing reports that there is room: the least that tokio's timers know.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
/// How often an interface that is down is looked at.
const LINK_CHECK: Duration = Duration::from_millis(20);

/// A sending socket that any task of a tokio runtime can own, `tokio::spawn` included. See [`Injector`](crate::Injector).
///
/// It needs no reactor, no guard and no `LocalSet`. So nothing works in the background, either: frames that were
/// [fed](Self::feed) are handed to the kernel by [`flush`](Self::flush), [`send`](Self::send) or when the ring is full, with one
/// system call for all of them.
pub struct Sender<T: TxPort> {
    // Dropped before the socket: a duplicate of its descriptor, which stays as it is whatever is done to the socket.
    room: AsyncFd<OwnedFd>,
    socket: T,
    pause: Option<Pin<Box<Sleep>>>,
    next_pause: Duration,
}

impl<T: TxPort> Sender<T> {
    /// Registers a socket with the tokio runtime that is entered.
    ///
    /// # Errors
    /// [`Error::Other`] outside of a tokio runtime, or if epoll refuses the socket.
    ///
    /// # Panics
    /// On a runtime without tokio's I/O; without its timers, when one is first needed: build it with `enable_all`.
    pub fn new(socket: T) -> Result<Self> {
        let room = watch(&socket, Interest::WRITABLE)?;
        Ok(Self { room, socket, pause: None, next_pause: FIRST_PAUSE })
    }

    /// Commits a copy of `frame`; if the ring is full, hands over what is there and waits. Cancel-safe: if dropped before it
    /// completes, nothing is committed.
    ///
    /// # Errors
    /// [`Error::FrameLength`]; [`Error::InterfaceGone`] once the interface was removed. An interface that is down is not an
    /// error: the ring fills up, and this waits.
    pub async fn feed(&mut self, frame: &[u8]) -> Result<()> {
        while !self.socket.try_send(frame)? {
            self.wait_for_room(frame.len()).await?;
        }
        Ok(())
    }

    /// Commits a copy of `frame`, and waits until the kernel has taken it and all frames before it: [`feed`](Self::feed) and
    /// [`flush`](Self::flush). If this is dropped while it flushes, the frame stays committed.
    ///
    /// # Errors
    /// The errors of [`feed`](Self::feed). While the interface is down, this waits.
    pub async fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.feed(frame).await?;
        self.flush().await
    }

    /// Waits until there is room for a frame of `len` bytes, which can then be written in place through the socket's own slots
    /// ([`get_mut`](Self::get_mut)). Cancel-safe.
    ///
    /// # Errors
    /// [`Error::FrameLength`] if no frame of this length can be written in place; [`Error::InterfaceGone`]. While the interface
    /// is down and the ring is full, this waits.
    pub async fn room(&mut self, len: usize) -> Result<()> {
        let most = self.socket.frame_capacity();
        if len > most {
            return Err(Error::FrameLength { len, least: 0, most });
        }
        self.wait_for_room(len).await
    }

    async fn wait_for_room(&mut self, len: usize) -> Result<()> {
        poll_fn(|cx| self.poll_until(cx, |socket| socket.has_room(len))).await
    }

    /// Waits until every committed frame has been handed to the kernel. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`]. While the interface is down, this waits.
    pub async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_until(cx, |socket| socket.pending() == 0)).await
    }

    /// Waits until every committed frame has been sent. Cancel-safe.
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub async fn drain(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_until(cx, T::is_drained)).await
    }

    /// Returns the socket, for its statistics and lengths.
    pub fn get_ref(&self) -> &T {
        &self.socket
    }

    /// Returns the socket, also to commit frames in place; [`flush`](Self::flush) hands them over. Its own `flush` and `send`
    /// block the thread.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.socket
    }

    /// Takes the socket back, for another runtime or for blocking use.
    pub fn into_inner(self) -> T {
        self.socket
    }

    /// Hands over committed frames again and again until `is_so`.
    fn poll_until(
        &mut self,
        cx: &mut Context<'_>,
        is_so: impl Fn(&mut T) -> bool,
    ) -> Poll<Result<()>> {
        loop {
            if is_so(&mut self.socket) {
                (self.pause, self.next_pause) = (None, FIRST_PAUSE);
                return Poll::Ready(Ok(()));
            }
            let left = self.socket.try_flush()?;
            if is_so(&mut self.socket) {
                continue;
            }
            let (pause, next) = match left {
                TryFlush::LinkDown => (LINK_CHECK, FIRST_PAUSE),
                _ => (self.next_pause, (2 * self.next_pause).min(LONGEST_PAUSE)),
            };
            let mut changed = false;
            if let Poll::Ready(guard) = self.room.poll_write_ready(cx) {
                let mut guard = guard.map_err(Error::other)?;
                // An error on the descriptor, such as a time stamp that nobody has read, counts as closed to
                // tokio, and for good: only the pause ends the waits then.
                changed = !guard.ready().is_write_closed();
                guard.clear_ready();
            }
            let waiting = self.pause.get_or_insert_with(|| {
                self.next_pause = next;
                Box::pin(sleep(pause))
            });
            if waiting.as_mut().poll(cx).is_ready() {
                (self.pause, changed) = (None, true);
            }
            if !changed {
                return Poll::Pending;
            }
        }
    }
}

/// Commits the frames it is fed; flushing hands them to the kernel, closing waits until they are sent.
impl<T: TxPort, F: AsRef<[u8]>> Sink<F> for Sender<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_until(cx, |socket| socket.has_room(socket.most()))
    }

    fn start_send(mut self: Pin<&mut Self>, frame: F) -> Result<()> {
        match self.socket.try_send(frame.as_ref())? {
            true => Ok(()),
            false => Err(Error::other("a sink is ready before a frame is sent into it")),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_until(cx, |socket| socket.pending() == 0)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_until(cx, T::is_drained)
    }
}

impl<T: TxPort + fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("socket", self.get_ref()).finish_non_exhaustive()
    }
}
