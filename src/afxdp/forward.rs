//! Forwards received packets, in place if possible.

use std::sync::Arc;

use super::bound::Figures;
use super::sender::XdpSender;
use crate::error::Result;
use crate::port::TxPort;
use crate::ring::batch::{PacketBatch, Place};
use crate::ring::umem::ChunkLease;

/// A batch that is being forwarded. On drop, its remaining packets are released and counted as not forwarded.
#[derive(Debug)]
pub(crate) struct Forwarding {
    rest: Rest,
    /// Number of committed frames.
    pub(crate) forwarded: u64,
    has_learned: bool,
    figures: Arc<Figures>,
}

#[derive(Debug)]
enum Rest {
    Chunks(ChunkLease),
    /// Frames of another kind of socket, and the current position.
    Others(PacketBatch, Place),
}

impl Forwarding {
    pub(crate) fn new(batch: PacketBatch, sender: &XdpSender) -> Self {
        let rest = match batch.into_chunks() {
            Ok(lease) => Rest::Chunks(lease),
            Err(batch) => {
                let place = batch.iter().place();
                Rest::Others(batch, place)
            }
        };
        Self { rest, forwarded: 0, has_learned: false, figures: sender.figures() }
    }

    /// Returns the length of the next frame, and whether it can be sent in place; `None` at the end.
    fn next(&self, sender: &XdpSender) -> Option<(usize, bool)> {
        match &self.rest {
            Rest::Chunks(lease) => {
                let len = lease.frame(&mut lease.start())?.len();
                Some((len, lease.is_of(&sender.umem) && !lease.is_first_gathered()))
            }
            Rest::Others(batch, place) => Some((batch.iter_from(*place).next()?.len(), false)),
        }
    }

    pub(crate) fn is_done(&self, sender: &XdpSender) -> bool {
        self.next(sender).is_none()
    }

    /// Returns whether there is room for the next frame.
    pub(crate) fn has_room(&self, sender: &mut XdpSender) -> bool {
        match self.next(sender) {
            None => true,
            Some((_, true)) => sender.has_entries(1),
            Some((len, false)) => sender.has_room(len),
        }
    }

    /// Forwards as many packets as there is room for.
    pub(crate) fn step(
        &mut self,
        sender: &mut XdpSender,
        keep: &mut impl FnMut(&mut [u8]) -> bool,
    ) {
        sender.reclaim(); // other sockets' chunks go back even if there is room without them
        while let Some((len, in_place)) = self.next(sender) {
            if !sender.fits(len) && !std::mem::replace(&mut self.has_learned, true) {
                sender.learn_mtu();
            }
            let is_possible = sender.fits(len);
            if is_possible && !self.has_room(sender) {
                break;
            }
            if !is_possible {
                sender.count_refused(1);
            }
            // The batch owns the frame until `keep` has returned: it may panic.
            let is_kept = match &mut self.rest {
                Rest::Chunks(lease) => {
                    let frame = lease.first_mut().expect("there is a next one");
                    let is_kept = is_possible && keep(frame);
                    if is_kept && !in_place {
                        sender.copy(frame);
                    }
                    let taken = lease.take_first().expect("there is a next one");
                    match is_kept && in_place {
                        true => sender.push_in_place(taken),
                        false => lease.put_back(taken),
                    }
                    is_kept
                }
                Rest::Others(batch, place) => {
                    let mut packets = batch.iter_from(*place);
                    let packet = packets.next().expect("there is a next one");
                    *place = packets.place();
                    is_possible && sender.copy_if(packet.data(), keep)
                }
            };
            self.forwarded += u64::from(is_kept);
        }
        sender.publish();
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        let left = match &self.rest {
            Rest::Chunks(lease) => lease.len(),
            Rest::Others(batch, place) => batch.iter_from(*place).count(),
        };
        self.figures.not_forwarded.add(left as u64);
    }
}

impl XdpSender {
    /// Forwards the packets of a batch for which `keep` returns true, and returns their number.
    ///
    /// `keep` may change the packets' bytes. If there is no room, this kicks and waits; the last packets are
    /// committed, not flushed.
    ///
    /// Packets are not copied if this socket has received them, or a socket that shares its UMEM, built with
    /// [`shared_umem`](crate::xdp::XdpSocketBuilder::shared_umem). A packet too long for this interface is counted
    /// in [`XdpStats::not_forwarded`](crate::stats::XdpStats::not_forwarded).
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush); the rest of the batch is then released, and counted in `not_forwarded`
    /// too.
    pub fn send_batch(
        &mut self,
        batch: PacketBatch,
        mut keep: impl FnMut(&mut [u8]) -> bool,
    ) -> Result<u64> {
        let mut forwarding = Forwarding::new(batch, self);
        loop {
            forwarding.step(self, &mut keep);
            if forwarding.is_done(self) {
                return Ok(forwarding.forwarded);
            }
            self.press(|sender| forwarding.has_room(sender), None)?;
        }
    }
}
