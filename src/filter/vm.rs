//! An interpreter for classic BPF that behaves as the kernel's does. It terminates for any input.

use super::opcode as op;
use crate::direction::PacketDirection;
use crate::insn::BpfInsn;
use crate::vlan::VlanTag;

/// First offset that stands for packet metadata of the kernel (`SKF_AD_OFF`, linux/filter.h).
pub(super) const ANCILLARY: u32 = 0xffff_f000;
/// First offset that counts from the link layer's header (`SKF_LL_OFF`).
const LINK: u32 = 0xffe0_0000;

/// First offset that counts from the network layer's header (`SKF_NET_OFF`), which follows the Ethernet header.
const NETWORK: u32 = 0xfff0_0000;
const ETHERNET_HEADER: usize = 14;
/// Offset that stands for `A ^ X` (`SKF_AD_ALU_XOR_X`).
const XOR_X: u32 = ANCILLARY + 40;

/// Metadata that the kernel knows about a packet besides its bytes, for programs that ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Ancillary {
    /// Length of the packet on the wire. Default: the length of the frame.
    pub wire_len: Option<u32>,
    /// The stripped VLAN tag.
    pub vlan: Option<VlanTag>,
    /// Direction of the packet.
    pub direction: Option<PacketDirection>,
    /// Ethernet type of the content behind the stripped tag.
    pub protocol: u16,
    /// Index of the interface.
    pub ifindex: u32,
    /// Hardware type of the interface (`ARPHRD_*`).
    pub hatype: u16,
    /// The receive queue.
    pub queue: u16,
    /// The flow hash.
    pub rxhash: u32,
    /// The packet's mark.
    pub mark: u32,
    /// CPU that the packet arrived on.
    pub cpu: u32,
}

impl Ancillary {
    /// Creates metadata with nothing but the length on the wire.
    pub fn of_len(wire_len: u32) -> Self {
        Self { wire_len: Some(wire_len), ..Self::default() }
    }
}

/// Runs a program and returns how many bytes of the frame it accepts; 0 rejects the frame. The program must
/// have passed [`validate`](super::validate).
pub(super) fn run(program: &[BpfInsn], frame: &[u8], known: &Ancillary) -> u32 {
    let (mut a, mut x, mut cells) = (0_u32, 0_u32, [0_u32; 16]);
    let mut at = 0;
    while let Some(&BpfInsn { code, jt, jf, k }) = program.get(at) {
        at += 1;
        let source = if code & op::X != 0 { x } else { k };
        match code & 7 {
            op::LD if code & 0xe0 == op::ABS && k == XOR_X => a ^= x,
            op::LD => match load(code, k, x, &cells, frame, known) {
                Some(value) => a = value,
                None => return 0,
            },
            op::LDX => {
                x = match code & 0xe0 {
                    op::IMM => k,
                    op::MEM => cells[k as usize & 15],
                    op::LEN => wire_len(frame, known),
                    _ => match read(frame, k, 1) {
                        Some(byte) => 4 * (byte & 0xf),
                        None => return 0,
                    },
                };
            }
            op::ST => cells[k as usize & 15] = a,
            op::STX => cells[k as usize & 15] = x,
            op::ALU => match alu(code & 0xf0, a, source) {
                Some(value) => a = value,
                None => return 0,
            },
            op::JMP => {
                let holds = match code & 0xf0 {
                    op::JA => {
                        at += k as usize;
                        continue;
                    }
                    op::JEQ => a == source,
                    op::JGT => a > source,
                    op::JGE => a >= source,
                    _ => a & source != 0,
                };
                at += usize::from(if holds { jt } else { jf });
            }
            op::RET => return if code & op::A != 0 { a } else { k },
            _ if code & op::TXA != 0 => a = x,
            _ => x = a,
        }
    }
    0 // not reached: a program ends with a return
}

fn alu(operation: u16, a: u32, b: u32) -> Option<u32> {
    Some(match operation {
        op::ADD => a.wrapping_add(b),
        op::SUB => a.wrapping_sub(b),
        op::MUL => a.wrapping_mul(b),
        op::DIV => a.checked_div(b)?,
        op::MOD => a.checked_rem(b)?,
        op::AND => a & b,
        op::OR => a | b,
        op::XOR => a ^ b,
        op::LSH => a.wrapping_shl(b),
        op::RSH => a.wrapping_shr(b),
        _ => a.wrapping_neg(),
    })
}

fn load(
    code: u16,
    k: u32,
    x: u32,
    cells: &[u32; 16],
    frame: &[u8],
    known: &Ancillary,
) -> Option<u32> {
    let width = match code & 0x18 {
        op::B => 1,
        op::H => 2,
        _ => 4,
    };
    match code & 0xe0 {
        op::IMM => Some(k),
        op::MEM => Some(cells[k as usize & 15]),
        op::LEN => Some(wire_len(frame, known)),
        op::IND => read(frame, x.wrapping_add(k), width),
        _ if k >= ANCILLARY => ancillary(k - ANCILLARY, known),
        _ => read(frame, k, width),
    }
}

fn wire_len(frame: &[u8], known: &Ancillary) -> u32 {
    known.wire_len.unwrap_or(frame.len() as u32)
}

#[inline]
fn read(frame: &[u8], offset: u32, width: usize) -> Option<u32> {
    let offset = match offset {
        NETWORK.. => ETHERNET_HEADER + (offset - NETWORK) as usize,
        LINK.. => (offset - LINK) as usize,
        _ => offset as usize,
    };
    let bytes = frame.get(offset..offset + width)?;
    Some(bytes.iter().fold(0, |value, &byte| value << 8 | u32::from(byte)))
}

fn ancillary(which: u32, known: &Ancillary) -> Option<u32> {
    Some(match which {
        0 => known.protocol.into(),
        4 => known.direction.map_or(0, |direction| direction.to_pkttype().into()),
        8 => known.ifindex,
        20 => known.mark,
        24 => known.queue.into(),
        28 => known.hatype.into(),
        32 => known.rxhash,
        36 => known.cpu,
        44 => known.vlan.map_or(0, |tag| tag.tci.into()),
        48 => known.vlan.is_some().into(),
        60 => known.vlan.map_or(0, |tag| tag.tpid.into()),
        _ => return None, // netlink attributes, random numbers, and what only the kernel can know
    })
}
