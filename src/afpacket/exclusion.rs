//! Packets that a capture never takes, whatever its filter says.

use ringtap_filter::BpfInsn;

pub(super) const PACKET_OUTGOING: u32 = 4; // linux/if_packet.h

/// Offsets from which a load reads metadata of a packet (`SKF_AD_OFF` and what is added to it, linux/filter.h).
pub(super) const DIRECTION: u32 = 0xffff_f004;
const INTERFACE: u32 = 0xffff_f008;
const HARDWARE: u32 = 0xffff_f01c;

pub(super) const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
pub(super) const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;

/// Packets that a capture leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exclusion {
    /// Packets that this host sends.
    Outgoing,
    /// Packets of the interface with this index.
    Interface(u32),
    /// Packets of interfaces of this hardware type.
    Hardware(u16),
}

impl Exclusion {
    /// Three instructions that drop such packets.
    fn instructions(self) -> [BpfInsn; 3] {
        let (offset, value) = match self {
            Self::Outgoing => (DIRECTION, PACKET_OUTGOING),
            Self::Interface(index) => (INTERFACE, index),
            Self::Hardware(kind) => (HARDWARE, kind.into()),
        };
        [
            BpfInsn { code: LOAD_WORD, jt: 0, jf: 0, k: offset },
            BpfInsn { code: IF_EQUAL, jt: 0, jf: 1, k: value },
            BpfInsn::ret(0),
        ]
    }
}

/// Returns `program` preceded by instructions that drop what is excluded.
pub(super) fn without(excluded: &[Exclusion], program: &[BpfInsn]) -> Vec<BpfInsn> {
    let mut all: Vec<_> = excluded.iter().flat_map(|one| one.instructions()).collect();
    all.extend_from_slice(program);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_a_filter_jumps_over_nothing_of_it() {
        let program = without(&[Exclusion::Outgoing, Exclusion::Interface(7)], &[BpfInsn::ret(96)]);
        let [load, jump, drop, .., rest] = program[..] else { panic!("{program:?}") };
        assert_eq!((load.code, load.k), (0x20, 0xffff_f004));
        assert_eq!((jump.code, jump.jt, jump.jf, jump.k), (0x15, 0, 1, 4));
        assert_eq!((drop, rest, program.len()), (BpfInsn::ret(0), BpfInsn::ret(96), 7));
        assert_eq!((program[3].k, program[4].k), (0xffff_f008, 7));
    }
}
