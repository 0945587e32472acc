//! Decisions about the packets that a bridge forwards.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::io::AsyncTxSlot;
use crate::packet::{Offload, Packet};

/// An action that a bridge takes on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeAction {
    /// Sends the packet out on the other side.
    Forward,
    /// Drops the packet.
    Drop,
    /// Sends a copy out, after [`BridgeFilter::rewrite`] has changed it.
    Rewrite,
}

/// The direction of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BridgeDirection {
    /// From interface A to interface B.
    AtoB,
    /// From interface B to interface A.
    BtoA,
}

/// A filter that decides about packets and can change them.
///
/// A closure `FnMut(&Packet, BridgeDirection) -> BridgeAction` is a filter. So is a pair of such a closure and
/// an `FnMut(&mut BridgeFrame, BridgeDirection)`, which changes the packets for which the first returns
/// [`BridgeAction::Rewrite`]:
///
/// ```no_run
/// use ringtap::Packet;
/// use ringtap::bridge::{BridgeAction, BridgeDirection, BridgeFrame};
///
/// # async fn f(mut bridge: ringtap::Bridge) -> ringtap::Result<()> {
/// let decide = |packet: &Packet<'_>, _: BridgeDirection| match packet.ll_protocol() {
///     Some(0x0800) => BridgeAction::Rewrite,
///     _ => BridgeAction::Forward,
/// };
/// let rewrite = |frame: &mut BridgeFrame<'_>, _: BridgeDirection| frame[..6].fill(0xff);
/// bridge.run_with_async((decide, rewrite)).await
/// # }
/// ```
pub trait BridgeFilter {
    /// Decides about a packet. Called once per packet, in the order of its direction.
    fn decide(&mut self, packet: &Packet<'_>, direction: BridgeDirection) -> BridgeAction;

    /// Changes the copy of a packet for which [`BridgeAction::Rewrite`] was returned, in the slot it is sent
    /// from.
    fn rewrite(&mut self, frame: &mut BridgeFrame<'_>, direction: BridgeDirection) {
        let _ = (frame, direction);
    }
}

impl<F> BridgeFilter for F
where
    F: FnMut(&Packet<'_>, BridgeDirection) -> BridgeAction,
{
    fn decide(&mut self, packet: &Packet<'_>, direction: BridgeDirection) -> BridgeAction {
        self(packet, direction)
    }
}

impl<F, R> BridgeFilter for (F, R)
where
    F: FnMut(&Packet<'_>, BridgeDirection) -> BridgeAction,
    R: FnMut(&mut BridgeFrame<'_>, BridgeDirection),
{
    fn decide(&mut self, packet: &Packet<'_>, direction: BridgeDirection) -> BridgeAction {
        self.0(packet, direction)
    }

    fn rewrite(&mut self, frame: &mut BridgeFrame<'_>, direction: BridgeDirection) {
        self.1(frame, direction);
    }
}

/// A frame about to be sent. It dereferences to its bytes.
///
/// A VLAN tag that [`BridgeFilter::decide`] sees in the packet's metadata ([`Packet::vlan`]) is in the frame
/// here.
///
/// The filter must keep the IP and TCP checksums correct itself, except for a checksum that was left to the
/// card ([`Packet::offload`]): the frame contains only the pseudo-header's part of that.
pub struct BridgeFrame<'a> {
    slot: AsyncTxSlot<'a>,
}

impl<'a> BridgeFrame<'a> {
    pub(super) fn new(slot: AsyncTxSlot<'a>) -> Self {
        Self { slot }
    }

    pub(super) fn into_slot(self) -> AsyncTxSlot<'a> {
        self.slot
    }

    /// Returns the work that is left to the kernel or the card.
    pub fn offload(&self) -> Offload {
        self.slot.offload()
    }

    /// Sets the work that is left to the kernel or the card. A filter that moves headers must do this, because
    /// the position of a checksum counts from the start of the frame.
    pub fn set_offload(&mut self, offload: Offload) {
        self.slot.set_offload(offload);
    }

    /// Sets the frame's length, up to the capacity of the slot. Added bytes have arbitrary values.
    pub fn set_len(&mut self, len: usize) {
        self.slot.set_len(len);
    }
}

impl Deref for BridgeFrame<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.slot.data()
    }
}

impl DerefMut for BridgeFrame<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.slot.data_mut()
    }
}

impl fmt::Debug for BridgeFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeFrame").field("len", &self.len()).finish_non_exhaustive()
    }
}
