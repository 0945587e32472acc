//! An AF_XDP socket on a reactor: the generic receiver and the generic sender, side by side.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_sink::Sink;

use super::transmit::{AsyncSender, AsyncTxSlot};
use super::{AsyncReceiver, Pacer};
use crate::afxdp::{Checksum, Forwarding, XdpReceiver, XdpSender, XdpSocket, XdpStatsHandle};
use crate::error::{Error, Result};
use crate::packet::TxTimestamp;
use crate::ring::batch::PacketBatch;
use crate::stats::XdpStats;
use crate::time;
use crate::wait::StopHandle;

/// The receiving half of an [`AsyncXdpSocket`]: a `Stream` of batches, like an
/// [`AsyncCapture`](crate::AsyncCapture).
pub type AsyncXdpReceiver = AsyncReceiver<XdpReceiver>;

/// The sending half of an [`AsyncXdpSocket`]: a `Sink` of frames, like an [`AsyncInjector`](crate::AsyncInjector).
pub type AsyncXdpSender = AsyncSender<XdpSender>;

/// Receives and sends the packets of an AF_XDP socket on this thread's reactor.
///
/// ```no_run
/// # async fn f() -> ringtap::Result<()> {
/// let mut socket = ringtap::xdp::AsyncXdpSocket::open("eth0")?;
/// while let Some(batch) = socket.next_batch().await? {
///     socket.send_batch(batch, |frame| { frame[..12].rotate_left(6); true }).await?; // swapped addresses: an echo
/// }
/// # Ok(())
/// # }
/// ```
///
/// The socket consists of two halves; [`into_split`](Self::into_split) returns them, for two tasks. Kicks are part
/// of the turn's `io_uring_enter`, as for an injector.
pub struct AsyncXdpSocket {
    receiver: AsyncXdpReceiver,
    sender: AsyncXdpSender,
}

impl AsyncXdpSocket {
    /// Opens queue 0 of an interface with the default options.
    ///
    /// # Errors
    /// The errors of [`XdpSocketBuilder::build`](crate::xdp::XdpSocketBuilder::build) and [`new`](Self::new).
    pub fn open(interface: &str) -> Result<Self> {
        Self::new(XdpSocket::open(interface)?)
    }

    /// Registers a socket with this thread's reactor. This uses up to four ops.
    ///
    /// # Errors
    /// [`Error::NoReactor`], [`Error::IoUringRefused`], or [`Error::TooManyOps`].
    pub fn new(socket: XdpSocket) -> Result<Self> {
        let (receiver, sender) = socket.into_split();
        Ok(Self { receiver: AsyncReceiver::new(receiver)?, sender: AsyncSender::new(sender)? })
    }

    /// Waits for the next batch; see [`AsyncReceiver::next_batch`]. Cancel-safe.
    ///
    /// # Errors
    /// The errors of [`AsyncReceiver::next_batch`].
    pub async fn next_batch(&mut self) -> Result<Option<PacketBatch>> {
        self.receiver.next_batch().await
    }

    /// Waits until a batch is ready or receiving has ended, without taking anything. Cancel-safe.
    ///
    /// # Errors
    /// The errors of [`next_batch`](Self::next_batch).
    pub async fn readable(&mut self) -> Result<()> {
        self.receiver.readable().await
    }

    /// Returns a handle that ends receiving from any thread; see [`XdpReceiver::stop_handle`].
    ///
    /// # Errors
    /// The errors of [`AsyncReceiver::stop_handle`].
    pub fn stop_handle(&mut self) -> Result<StopHandle> {
        self.receiver.stop_handle()
    }

    /// Commits a copy of `frame`; waits if there is no room. Cancel-safe.
    ///
    /// # Errors
    /// The errors of [`AsyncSender::send`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.sender.send(frame).await
    }

    /// Waits for a free frame to write `len` bytes into. Cancel-safe.
    ///
    /// # Errors
    /// The errors of [`AsyncSender::reserve`].
    pub async fn reserve(&mut self, len: usize) -> Result<AsyncTxSlot<'_, XdpSender>> {
        self.sender.reserve(len).await
    }

    /// Forwards the packets of a batch for which `keep` returns true; see [`AsyncSender::send_batch`].
    ///
    /// # Errors
    /// The errors of [`AsyncSender::send_batch`].
    pub async fn send_batch(
        &mut self,
        batch: PacketBatch,
        keep: impl FnMut(&mut [u8]) -> bool,
    ) -> Result<u64> {
        self.sender.send_batch(batch, keep).await
    }

    /// Waits until every committed frame has been handed to the kernel. Cancel-safe.
    ///
    /// # Errors
    /// The errors of [`AsyncSender::flush`].
    pub async fn flush(&mut self) -> Result<()> {
        self.sender.flush().await
    }

    /// Returns the next transmit timestamp, if one has arrived; see [`AsyncXdpSender::read_tx_timestamp`].
    pub fn read_tx_timestamp(&mut self) -> Option<TxTimestamp> {
        self.sender.read_tx_timestamp()
    }

    /// Waits until every committed frame has been sent. Cancel-safe.
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub async fn drain(&mut self) -> Result<()> {
        self.sender.drain().await
    }

    /// Sends every frame of a stream; see [`AsyncSender::send_stream`].
    ///
    /// # Errors
    /// The errors of [`AsyncSender::send_stream`].
    pub async fn send_stream<S>(&mut self, stream: S, pacer: Option<Pacer>) -> Result<u64>
    where
        S: Stream,
        S::Item: AsRef<[u8]>,
    {
        self.sender.send_stream(stream, pacer).await
    }

    /// Returns the running totals of both halves. Makes one system call and resets nothing.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses `XDP_STATISTICS`.
    pub fn stats(&self) -> Result<XdpStats> {
        self.receiver.get_ref().stats()
    }

    /// Returns a handle to read the statistics from other threads.
    pub fn stats_handle(&self) -> XdpStatsHandle {
        self.receiver.get_ref().stats_handle()
    }

    /// Returns the name of the interface, as it was when the socket was opened.
    pub fn interface(&self) -> &str {
        self.receiver.get_ref().interface()
    }

    /// Returns the number of the queue.
    pub fn queue_id(&self) -> u32 {
        self.receiver.get_ref().queue_id()
    }

    /// Hands over committed frames, waits up to `limit` until they have come back, and closes the socket; see
    /// [`XdpSocket::close`].
    ///
    /// Not cancel-safe: if the future is dropped, the socket is dropped too.
    ///
    /// # Errors
    /// The errors of [`XdpSocket::close`].
    pub async fn close(self, limit: Duration) -> Result<XdpStats> {
        let Self { receiver, sender } = self;
        let receiver = receiver.release().await;
        let stats = receiver.stats_handle();
        sender.close(limit).await?;
        drop(receiver);
        stats.stats()
    }

    /// Takes the socket back, for blocking use or for another thread's reactor.
    pub fn into_inner(self) -> XdpSocket {
        XdpSocket::join(self.receiver.into_inner(), self.sender.into_inner())
    }

    pub(crate) fn rx(&self) -> &XdpReceiver {
        self.receiver.get_ref()
    }

    /// Returns the receiving half.
    pub fn receiver(&mut self) -> &mut AsyncXdpReceiver {
        &mut self.receiver
    }

    /// Returns the sending half.
    pub fn sender(&mut self) -> &mut AsyncXdpSender {
        &mut self.sender
    }

    /// Splits the socket into its halves, for two tasks of this thread.
    pub fn into_split(self) -> (AsyncXdpReceiver, AsyncXdpSender) {
        (self.receiver, self.sender)
    }
}

