//! Batches of packets that no ring delivered, for example packets from a file.

use super::batch::PacketBatch;
use super::block_writer::BlockImage;
use crate::packet::{Packet, Timestamp};

/// A batch made of packets from a source other than a ring.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    image: BlockImage,
    times: Option<(Timestamp, Timestamp)>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self { image: BlockImage::growing(), times: None }
    }
}

impl BatchBuilder {
    pub(crate) fn push(&mut self, packet: &Packet<'_>) {
        let time = packet.timestamp();
        self.times = Some((self.times.map_or(time, |(first, _)| first), time));
        self.image.push(packet.data(), packet.meta());
    }

    pub(crate) fn len(&self) -> usize {
        self.image.packets()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes of memory used so far.
    pub(crate) fn bytes(&self) -> usize {
        self.image.len()
    }

    pub(crate) fn finish(self, sequence: u64) -> PacketBatch {
        let mut body = self.image.finish(sequence);
        let (first, last) = self.times.unwrap_or_default();
        BlockImage::set_times(&mut body, first, last);
        PacketBatch::of_body(body.into())
    }
}

impl PacketBatch {
    /// Creates a batch of packets from another source.
    pub(crate) fn of_packets(packets: &[Packet<'_>]) -> Self {
        let mut batch = BatchBuilder::default();
        packets.iter().for_each(|packet| batch.push(packet));
        batch.finish(1)
    }
}
