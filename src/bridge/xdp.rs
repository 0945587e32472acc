//! A bridge over AF_XDP.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::check_links;
use super::filter::BridgeDirection;
use crate::afxdp::{XdpSocket, XdpStatsHandle};
use crate::error::{Error, Result};
use crate::io::{AsyncXdpReceiver, AsyncXdpSender, AsyncXdpSocket};
use crate::wait::StopHandle;
use crate::{executor, time};

/// Time that a lane waits for room before it drops packets, and at the end for the kernel to take the last
/// ones.
const PATIENCE: Duration = Duration::from_millis(20);

/// A bridge that forwards between queues of two interfaces in both directions. If the sockets share a UMEM,
/// frames are not copied.
///
/// ```no_run
/// # fn main() -> ringtap::Result<()> {
/// let bridge = ringtap::bridge::XdpBridge::open_pair("eth0", "eth1")?;
/// bridge.run(|frame, _direction| frame.len() <= 1000)?; // drops longer frames
/// # Ok(())
/// # }
/// ```
///
/// Frames are forwarded as they are, tags included. If an interface keeps VLAN tags outside of the bytes
/// ([`InterfaceInfo::strips_tags`](crate::interface::InterfaceInfo::strips_tags)), AF_XDP does not see them. A
/// bridge that would merge VLANs in this way is refused. [`without_vlans`](Self::without_vlans) is for links
/// without VLANs.
///
/// Work that a sender on this machine leaves to its card, such as checksums, is not yet done in the frames that
/// AF_XDP receives. Between containers, switch that off (`ethtool -K <interface> tx off tso off`), or use a
/// [`Bridge`](crate::Bridge), which passes it on.
///
/// The [`XdpStats`](crate::stats::XdpStats) account for every packet: those of the socket it arrived on
/// (`delivered`, or `drops()`), and those of the other socket (`committed`, or `not_forwarded`). A side that
/// accepts nothing makes its direction wait. If that lasts longer than about 20 ms, for example because the
/// side is down, the packets are dropped and counted in `not_forwarded`. Frames that are committed but not sent
/// when the bridge ends are lost.
#[derive(Debug)]
pub struct XdpBridge {
    a: XdpSocket,
    b: XdpSocket,
    stop: StopHandle,
}

impl XdpBridge {
    /// Joins the first queues of two interfaces, both in promiscuous mode, with one UMEM for both.
    ///
    /// # Errors
    /// As for [`new`](Self::new) and [`XdpSocketBuilder::build`](crate::xdp::XdpSocketBuilder::build).
    pub fn open_pair(interface_a: &str, interface_b: &str) -> Result<Self> {
        let (a, b) = Self::sockets(interface_a, interface_b)?;
        Self::new(a, b)
    }

    /// Joins the first queues of two interfaces without checking for VLAN tags; see
    /// [`without_vlans`](Self::without_vlans).
    ///
    /// # Errors
    /// As for [`open_pair`](Self::open_pair), except [`Error::TagsStripped`].
    pub fn open_pair_without_vlans(interface_a: &str, interface_b: &str) -> Result<Self> {
        let (a, b) = Self::sockets(interface_a, interface_b)?;
        Self::without_vlans(a, b)
    }

    fn sockets(interface_a: &str, interface_b: &str) -> Result<(XdpSocket, XdpSocket)> {
        let options = XdpSocket::builder().promiscuous(true);
        let a = options.clone().interface(interface_a).umem_shares(2).build()?;
        let b = options.interface(interface_b).shared_umem(&a.umem()).build()?;
        Ok((a, b))
    }

    /// Joins two sockets. To bridge several queues, run one bridge per queue, each
    /// in its own thread.
    ///
    /// # Errors
    /// [`Error::SameInterface`], even if the sockets use different names of it; [`Error::DifferentLinks`];
    /// [`Error::TagsStripped`]; [`Error::Os`] if no file descriptor is left.
    pub fn new(a: XdpSocket, b: XdpSocket) -> Result<Self> {
        a.check_tags()?;
        b.check_tags()?;
        Self::without_vlans(a, b)
    }

    /// Joins two sockets without checking for VLAN tags. Tags that the card strips are lost.
    ///
    /// # Errors
    /// As for [`new`](Self::new), except [`Error::TagsStripped`].
    pub fn without_vlans(mut a: XdpSocket, mut b: XdpSocket) -> Result<Self> {
        if a.is_on_same_interface(&b) {
            return Err(Error::SameInterface { name: a.interface().to_owned() });
        }
        let names = [&a, &b].map(|socket| socket.interface().to_owned());
        check_links(names, [a.link_type(), b.link_type()])?;
        let stop = a.stop_handle()?;
        b.receiver().share_stop(stop.clone());
        Ok(Self { a, b, stop })
    }

    /// Returns a handle that ends [`run`](Self::run) from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Returns handles that read the statistics of both sockets, A and B.
    pub fn stats_handles(&self) -> [XdpStatsHandle; 2] {
        [self.a.stats_handle(), self.b.stats_handle()]
    }

    /// Forwards until a [`StopHandle`] ends it. `filter` may change a frame's bytes and returns whether to
    /// forward it. Frames received by then are still committed, and handed over if that takes no more than 20
    /// ms.
    ///
    /// # Errors
    /// As for [`run_async`](Self::run_async).
    pub fn run(self, filter: impl FnMut(&mut [u8], BridgeDirection) -> bool) -> Result<()> {
        executor::block_on(self.run_async(filter))
    }

    /// Forwards on this thread's reactor.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`] if an interface was removed. An interface that is down is not an error.
    /// [`Error::NoReactor`], [`Error::IoUringRefused`], or [`Error::TooManyOps`] (a run takes up to eight ops).
    pub async fn run_async(
        self,
        filter: impl FnMut(&mut [u8], BridgeDirection) -> bool,
    ) -> Result<()> {
        let (rx_a, tx_a) = AsyncXdpSocket::new(self.a)?.into_split();
        let (rx_b, tx_b) = AsyncXdpSocket::new(self.b)?.into_split();
        let filter = RefCell::new(filter);
        let mut a_to_b = pin!(lane(rx_a, tx_b, &filter, BridgeDirection::AtoB));
        let mut b_to_a = pin!(lane(rx_b, tx_a, &filter, BridgeDirection::BtoA));
        let (mut first, mut second) = (None, None);
        poll_fn(|cx| {
            if first.is_none() {
                first = ready_or_none(a_to_b.as_mut().poll(cx))?;
            }
            if second.is_none() {
                second = ready_or_none(b_to_a.as_mut().poll(cx))?;
            }
            if first.is_some() && second.is_some() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }
}

fn ready_or_none(polled: Poll<Result<()>>) -> Result<Option<()>> {
    match polled {
        Poll::Ready(outcome) => outcome.map(Some),
        Poll::Pending => Ok(None),
    }
}

async fn lane(
    mut from: AsyncXdpReceiver,
    mut to: AsyncXdpSender,
    filter: &RefCell<impl FnMut(&mut [u8], BridgeDirection) -> bool>,
    direction: BridgeDirection,
) -> Result<()> {
    let mut patience = PATIENCE;
    while let Some(batch) = from.next_batch().await? {
        let sending = to.send_batch(batch, |frame| (filter.borrow_mut())(frame, direction));
        patience = match time::timeout(patience, sending).await {
            Ok(sent) => sent.map(|_| PATIENCE)?,
            // The side is not just busy: drop and count frames that find no room, until it accepts some again.
            Err(_) => Duration::ZERO,
        };
    }
    time::timeout(PATIENCE, to.flush()).await.unwrap_or(Ok(()))
}
