//! A socket: its two halves together.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::bound::{Shared, SharedUmem, XdpStatsHandle};
use super::chunks::XdpChunks;
use super::program::XdpProgram;
use super::receiver::XdpReceiver;
use super::sender::{XdpSender, XdpTxSlot};
use crate::error::{Error, Result};
use crate::packet::{LinkType, TxTimestamp};
use crate::ring::batch::PacketBatch;
use crate::stats::XdpStats;
use crate::wait::StopHandle;

/// Receives and sends the packets of one queue of an interface through AF_XDP.
///
/// ```no_run
/// # fn main() -> ringtap::Result<()> {
/// let mut socket = ringtap::XdpSocket::open("eth0")?; // queue 0
/// while let Some(batch) = socket.next_batch_timeout(std::time::Duration::from_secs(1))? {
///     for packet in &batch {
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
    receiver: Option<XdpReceiver>,
    sender: Option<XdpSender>,
    shared: Shared,
}

impl XdpSocket {
    pub(crate) fn new(
        receiver: Option<XdpReceiver>,
        sender: Option<XdpSender>,
        shared: Shared,
    ) -> Self {
        Self { receiver, sender, shared }
    }

    /// Returns the next batch if one is ready; never waits.
    ///
    /// Makes no system call unless the driver must be woken. In [`XdpMode::Tx`](crate::xdp::XdpMode::Tx) there is
    /// never a batch.
    pub fn next_batch(&mut self) -> Option<PacketBatch> {
        self.receiver.as_mut()?.next_batch()
    }

    /// Waits up to `timeout` for the next batch; see [`XdpReceiver::next_batch_timeout`].
    ///
    /// # Errors
    /// The errors of [`XdpReceiver::next_batch_timeout`]; [`Error::NotReceiving`].
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<PacketBatch>> {
        self.receiver_mut()?.next_batch_timeout(timeout)
    }

    /// Returns a handle that ends receiving from any thread; see [`XdpReceiver::stop_handle`].
    ///
    /// # Errors
    /// The errors of [`XdpReceiver::stop_handle`]; [`Error::NotReceiving`].
    pub fn stop_handle(&mut self) -> Result<StopHandle> {
        self.receiver_mut()?.stop_handle()
    }

