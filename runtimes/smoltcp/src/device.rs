//! The device: a receiving and a sending socket.

use std::fmt;
use std::time::Duration;

use ringtap::capture::{CapturedPacket, IntoPackets, RxPort, TryNext};
use ringtap::filter::{LinkType, PacketDirection};
use ringtap::inject::{TryFlush, TxPort};
use ringtap::{Capture, Error, Injector, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// How long to wait where nothing reports that there is room again.
const PAUSE: Duration = Duration::from_millis(1);
/// How often an interface that is down is looked at.
const LINK_CHECK: Duration = Duration::from_millis(20);

/// A device of smoltcp on a receiving and a sending socket: a capture and an injector, or the halves of an AF_XDP socket.
///
/// Packets are lent from the ring and frames are written into it, without a copy. What smoltcp must not see is left out and
/// counted ([`DeviceStats`]): packets cut to a snap length, packets with a VLAN tag beside their bytes, and packets that this
/// machine sends.
pub struct Device<R, T> {
    receiver: R,
    sender: T,
    packets: Option<IntoPackets>,
    capabilities: DeviceCapabilities,
    stats: DeviceStats,
    /// What a call of smoltcp's, which knows no errors, has met: for the next wait.
    failed: Option<Error>,
    is_over: bool,
}

/// What a [`Device`] has left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceStats {
    /// Packets received and given to smoltcp.
    pub received: u64,
    /// Frames committed for sending.
    pub sent: u64,
    /// Packets that were cut.
    pub truncated: u64,
    /// Packets of a VLAN, whose tag is beside their bytes.
    pub tagged: u64,
    /// Packets that this machine has sent.
    pub outgoing: u64,
    /// Frames of smoltcp's that could not be sent, as they are too long.
    pub refused: u64,
}

impl Device<Capture, Injector> {
    /// Makes a device of a capture and an injector on the same interface.
    ///
    /// Build the capture with `ignore_outgoing(true)`, so that frames sent do not take room in its ring.
    ///
    /// # Errors
    /// [`Error::Unusable`] if the interface has neither Ethernet frames nor IP packets without a header (a tun);
    /// [`Error::Other`] if the sockets have two interfaces.
    pub fn new(capture: Capture, injector: Injector) -> Result<Self> {
        let (name, other) = (capture.interface(), injector.interface());
        if name != other {
            let told =
                format!("receiving on {name} and sending on {other}: a device has one interface");
            return Err(Error::other(told));
        }
        let medium = match capture.link_type() {
            LinkType::RAW => Medium::Ip,
            LinkType::ETHERNET => Medium::Ethernet,
            _ => {
                let (option, interface) = ("smoltcp", name.to_owned());
                let why = "smoltcp knows no packets with its headers; take an interface with Ethernet frames or a tun";
                return Err(Error::Unusable { option, interface, why });
            }
        };
        let most = injector.max_frame_len();
        Ok(Self::with(capture, injector, medium, most))
    }
}

#[cfg(feature = "af-xdp")]
impl Device<ringtap::xdp::XdpReceiver, ringtap::xdp::XdpSender> {
    /// Makes a device of an AF_XDP socket: of one queue of its interface.
    pub fn af_xdp(socket: ringtap::XdpSocket) -> Self {
        let (receiver, sender) = socket.into_split();
        let most = sender.max_frame_len().min(sender.frame_capacity());
        Self::with(receiver, sender, Medium::Ethernet, most)
    }
}

impl<R: RxPort, T: TxPort> Device<R, T> {
    fn with(receiver: R, sender: T, medium: Medium, most: usize) -> Self {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = medium;
        capabilities.max_transmission_unit = most;
        let (packets, failed, is_over) = (None, None, false);
        let stats = DeviceStats::default();
        Self { receiver, sender, packets, capabilities, stats, failed, is_over }
    }

    /// Sets which checksums smoltcp computes and verifies. Default: all.
    ///
    /// Packets that a neighbour on the same machine has sent (over veth, a bridge, a tap) have unfinished checksums, which
    /// would be computed by a card: leave their verification out
    /// ([`Checksum::Tx`](smoltcp::phy::Checksum::Tx)), or have the neighbour compute them (`ethtool -K IF tx off`).
    #[must_use]
    pub fn checksums(mut self, checksums: ChecksumCapabilities) -> Self {
        self.capabilities.checksum = checksums;
        self
    }