impl AsyncSender<XdpSender> {
    /// Forwards the packets of a batch for which `keep` returns true, and returns their number.
    ///
    /// `keep` may change the packets' bytes. This waits if there is no room. See [`XdpSender::send_batch`], also
    /// for the packets that are not copied.
    ///
    /// Cancel-safe for the socket, but not for the batch: if this is dropped before it completes, the rest of the
    /// batch is released, and counted in [`XdpStats::not_forwarded`].
    ///
    /// # Errors
    /// The errors of [`send`](AsyncSender::send), except for lengths.
    pub async fn send_batch(
        &mut self,
        batch: PacketBatch,
        mut keep: impl FnMut(&mut [u8]) -> bool,
    ) -> Result<u64> {
        let mut forwarding = Forwarding::new(batch, &self.port());
        poll_fn(|cx| {
            loop {
                forwarding.step(&mut self.port(), &mut keep);
                self.mark()?;
                if forwarding.is_done(&self.port()) {
                    return Poll::Ready(Ok(forwarding.forwarded));
                }
                ready!(self.poll_until(cx, |sender| forwarding.has_room(sender)))?;
            }
        })
        .await
    }

    /// Returns the next transmit timestamp, if one has arrived; see [`XdpSender::read_tx_timestamp`].
    ///
    /// After [`drain`](AsyncSender::drain) was awaited, the timestamps of all frames have arrived.
    pub fn read_tx_timestamp(&mut self) -> Option<TxTimestamp> {
        self.port().read_tx_timestamp()
    }

    /// Hands over committed frames, waits up to `limit` until they have come back, and closes this half; see
    /// [`XdpSender::close`].
    ///
    /// Not cancel-safe: if the future is dropped, this half is dropped too.
    ///
    /// # Errors
    /// The errors of [`XdpSender::close`].
    pub async fn close(mut self, limit: Duration) -> Result<XdpStats> {
        // Frames that an error keeps from being sent are counted. An older error keeps none.
        let _ = self.check();
        let _ = time::timeout(limit, self.drain()).await;
        self.release().await.close(Duration::ZERO)
    }

    /// Returns the running totals of both halves.
    ///
    /// # Errors
    /// The errors of [`XdpSender::stats`].
    pub fn stats(&self) -> Result<XdpStats> {
        self.look(XdpSender::stats)
    }
}

impl AsyncReceiver<XdpReceiver> {
    /// Returns the running totals of both halves.
    ///
    /// # Errors
    /// The errors of [`XdpReceiver::stats`].
    pub fn stats(&self) -> Result<XdpStats> {
        self.get_ref().stats()
    }
}

impl AsyncTxSlot<'_, XdpSender> {
    /// Leaves a checksum to the card or the kernel; see
    /// [`XdpTxSlot::set_checksum`](crate::xdp::XdpTxSlot::set_checksum).
    pub fn set_checksum(&mut self, start: u16, offset: u16) {
        *self.extra_mut() = Some(Checksum::new(start, offset));
    }
}

/// Yields batches until receiving is stopped; an error is the last item.
impl Stream for AsyncXdpSocket {
    type Item = Result<PacketBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.receiver).poll_next(cx)
    }
}

/// Commits the frames it is fed; flushing hands them to the kernel, closing waits until they are sent.
impl<F: AsRef<[u8]>> Sink<F> for AsyncXdpSocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Sink::<F>::poll_ready(Pin::new(&mut self.sender), cx)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: F) -> Result<()> {
        Pin::new(&mut self.sender).start_send(frame)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Sink::<F>::poll_flush(Pin::new(&mut self.sender), cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Sink::<F>::poll_close(Pin::new(&mut self.sender), cx)
    }
}

impl fmt::Debug for AsyncXdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncXdpSocket")
            .field("receiver", &self.receiver)
            .field("sender", &self.sender)
            .finish()
    }
}
