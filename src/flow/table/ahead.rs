//! Flows that are fetched from memory ahead of their packets.

use std::collections::VecDeque;

use flowscope::FlowExtractor;

use super::{FlowTable, Seen, Tell};
use crate::flow::event::FlowEvent;
use crate::flow::finder::Found;
use crate::packet::Packet;

/// Packets that are looked up at once.
pub(in crate::flow) const AT_ONCE: usize = 32;
/// Flows that fit into the caches near the processor, so that nothing is fetched ahead.
pub(super) const NEAR: usize = 2048;

impl<E: FlowExtractor, S: Send + 'static> FlowTable<E, S> {
    /// Reads a packet whose flow is found without further ado.
    #[inline]
    pub(super) fn look_up(&self, packet: &Packet<'_>) -> Option<Found<E::Key>> {
        let mut found = self.finder.plain(packet)?;
        found.hash = self.slots.hash(&found.key);
        Some(found)
    }

    /// Processes packets, and appends their events to `events`. It is faster than one packet after the other in a
    /// table that is larger than the processor's caches, as many flows are fetched from memory at once.
    pub fn packets<'a>(
        &mut self,
        packets: impl IntoIterator<Item = Packet<'a>>,
        events: &mut VecDeque<FlowEvent<E::Key>>,
    ) {
        let mut packets = packets.into_iter();
        while !self.is_worth_it() {
            match packets.next() {
                Some(packet) => self.packet(&packet, events),
                None => return,
            }
        }
        let mut some = Vec::with_capacity(AT_ONCE);
        loop {
            some.extend(packets.by_ref().take(AT_ONCE));
            if some.is_empty() {
                return;
            }
            self.prepared.clear();
            self.next_prepared = 0;
            some.iter().for_each(|packet| self.prepare_one(packet));
            self.prepare_done();
            for packet in some.drain(..) {
                self.take_next(&packet, &mut |_, event| events.push_back(event));
            }
        }
    }

    /// Reads a packet that will be processed after those prepared before, and begins to fetch the place of its flow
    /// in the index from memory.
    #[inline]
    pub(in crate::flow) fn prepare_one(&mut self, packet: &Packet<'_>) {
        if self.next_prepared == self.prepared.len() {
            self.prepared.clear();
            self.next_prepared = 0;
        }
        let found = self.look_up(packet);
        if let Some(found) = &found {
            self.slots.prefetch_bucket(found.hash);
        }
        self.prepared.push(found);
    }

    /// Begins to fetch the flows of all packets that are prepared.
    #[inline]
    pub(in crate::flow) fn prepare_done(&mut self) {
        for found in self.prepared.iter().flatten() {
            self.slots.prefetch_entry(found.hash);
        }
    }

    /// Skips a packet that was prepared.
    pub(in crate::flow) fn skip(&mut self) {
        self.next_prepared = (self.next_prepared + 1).min(self.prepared.len());
    }

    /// Whether the next packet is prepared, or the extractor is one that cannot be.
    #[inline]
    pub(in crate::flow) fn is_prepared(&self) -> bool {
        self.next_prepared < self.prepared.len() || !self.is_worth_it()
    }

    /// Whether flows are fetched ahead: for our own extractor, in a table that is larger than the caches near the
    /// processor.
    #[inline]
    pub(super) fn is_worth_it(&self) -> bool {
        self.slots.used() > NEAR && self.finder.is_fast()
    }

    /// Processes a packet: the one that was prepared first, if any were.
    #[inline]
    pub(in crate::flow) fn take_next(
        &mut self,
        packet: &Packet<'_>,
        tell: Tell<'_, E::Key>,
    ) -> Option<Seen> {
        if self.next_prepared == self.prepared.len() {
            let found = self.look_up(packet);
            return self.take(packet, found.as_ref(), tell);
        }
        let prepared = std::mem::take(&mut self.prepared);
        let found = prepared.get(self.next_prepared).and_then(Option::as_ref);
        self.next_prepared += 1;
        let seen = self.take(packet, found, tell);
        self.prepared = prepared;
        seen
    }
}
