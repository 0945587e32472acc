//! Checks whether the kernel would accept a program (`bpf_check_classic`, net/core/filter.c).

use super::opcode as op;
use super::vm::ANCILLARY;
use crate::error::ProgramFault;
use crate::insn::{BpfInsn, MAX_INSTRUCTIONS};

/// Offsets from `SKF_AD_OFF` that have a meaning.
const KNOWN: &[u32] = &[0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60];

pub(super) fn validate(program: &[BpfInsn]) -> Result<(), ProgramFault> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(ProgramFault::Length { instructions: program.len() });
    }
    for (at, insn) in program.iter().enumerate() {
        check(program, at, *insn)?;
    }
    let last = program[program.len() - 1];
    if last.code & 7 != op::RET {
        return Err(ProgramFault::NoReturn);
    }
    check_cells(program)
}

fn check(program: &[BpfInsn], at: usize, insn: BpfInsn) -> Result<(), ProgramFault> {
    let BpfInsn { code, jt, jf, k } = insn;
    if !is_known(code) {
        return Err(ProgramFault::Unknown { at, code });
    }
    let left = program.len() - at - 1;
    match code & 7 {
        op::ALU if code & op::X == 0 => match code & 0xf0 {
            op::DIV | op::MOD if k == 0 => return Err(ProgramFault::DivisionByZero { at }),
            op::LSH | op::RSH if k >= 32 => return Err(ProgramFault::Shift { at }),
            _ => {}
        },
        op::LD | op::LDX if code & 0xe0 == op::MEM && k >= 16 => {
            return Err(ProgramFault::NoSuchCell { at });
        }
        op::ST | op::STX if k >= 16 => return Err(ProgramFault::NoSuchCell { at }),
        op::LD if code & 0xe0 == op::ABS && k >= ANCILLARY && !KNOWN.contains(&(k - ANCILLARY)) => {
            return Err(ProgramFault::UnknownAncillary { at });
        }
        op::JMP if code & 0xf0 == op::JA && k as usize >= left => {
            return Err(ProgramFault::JumpOut { at });
        }
        op::JMP
            if code & 0xf0 != op::JA && (usize::from(jt) >= left || usize::from(jf) >= left) =>
        {
            return Err(ProgramFault::JumpOut { at });
        }
        _ => {}
    }
    Ok(())
}

fn is_known(code: u16) -> bool {
    match code & 7 {
        op::LD => {
            let (mode, size) = (code & 0xe0, code & 0x18);
            code <= 0xff
                && match mode {
                    op::ABS | op::IND => matches!(size, op::W | op::H | op::B),
                    op::IMM | op::MEM | op::LEN => size == op::W,
                    _ => false,
                }
        }
        op::LDX => {
            let msh = op::LDX | op::MSH | op::B;
            code == msh || [op::IMM, op::MEM, op::LEN].map(|mode| op::LDX | mode).contains(&code)
        }
        op::ST => code == op::ST,
        op::STX => code == op::STX,
        op::ALU => {
            let operation = code & 0xf0;
            code <= 0xff
                && match operation {
                    op::NEG => code == op::ALU | op::NEG,
                    _ => operation <= op::XOR,
                }
        }
        op::JMP => {
            let kind = code & 0xf0;
            code <= 0xff && (kind <= op::JSET) && (kind != op::JA || code == op::JMP | op::JA)
        }
        op::RET => code == op::RET | op::K || code == op::RET | op::A,
        _ => code == op::MISC | op::TAX || code == op::MISC | op::TXA,
    }
}

/// Every path to an instruction that reads a cell must have written that cell.
fn check_cells(program: &[BpfInsn]) -> Result<(), ProgramFault> {
    // Per instruction, the cells written on every path to it; all of them until a path is known.
    let mut written = vec![u16::MAX; program.len()];
    let mut now = 0;
    for (at, &BpfInsn { code, jt, jf, k }) in program.iter().enumerate() {
        now &= written[at];
        let mut lead = |to: usize, now: u16| written[to] &= now;
        match code & 7 {
            op::ST | op::STX => now |= 1 << k,
            op::LD | op::LDX if code & 0xe0 == op::MEM && now & 1 << k == 0 => {
                return Err(ProgramFault::UnsetCell { at });
            }
            op::JMP if code & 0xf0 == op::JA => {
                lead(at + 1 + k as usize, now);
                now = u16::MAX; // the next instruction is only reached by other paths
            }
            op::JMP => {
                lead(at + 1 + usize::from(jt), now);
                lead(at + 1 + usize::from(jf), now);
                now = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}
