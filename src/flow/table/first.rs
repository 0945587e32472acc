//! Fields of a flow that come from the first packet of each side.

use flowscope::FlowExtractor;

use super::FlowTable;
use crate::flow::finder::Found;
use crate::packet::Packet;

impl<E: FlowExtractor, S: Send + 'static> FlowTable<E, S> {
    /// Notes what the first packet of a side bears.
    #[inline(never)]
    pub(super) fn note_first(
        &mut self,
        slot: u32,
        side: usize,
        packet: &Packet<'_>,
        found: &Found<E::Key>,
    ) {
        let class = self.finder.class(packet, found);
        let is_answer = self.slots.entries[slot as usize].packets[1 - side] > 0;
        self.slots.entries[slot as usize].class[side] = class;
        if let (false, Some(tag)) = (is_answer, packet.vlan()) {
            self.slots.cold[slot as usize].set_vlan(tag.id());
        }
    }
}
