//! A receiving socket that is `Send`: it waits with tokio's own readiness, on the packet socket itself.

use std::fmt;
use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use ringtap::capture::{RxPort, TryNext};
use ringtap::time::Budget;
use ringtap::{Error, Packet, PacketBatch, Result, StopHandle};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::watch;

/// A receiving socket that any task of a tokio runtime can own, `tokio::spawn` included. See [`Capture`](crate::Capture).
///
/// It needs no reactor, no guard and no `LocalSet`: tokio's epoll waits on the packet socket itself, which takes one system
/// call for each wake-up. Batches are the same as everywhere.
pub struct Receiver<S: RxPort> {
    // Dropped before the socket: a duplicate of its descriptor, which stays as it is whatever is done to the socket.
    news: AsyncFd<OwnedFd>,
    stop: Option<AsyncFd<OwnedFd>>,
    socket: S,
    budget: Budget,
    is_over: bool,
}

/// Readable, or with something to report: an interface that goes down or is removed shows as an error alone.
const NEWS: Interest = Interest::READABLE.add(Interest::ERROR);

impl<S: RxPort> Receiver<S> {
    /// Registers a socket with the tokio runtime that is entered.
    ///
    /// # Errors
    /// [`Error::Other`] outside of a tokio runtime, or if epoll refuses the socket.
    ///
    /// # Panics
    /// On a runtime without tokio's I/O; without its timers, when one is first needed: build it with `enable_all`.
    pub fn new(socket: S) -> Result<Self> {
        let news = watch(&socket, NEWS)?;
        let stop = socket.known_stop().map(|stop| watch(stop, Interest::READABLE)).transpose()?;
        Ok(Self { news, stop, socket, budget: Budget::new(), is_over: false })
    }

    /// Waits for the next batch.
    ///
    /// Returns `None` once a [`StopHandle`] has ended the socket and all packets are delivered, and after an error.
    /// Cancel-safe: a wait that is dropped has taken nothing. After 200 µs without a wait, it yields to the runtime's other
    /// tasks.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`] once the interface was removed and its last packets are delivered. An interface that is
    /// down is not an error: packets arrive again when it is up.
    pub async fn next_batch(&mut self) -> Result<Option<PacketBatch>> {
        self.spend(16).await;
        while !self.is_over {
            let next = self.socket.try_next();
            self.is_over = !matches!(next, Ok(TryNext::Batch(_) | TryNext::Wait { .. }));
            match next? {
                TryNext::Batch(batch) => return Ok(Some(batch)),
                TryNext::Wait { at_most, stop, .. } => {
                    let waited = self.wait(at_most, stop).await;
                    self.is_over = waited.is_err();
                    waited?;
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Calls `each` for each packet until the socket ends, and yields to the runtime's other tasks about every 200 µs, also
    /// within a batch. If this is dropped, packets of the current batch that `each` has not been called for are lost.
    ///
    /// # Errors
    /// The errors of [`next_batch`](Self::next_batch).
    pub async fn for_each_packet(&mut self, mut each: impl FnMut(Packet<'_>)) -> Result<()> {
        while let Some(batch) = self.next_batch().await? {
            for packet in &batch {
                each(packet);
                self.spend(1).await;
            }
        }
        Ok(())
    }

    /// Turns the socket into a stream of batches, which ends as [`next_batch`](Self::next_batch) does; an error is its last
    /// item. (A stream keeps its waits on the heap: one small allocation for each batch.)
    pub fn into_stream(self) -> Batches<S> {
        Batches { next: Some(next(self)) }
    }

    /// Returns a handle that ends this socket from any thread.
    ///
    /// # Errors
    /// [`Error::Os`] or [`Error::Other`] if there is no descriptor left for it.
    pub fn stop_handle(&mut self) -> Result<StopHandle> {
        let handle = self.socket.stop_handle()?;
        if self.stop.is_none() {
            self.stop = Some(watch(&handle, Interest::READABLE)?);
        }
        Ok(handle)
    }

    /// Returns the socket, for its statistics, filter and names.
    pub fn get_ref(&self) -> &S {
        &self.socket
    }

    /// Returns the socket. Batches that are taken from it directly are not seen here.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Takes the socket back, for another runtime or for blocking use.
    pub fn into_inner(self) -> S {
        self.socket
    }

    /// Counts packets, and yields where the budget is spent.
    async fn spend(&mut self, packets: u32) {
        if self.budget.count(packets) {
            self.budget.renew(); // before: a wait that is dropped here has had its turn
            yield_now().await;
        }
    }

    /// Waits for what the socket asks for.
    async fn wait(&mut self, at_most: Option<Duration>, for_stop: bool) -> Result<()> {
        self.budget.renew();
        if for_stop && self.stop.is_none() {
            // The handle was made by the socket itself.
            let stop = self.socket.known_stop();
            self.stop = stop.map(|stop| watch(stop, Interest::READABLE)).transpose()?;
        }
        let stop = self.stop.as_ref().filter(|_| for_stop);
        let mut news = pin!(self.news.ready(NEWS));
        let mut stopped = pin!(async {
            match stop {
                Some(stop) => stop.readable().await.map(drop),
                None => std::future::pending().await,
            }
        });
        let mut late = pin!(at_most.map(sleep));
        let has_error = poll_fn(|cx| {
            if let Poll::Ready(guard) = news.as_mut().poll(cx) {
                return Poll::Ready(guard.map(|mut guard| {
                    let has_error = guard.ready().is_error();
                    guard.clear_ready();
                    has_error
                }));
            }
            if let Poll::Ready(stopped) = stopped.as_mut().poll(cx) {
                return Poll::Ready(stopped.map(|()| false));
            }
            match late.as_mut().as_pin_mut() {
                Some(late) => late.poll(cx).map(|()| Ok(false)),
                None => Poll::Pending,
            }
        })
        .await
        .map_err(Error::other)?;
        if has_error { self.socket.check_error() } else { Ok(()) }
    }
}

impl<S: RxPort + fmt::Debug> fmt::Debug for Receiver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("socket", self.get_ref()).finish_non_exhaustive()
    }
}

/// A stream of the batches of a [`Receiver`]; from [`Receiver::into_stream`].
pub struct Batches<S: RxPort> {
    /// `None` at the end.
    next: Option<NextBatch<S>>,
}

type NextBatch<S> =
    Pin<Box<dyn Future<Output = (Receiver<S>, Result<Option<PacketBatch>>)> + Send>>;

fn next<S: RxPort>(mut receiver: Receiver<S>) -> NextBatch<S> {
    Box::pin(async move {
        let batch = receiver.next_batch().await;
        (receiver, batch)
    })
}

impl<S: RxPort> Stream for Batches<S> {
    type Item = Result<PacketBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(waiting) = &mut self.next else { return Poll::Ready(None) };
        let (receiver, batch) = ready!(waiting.as_mut().poll(cx));
        let batch = batch.transpose();
        self.next = matches!(batch, Some(Ok(_))).then(|| next(receiver));
        Poll::Ready(batch)
    }
}

impl<S: RxPort> fmt::Debug for Batches<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").field("is_over", &self.next.is_none()).finish_non_exhaustive()
    }
}
