//! Where the frames of a socket are.

/// Where the frames of a socket are. They add up to their number, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct XdpChunks {
    /// Free to be given to the kernel.
    pub rx_free: u32,
    /// In the fill ring, in the driver's hands, or in the RX ring.
    pub rx_kernel: u32,
    /// Of these, those seen in the fill ring or the RX ring; all of them, while a driver that copies is at rest.
    pub rx_rings: u32,
    /// In batches that were not dropped, or not seen to be, and sent on from there.
    pub rx_leased: u32,
    /// Free to be written.
    pub tx_free: u32,
    /// In the TX ring, under way, or in the completion ring.
    pub tx_kernel: u32,
    /// Entries that were committed and have not come back, those of frames received elsewhere counted too.
    pub tx_under_way: u32,
}

impl XdpChunks {
    /// All frames of the socket.
    pub fn total(&self) -> u32 {
        self.rx_free + self.rx_kernel + self.rx_leased + self.tx_free + self.tx_kernel
    }
}
