//! The part of an XDP program that asks the driver for a packet's time, hash and VLAN tag, and leaves the answers before
//! the packet (Documentation/networking/xdp-rx-metadata.rst): [`hints`](crate::ring::umem::hints) has their layout.
//!
//! ```text
//!   redirect ─► make room ─► timestamp, or the kernel's clock ─► hash ─► tag
//! ```

use std::io;
use std::sync::OnceLock;

use super::assembler::{
    ADD_NUMBER, CALL, EXIT, FRAME, IF_EQUAL_NUMBER, IF_GREATER, JUMP, LOAD_DOUBLE, LOAD_HALF,
    LOAD_WORD, MOVE, MOVE_NUMBER, OR_NUMBER, Program, STORE_DOUBLE, STORE_DOUBLE_NUMBER,
    STORE_HALF, STORE_WORD, STORE_WORD_NUMBER, UNLESS_EQUAL_NUMBER,
};
use crate::ring::umem::hints::{
    HASH_AT, HINTS_LEN, MAGIC, MAGIC_AT, TCI_AT, TPID_AT, WHICH_AT, XdpHints,
};
use crate::sys::ebpf::{Insn, redirect};
use crate::sys::{btf, netlink};

/// Numbers of the kernel functions that answer a program's questions, and whether the kernel's clock is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Questions {
    timestamp: Option<u32>,
    hash: Option<u32>,
    vlan: Option<u32>,
    has_kernels_time: bool,
}

impl Questions {
    /// Returns the questions that this kernel knows; looked up once per process.
    fn of_kernel() -> io::Result<Self> {
        static KNOWN: OnceLock<Questions> = OnceLock::new();
        if let Some(known) = KNOWN.get() {
            return Ok(*known);
        }
        const TIMESTAMP: &str = "bpf_xdp_metadata_rx_timestamp";
        const HASH: &str = "bpf_xdp_metadata_rx_hash";
        const VLAN: &str = "bpf_xdp_metadata_rx_vlan_tag";
        let ids = btf::kernel_functions(&[TIMESTAMP, HASH, VLAN])?;
        let of = |name| ids.get(name).copied();
        let (timestamp, hash, vlan) = (of(TIMESTAMP), of(HASH), of(VLAN));
        let known = Self { timestamp, hash, vlan, has_kernels_time: true };
        if known.timestamp.is_none() && known.hash.is_none() && known.vlan.is_none() {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        Ok(*KNOWN.get_or_init(|| known))
    }

    /// Returns the questions among `wanted` that this kernel knows and the interface's driver can answer, or may be able to
    /// if the kernel does not report that.
    pub(super) fn of_interface(index: u32, wanted: XdpHints) -> io::Result<Self> {
        let known = Self::of_kernel()?;
        let features = netlink::xdp_features(index).ok().flatten();
        let answered = features.and_then(|features| features.rx_metadata).unwrap_or(u64::MAX);
        let asks = |hint: XdpHints, flag: u64| wanted.contains(hint) && answered & flag != 0;
        let questions = Self {
            timestamp: known.timestamp.filter(|_| asks(XdpHints::TIMESTAMP, 1)),
            hash: known.hash.filter(|_| asks(XdpHints::HASH, 2)),
            vlan: known.vlan.filter(|_| asks(XdpHints::VLAN, 4)),
            has_kernels_time: wanted.contains(XdpHints::KERNEL_TIMESTAMP),
        };
        let can_none = questions.hints().is_empty() && !wanted.is_empty();
        if can_none { Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)) } else { Ok(questions) }
    }

    /// Returns what a program with these questions can tell.
    pub(super) fn hints(self) -> XdpHints {
        let mut hints = XdpHints::empty();
        hints.set(XdpHints::KERNEL_TIMESTAMP, self.has_kernels_time);
        hints.set(XdpHints::TIMESTAMP, self.timestamp.is_some());
        hints.set(XdpHints::HASH, self.hash.is_some());
        hints.set(XdpHints::VLAN, self.vlan.is_some());
        hints
    }
}

/// Registers. Those from r6 to r9 outlive calls.
const CONTEXT: u8 = 6;
const ROOM: u8 = 7;
const WHICH: u8 = 9;

/// Helpers (bpf-helpers(7)).
const ADJUST_META: i32 = 54;
const KTIME_GET_TAI_NS: i32 = 208;

/// In the place of a call's source register: the number is that of a kernel function (`BPF_PSEUDO_KFUNC_CALL`).
const KERNEL_FUNCTION: u8 = 2;

