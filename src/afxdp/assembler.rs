//! An assembler of eBPF, for the programs that are written here by hand.

use crate::sys::ebpf::Insn;

/// Instruction codes (linux/bpf.h, linux/bpf_common.h). Comparisons and arithmetic are of 64 bits.
pub(super) const LOAD_WORD: u8 = 0x61;
pub(super) const LOAD_HALF: u8 = 0x69;
pub(super) const LOAD_BYTE: u8 = 0x71;
pub(super) const LOAD_DOUBLE: u8 = 0x79;
pub(super) const LOAD_MAP: u8 = 0x18;
pub(super) const STORE_WORD_NUMBER: u8 = 0x62;
pub(super) const STORE_BYTE_NUMBER: u8 = 0x72;
pub(super) const STORE_DOUBLE_NUMBER: u8 = 0x7a;
pub(super) const STORE_WORD: u8 = 0x63;
pub(super) const STORE_HALF: u8 = 0x6b;
pub(super) const STORE_BYTE: u8 = 0x73;
pub(super) const STORE_DOUBLE: u8 = 0x7b;
/// Adds to a double word in memory; the number 0 says that it is an addition.
pub(super) const ATOMIC: u8 = 0xdb;
pub(super) const MOVE: u8 = 0xbf;
pub(super) const MOVE_NUMBER: u8 = 0xb7;
pub(super) const ADD: u8 = 0x0f;
pub(super) const ADD_NUMBER: u8 = 0x07;
pub(super) const OR_NUMBER: u8 = 0x47;
pub(super) const AND_NUMBER: u8 = 0x57;
pub(super) const SHIFT_LEFT_NUMBER: u8 = 0x67;
pub(super) const JUMP: u8 = 0x05;
pub(super) const IF_EQUAL_NUMBER: u8 = 0x15;
pub(super) const UNLESS_EQUAL_NUMBER: u8 = 0x55;
pub(super) const IF_GREATER: u8 = 0x2d;
pub(super) const IF_LESS_NUMBER: u8 = 0xa5;
pub(super) const CALL: u8 = 0x85;
pub(super) const EXIT: u8 = 0x95;

/// The register that points behind the stack frame.
pub(super) const FRAME: u8 = 10;

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Program(Vec<Insn>);

impl Program {
    /// Adds an instruction, and returns its position.
    pub(super) fn put(
        &mut self,
        code: u8,
        destination: u8,
        source: u8,
        offset: i16,
        number: i32,
    ) -> usize {
        self.0.push(Insn::new(code, destination, source, offset, number));
        self.0.len() - 1
    }

    pub(super) fn extend(&mut self, insns: &[Insn]) {
        self.0.extend_from_slice(insns);
    }

    /// Makes the jump at `from` go to the next instruction.
    pub(super) fn land(&mut self, from: usize) {
        self.0[from].offset = (self.0.len() - from - 1) as i16;
    }

    pub(super) fn finish(self) -> Vec<Insn> {
        self.0
    }
}
