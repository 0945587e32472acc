//! One direction of a bridge.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::Held;
use super::filter::{BridgeAction, BridgeDirection, BridgeFilter, BridgeFrame};
use super::segment::Splitting;
use super::stats::{Counters, Fate};
use crate::afpacket::{Capture, Injector};
use crate::error::{Error, Result};
use crate::io::{AsyncCapture, AsyncInjector, AsyncTxSlot};
use crate::packet::{Offload, Packet, PacketStatus, VlanTag};
use crate::ring::batch::PacketBatch;
use crate::time::{self, Sleep};

/// Packets that a lane forwards before the other lane and the reactor get a turn. One kick hands over this
/// many.
const BUDGET: u32 = 64;
/// Time that a lane waits for room before it drops packets. If it takes longer, the other side is not just
/// busy.
const PATIENCE: Duration = Duration::from_millis(20);
/// The age at which the other side's MTU is looked up again.
const MTU_AGE: Duration = Duration::from_millis(100);
/// Offset of a VLAN tag in a frame: behind the addresses.
const TAG_AT: usize = 12;

/// A lane's sockets, and the packets it has not forwarded yet.
pub(super) type LanePorts = ((Capture, Injector), Held);

/// Takes packets from one side and commits them to the other.
pub(super) struct Lane {
    direction: BridgeDirection,
    from: AsyncCapture,
    to: AsyncInjector,
    held: Held,
    counters: Arc<Counters>,
    /// Set while the lane waits for room.
    waiting: Option<Sleep>,
    /// Whether waiting for room failed; packets that find no room are then dropped.
    is_stuck: bool,
    learned: Instant,
    /// Number of frames that the other side has refused so far.
    refused: u64,
    /// A packet that is being split, and the filter's decision about it.
    splitting: Option<(Splitting, BridgeAction)>,
    /// Number of frames that the other side had taken back at the last check.
    stale: u64,
    has_ended: bool,
}

/// The result of a lane's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There may be more to do at once.
    More,
    /// The capture was stopped, and everything is committed.
    Ended,
}

impl Lane {
    /// Creates a lane on this thread's reactor. An error gives the sockets back.
    pub(super) fn new(
        direction: BridgeDirection,
        (from, to): (Capture, Injector),
        held: Held,
        counters: Arc<Counters>,
    ) -> Result<Self, Box<(Error, LanePorts)>> {
        let from = match AsyncCapture::attach(from) {
            Ok(from) => from,
            Err(lost) => {
                let (error, from) = *lost;
                return Err(Box::new((error, ((from, to), held))));
            }
        };
        let mut to = match AsyncInjector::attach(to) {
            Ok(to) => to,
            Err(lost) => {
                let (error, to) = *lost;
                return Err(Box::new((error, ((from.into_inner(), to), held))));
            }
        };
        to.drop_when_down(true);
        let learned = Instant::now();
        let (refused, stale) = not_sent(&mut to);
        let (waiting, is_stuck, has_ended) = (None, false, false);
        Ok(Self {
            direction,
            from,
            to,
            held,
            counters,
            waiting,
            is_stuck,
            learned,
            refused,
            stale,
            splitting: None,
            has_ended,
        })
    }

    pub(super) fn into_ports(mut self) -> LanePorts {
        self.count_refused();
        self.to.drop_when_down(false);
        if let Some((mut splitting, _)) = self.splitting.take() {
            while splitting.next_len().is_some() {
                match splitting.is_at_start() {
                    true => self.counters.count(Fate::RingFull),
                    false => self.counters.count_segment(Fate::RingFull),
                }
                splitting.skip();
            }
        }
        ((self.from.into_inner(), self.to.into_inner()), self.held)
    }

