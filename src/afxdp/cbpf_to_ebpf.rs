//! Translates a filter into an XDP program: accepted packets are redirected, all others pass to the stack.
//!
//! Each classic BPF instruction becomes a few eBPF instructions. The verifier must see that each load is inside the
//! packet, so a comparison with the packet's end precedes it.
//!
//! | register | holds |
//! |---|---|
//! | r0 | A |
//! | r6 | the context |
//! | r7, r8 | the packet's start and end |
//! | r9 | X |
//! | r1 to r3 | short-lived values |
//! | the stack | scratch memory |

use std::io;

use ringtap_filter::BpfInsn;

use crate::sys::ebpf::Insn;

const A: u8 = 0;
const POINTER: u8 = 1;
const END: u8 = 2;
const CONTEXT: u8 = 6;
const BEGIN: u8 = 7;
const PACKET_END: u8 = 8;
const X: u8 = 9;
const FRAME: u8 = 10;

const XDP_PASS: i32 = 2;
/// The farthest offset that a load may use: what the verifier can follow (`MAX_PACKET_OFF`), with room to spare.
const FARTHEST: u32 = 0x7ff0;

/// The target of a jump whose offset is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// An instruction of the classic program.
    Classic(usize),
    Accept,
    Reject,
}

#[derive(Debug, Default)]
struct Program {
    /// Whether packets may have several buffers.
    has_frags: bool,
    insns: Vec<Insn>,
    /// Positions of jumps, and their targets.
    jumps: Vec<(usize, Goal)>,
}

/// Translates a program; `accept` are the instructions for accepted packets, with the context in r1. Returns an error if it
/// is too long, or uses data that only a socket has.
pub(super) fn translate(
    classic: &[BpfInsn],
    accept: &[Insn],
    has_frags: bool,
) -> io::Result<Vec<Insn>> {
    let mut program = Program { has_frags, ..Program::default() };
    program.begin();
    let mut starts = vec![0; classic.len()];
    // The verifier refuses unreachable instructions. All jumps are forward, so one pass finds them.
    let mut is_reached = vec![false; classic.len()];
    is_reached[0] = true;
    for (at, insn) in classic.iter().enumerate() {
        if !is_reached[at] {
            continue;
        }
        starts[at] = program.insns.len();
        let jumps = program.jumps.len();
        let goes_on = program.instruction(at, *insn)?;
        for (_, goal) in &program.jumps[jumps..] {
            if let Goal::Classic(to) = *goal {
                is_reached[to] = true;
            }
        }
        if goes_on {
            is_reached[at + 1] = true;
        }
    }
    program.finish(&starts, accept)
}

