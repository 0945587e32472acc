//! A bridge between two interfaces: packets that arrive on one leave on the other, unless a filter drops them.
//!
//! ```text
//!   A ─ capture ──► lane A to B ──► injector ─ B        one task serves both lanes in turn,
//!   A ─ injector ◄── lane B to A ◄── capture ─ B        a bounded number of packets each
//! ```
//!
//! The captures do not see packets that this host sends, so a forwarded packet is never captured again. Packets
//! keep their VLAN tags. Checksums and segmentation that a sender left to its card are passed on as such
//! ([`Offload`](crate::packet::Offload)), so TCP between two hosts passes a bridge unchanged.

mod builder;
mod filter;
mod lane;
mod segment;
mod stats;
#[cfg(feature = "af-xdp")]
mod xdp;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

pub use self::builder::BridgeBuilder;
pub use self::filter::{BridgeAction, BridgeDirection, BridgeFilter, BridgeFrame};
use self::lane::{Lane, LanePorts, Turn};
use self::stats::Counters;
pub use self::stats::{BridgeLaneStats, BridgeStats, BridgeStatsHandle};
#[cfg(feature = "af-xdp")]
pub use self::xdp::XdpBridge;
use crate::afpacket::{Capture, Injector};
use crate::error::{Error, Result};
use crate::executor;
use crate::packet::{LinkType, Packet};
use crate::port::RxPort;
use crate::ring::batch::{PacketBatch, Place};
use crate::time::Budget;
use crate::wait::StopHandle;

/// A bridge that forwards between two interfaces in both directions.
///
/// ```no_run
/// use ringtap::Bridge;
/// use ringtap::bridge::BridgeAction;
///
/// # fn main() -> ringtap::Result<()> {
/// let mut bridge = Bridge::open_pair("eth0", "eth1")?;
/// bridge.run(|packet, _direction| {
///     if packet.len() > 1000 { BridgeAction::Drop } else { BridgeAction::Forward }
/// })?;
/// # Ok(())
/// # }
/// ```
///
/// A full transmit ring makes its direction wait, until the capture's ring fills up and the kernel drops
/// packets there. The bridge itself drops packets if the other interface accepts nothing for 20 ms
/// (`ring_full`), and at once while that interface is down (`stale`). [`BridgeLaneStats`] accounts for every
/// packet, and for every segment that it was split into.
///
/// Neither interface needs an address. Do not connect them through another bridge or anything else that
/// forwards between them: that makes a loop.
pub struct Bridge {
    ports: Option<Ports>,
    counters: [Arc<Counters>; 2],
    stats: BridgeStatsHandle,
    stop: StopHandle,
}

/// The four sockets of a bridge, returned by [`Bridge::into_inner`].
#[derive(Debug)]
#[non_exhaustive]
pub struct BridgeHandles {
    /// Receives on interface A.
    pub rx_a: Capture,
    /// Sends on interface B.
    pub tx_b: Injector,
    /// Receives on interface B.
    pub rx_b: Capture,
    /// Sends on interface A.
    pub tx_a: Injector,
}

/// The sockets and packets that a bridge holds while it does not run.
struct Ports {
    handles: BridgeHandles,
    /// Packets that a cancelled run has not forwarded yet.
    held: [Held; 2],
}

/// A batch that is not completely forwarded.
type Held = Option<(PacketBatch, Place)>;

impl Bridge {
    /// Joins two interfaces with the default options.
    ///
    /// # Errors
    /// As for [`BridgeBuilder::build`].
    pub fn open_pair(interface_a: &str, interface_b: &str) -> Result<Self> {
        Self::builder().interface_a(interface_a).interface_b(interface_b).build()
    }

    /// Returns a builder with the default options.
    pub fn builder() -> BridgeBuilder {
        BridgeBuilder::new()
    }

    fn new(mut handles: BridgeHandles) -> Result<Self> {
        let names = [&handles.rx_a, &handles.rx_b].map(|rx| rx.interface().to_owned());
        if handles.rx_a.interface_index() == handles.rx_b.interface_index() {
            let [name, _] = names; // the interface may have several names
            return Err(Error::SameInterface { name });
        }
        let links = [&handles.rx_a, &handles.rx_b].map(Capture::link_type);
        check_links(names, links)?;
        let stop = match handles.rx_a.known_stop() {
            Some(stop) => stop.clone(),
            None => handles.rx_a.stop_handle()?,
        };
        handles.rx_b.share_stop(stop.clone());
        let counters: [Arc<Counters>; 2] = Default::default();
        let captures = [handles.rx_a.stats_handle(), handles.rx_b.stats_handle()];
        let stats = BridgeStatsHandle::new(counters.clone(), captures);
        Ok(Self { ports: Some(Ports { handles, held: [None, None] }), counters, stats, stop })
    }

