//! The parts of an instruction's code (include/uapi/linux/bpf_common.h).

pub(super) const LD: u16 = 0x00;
pub(super) const LDX: u16 = 0x01;
pub(super) const ST: u16 = 0x02;
pub(super) const STX: u16 = 0x03;
pub(super) const ALU: u16 = 0x04;
pub(super) const JMP: u16 = 0x05;
pub(super) const RET: u16 = 0x06;
pub(super) const MISC: u16 = 0x07;

pub(super) const W: u16 = 0x00;
pub(super) const H: u16 = 0x08;
pub(super) const B: u16 = 0x10;

pub(super) const IMM: u16 = 0x00;
pub(super) const ABS: u16 = 0x20;
pub(super) const IND: u16 = 0x40;
pub(super) const MEM: u16 = 0x60;
pub(super) const LEN: u16 = 0x80;
pub(super) const MSH: u16 = 0xa0;

pub(super) const ADD: u16 = 0x00;
pub(super) const SUB: u16 = 0x10;
pub(super) const MUL: u16 = 0x20;
pub(super) const DIV: u16 = 0x30;
pub(super) const OR: u16 = 0x40;
pub(super) const AND: u16 = 0x50;
pub(super) const LSH: u16 = 0x60;
pub(super) const RSH: u16 = 0x70;
pub(super) const NEG: u16 = 0x80;
pub(super) const MOD: u16 = 0x90;
pub(super) const XOR: u16 = 0xa0;

pub(super) const JA: u16 = 0x00;
pub(super) const JEQ: u16 = 0x10;
pub(super) const JGT: u16 = 0x20;
pub(super) const JGE: u16 = 0x30;
pub(super) const JSET: u16 = 0x40;

pub(super) const K: u16 = 0x00;
pub(super) const X: u16 = 0x08;
pub(super) const A: u16 = 0x10;

pub(super) const TAX: u16 = 0x00;
pub(super) const TXA: u16 = 0x80;