fn too_much(what: &str) -> io::Error {
    let text = format!("{what} cannot be an XDP program");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

impl Program {
    /// Appends the two endings, each only if a jump leads to it, and fills in the offsets of all jumps.
    fn finish(mut self, starts: &[usize], accepted: &[Insn]) -> io::Result<Vec<Insn>> {
        let jumps = std::mem::take(&mut self.jumps);
        let leads = |goal| jumps.iter().any(|(_, to)| *to == goal);
        let reject = self.insns.len();
        if leads(Goal::Reject) {
            self.alu64(0xb7, A, 0, XDP_PASS);
            self.push(0x95, 0, 0, 0, 0);
        }
        let accept = self.insns.len();
        if leads(Goal::Accept) {
            self.push(0xbf, 1, CONTEXT, 0, 0);
            self.insns.extend(accepted);
        }
        for (at, goal) in jumps {
            let to = match goal {
                Goal::Classic(at) => starts[at],
                Goal::Accept => accept,
                Goal::Reject => reject,
            };
            let offset = i16::try_from(to as i64 - at as i64 - 1);
            self.insns[at].offset = offset.map_err(|_| too_much("a filter so long"))?;
        }
        Ok(self.insns)
    }

    fn push(&mut self, code: u8, destination: u8, source: u8, offset: i16, immediate: i32) {
        self.insns.push(Insn::new(code, destination, source, offset, immediate));
    }

    fn alu64(&mut self, code: u8, destination: u8, source: u8, immediate: i32) {
        self.push(code, destination, source, 0, immediate);
    }

    fn jump(&mut self, code: u8, destination: u8, source: u8, immediate: i32, goal: Goal) {
        self.jumps.push((self.insns.len(), goal));
        self.push(code, destination, source, 0, immediate);
    }

    fn begin(&mut self) {
        self.push(0xbf, CONTEXT, 1, 0, 0);
        self.push(0x61, BEGIN, CONTEXT, 0, 0); // xdp_md.data
        self.push(0x61, PACKET_END, CONTEXT, 4, 0); // xdp_md.data_end
        self.alu64(0xb7, A, 0, 0);
        self.alu64(0xb7, X, 0, 0);
    }

    /// Translates an instruction. Returns whether execution may continue with the next one.
    fn instruction(&mut self, at: usize, insn: BpfInsn) -> io::Result<bool> {
        let BpfInsn { code, jt, jf, k } = insn;
        let immediate = k as i32;
        let cell = -4 * (immediate & 15) as i16 - 4;
        if k >= 0xffe0_0000 && matches!(code & 0xe7, 0x20 | 0x40 | 0xa1) {
            return Err(too_much("what only a socket knows"));
        }
        match code & 7 {
            // ld and ldx
            0 | 1 => {
                let to = if code & 7 == 0 { A } else { X };
                match code & 0xe0 {
                    0x00 => self.alu64(0xb4, to, 0, immediate),
                    0x20 => return Ok(self.load_at(to, code, k)),
                    0x40 => self.load_beyond(code, k),
                    0x60 => self.push(0x61, to, FRAME, cell, 0),
                    0x80 => self.load_len(to),
                    _ => {
                        if !self.load_at(X, 0x10, k) {
                            return Ok(false);
                        }
                        self.alu64(0x54, X, 0, 0xf);
                        self.alu64(0x64, X, 0, 2);
                    }
                }
            }
            2 => self.push(0x63, FRAME, A, cell, 0),
            3 => self.push(0x63, FRAME, X, cell, 0),
            4 => self.arithmetic(code, immediate),
            5 => {
                let to = |skip: u32| Goal::Classic(at + 1 + skip as usize);
                if code & 0xf0 == 0 {
                    self.jump(0x05, 0, 0, 0, to(k));
                    return Ok(false);
                }
                // The 32-bit form of the comparison.
                let compare = 0x06 | (code & 0xf8) as u8;
                let source = if code & 0x08 == 0 { 0 } else { X };
                let number = if code & 0x08 == 0 { immediate } else { 0 };
                self.jump(compare, A, source, number, to(jt.into()));
                self.jump(0x05, 0, 0, 0, to(jf.into()));
                return Ok(false);
            }
            6 if code & 0x10 != 0 => {
                self.jump(0x56, A, 0, 0, Goal::Accept);
                self.jump(0x05, 0, 0, 0, Goal::Reject);
                return Ok(false);
            }
            6 => {
                self.jump(0x05, 0, 0, 0, if k == 0 { Goal::Reject } else { Goal::Accept });
                return Ok(false);
            }
            _ if code & 0x80 != 0 => self.push(0xbc, A, X, 0, 0),
            _ => self.push(0xbc, X, A, 0, 0),
        }
        Ok(true)
    }

    fn arithmetic(&mut self, code: u16, immediate: i32) {
        let is_register = code & 0x08 != 0;
        let operation = (code & 0xf0) as u8;
        if operation == 0x80 {
            return self.alu64(0x84, A, 0, 0);
        }
        if is_register && matches!(operation, 0x30 | 0x90) {
            self.jump(0x16, X, 0, 0, Goal::Reject); // a division by 0 rejects the packet
        }
        let source = if is_register { X } else { 0 };
        let number = if is_register { 0 } else { immediate };
        self.alu64(0x04 | (code & 0xf8) as u8, A, source, number);
    }

    /// Loads from a fixed offset. Returns false if no packet reaches that offset.
    fn load_at(&mut self, to: u8, code: u16, offset: u32) -> bool {
        if offset > FARTHEST {
            self.jump(0x05, 0, 0, 0, Goal::Reject);
            return false;
        }
        self.push(0xbf, POINTER, BEGIN, 0, 0);
        self.alu64(0x07, POINTER, 0, offset as i32);
        self.load(to, code);
        true
    }

    /// Loads from an offset relative to X.
    fn load_beyond(&mut self, code: u16, offset: u32) {
        self.push(0xbc, 3, X, 0, 0);
        self.alu64(0x04, 3, 0, offset as i32); // 32-bit, as in classic BPF
        self.jump(0x26, 3, 0, FARTHEST as i32, Goal::Reject);
        self.push(0xbf, POINTER, BEGIN, 0, 0);
        self.push(0x0f, POINTER, 3, 0, 0);
        self.load(A, code);
    }

    /// Loads the packet's length, over all its buffers.
    fn load_len(&mut self, to: u8) {
        const GET_BUFF_LEN: i32 = 188; // `bpf_xdp_get_buff_len`
        const SAVED: i16 = -72; // behind scratch memory
        if !self.has_frags {
            self.push(0xbf, to, PACKET_END, 0, 0);
            self.push(0x1f, to, BEGIN, 0, 0);
            return;
        }
        self.push(0x7b, FRAME, A, SAVED, 0); // the call returns in r0, which is A
        self.push(0xbf, 1, CONTEXT, 0, 0);
        self.push(0x85, 0, 0, 0, GET_BUFF_LEN);
        if to == X {
            self.push(0xbc, X, A, 0, 0);
            self.push(0x79, A, FRAME, SAVED, 0);
        }
    }

    /// Loads from the pointer if it is inside the packet.
    fn load(&mut self, to: u8, code: u16) {
        let (bytes, load) = match code & 0x18 {
            0x10 => (1, 0x71),
            0x08 => (2, 0x69),
            _ => (4, 0x61),
        };
        self.push(0xbf, END, POINTER, 0, 0);
        self.alu64(0x07, END, 0, bytes);
        self.jump(0x2d, END, PACKET_END, 0, Goal::Reject);
        self.push(load, to, POINTER, 0, 0);
        if bytes > 1 {
            self.push(0xdc, to, 0, 0, 8 * bytes); // from network byte order
        }
    }
}
