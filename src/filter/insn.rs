//! An instruction of classic BPF.

use crate::opcode;

/// One instruction of classic BPF (`struct sock_filter`, include/uapi/linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct BpfInsn {
    /// The operation code.
    pub code: u16,
    /// Number of instructions to skip if a comparison is true.
    pub jt: u8,
    /// Number of instructions to skip if a comparison is false.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl BpfInsn {
    /// `ret a`, which accepts as many bytes as the accumulator says.
    pub(crate) const RET_A: Self = Self { code: opcode::RET | opcode::A, jt: 0, jf: 0, k: 0 };

    /// Creates a comparison of the accumulator with a number: the next instruction follows if it holds, otherwise the
    /// one after that.
    pub(crate) const fn jump(comparison: u16, k: u32) -> Self {
        Self { code: opcode::JMP | comparison | opcode::K, jt: 0, jf: 1, k }
    }

    /// Creates a jump over this many instructions.
    pub(crate) const fn skip(count: u32) -> Self {
        Self { code: opcode::JMP | opcode::JA, jt: 0, jf: 0, k: count }
    }

    /// Creates `ret #bytes`, which accepts that many bytes of the packet; 0 drops it.
    pub const fn ret(bytes: u32) -> Self {
        Self { code: opcode::RET | opcode::K, jt: 0, jf: 0, k: bytes }
    }
}

/// Maximum number of instructions of a classic program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;