    /// Forwards a bounded number of packets; pending if there is nothing to do until an event occurs.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        filter: &mut impl BridgeFilter,
    ) -> Poll<Result<Turn>> {
        self.to.check()?;
        self.count_refused();
        let mut budget = BUDGET;
        while budget > 0 {
            if self.has_ended {
                return Poll::Ready(Ok(Turn::Ended));
            }
            if let Some((batch, place)) = self.held.take() {
                let mut packets = batch.iter_from(place);
                let outcome = self.forward(&mut packets, filter, &mut budget);
                let place = packets.place();
                match outcome {
                    Ok(Forwarded::All) => {}
                    Ok(Forwarded::Budget) => self.held = Some((batch, place)),
                    Ok(Forwarded::Full) => {
                        self.held = Some((batch, place));
                        ready!(self.poll_room(cx))?;
                    }
                    Err(error) => {
                        self.held = Some((batch, place));
                        return Poll::Ready(Err(error));
                    }
                }
                continue;
            }
            match ready!(Pin::new(&mut self.from).poll_next(cx)) {
                Some(batch) => self.hold(batch?),
                None => self.has_ended = true,
            }
        }
        Poll::Ready(Ok(Turn::More))
    }

    /// Recounts frames that the kernel has refused or that were taken back since the last call: they were not
    /// forwarded after all.
    fn count_refused(&mut self) {
        let (refused, stale) = not_sent(&mut self.to);
        let since = refused - std::mem::replace(&mut self.refused, refused);
        if since > 0 {
            self.counters.refused(since);
        }
        let since = stale - std::mem::replace(&mut self.stale, stale);
        if since > 0 {
            self.counters.taken_back(since);
        }
    }

    fn hold(&mut self, batch: PacketBatch) {
        let place = batch.iter().place();
        self.held = Some((batch, place));
        if self.learned.elapsed() >= MTU_AGE {
            self.to.learn_mtu();
            self.learned = Instant::now();
        }
    }

    fn forward<'a>(
        &mut self,
        packets: &mut (impl Iterator<Item = Packet<'a>> + Clone),
        filter: &mut impl BridgeFilter,
        budget: &mut u32,
    ) -> Result<Forwarded> {
        loop {
            if *budget == 0 {
                return Ok(Forwarded::Budget);
            }
            // Check for room first, because the filter decides once per packet and its decision is carried out
            // at once.
            let has_room = self.to.try_reserve(0).is_some();
            if has_room {
                (self.is_stuck, self.waiting) = (false, None);
            } else if !self.is_stuck {
                return Ok(Forwarded::Full);
            }
            if self.splitting.is_some() {
                *budget -= 1;
                self.go_on_splitting(has_room, filter)?;
                continue;
            }
            let Some(packet) = packets.next() else { return Ok(Forwarded::All) };
            *budget -= 1;
            let fate = match has_room {
                true => self.forward_one(&packet, filter),
                false => Ok(Some(Fate::RingFull)),
            };
            match &fate {
                Ok(None) => {} // its segments are counted one by one
                Ok(Some(fate)) => self.counters.count(*fate),
                Err(_) => self.counters.count(Fate::Rejected),
            }
            fate?;
        }
    }

    /// Sends the next segment of a packet that is being split, or drops it if there is no room.
    fn go_on_splitting(&mut self, has_room: bool, filter: &mut impl BridgeFilter) -> Result<()> {
        let Some((splitting, action)) = &mut self.splitting else { return Ok(()) };
        let Some(len) = splitting.next_len() else {
            self.splitting = None;
            return Ok(());
        };
        let is_first = splitting.is_at_start();
        let slot = if has_room { self.to.try_reserve(len) } else { None };
        let fate = match slot {
            Some(mut slot) => {
                splitting.write_next(slot.data_mut());
                send(slot, *action, filter, self.direction)
            }
            None => {
                splitting.skip();
                Ok(if has_room { Fate::TooLarge } else { Fate::RingFull })
            }
        };
        let counted = *fate.as_ref().unwrap_or(&Fate::Rejected);
        match is_first {
            true => self.counters.count(counted),
            false => self.counters.count_segment(counted),
        }
        fate.map(drop)
    }

    /// Forwards one packet and returns its fate; `None` if it has to be split.
    fn forward_one(
        &mut self,
        packet: &Packet<'_>,
        filter: &mut impl BridgeFilter,
    ) -> Result<Option<Fate>> {
        let action = filter.decide(packet, self.direction);
        if action == BridgeAction::Drop {
            return Ok(Some(Fate::Filtered));
        }
        let tag = packet.stripped_vlan().filter(|_| packet.len() >= TAG_AT);
        let len = packet.len() + if tag.is_some() { VlanTag::LEN } else { 0 };
        let offload = offload_of(packet);
        let (longest, capacity) = {
            let to = self.to.get_ref();
            (to.max_frame_len() + VlanTag::LEN, to.frame_capacity())
        };
        if packet.is_truncated() {
            return Ok(Some(Fate::TooLarge));
        }
        let can_say = len <= capacity && offload.fits(packet.data());
        if !can_say && offload.segment_size().is_some() {
            let mut frame = vec![0; len];
            write(&mut frame, packet.data(), tag);
            let offload = if tag.is_some() { offload.behind_tag() } else { offload };
            return Ok(match Splitting::new(frame, offload) {
                Ok(splitting) if splitting.longest() > longest => Some(Fate::TooLarge),
                Ok(splitting) => {
                    self.splitting = Some((splitting, action));
                    None
                }
                Err(_) => Some(Fate::Rejected),
            });
        }
        // Committing such a frame would make the injector look up the MTU again every time.
        if offload.wire_len(packet.data()) > longest {
            return Ok(Some(Fate::TooLarge));
        }
        let Some(mut slot) = self.to.try_reserve(len) else { return Ok(Some(Fate::TooLarge)) };
        write(slot.data_mut(), packet.data(), tag);
        slot.set_offload(if tag.is_some() { offload.behind_tag() } else { offload });
        send(slot, action, filter, self.direction).map(Some)
    }

    /// Ready when there is room, or when it is time to give up waiting for it.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let room = self.to.poll_room(cx, 0);
        if room.is_ready() {
            self.waiting = None;
            return room;
        }
        let waiting = self.waiting.get_or_insert_with(|| time::sleep(PATIENCE));
        ready!(Pin::new(waiting).poll(cx));
        (self.waiting, self.is_stuck) = (None, true);
        Poll::Ready(Ok(()))
    }

    /// Waits until the kernel has taken all committed frames, unless it takes none.
    pub(super) async fn finish(&mut self) -> Result<()> {
        let flushed = time::timeout(PATIENCE, self.to.flush()).await;
        self.count_refused();
        flushed.unwrap_or(Ok(()))
    }
}

