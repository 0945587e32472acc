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
/// Batches are as those of a [`Capture`](crate::Capture): owned, held as long as one likes, returned from any
/// thread. The kernel says nothing of a packet but its bytes: the timestamp is when its batch was taken
/// ([`Clock::Read`](crate::packet::Clock::Read)), and a VLAN tag that the card has stripped is lost
/// ([`InterfaceInfo::strips_tags`](crate::interface::InterfaceInfo::strips_tags); `tracing` warns of it).
/// Packets that come in here do not reach the stack, nor taps.
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

    /// The next batch if there is one; never waits, and never has one in [`XdpMode::Tx`](crate::xdp::XdpMode::Tx).
    /// No system call, but where the driver has to be woken.
    pub fn next_batch(&mut self) -> Option<PacketBatch> {
        self.receiver.as_mut()?.next_batch()
    }

    /// As [`XdpReceiver::next_batch_timeout`].
    ///
    /// # Errors
    /// As there; [`Error::NotReceiving`].
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<PacketBatch>> {
        self.receiver_mut()?.next_batch_timeout(timeout)
    }

    /// As [`XdpReceiver::stop_handle`].
    ///
    /// # Errors
    /// As there; [`Error::NotReceiving`].
    pub fn stop_handle(&mut self) -> Result<StopHandle> {
        self.receiver_mut()?.stop_handle()
    }

    /// A free frame to write `len` bytes into; `None` where there is none, or `len` is above
    /// [`XdpSender::frame_capacity`].
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Option<XdpTxSlot<'_>> {
        self.sender.as_mut()?.reserve(len)
    }

    /// As [`XdpSender::send`].
    ///
    /// # Errors
    /// As there; [`Error::NotSending`].
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.sender_mut()?.send(frame)
    }

    /// As [`XdpSender::send_batch`]: an echo, where the batch is this socket's own.
    ///
    /// # Errors
    /// As there; [`Error::NotSending`].
    pub fn send_batch(
        &mut self,
        batch: PacketBatch,
        keep: impl FnMut(&mut [u8]) -> bool,
    ) -> Result<u64> {
        self.sender_mut()?.send_batch(batch, keep)
    }

    /// As [`XdpSender::flush`].
    ///
    /// # Errors
    /// As there. Without a sending half there is nothing to flush.
    pub fn flush(&mut self) -> Result<()> {
        self.sender.as_mut().map_or(Ok(()), XdpSender::flush)
    }

    /// As [`XdpSender::flush_timeout`].
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<bool> {
        self.sender.as_mut().map_or(Ok(true), |sender| sender.flush_timeout(timeout))
    }

    /// As [`XdpSender::read_tx_timestamp`].
    pub fn read_tx_timestamp(&mut self) -> Option<TxTimestamp> {
        self.sender.as_mut()?.read_tx_timestamp()
    }

    /// As [`XdpSender::drain`].
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn drain(&mut self, timeout: Duration) -> Result<bool> {
        self.sender.as_mut().map_or(Ok(true), |sender| sender.drain(timeout))
    }

    /// Hands over what was committed, waits up to `timeout` until it has come back, closes the socket and returns its
    /// final statistics. Returns early on an error, such as a link that is down. [`abandoned`](XdpStats::abandoned) counts the
    /// frames that the kernel had not taken.
    ///
    /// Dropping the socket hands over what the kernel takes at once, and waits for nothing.
    ///
    /// # Errors
    /// [`Error::Os`] where the kernel refuses `XDP_STATISTICS` of a socket that batches still keep open.
    pub fn close(mut self, timeout: Duration) -> Result<XdpStats> {
        // An error shows in the count of abandoned frames.
        let _ = self.drain(timeout);
        let stats = self.stats_handle();
        drop(self);
        stats.stats()
    }

    /// Running totals of both halves. One system call; resets nothing.
    ///
    /// # Errors
    /// [`Error::Os`] where the kernel refuses `XDP_STATISTICS`.
    pub fn stats(&self) -> Result<XdpStats> {
        self.shared.bound.stats()
    }

    /// A handle to read the statistics from other threads.
    pub fn stats_handle(&self) -> XdpStatsHandle {
        XdpStatsHandle::new(&self.shared.bound)
    }

    /// Where its frames are now.
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

    /// Whether packets are received and sent without being copied.
    pub fn is_zerocopy(&self) -> bool {
        self.shared.bound.is_zerocopy
    }

    /// Whether the UMEM is in huge pages.
    pub fn has_huge_pages(&self) -> bool {
        self.shared.bound.has_huge_pages
    }

    /// The name of the interface, as it was when the socket was opened.
    pub fn interface(&self) -> &str {
        &self.shared.bound.name
    }

    /// The queue.
    pub fn queue_id(&self) -> u32 {
        self.shared.bound.queue
    }

    /// What its packets begin with; `None` where that is not known.
    pub fn link_type(&self) -> Option<LinkType> {
        LinkType::of_hardware(self.shared.bound.hardware)
    }

    /// Whether both are of one interface, whatever it is called.
    pub(crate) fn is_on_same_interface(&self, other: &Self) -> bool {
        self.shared.bound.index == other.shared.bound.index
    }

    /// An error where VLAN tags of its packets are beside their bytes.
    pub(crate) fn check_tags(&self) -> Result<()> {
        self.shared.bound.check_tags()
    }

    /// The program that sends packets here, for sockets of other queues to share.
    pub fn program(&self) -> Option<&XdpProgram> {
        self.shared.bound.program.as_ref()
    }

    /// The receiving half, if it has one.
    pub fn receiver(&self) -> Option<&XdpReceiver> {
        self.receiver.as_ref()
    }

    /// The sending half, if it has one.
    pub fn sender(&self) -> Option<&XdpSender> {
        self.sender.as_ref()
    }

    /// Its halves, for different threads. The queue is free again when both are dropped.
    pub fn into_split(self) -> (Option<XdpReceiver>, Option<XdpSender>) {
        (self.receiver, self.sender)
    }

    /// Its halves, and what makes a socket of them again.
    pub(crate) fn into_parts(self) -> (Option<XdpReceiver>, Option<XdpSender>, Shared) {
        (self.receiver, self.sender, self.shared)
    }

    /// Has packets come in, if it receives any.
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