/// Calls a kernel function with the context and places in the stack frame. Returns the jump that is taken if there
/// is no answer.
fn ask<const N: usize>(program: &mut Program, function: u32, answers: [i16; N]) -> usize {
    program.put(MOVE, 1, CONTEXT, 0, 0);
    for (register, at) in (2..).zip(answers) {
        program.put(STORE_DOUBLE_NUMBER, FRAME, 0, at, 0);
        program.put(MOVE, register, FRAME, 0, 0);
        program.put(ADD_NUMBER, register, 0, 0, at.into());
    }
    program.put(CALL, 0, KERNEL_FUNCTION, 0, function as i32);
    program.put(UNLESS_EQUAL_NUMBER, 0, 0, 0, 0)
}

fn note(program: &mut Program, hint: XdpHints) {
    program.put(OR_NUMBER, WHICH, 0, 0, hint.bits() as i32);
}

/// `enum xdp_action`, linux/bpf.h.
const XDP_REDIRECT: i32 = 4;

/// Returns the instructions that redirect a packet through a map and leave hints before it. They expect the context in r1
/// and end the program. A packet that goes on to the stack, as its queue has no socket, gets none: they would be taken for
/// another program's, and keep the stack from joining the segments of a stream (`gro_list_prepare`, net/core/gro.c).
pub(super) fn redirect_with_hints(map: i32, questions: Questions) -> Vec<Insn> {
    let mut program = Program::default();
    program.put(MOVE, CONTEXT, 1, 0, 0);
    let [lookup @ .., _] = redirect(map);
    program.extend(&lookup);
    let missed = program.put(UNLESS_EQUAL_NUMBER, 0, 0, 0, XDP_REDIRECT);
    program.put(MOVE, 1, CONTEXT, 0, 0);
    program.put(MOVE_NUMBER, 2, 0, 0, -(HINTS_LEN as i32));
    program.put(CALL, 0, 0, 0, ADJUST_META);
    let no_room = program.put(UNLESS_EQUAL_NUMBER, 0, 0, 0, 0);
    // The verifier wants to see that the room ends where the packet begins.
    program.put(LOAD_WORD, ROOM, CONTEXT, 8, 0);
    program.put(LOAD_WORD, 8, CONTEXT, 0, 0);
    program.put(MOVE, 1, ROOM, 0, 0);
    program.put(ADD_NUMBER, 1, 0, 0, HINTS_LEN as i32);
    let no_proof = program.put(IF_GREATER, 1, 8, 0, 0);
    program.put(MOVE_NUMBER, WHICH, 0, 0, 0);
    timestamp(&mut program, questions);
    if let Some(function) = questions.hash {
        let none = ask(&mut program, function, [-8, -16]);
        program.put(LOAD_WORD, 1, FRAME, -8, 0);
        program.put(STORE_WORD, ROOM, 1, HASH_AT, 0);
        note(&mut program, XdpHints::HASH);
        program.land(none);
    }
    if let Some(function) = questions.vlan {
        let none = ask(&mut program, function, [-8, -16]);
        for (from, to) in [(-8, TPID_AT), (-16, TCI_AT)] {
            program.put(LOAD_HALF, 1, FRAME, from, 0);
            program.put(STORE_HALF, ROOM, 1, to, 0);
        }
        note(&mut program, XdpHints::VLAN);
        program.land(none);
    }
    program.put(STORE_WORD, ROOM, WHICH, WHICH_AT, 0);
    program.put(STORE_WORD_NUMBER, ROOM, 0, MAGIC_AT, MAGIC);
    program.land(no_room);
    program.land(no_proof);
    program.put(MOVE_NUMBER, 0, 0, 0, XDP_REDIRECT);
    program.land(missed);
    program.put(EXIT, 0, 0, 0, 0);
    program.finish()
}

/// Stores the card's timestamp, or the kernel's time if there is none.
fn timestamp(program: &mut Program, questions: Questions) {
    let done = questions.timestamp.map(|function| {
        let none = ask(program, function, [-8]);
        program.put(LOAD_DOUBLE, 1, FRAME, -8, 0);
        // veth answers with 0 where no card has stamped the packet.
        let zero = program.put(IF_EQUAL_NUMBER, 1, 0, 0, 0);
        program.put(STORE_DOUBLE, ROOM, 1, 0, 0);
        note(program, XdpHints::TIMESTAMP);
        let done = program.put(JUMP, 0, 0, 0, 0);
        program.land(none);
        program.land(zero);
        done
    });
    if questions.has_kernels_time {
        program.put(CALL, 0, 0, 0, KTIME_GET_TAI_NS);
        program.put(STORE_DOUBLE, ROOM, 0, 0, 0);
        note(program, XdpHints::KERNEL_TIMESTAMP);
    }
    if let Some(done) = done {
        program.land(done);
    }
}
