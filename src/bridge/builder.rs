//! Options of a bridge.

use super::{Bridge, BridgeHandles, COOKED};
use crate::afpacket::{Capture, CaptureBuilder, Injector, InjectorBuilder, RingProfile};
use crate::error::{Error, Result};

/// Blocks that hold packets of 64 KiB, and enough of them for a reader that is kept off its core for a quarter
/// of a second.
const BLOCK: usize = 256 << 10;
const BLOCKS: usize = 256;
/// Bytes of a slot, which holds a frame of 64 KiB with its headers. This is not a power of two, so that slots
/// do not all map to the same cache lines.
const SLOT: usize = 68 << 10;
const TX_SLOTS: usize = 256;

/// A builder for a [`Bridge`].
///
/// By default each side has a receive ring of 256 blocks of 256 KiB, handed over after 1 ms at the latest, and
/// a transmit ring of 259 slots of 68 KiB, because frames have up to 64 KiB (see [`CaptureBuilder::offloads`]).
/// Together these take 82 MiB. Promiscuous mode is on. For lower latency, see [`profile`](Self::profile).
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct BridgeBuilder {
    captures: [CaptureBuilder; 2],
    injectors: [InjectorBuilder; 2],
}

impl BridgeBuilder {
    pub(super) fn new() -> Self {
        let capture = Capture::builder()
            .block_size(BLOCK)
            .block_count(BLOCKS)
            .block_timeout_ms(1)
            .promiscuous(true)
            .ignore_outgoing(true)
            .offloads(true);
        let injector = Injector::builder().frame_size(SLOT).frame_count(TX_SLOTS).offloads(true);
        Self { captures: [capture.clone(), capture], injectors: [injector.clone(), injector] }
    }

    /// Sets one interface. Required.
    pub fn interface_a(self, name: &str) -> Self {
        self.capture_a(|capture| capture.interface(name)).injector_a(|tx| tx.interface(name))
    }

    /// Sets the other interface. Required.
    pub fn interface_b(self, name: &str) -> Self {
        self.capture_b(|capture| capture.interface(name)).injector_b(|tx| tx.interface(name))
    }

    /// Sets the sizes of both receive rings.
    ///
    /// [`RingProfile::LowLatency`] delivers each packet at once instead of within 1 to 2 ms. It cannot forward
    /// packets that need splitting: they are longer than its frames and count as too large. So with it, switch
    /// receive and segmentation offloads off (`ethtool -K eth0 gro off gso off tso off`, also on hosts on this
    /// machine).
    pub fn profile(self, profile: RingProfile) -> Self {
        let has_offloads = profile != RingProfile::LowLatency;
        self.both_captures(|capture| capture.profile(profile).offloads(has_offloads))
    }

    /// Sets whether the interfaces accept packets for other hosts. Default: true, because hosts behind a bridge
    /// are other hosts.
    pub fn promiscuous(self, on: bool) -> Self {
        self.both_captures(|capture| capture.promiscuous(on))
    }

    /// Sets whether frames bypass the interfaces' queueing disciplines. Default: false. If true, the kernel
    /// does not split frames for a card that cannot.
    pub fn qdisc_bypass(self, on: bool) -> Self {
        self.injector_a(|tx| tx.qdisc_bypass(on)).injector_b(|tx| tx.qdisc_bypass(on))
    }

    /// Sets further options for receiving on interface A.
    pub fn capture_a(mut self, set: impl FnOnce(CaptureBuilder) -> CaptureBuilder) -> Self {
        self.captures[0] = set(self.captures[0].clone());
        self
    }

    /// Sets further options for receiving on interface B.
    pub fn capture_b(mut self, set: impl FnOnce(CaptureBuilder) -> CaptureBuilder) -> Self {
        self.captures[1] = set(self.captures[1].clone());
        self
    }

    /// Sets further options for sending on interface A.
    pub fn injector_a(mut self, set: impl FnOnce(InjectorBuilder) -> InjectorBuilder) -> Self {
        self.injectors[0] = set(self.injectors[0].clone());
        self
    }

    /// Sets further options for sending on interface B.
    pub fn injector_b(mut self, set: impl FnOnce(InjectorBuilder) -> InjectorBuilder) -> Self {
        self.injectors[1] = set(self.injectors[1].clone());
        self
    }

    /// Returns the capture options of both sides, for [`Shards`](crate::Shards) to open; see
    /// [`build_with`](Self::build_with).
    pub fn captures(&self) -> [CaptureBuilder; 2] {
        self.captures.clone()
    }

    /// Opens the sockets.
    ///
    /// # Errors
    /// As for [`CaptureBuilder::build`] and [`InjectorBuilder::build`];
    /// [`Error::SameInterface`](crate::Error::SameInterface),
    /// [`Error::DifferentLinks`](crate::Error::DifferentLinks).
    pub fn build(self) -> Result<Bridge> {
        let [a, b] = self.captures.clone();
        let open = |capture: CaptureBuilder| capture.build().map_err(bridging);
        let (rx_a, rx_b) = (open(a)?, open(b)?);
        self.build_with(rx_a, rx_b)
    }

    /// Builds a bridge with captures that are already open. This allows one bridge per shard, whose captures
    /// are members of two fanout groups.
    ///
    /// ```no_run
    /// use ringtap::{Bridge, Shards};
    /// use ringtap::bridge::BridgeAction;
    ///
    /// # fn main() -> ringtap::Result<()> {
    /// let options = Bridge::builder().interface_a("eth0").interface_b("eth1");
    /// let [a, b] = options.captures();
    /// let shards = Shards::builder().capture(a).and_capture(b).spawn(move |mut shard| {
    ///     let options = options.clone();
    ///     async move {
    ///         let b = shard.others.remove(0);
    ///         let mut bridge =
    ///             options.build_with(shard.capture.into_inner(), b.into_inner())?;
    ///         bridge.run_async(|_: &ringtap::Packet<'_>, _| BridgeAction::Forward).await
    ///     }
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Both captures must be opened with [`captures`](Self::captures) and share their stop handle, as those of
    /// a shard do. A stop handle of A's then ends the bridge.
    ///
    /// # Errors
    /// As for [`InjectorBuilder::build`]; [`Error::SameInterface`](crate::Error::SameInterface),
    /// [`Error::DifferentLinks`](crate::Error::DifferentLinks).
    pub fn build_with(self, rx_a: Capture, rx_b: Capture) -> Result<Bridge> {
        let [tx_a, tx_b] = self.injectors;
        Bridge::new(BridgeHandles { rx_a, tx_b: tx_b.build()?, rx_b, tx_a: tx_a.build()? })
    }

    fn both_captures(self, set: impl Fn(CaptureBuilder) -> CaptureBuilder) -> Self {
        self.capture_a(&set).capture_b(&set)
    }
}

/// Says of a capture's error what is at fault for a bridge.
fn bridging(error: Error) -> Error {
    match error {
        // Bridges carry offloads, and set the option unasked.
        Error::Unusable { option: "offloads", interface, .. } => {
            Error::Unusable { option: "bridge", interface, why: COOKED }
        }
        error => error,
    }
}
