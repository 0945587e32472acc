//! Leaves packets that this host sends out of a fanout group: the kernel does so since 6.2; before that, a filter
//! does.
//!
//! Before 6.2 the kernel accepts the group's flag and ignores it (`fanout_add`, net/packet/af_packet.c): a bridge
//! on several shards would forward its own frames. So the flag is tested on the loopback interface.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use ringtap_filter::BpfInsn;

use super::exclusion::{DIRECTION, IF_EQUAL, LOAD_WORD, PACKET_OUTGOING};
use super::fanout::{FanoutFlags, FanoutMode, Membership};
use crate::sys::cbpf;
use crate::sys::netdev::Netdev;
use crate::sys::packet_socket;

/// An EtherType for local experiments (IEEE 802): no protocol accepts such a packet.
const EXPERIMENT: u16 = 0x88b5;

const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;

/// Returns whether this kernel leaves outgoing packets out of a group that asks for it.
///
/// This is tested once per process. Returns false as long as it cannot be tested, for example while the loopback
/// interface is down.
pub(super) fn are_left_out_by_groups() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return *known;
    }
    match try_on_loopback() {
        Some(are_left_out) => *KNOWN.get_or_init(|| are_left_out),
        None => false,
    }
}

/// Sends a packet and checks whether a group of one socket gets the copy for observers of outgoing packets. The
/// kernel delivers that copy before the call returns (`dev_queue_xmit_nit`).
fn try_on_loopback() -> Option<bool> {
    let (member, sender) = (packet_socket::open().ok()?, packet_socket::open().ok()?);
    let index = Netdev(member.as_fd()).index("lo").ok()?;
    let only_ours = [
        BpfInsn { code: LOAD_WORD, jt: 0, jf: 0, k: DIRECTION },
        BpfInsn { code: IF_EQUAL, jt: 0, jf: 3, k: PACKET_OUTGOING },
        BpfInsn { code: LOAD_HALF, jt: 0, jf: 0, k: 12 },
        BpfInsn { code: IF_EQUAL, jt: 0, jf: 1, k: u32::from(EXPERIMENT) },
        BpfInsn::ret(u32::MAX),
        BpfInsn::ret(0),
    ];
    cbpf::attach(member.as_fd(), &only_ours).ok()?;
    packet_socket::bind(member.as_fd(), index, packet_socket::ALL).ok()?;
    let flags = FanoutFlags::IGNORE_OUTGOING;
    Membership { mode: FanoutMode::Hash, group: None, flags }.join(member.as_fd()).ok()?;
    packet_socket::bind(sender.as_fd(), index, 0).ok()?;
    let mut frame = [0; 60];
    frame[12..14].copy_from_slice(&EXPERIMENT.to_be_bytes());
    packet_socket::send(sender.as_fd(), &frame).ok()?;
    Some(!packet_socket::has_packet(member.as_fd()))
}
