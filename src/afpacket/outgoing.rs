//! Leaves packets that this host sends out of a fanout group: the kernel does so since 6.2; before that, a filter
//! does.
//!
//! Before 6.2 the kernel accepts the group's flag and ignores it (`fanout_add`, net/packet/af_packet.c): a bridge
//! on several shards would forward its own frames. So the flag is tested on the loopback interface.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use ringtap_filter::BpfInsn;

use super::fanout::{FanoutFlags, FanoutMode, Membership};
use crate::sys::cbpf;
use crate::sys::netdev::Netdev;
use crate::sys::packet_socket;

/// An EtherType for local experiments (IEEE 802): no protocol accepts such a packet.
const EXPERIMENT: u16 = 0x88b5;
const PACKET_OUTGOING: u32 = 4; // linux/if_packet.h
/// `SKF_AD_OFF + SKF_AD_PKTTYPE` (linux/filter.h): the offset from which a load reads the packet's direction.
const DIRECTION: u32 = 0xffff_f004;

const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;

/// Returns `program` preceded by instructions that drop packets sent by this host.
pub(super) fn without_outgoing(program: &[BpfInsn]) -> Vec<BpfInsn> {
    let mut all = vec![
        BpfInsn { code: LOAD_BYTE, jt: 0, jf: 0, k: DIRECTION },
        BpfInsn { code: IF_EQUAL, jt: 0, jf: 1, k: PACKET_OUTGOING },
        BpfInsn::ret(0),
    ];
    all.extend_from_slice(program);
    all
}

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
        BpfInsn { code: LOAD_BYTE, jt: 0, jf: 0, k: DIRECTION },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_a_filter_jumps_over_nothing_of_it() {
        let program = without_outgoing(&[BpfInsn::ret(96)]);
        let [load, jump, drop, rest] = program[..] else { panic!("{program:?}") };
        assert_eq!((load.code, load.k), (0x30, 0xffff_f004));
        assert_eq!((jump.code, jump.jt, jump.jf, jump.k), (0x15, 0, 1, 4));
        assert_eq!((drop, rest), (BpfInsn::ret(0), BpfInsn::ret(96)));
    }
}
