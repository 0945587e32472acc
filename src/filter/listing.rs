//! Programs as text, in the format of tcpdump's `-d` and `-dd`.

use std::fmt;

use super::opcode as op;
use crate::insn::BpfInsn;

/// A program's instructions, one per line.
pub(super) struct Listing<'a>(pub(super) &'a [BpfInsn]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, insn) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            line(f, at, *insn)?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, at: usize, insn: BpfInsn) -> fmt::Result {
    let BpfInsn { code, jt, jf, k } = insn;
    let (name, operand) = (name(code), operand(code, k, at));
    match code & 7 {
        op::JMP if code & 0xf0 != op::JA => {
            let (yes, no) = (at + 1 + usize::from(jt), at + 1 + usize::from(jf));
            write!(f, "({at:03}) {name:<8} {operand:<16} jt {yes}\tjf {no}")
        }
        _ if operand.is_empty() => write!(f, "({at:03}) {name}"),
        _ => write!(f, "({at:03}) {name:<8} {operand}"),
    }
}

fn name(code: u16) -> &'static str {
    let suffix = |names: [&'static str; 3]| match code & 0x18 {
        op::B => names[2],
        op::H => names[1],
        _ => names[0],
    };
    match code & 7 {
        op::LD => match code & 0xe0 {
            op::ABS | op::IND => suffix(["ld", "ldh", "ldb"]),
            _ => "ld",
        },
        op::LDX => suffix(["ldx", "ldxh", "ldxb"]),
        op::ST => "st",
        op::STX => "stx",
        op::ALU => match code & 0xf0 {
            op::ADD => "add",
            op::SUB => "sub",
            op::MUL => "mul",
            op::DIV => "div",
            op::MOD => "mod",
            op::OR => "or",
            op::AND => "and",
            op::LSH => "lsh",
            op::RSH => "rsh",
            op::XOR => "xor",
            _ => "neg",
        },
        op::JMP => match code & 0xf0 {
            op::JA => "ja",
            op::JEQ => "jeq",
            op::JGT => "jgt",
            op::JGE => "jge",
            _ => "jset",
        },
        op::RET => "ret",
        _ if code & op::TXA != 0 => "txa",
        _ => "tax",
    }
}

fn operand(code: u16, k: u32, at: usize) -> String {
    let source = |number: String| if code & op::X != 0 { "x".to_owned() } else { number };
    match code & 7 {
        op::LD => match code & 0xe0 {
            op::IMM => format!("#{k:#x}"),
            op::ABS => format!("[{k}]"),
            op::IND => format!("[x + {k}]"),
            op::MEM => format!("M[{k}]"),
            _ => "#pktlen".to_owned(),
        },
        op::LDX => match code & 0xe0 {
            op::IMM => format!("#{k:#x}"),
            op::MEM => format!("M[{k}]"),
            op::MSH => format!("4*([{k}]&0xf)"),
            _ => "#pktlen".to_owned(),
        },
        op::ST | op::STX => format!("M[{k}]"),
        op::ALU if code & 0xf0 == op::NEG => String::new(),
        op::ALU if matches!(code & 0xf0, op::AND | op::OR | op::XOR) => source(format!("#{k:#x}")),
        op::ALU => source(format!("#{k}")),
        op::JMP if code & 0xf0 == op::JA => format!("{}", at + 1 + k as usize),
        op::JMP => source(format!("#{k:#x}")),
        op::RET if code & op::A != 0 => String::new(),
        op::RET => format!("#{k}"),
        _ => String::new(),
    }
}

/// Reads the output of `tcpdump -dd` (rows of C) or `-ddd` (a count and rows of numbers).
pub(super) fn read(text: &str) -> Option<Vec<BpfInsn>> {
    let numbers = |line: &str| -> Option<Vec<u32>> {
        line.split(|c: char| c == ',' || c.is_whitespace())
            .filter(|word| !word.is_empty())
            .map(|word| match word.strip_prefix("0x") {
                Some(hex) => u32::from_str_radix(hex, 16).ok(),
                None => word.parse().ok(),
            })
            .collect()
    };
    let (mut program, mut announced) = (Vec::new(), None);
    for (number, line) in text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let row = line.trim_end_matches(',').trim().trim_start_matches('{').trim_end_matches('}');
        match numbers(row)?[..] {
            [code, jt, jf, k] => program.push(BpfInsn {
                code: code.try_into().ok()?,
                jt: jt.try_into().ok()?,
                jf: jf.try_into().ok()?,
                k,
            }),
            [count] if number == 0 => announced = Some(count as usize),
            _ => return None,
        }
    }
    announced.is_none_or(|count| count == program.len()).then_some(program)
}
