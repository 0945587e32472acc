//! The parts that the packet headers of both TPACKET versions have in common.

/// The positions in a packet's header of the fields that change with the tag.
pub(super) struct Fields {
    pub(super) wire_len: usize,
    pub(super) captured: usize,
    pub(super) data_at: usize,
    /// Where the `sockaddr_ll` is, the last part of the header.
    pub(super) link_at: usize,
    /// Bytes of the header.
    pub(super) header_len: usize,
    /// The distance from the point where `data_at` counts from to the start of the memory.
    pub(super) origin: usize,
}
