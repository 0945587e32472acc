//! The locations of a socket's frames.

/// The number of a socket's frames in each place. The counts always add up to the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct XdpChunks {
    /// Receive frames that can be given to the kernel.
    pub rx_free: u32,
    /// Receive frames in the fill ring, held by the driver, or in the RX ring.
    pub rx_kernel: u32,
    /// Frames of `rx_kernel` seen in the fill ring or the RX ring; all of them, while a driver that copies is idle.
    pub rx_rings: u32,
    /// Receive frames in batches that are held, or whose drop has not been noticed yet, and frames forwarded from
    /// batches.
    pub rx_leased: u32,
    /// Send frames that can be written.
    pub tx_free: u32,
    /// Send frames in the TX ring, under way, or in the completion ring.
    pub tx_kernel: u32,
    /// Committed entries that have not come back, including those of frames received elsewhere.
    pub tx_under_way: u32,
}

impl XdpChunks {
    /// Returns the number of all frames of the socket.
    pub fn total(&self) -> u32 {
        self.rx_free + self.rx_kernel + self.rx_leased + self.tx_free + self.tx_kernel
    }
}