    /// Sends what smoltcp has written, and waits until a packet has arrived, for `at_most`. Returns false once the receiving
    /// socket was stopped and all its packets were given to smoltcp.
    ///
    /// While there is no room to send, smoltcp is given no packets, as each may need an answer, and this waits for room: up to
    /// 20 ms if the interface is down, also if `at_most` is 0, which is what smoltcp asks for while it has something to send.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`], which packets in the receiving ring do not outlive; [`Error::Os`] if waiting failed. An
    /// interface that is down is not an error: its frames stay, and are sent when it is up.
    pub fn wait(&mut self, at_most: Option<Duration>) -> Result<bool> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let pause = match self.sender.try_flush()? {
            TryFlush::Done => None,
            TryFlush::LinkDown => Some(LINK_CHECK),
            _ => Some(PAUSE),
        };
        if !self.sender.has_room(self.capabilities.max_transmission_unit) {
            self.wait_for_room(at_most, pause.unwrap_or(PAUSE))?;
            return Ok(true);
        }
        if self.packets.is_some() {
            return Ok(true);
        }
        let (own, for_stop) = match self.receiver.try_next()? {
            TryNext::Batch(batch) => {
                self.packets = Some(batch.into_packets());
                return Ok(true);
            }
            TryNext::Wait { at_most, stop, .. } => (at_most, stop),
            _ => return Ok(false),
        };
        let limit = [at_most, own, pause].into_iter().flatten().min();
        self.poll(limit, for_stop)?;
        Ok(!self.is_over)
    }

    /// Waits for `pause`, or for `at_most` if that is shorter and anything at all: nothing reports room, and packets in the
    /// receiving ring are no reason to look.
    fn wait_for_room(&self, at_most: Option<Duration>, pause: Duration) -> Result<()> {
        let limit =
            at_most.filter(|at_most| !at_most.is_zero()).map_or(pause, |most| most.min(pause));
        let limit = Timespec::try_from(limit).map_err(Error::other)?;
        match poll(&mut [], Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::other(std::io::Error::from(errno))),
        }
    }

    /// Returns what was left out.
    pub fn stats(&self) -> DeviceStats {
        self.stats
    }

    /// Returns the receiving socket.
    pub fn receiver(&mut self) -> &mut R {
        &mut self.receiver
    }

    /// Returns the sending socket.
    pub fn sender(&mut self) -> &mut T {
        &mut self.sender
    }

    /// Takes the sockets back. Packets that smoltcp has not taken yet are lost.
    pub fn into_inner(self) -> (R, T) {
        (self.receiver, self.sender)
    }

    fn poll(&mut self, limit: Option<Duration>, for_stop: bool) -> Result<()> {
        let stop = self.receiver.known_stop().filter(|_| for_stop).cloned();
        let news = PollFd::from_borrowed_fd(self.receiver.as_fd(), PollFlags::IN);
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let polled = match &stop {
            Some(stop) => {
                let mut fds = [news, PollFd::new(stop, PollFlags::IN)];
                poll(&mut fds, limit.as_ref()).map(|_| fds[0].revents())
            }
            None => {
                let mut fds = [news];
                poll(&mut fds, limit.as_ref()).map(|_| fds[0].revents())
            }
        };
        match polled {
            Ok(events) if events.contains(PollFlags::ERR) => self.receiver.check_error(),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::other(std::io::Error::from(errno))),
        }
    }

    /// Returns the next packet that is for smoltcp.
    fn next(&mut self) -> Option<CapturedPacket> {
        loop {
            let Some(packets) = &mut self.packets else {
                match self.receiver.try_next() {
                    Ok(TryNext::Batch(batch)) => self.packets = Some(batch.into_packets()),
                    Ok(TryNext::Wait { .. }) => return None,
                    Ok(_) => {
                        self.is_over = true;
                        return None;
                    }
                    Err(error) => {
                        self.failed = Some(error);
                        return None;
                    }
                }
                continue;
            };
            let Some(packet) = packets.next() else {
                self.packets = None; // the kernel gets its block back
                continue;
            };
            let view = packet.packet();
            let left_out = if view.direction() == Some(PacketDirection::Outgoing) {
                &mut self.stats.outgoing
            } else if view.is_truncated() {
                &mut self.stats.truncated
            } else if view.stripped_vlan().is_some() {
                &mut self.stats.tagged
            } else {
                self.stats.received += 1;
                return Some(packet);
            };
            *left_out += 1;
        }
    }

    /// Returns whether there is room for a frame, after handing over what is there if not.
    fn has_room(&mut self) -> bool {
        let most = self.capabilities.max_transmission_unit;
        if self.sender.has_room(most) {
            return true;
        }
        match self.sender.try_flush() {
            Ok(_) => self.sender.has_room(most),
            Err(error) => {
                self.failed = Some(error);
                false
            }
        }
    }
}

impl<R: RxPort, T: TxPort> phy::Device for Device<R, T> {
    type RxToken<'a>
        = ReceiveToken
    where
        Self: 'a;
    type TxToken<'a>
        = TransmitToken<'a, T>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(ReceiveToken, TransmitToken<'_, T>)> {
        // First the room, as there may have to be an answer: a packet that was taken cannot be put back.
        if !self.has_room() {
            return None;
        }
        let packet = self.next()?;
        let Self { sender, stats, .. } = self;
        Some((ReceiveToken(packet), TransmitToken { sender, stats }))
    }

    fn transmit(&mut self, _: Instant) -> Option<TransmitToken<'_, T>> {
        let has_room = self.has_room();
        let Self { sender, stats, .. } = self;
        has_room.then_some(TransmitToken { sender, stats })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

impl<R: fmt::Debug, T: fmt::Debug> fmt::Debug for Device<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("receiver", &self.receiver)
            .field("sender", &self.sender)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// A packet in its ring, for smoltcp to read.
#[derive(Debug)]
pub struct ReceiveToken(CapturedPacket);

impl phy::RxToken for ReceiveToken {
    fn consume<O, F: FnOnce(&[u8]) -> O>(self, read: F) -> O {
        read(self.0.data())
    }
}

/// A free slot of the transmit ring, for smoltcp to write a frame into.
#[derive(Debug)]
pub struct TransmitToken<'a, T> {
    sender: &'a mut T,
    stats: &'a mut DeviceStats,
}

impl<T: TxPort> phy::TxToken for TransmitToken<'_, T> {
    fn consume<O, F: FnOnce(&mut [u8]) -> O>(self, len: usize, write: F) -> O {
        let (mut write, mut output) = (Some(write), None);
        let written = self.sender.try_write(len, |frame| {
            output = write.take().map(|write| write(frame));
        });
        match written {
            Ok(Some(())) => self.stats.sent += 1,
            // There was room, so its length is at fault.
            _ => self.stats.refused += 1,
        }
        // smoltcp has to be served all the same.
        output.or_else(|| Some(write.take()?(&mut vec![0; len]))).expect("written here or there")
    }
}
