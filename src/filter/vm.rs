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

/// The registers, and the scratch memory.
struct Machine {
    a: u32,
    x: u32,
    cells: [u32; 16],
}

// The codes that filters mostly consist of.
const LD_WORD: u16 = op::LD | op::ABS | op::W;
const LD_HALF: u16 = op::LD | op::ABS | op::H;
const LD_BYTE: u16 = op::LD | op::ABS | op::B;
const LD_HALF_X: u16 = op::LD | op::IND | op::H;
const LDX_HEADER: u16 = op::LDX | op::MSH | op::B;
const JEQ: u16 = op::JMP | op::JEQ | op::K;
const JGT: u16 = op::JMP | op::JGT | op::K;
const JGE: u16 = op::JMP | op::JGE | op::K;
const JSET: u16 = op::JMP | op::JSET | op::K;
const AND: u16 = op::ALU | op::AND | op::K;
const RET: u16 = op::RET | op::K;

/// Runs a program and returns how many bytes of the frame it accepts; 0 rejects the frame. The program must
/// have passed [`validate`](super::validate).
pub(super) fn run(program: &[BpfInsn], frame: &[u8], known: &Ancillary) -> u32 {
    let mut machine = Machine { a: 0, x: 0, cells: [0; 16] };
    let mut at = 0;
    while let Some(&insn) = program.get(at) {
        let BpfInsn { code, jt, jf, k } = insn;
        at += 1;
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        let loaded = match code {
            JEQ => {
                at += branch(machine.a == k);
                continue;
            }
            LD_HALF if k < LINK => fetch::<2>(frame, k),
            LD_BYTE if k < LINK => fetch::<1>(frame, k),
            LD_WORD if k < LINK => fetch::<4>(frame, k),
            LD_HALF_X if machine.x.wrapping_add(k) < LINK => {
                fetch::<2>(frame, machine.x.wrapping_add(k))
            }
            JGT => {
                at += branch(machine.a > k);
                continue;
            }
            JGE => {
                at += branch(machine.a >= k);
                continue;
            }
            JSET => {
                at += branch(machine.a & k != 0);
                continue;
            }
            LDX_HEADER if k < LINK => match fetch::<1>(frame, k) {
                Some(byte) => {
                    machine.x = 4 * (byte & 0xf);
                    continue;
                }
                None => return 0,
            },
            AND => Some(machine.a & k),
            RET => return k,
            _ if code & 7 == op::RET => return if code & op::A != 0 { machine.a } else { k },
            _ if code & 7 == op::JMP => {
                at += machine.jump(insn);
                continue;
            }
            _ => machine.step(insn, frame, known),
        };
        match loaded {
            Some(value) => machine.a = value,
            None => return 0,
        }
    }
    0 // not reached: a program ends with a return
}

impl Machine {
    /// Returns how many instructions a jump skips.
    fn jump(&self, BpfInsn { code, jt, jf, k }: BpfInsn) -> usize {
        let source = if code & op::X != 0 { self.x } else { k };
        let holds = match code & 0xf0 {
            op::JA => return k as usize,
            op::JEQ => self.a == source,
            op::JGT => self.a > source,
            op::JGE => self.a >= source,
            _ => self.a & source != 0,
        };
        usize::from(if holds { jt } else { jf })
    }

    /// Executes any instruction but jumps and returns. Returns what is in A then, or `None` where the packet is rejected.
    fn step(&mut self, insn: BpfInsn, frame: &[u8], known: &Ancillary) -> Option<u32> {
        let BpfInsn { code, k, .. } = insn;
        let (a, x) = (self.a, self.x);
        match code & 7 {
            op::LD if code & 0xe0 == op::ABS && k == XOR_X => return Some(a ^ x),
            op::LD => return load(code, k, x, &self.cells, frame, known),
            op::LDX => {
                self.x = match code & 0xe0 {
                    op::IMM => k,
                    op::MEM => self.cells[k as usize & 15],
                    op::LEN => wire_len(frame, known),
                    _ => 4 * (read(frame, k, 1)? & 0xf),
                };
            }
            op::ST => self.cells[k as usize & 15] = a,
            op::STX => self.cells[k as usize & 15] = x,
            op::ALU => return alu(code & 0xf0, a, if code & op::X != 0 { x } else { k }),
            _ if code & op::TXA != 0 => return Some(x),
            _ => self.x = a,
        }
        Some(a)
    }
}

/// Reads the `N` bytes at an offset from the start of the frame, as a number.
#[inline]
fn fetch<const N: usize>(frame: &[u8], offset: u32) -> Option<u32> {
    let bytes: &[u8; N] = frame.get(offset as usize..)?.first_chunk()?;
    Some(bytes.iter().fold(0, |value, &byte| value << 8 | u32::from(byte)))
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
