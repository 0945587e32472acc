//! A socket: its two halves together.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::bound::of_its_queue;
use super::chunks::XdpChunks;
use super::receiver::XdpReceiver;
use super::sender::{XdpSender, XdpTxSlot};
use crate::error::Result;
use crate::packet::TxTimestamp;
use crate::port::Batches;
use crate::ring::batch::PacketBatch;
use crate::stats::XdpStats;
use crate::wait::StopHandle;

/// Receives and sends the packets of one queue of an interface through AF_XDP.
///
/// ```no_run
/// # fn main() -> ringtap::Result<()> {
/// let mut socket = ringtap::XdpSocket::open("eth0")?; // queue 0
/// for batch in socket.batches() {
///     for packet in &batch? {
///         println!("{} bytes", packet.len());
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// Batches work like those of a [`Capture`](crate::Capture): they are owned, can be held as long as needed, and are
/// returned from any thread. The kernel reports nothing about a packet but its bytes: the timestamp is the time
/// when its batch was taken ([`Clock::Read`](crate::packet::Clock::Read)), and a VLAN tag that the card has
/// stripped is lost ([`InterfaceInfo::strips_tags`](crate::interface::InterfaceInfo::strips_tags); `tracing` warns
/// of it). Packets received here do not reach the stack or taps.
pub struct XdpSocket {
    receiver: XdpReceiver,
    sender: XdpSender,
}

of_its_queue!(XdpSocket, receiver.bound);

impl XdpSocket {
    pub(crate) fn join(receiver: XdpReceiver, sender: XdpSender) -> Self {
        Self { receiver, sender }
    }

    /// Returns the next batch if one is ready; never waits.
    ///
    /// Makes no system call unless the driver must be woken.
    pub fn next_batch(&mut self) -> Option<PacketBatch> {
        self.receiver.next_batch()
    }

    /// Waits up to `timeout` for the next batch; see [`XdpReceiver::next_batch_timeout`].
    ///
    /// # Errors
    /// The errors of [`XdpReceiver::next_batch_timeout`].
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<PacketBatch>> {
        self.receiver.next_batch_timeout(timeout)
    }

    /// Returns an iterator over batches that waits for each; see [`XdpReceiver::batches`]. To send while it is in use,
    /// [split](Self::into_split) the socket.
    pub fn batches(&mut self) -> Batches<'_, XdpReceiver> {
        self.receiver.batches()
    }

    /// Returns whether receiving was ended; see [`XdpReceiver::is_ended`].
    pub fn is_ended(&self) -> bool {
        self.receiver.is_ended()
    }

    /// Returns a handle that ends receiving from any thread; see [`XdpReceiver::stop_handle`].
    ///
    /// # Errors
    /// The errors of [`XdpReceiver::stop_handle`].
    pub fn stop_handle(&mut self) -> Result<StopHandle> {
        self.receiver.stop_handle()
    }

    /// Returns a free frame to write `len` bytes into; `None` if no frame is free, or if `len` exceeds
    /// [`XdpSender::frame_capacity`].
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Option<XdpTxSlot<'_>> {
        self.sender.reserve(len)
    }

    /// Commits a copy of `frame`; see [`XdpSender::send`].
    ///
    /// # Errors
    /// The errors of [`XdpSender::send`].
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.sender.send(frame)
    }

    /// Forwards the packets of a batch for which `keep` returns true; see [`XdpSender::send_batch`].
    ///
    /// A batch that this socket has received is thus echoed.
    ///
    /// # Errors
    /// The errors of [`XdpSender::send_batch`].
    pub fn send_batch(
        &mut self,
        batch: PacketBatch,
        keep: impl FnMut(&mut [u8]) -> bool,
    ) -> Result<u64> {
        self.sender.send_batch(batch, keep)
    }

    /// Hands every committed frame to the kernel; see [`XdpSender::flush`].
    ///
    /// # Errors
    /// The errors of [`XdpSender::flush`].
    pub fn flush(&mut self) -> Result<()> {
        self.sender.flush()
    }

    /// Flushes for at most `timeout`; see [`XdpSender::flush_timeout`].
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<bool> {
        self.sender.flush_timeout(timeout)
    }

    /// Returns the next transmit timestamp, if one has arrived; see [`XdpSender::read_tx_timestamp`].
    pub fn read_tx_timestamp(&mut self) -> Option<TxTimestamp> {
        self.sender.read_tx_timestamp()
    }

    /// Hands every committed frame to the kernel and waits until all have come back; see [`XdpSender::drain`].
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub fn drain(&mut self, timeout: Duration) -> Result<bool> {
        self.sender.drain(timeout)
    }

    /// Hands over committed frames, waits up to `timeout` until they have come back, closes the socket and returns
    /// its final statistics.
    ///
    /// Returns early on an error, such as a link that is down. [`abandoned`](XdpStats::abandoned) counts the frames
    /// that the kernel had not taken. In contrast, dropping the socket hands over only what the kernel takes at
    /// once, and does not wait.
    ///
    /// # Errors
    /// [`Os`](crate::Error::Os) if the kernel refuses `XDP_STATISTICS` for a socket that batches still keep open.
    pub fn close(mut self, timeout: Duration) -> Result<XdpStats> {
        // An error shows in the count of abandoned frames.
        let _ = self.drain(timeout);
        let stats = self.stats_handle();
        drop(self);
        stats.stats()
    }

    /// Returns how many of its frames are in each place.
    pub fn chunks(&mut self) -> XdpChunks {
        let mut chunks = XdpChunks::default();
        self.receiver.count(&mut chunks);
        self.sender.count(&mut chunks);
        chunks
    }

    /// Returns the receiving half.
    pub fn receiver(&mut self) -> &mut XdpReceiver {
        &mut self.receiver
    }

    /// Returns the sending half.
    pub fn sender(&mut self) -> &mut XdpSender {
        &mut self.sender
    }

    /// Splits the socket into its halves, for different threads. The queue is free again when both are dropped.
    pub fn into_split(self) -> (XdpReceiver, XdpSender) {
        (self.receiver, self.sender)
    }

    /// Returns whether both sockets are on one interface, whatever its name.
    pub(crate) fn is_on_same_interface(&self, other: &Self) -> bool {
        self.receiver.bound.index == other.receiver.bound.index
    }

    /// Returns an error if VLAN tags are delivered outside of the packets' bytes.
    pub(crate) fn check_tags(&self) -> Result<()> {
        self.receiver.bound.check_tags()
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.bound.fd()
    }
}

impl AsRawFd for XdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for XdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpSocket")
            .field("interface", &self.interface())
            .field("queue_id", &self.queue_id())
            .finish_non_exhaustive()
    }
}