    /// Forwards until a [`StopHandle`] ends it. Packets received by then are still committed, and handed to the
    /// kernel if it accepts them within 20 ms. Any others stay in the ring.
    ///
    /// # Errors
    /// As for [`run_async`](Self::run_async).
    pub fn run<F>(&mut self, decide: F) -> Result<()>
    where
        F: FnMut(&Packet<'_>, BridgeDirection) -> BridgeAction,
    {
        self.run_with(decide)
    }

    /// As [`run`](Self::run), with a filter that can change packets or is not a closure.
    ///
    /// # Errors
    /// As for [`run_async`](Self::run_async).
    pub fn run_with(&mut self, filter: impl BridgeFilter) -> Result<()> {
        executor::block_on(self.run_with_async(filter))
    }

    /// Forwards on this thread's reactor until a [`StopHandle`] ends it.
    ///
    /// Both directions take turns, and other tasks of the thread run after each turn. Cancel-safe: if the
    /// future is dropped after forwarding some of the received packets, another run continues with the rest.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`] if an interface was removed: open a new bridge once the interface has been
    /// replaced. An interface that is down is not an error. [`Error::NoReactor`], [`Error::IoUringRefused`], or
    /// [`Error::TooManyOps`] (a run takes eight ops).
    pub async fn run_async<F>(&mut self, decide: F) -> Result<()>
    where
        F: FnMut(&Packet<'_>, BridgeDirection) -> BridgeAction,
    {
        self.run_with_async(decide).await
    }

    /// As [`run_async`](Self::run_async), with a filter that can change packets or is not a closure.
    ///
    /// # Errors
    /// As for [`run_async`](Self::run_async).
    pub async fn run_with_async(&mut self, mut filter: impl BridgeFilter) -> Result<()> {
        let mut running = Running::begin(self)?;
        poll_fn(|cx| running.poll(cx, &mut filter)).await?;
        for lane in &mut running.lanes {
            lane.finish().await?;
        }
        Ok(())
    }

    /// Returns a handle that ends [`run`](Self::run) from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Returns the totals of both directions.
    ///
    /// # Errors
    /// As for [`Capture::stats`].
    pub fn stats(&self) -> Result<BridgeStats> {
        self.stats.stats()
    }

    /// Returns a handle that reads the statistics from other threads.
    pub fn stats_handle(&self) -> BridgeStatsHandle {
        self.stats.clone()
    }

    /// Returns the sockets for other use. The remaining packets of a partly forwarded batch are lost.
    ///
    /// # Panics
    /// Never, because a run borrows the bridge and gives the sockets back when it ends.
    pub fn into_inner(mut self) -> BridgeHandles {
        self.ports.take().expect("a run gives the sockets back").handles
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge")
            .field("handles", &self.ports.as_ref().map(|ports| &ports.handles))
            .finish_non_exhaustive()
    }
}

/// A bridge while it runs. However the run ends, dropping this puts the sockets back.
struct Running<'a> {
    bridge: &'a mut Bridge,
    lanes: Vec<Lane>,
    /// When the rest of the thread has a turn.
    budget: Budget,
}

impl<'a> Running<'a> {
    fn begin(bridge: &'a mut Bridge) -> Result<Self> {
        let Ports { handles, held } = bridge.ports.take().expect("a run gives the sockets back");
        let BridgeHandles { rx_a, tx_b, rx_b, tx_a } = handles;
        let [held_a, held_b] = held;
        let [a_to_b, b_to_a] = bridge.counters.clone();
        let first = Lane::new(BridgeDirection::AtoB, (rx_a, tx_b), held_a, a_to_b);
        let second = Lane::new(BridgeDirection::BtoA, (rx_b, tx_a), held_b, b_to_a);
        let split = |lane: Result<Lane, Box<(Error, LanePorts)>>| match lane {
            Ok(lane) => (lane.into_ports(), None),
            Err(lost) => (lost.1, Some(lost.0)),
        };
        let (first, second) = match (first, second) {
            (Ok(first), Ok(second)) => {
                return Ok(Self { bridge, lanes: vec![first, second], budget: Budget::new() });
            }
            (first, second) => (split(first), split(second)),
        };
        bridge.ports = Some(Ports::of(first.0, second.0));
        Err(first.1.or(second.1).expect("one of them failed"))
    }

    /// Ready when both lanes have ended.
    fn poll(&mut self, cx: &mut Context<'_>, filter: &mut impl BridgeFilter) -> Poll<Result<()>> {
        if self.budget.is_spent() {
            ready!(self.budget.poll_turn(cx));
        }
        let (mut ended, mut has_more) = (0, false);
        for lane in &mut self.lanes {
            match lane.poll(cx, filter) {
                Poll::Ready(Ok(Turn::Ended)) => ended += 1,
                Poll::Ready(Ok(Turn::More)) => has_more = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        if ended == self.lanes.len() {
            return Poll::Ready(Ok(()));
        }
        if !has_more {
            self.budget.renew();
        } else if self.budget.look() {
            let _ = self.budget.poll_turn(cx);
        } else {
            // Let the reactor take a turn, in which it hands over the committed frames.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let second = self.lanes.pop().map(Lane::into_ports);
        let first = self.lanes.pop().map(Lane::into_ports);
        self.bridge.ports = first.zip(second).map(|(first, second)| Ports::of(first, second));
    }
}

impl Ports {
    fn of(first: LanePorts, second: LanePorts) -> Self {
        let ((rx_a, tx_b), held_a) = first;
        let ((rx_b, tx_a), held_b) = second;
        Self { handles: BridgeHandles { rx_a, tx_b, rx_b, tx_a }, held: [held_a, held_b] }
    }
}

/// Why captures of cooked packets are not bridged.
const COOKED: &str = "its frames have no headers of a known kind, which the other side could send; bridge interfaces of Ethernet, or of raw IP";

/// Returns an error if frames of one interface cannot be sent on the other as they are.
fn check_links(names: [String; 2], links: [LinkType; 2]) -> Result<()> {
    if let Some(at) = links.iter().position(|&link| link == LinkType::LINUX_SLL2) {
        let interface = names[at].clone();
        return Err(Error::Unusable { option: "bridge", interface, why: COOKED });
    }
    if links[0] != links[1] {
        let known = |link: LinkType| (link != LinkType::UNKNOWN).then_some(link.0);
        return Err(Error::DifferentLinks { names, links: links.map(known) });
    }
    Ok(())
}
