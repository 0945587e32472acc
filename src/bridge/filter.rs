//! What is to be done with a packet.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::io::AsyncTxSlot;
use crate::packet::{Offload, Packet};

/// What a bridge does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeAction {
    /// Sends it out on the other side.
    Forward,
    /// Drops it.
    Drop,
    /// Sends a copy out that [`BridgeFilter::rewrite`] changes first.
    Rewrite,
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BridgeDirection {
    /// From interface A to interface B.
    AtoB,
    /// From interface B to interface A.
    BtoA,
}

/// Decides on packets, and changes them.
///
/// A closure `FnMut(&Packet, BridgeDirection) -> BridgeAction` is one; so is a pair of such a closure and
/// an `FnMut(&mut BridgeFrame, BridgeDirection)` that changes what the first says is to be rewritten:
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
    /// Decides on a packet. Called once for each, in the order of its direction.
    fn decide(&mut self, packet: &Packet<'_>, direction: BridgeDirection) -> BridgeAction;

    /// Changes the copy of a packet that was decided to be rewritten, in the slot it is sent from.
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

/// A frame about to be sent; dereferences to its bytes.
///
/// A VLAN tag, which [`BridgeFilter::decide`] sees beside the packet ([`Packet::vlan`]), is in the frame here.
///
/// Its IP and TCP checksums are its author's business, but for one that was left to the card
/// ([`Packet::offload`]): there only the pseudo-header's part of it is in the frame.
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

    /// What is left to be done to it, by the kernel or the card.
    pub fn offload(&self) -> Offload {
        self.slot.offload()
    }

    /// Changes what is left to be done to it, as who moves its headers must: a checksum's place is counted
    /// from the start of the frame.
    pub fn set_offload(&mut self, offload: Offload) {
        self.slot.set_offload(offload);
    }

    /// Changes its length, up to what a slot holds; what comes new holds any bytes.
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
