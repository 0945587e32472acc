//! What the headers of both versions of packets have in common.

/// Where in memory a packet's header has what changes with the tag.
pub(super) struct Fields {
    pub(super) wire_len: usize,
    pub(super) captured: usize,
    pub(super) data_at: usize,
    /// Bytes of the header.
    pub(super) header_len: usize,
    /// How far behind the place that `data_at` counts from the memory begins.
    pub(super) origin: usize,
}