/// Sends a frame that is already written, changed by the filter if it asked for that.
fn send(
    mut slot: AsyncTxSlot<'_>,
    action: BridgeAction,
    filter: &mut impl BridgeFilter,
    direction: BridgeDirection,
) -> Result<Fate> {
    if action == BridgeAction::Rewrite {
        let mut frame = BridgeFrame::new(slot);
        filter.rewrite(&mut frame, direction);
        slot = frame.into_slot();
    }
    match slot.send() {
        Ok(()) => Ok(Fate::Forwarded),
        Err(Error::FrameLength { .. }) => Ok(Fate::TooLarge),
        Err(error) => Err(error),
    }
}

/// Returns the numbers of committed frames that were refused and that were taken back.
fn not_sent(to: &mut AsyncInjector) -> (u64, u64) {
    let injector = to.get_ref();
    (injector.rejected(), injector.stale())
}

/// The reason why forwarding a batch stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forwarded {
    All,
    Budget,
    Full,
}

/// The work left to do on a packet: as the kernel reports it, or else as far as it can be derived.
fn offload_of(packet: &Packet<'_>) -> Offload {
    let is_unfinished = packet.status().contains(PacketStatus::CHECKSUM_NOT_READY);
    match packet.offload() {
        Some(offload) => offload,
        None if is_unfinished => Offload::unfinished(packet.data()),
        None => Offload::NONE,
    }
}

/// Writes a frame into a slot of its length, and puts the tag that the kernel had stripped back into it.
fn write(slot: &mut [u8], data: &[u8], tag: Option<VlanTag>) {
    let Some(tag) = tag else {
        slot.copy_from_slice(data);
        return;
    };
    let (addresses, rest) = data.split_at(TAG_AT);
    slot[..TAG_AT].copy_from_slice(addresses);
    slot[TAG_AT..][..VlanTag::LEN].copy_from_slice(&tag.to_bytes());
    slot[TAG_AT + VlanTag::LEN..].copy_from_slice(rest);
}