    /// Returns a free frame to write `len` bytes into; `None` if no frame is free, or if `len` exceeds
    /// [`XdpSender::frame_capacity`].
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Option<XdpTxSlot<'_>> {
        self.sender.as_mut()?.reserve(len)
    }

    /// Commits a copy of `frame`; see [`XdpSender::send`].
    ///
    /// # Errors
    /// The errors of [`XdpSender::send`]; [`Error::NotSending`].
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.sender_mut()?.send(frame)
    }

    /// Forwards the packets of a batch for which `keep` returns true; see [`XdpSender::send_batch`].
    ///
    /// A batch that this socket has received is thus echoed.
    ///
    /// # Errors
    /// The errors of [`XdpSender::send_batch`]; [`Error::NotSending`].
    pub fn send_batch(
        &mut self,
        batch: PacketBatch,
        keep: impl FnMut(&mut [u8]) -> bool,
    ) -> Result<u64> {
        self.sender_mut()?.send_batch(batch, keep)
    }

    /// Hands every committed frame to the kernel; see [`XdpSender::flush`].
    ///
    /// # Errors
    /// The errors of [`XdpSender::flush`]. Without a sending half there is nothing to flush.
    pub fn flush(&mut self) -> Result<()> {
        self.sender.as_mut().map_or(Ok(()), XdpSender::flush)
    }

    /// Flushes for at most `timeout`; see [`XdpSender::flush_timeout`].
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<bool> {
        self.sender.as_mut().map_or(Ok(true), |sender| sender.flush_timeout(timeout))
    }

    /// Returns the next transmit timestamp, if one has arrived; see [`XdpSender::read_tx_timestamp`].
    pub fn read_tx_timestamp(&mut self) -> Option<TxTimestamp> {
        self.sender.as_mut()?.read_tx_timestamp()
    }

    /// Hands every committed frame to the kernel and waits until all have come back; see [`XdpSender::drain`].
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub fn drain(&mut self, timeout: Duration) -> Result<bool> {
        self.sender.as_mut().map_or(Ok(true), |sender| sender.drain(timeout))
    }

    /// Hands over committed frames, waits up to `timeout` until they have come back, closes the socket and returns
    /// its final statistics.
    ///
    /// Returns early on an error, such as a link that is down. [`abandoned`](XdpStats::abandoned) counts the frames
    /// that the kernel had not taken. In contrast, dropping the socket hands over only what the kernel takes at
    /// once, and does not wait.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses `XDP_STATISTICS` for a socket that batches still keep open.
    pub fn close(mut self, timeout: Duration) -> Result<XdpStats> {
        // An error shows in the count of abandoned frames.
        let _ = self.drain(timeout);
        let stats = self.stats_handle();
        drop(self);
        stats.stats()
    }

    /// Returns the running totals of both halves. Makes one system call and resets nothing.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses `XDP_STATISTICS`.
    pub fn stats(&self) -> Result<XdpStats> {
        self.shared.bound.stats()
    }

    /// Returns a handle to read the statistics from other threads.
    pub fn stats_handle(&self) -> XdpStatsHandle {
        XdpStatsHandle::new(&self.shared.bound)
    }

    /// Returns how many of its frames are in each place.
    pub fn chunks(&mut self) -> XdpChunks {
        let mut chunks = XdpChunks::default();
        if let Some(receiver) = &mut self.receiver {
            receiver.count(&mut chunks);
        }
        if let Some(sender) = &mut self.sender {
            sender.count(&mut chunks);
        }
        chunks
    }

    /// Returns whether packets are received and sent without being copied.
    pub fn is_zerocopy(&self) -> bool {
        self.shared.bound.is_zerocopy
    }

    /// Returns whether the UMEM is in huge pages.
    pub fn has_huge_pages(&self) -> bool {
        self.shared.bound.has_huge_pages
    }

    /// Returns the name of the interface, as it was when the socket was opened.
    pub fn interface(&self) -> &str {
        &self.shared.bound.name
    }

    /// Returns the number of the queue.
    pub fn queue_id(&self) -> u32 {
        self.shared.bound.queue
    }

    /// Returns the type of header that packets begin with; `None` if it is not known.
    pub fn link_type(&self) -> Option<LinkType> {
        LinkType::of_hardware(self.shared.bound.hardware)
    }

    /// Returns whether both sockets are on one interface, whatever its name.
    pub(crate) fn is_on_same_interface(&self, other: &Self) -> bool {
        self.shared.bound.index == other.shared.bound.index
    }

    /// Returns an error if VLAN tags are delivered outside of the packets' bytes.
    pub(crate) fn check_tags(&self) -> Result<()> {
        self.shared.bound.check_tags()
    }

    /// Returns the program that redirects packets here, for sockets of other queues to share.
    pub fn program(&self) -> Option<&XdpProgram> {
        self.shared.bound.program.as_ref()
    }

    /// Returns the receiving half, if there is one.
    pub fn receiver(&self) -> Option<&XdpReceiver> {
        self.receiver.as_ref()
    }

    /// Returns the sending half, if there is one.
    pub fn sender(&self) -> Option<&XdpSender> {
        self.sender.as_ref()
    }

    /// Splits the socket into its halves, for different threads. The queue is free again when both are dropped.
    pub fn into_split(self) -> (Option<XdpReceiver>, Option<XdpSender>) {
        (self.receiver, self.sender)
    }

    /// Splits the socket into its halves, and the part needed to join them again.
    pub(crate) fn into_parts(self) -> (Option<XdpReceiver>, Option<XdpSender>, Shared) {
        (self.receiver, self.sender, self.shared)
    }

    /// Lets packets in, if the socket receives.
    pub(super) fn open_intake(&self) -> Result<()> {
        self.receiver.as_ref().map_or(Ok(()), XdpReceiver::open_intake)
    }

    pub(super) fn lend_umem(&self) -> SharedUmem {
        self.shared.lend()
    }

    pub(crate) fn share_stop(&mut self, stop: StopHandle) -> Result<()> {
        self.receiver_mut()?.share_stop(stop);
        Ok(())
    }

    pub(crate) fn receiver_mut(&mut self) -> Result<&mut XdpReceiver> {
        self.receiver.as_mut().ok_or(Error::NotReceiving)
    }

    fn sender_mut(&mut self) -> Result<&mut XdpSender> {
        self.sender.as_mut().ok_or(Error::NotSending)
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.bound.fd()
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
