//! The interpreter, which has a short way for the instructions that filters mostly consist of, beside one that has none.

use super::direction::PacketDirection;
use super::insn::BpfInsn;
use super::vlan::VlanTag;
use super::vm::{self, Ancillary};

/// Loads that are tried more often than the rest.
const LOADS: [u16; 8] = [0x28, 0x30, 0x20, 0x48, 0xb1, 0x50, 0x40, 0x01];
/// All that the kernel takes (`chk_code_allowed`, net/core/filter.c), but for the two that return.
const CODES: [u16; 46] = [
    0x00, 0x01, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1, 0x60, 0x61, 0x80, 0x81, 0x02, 0x03, 0x04,
    0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x94, 0x9c, 0x44, 0x4c, 0x54, 0x5c, 0xa4, 0xac, 0x64,
    0x6c, 0x74, 0x7c, 0x84, 0x07, 0x87, 0x05, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x45, 0x4d,
];
const ANCILLARY: u32 = 0xffff_f000;
const KNOWN: [u32; 12] = [0, 4, 8, 20, 24, 28, 32, 36, 40, 44, 48, 60];

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: u64) -> u64 {
        (self.next() >> 11) % most
    }

    fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len() as u64) as usize]
    }

    /// A number that is a place in a small frame, near the beginning of a region, or any.
    fn number(&mut self) -> u32 {
        let near =
            |dice: &mut Self, start: u32| start.wrapping_add(dice.below(80) as u32).wrapping_sub(4);
        match self.below(7) {
            0 => self.below(4) as u32,
            1 | 2 => self.below(70) as u32,
            3 => near(self, 0xffe0_0000),
            4 => near(self, 0xfff0_0000),
            5 => ANCILLARY + self.of(&KNOWN),
            _ => self.next() as u32,
        }
    }

    /// A program that the kernel would take.
    fn program(&mut self) -> Vec<BpfInsn> {
        let len = 2 + self.below(12);
        let insn = |at: u64| {
            let left = len - at - 1;
            let code = match self.below(3) {
                _ if left == 0 => self.of(&[0x06, 0x16]),
                0 => self.of(&LOADS),
                _ => self.of(&CODES),
            };
            let k = match (code, self.number()) {
                (0x60 | 0x61 | 0x02 | 0x03, k) => k & 15,
                (0x64 | 0x74, k) => k & 31,
                (0x34 | 0x94, k) => k.max(1),
                (0x05, _) => self.below(left.max(1)) as u32,
                (_, k) => k,
            };
            let jump = |dice: &mut Self| dice.below(left.max(1)) as u8;
            BpfInsn { code, jt: jump(self), jf: jump(self), k }
        };
        (0..len).map(insn).collect()
    }
}

/// Loads bytes of a frame, whose offset may count from its headers.
fn load(frame: &[u8], offset: u32, width: usize) -> Option<u32> {
    let offset = i64::from(offset as i32);
    let start = match offset {
        0.. => offset,
        -0x10_0000..=-1 => 14 + offset + 0x10_0000,
        -0x20_0000..=-0x10_0001 => offset + 0x20_0000,
        _ => return None,
    };
    let bytes = frame.get(usize::try_from(start).ok()?..)?.get(..width)?;
    Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
}

fn ancillary(k: u32, known: &Ancillary) -> Option<u32> {
    Some(match k - ANCILLARY {
        0 => known.protocol.into(),
        4 => known.direction.map_or(0, |way| way.to_pkttype().into()),
        8 => known.ifindex,
        20 => known.mark,
        24 => known.queue.into(),
        28 => known.hatype.into(),
        32 => known.rxhash,
        36 => known.cpu,
        44 => known.vlan.map_or(0, |tag| tag.tci.into()),
        48 => known.vlan.is_some().into(),
        60 => known.vlan.map_or(0, |tag| tag.tpid.into()),
        _ => return None,
    })
}

/// Runs a program an instruction after another; `None` where it gives up.
fn plainly(program: &[BpfInsn], frame: &[u8], known: &Ancillary) -> Option<u32> {
    let len = known.wire_len.unwrap_or(frame.len() as u32);
    let (mut a, mut x, mut cells, mut at) = (0_u32, 0_u32, [0; 16], 0);
    loop {
        let BpfInsn { code, jt, jf, k } = program[at];
        at += 1;
        let operand = if code & 8 == 0 { k } else { x };
        let width = |code| match code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            _ => 1,
        };
        let mut jump = |is_so: bool| at += usize::from(if is_so { jt } else { jf });
        match code {
            0x00 => a = k,
            0x01 => x = k,
            0x20 | 0x28 | 0x30 if k == ANCILLARY + 40 => a ^= x,
            0x20 | 0x28 | 0x30 if k >= ANCILLARY => a = ancillary(k, known)?,
            0x20 | 0x28 | 0x30 => a = load(frame, k, width(code))?,
            0x40 | 0x48 | 0x50 => a = load(frame, x.wrapping_add(k), width(code))?,
            0xb1 => x = 4 * (load(frame, k, 1)? & 15),
            0x60 => a = cells[k as usize],
            0x61 => x = cells[k as usize],
            0x80 => a = len,
            0x81 => x = len,
            0x02 => cells[k as usize] = a,
            0x03 => cells[k as usize] = x,
            0x04 | 0x0c => a = a.wrapping_add(operand),
            0x14 | 0x1c => a = a.wrapping_sub(operand),
            0x24 | 0x2c => a = a.wrapping_mul(operand),
            0x34 | 0x3c => a = a.checked_div(operand)?,
            0x94 | 0x9c => a = a.checked_rem(operand)?,
            0x44 | 0x4c => a |= operand,
            0x54 | 0x5c => a &= operand,
            0xa4 | 0xac => a ^= operand,
            0x64 | 0x6c => a <<= operand & 31,
            0x74 | 0x7c => a >>= operand & 31,
            0x84 => a = a.wrapping_neg(),
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return Some(k),
            0x16 => return Some(a),
            0x05 => at += k as usize,
            0x15 | 0x1d => jump(a == operand),
            0x25 | 0x2d => jump(a > operand),
            0x35 | 0x3d => jump(a >= operand),
            0x45 | 0x4d => jump(a & operand != 0),
            code => panic!("{code:#x}"),
        }
    }
}

#[test]
fn the_short_way_ends_where_the_plain_one_does() {
    let (mut dice, mut some) = (Dice(0x1234_5678_9abc_def1), 0);
    for _ in 0..if cfg!(miri) { 200 } else { 200_000 } {
        let program = dice.program();
        let len = dice.below(70);
        let frame: Vec<u8> = (0..len)
            .map(|_| if dice.below(3) == 0 { dice.below(4) as u8 } else { dice.next() as u8 })
            .collect();
        let known = Ancillary {
            wire_len: (dice.below(2) == 0).then(|| dice.below(2000) as u32),
            vlan: (dice.below(2) == 0).then(|| VlanTag { tci: dice.next() as u16, tpid: 0x8100 }),
            direction: Some(PacketDirection::from_pkttype(dice.below(5) as u8)),
            protocol: dice.next() as u16,
            ifindex: 3,
            hatype: 1,
            queue: 2,
            rxhash: dice.next() as u32,
            mark: 9,
            cpu: 1,
        };
        let expected = plainly(&program, &frame, &known).unwrap_or(0);
        some += u32::from(expected != 0);
        assert_eq!(vm::run(&program, &frame, &known), expected, "{program:?}\n{frame:?}");
    }
    assert!(cfg!(miri) || some > 20_000, "{some} of them end with something");
}
