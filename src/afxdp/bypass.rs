//! Flows that are dropped, or left to the stack, before they reach a socket: the rest of an elephant, say, of which the
//! beginning was enough.
//!
//! ```text
//!   Ethernet ─► up to two tags ─► IPv4, IPv6 ─► TCP, UDP, SCTP ─► a key, looked up ─► counted: dropped, or passed
//!        └──────────┴──── anything else ─────────────┴───────────────────┴─ not there ─► as without
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::assembler::{
    ADD, ADD_NUMBER, AND_NUMBER, ATOMIC, CALL, EXIT, FRAME, IF_EQUAL_NUMBER, IF_GREATER,
    IF_LESS_NUMBER, JUMP, LOAD_BYTE, LOAD_HALF, LOAD_MAP, LOAD_WORD, MOVE, MOVE_NUMBER, Program,
    SHIFT_LEFT_NUMBER, STORE_BYTE, STORE_BYTE_NUMBER, STORE_DOUBLE_NUMBER, STORE_WORD,
    UNLESS_EQUAL_NUMBER,
};
use crate::error::{Error, Result, Step};
use crate::sys::ebpf::{Insn, LruMap};

/// One direction of a flow, as its packets say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BypassKey {
    /// The sender's address and port.
    pub source: SocketAddr,
    /// The receiver's address and port.
    pub destination: SocketAddr,
    /// The number of TCP (6), UDP (17) or SCTP (132).
    pub protocol: u8,
}

impl BypassKey {
    /// Creates a key.
    pub fn new(source: SocketAddr, destination: SocketAddr, protocol: u8) -> Self {
        Self { source, destination, protocol }
    }

    /// Returns the other direction of the flow.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }

    /// The key as the program makes it.
    fn bytes(self) -> [u8; KEY_LEN] {
        let mut bytes = [0; KEY_LEN];
        for (at, address) in [(SOURCE, self.source), (DESTINATION, self.destination)] {
            match address.ip() {
                IpAddr::V4(ip) => bytes[at..at + 4].copy_from_slice(&ip.octets()),
                IpAddr::V6(ip) => bytes[at..at + 16].copy_from_slice(&ip.octets()),
            }
        }
        bytes[PORTS..PORTS + 2].copy_from_slice(&self.source.port().to_be_bytes());
        bytes[PORTS + 2..PORTS + 4].copy_from_slice(&self.destination.port().to_be_bytes());
        bytes[PROTOCOL] = self.protocol;
        bytes[VERSION] = if self.source.is_ipv4() { 4 } else { 6 };
        bytes
    }

    fn of_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let ip = |at: usize| -> IpAddr {
            match bytes[VERSION] {
                4 => IpAddr::from(bytes[at..].first_chunk::<4>().copied().unwrap_or_default()),
                _ => IpAddr::from(bytes[at..].first_chunk::<16>().copied().unwrap_or_default()),
            }
        };
        Self {
            source: SocketAddr::new(ip(SOURCE), port(PORTS)),
            destination: SocketAddr::new(ip(DESTINATION), port(PORTS + 2)),
            protocol: bytes[PROTOCOL],
        }
    }
}

/// What happens to the packets of a flow that is bypassed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BypassVerdict {
    /// They are dropped in the driver.
    Drop,
    /// They go to the network stack, as if there were no socket.
    Pass,
}

/// How much of a flow was bypassed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BypassCounts {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the link-layer header on. Packets of several buffers do not reach such a program.
    pub bytes: u64,
}

/// The flows that an [`XdpProgram`](crate::xdp::XdpProgram) keeps from its sockets; from
/// [`XdpProgram::bypass`](crate::xdp::XdpProgram::bypass).
///
/// Whoever has seen enough of a flow adds it, usually in both directions, and no packet of it reaches a socket any more: to the
/// sockets it costs nothing then. Cheap to clone, and usable from any thread.
///
/// The kernel holds about as many flows as the program was built for, and replaces those that have had no packets for longest:
/// some of them a little before it is full, as each core has free entries of its own.
/// Fragments are not looked up, nor are packets in tunnels, behind more than two VLAN tags or behind extension headers of IPv6.
#[derive(Clone)]
pub struct Bypass(Arc<LruMap<KEY_LEN, VALUE_LEN>>);

/// The layout of a key, which the program builds in its stack frame.
const SOURCE: usize = 0;
const DESTINATION: usize = 16;
const PORTS: usize = 32;
const PROTOCOL: usize = 36;
const VERSION: usize = 37;
const KEY_LEN: usize = 40;
/// The layout of a value: the program's return value, packets, bytes.
const PACKETS: usize = 8;
const BYTES: usize = 16;
const VALUE_LEN: usize = 24;

/// `enum xdp_action`, linux/bpf.h.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

impl Bypass {
    pub(super) fn new(flows: u32) -> io::Result<Self> {
        LruMap::new(flows).map(|map| Self(Arc::new(map)))
    }

    /// Adds one direction of a flow, or replaces its verdict. Its counts begin with 0.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel has no memory for it, or addresses of both versions of IP were mixed.
    pub fn insert(&self, flow: BypassKey, verdict: BypassVerdict) -> Result<()> {
        if flow.source.is_ipv4() != flow.destination.is_ipv4() {
            return Err(failed(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)));
        }
        let action = match verdict {
            BypassVerdict::Drop => XDP_DROP,
            BypassVerdict::Pass => XDP_PASS,
        };
        let mut value = [0; VALUE_LEN];
        value[..4].copy_from_slice(&action.to_ne_bytes());
        self.0.insert(&flow.bytes(), &value).map_err(failed)
    }

    /// Removes one direction of a flow, whose packets reach the sockets again. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses.
    pub fn remove(&self, flow: BypassKey) -> Result<bool> {
        self.0.remove(&flow.bytes()).map_err(failed)
    }

    /// Returns how much of one direction of a flow was bypassed; `None` if it is not there, or no longer.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses.
    pub fn counts(&self, flow: BypassKey) -> Result<Option<BypassCounts>> {
        let value = self.0.get(&flow.bytes()).map_err(failed)?;
        Ok(value.map(|value| of_value(&value).1))
    }

    /// Returns all flows. Those that are added or replaced meanwhile may be missing.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses.
    pub fn flows(&self) -> Result<Vec<(BypassKey, BypassVerdict, BypassCounts)>> {
        let (mut flows, mut last) = (HashMap::new(), None);
        // The kernel begins anew where the last key was replaced, which may go on for ever.
        for _ in 0..2 * u64::from(self.0.capacity()) {
            let Some(key) = self.0.next_key(last.as_ref()).map_err(failed)? else { break };
            if let Some(value) = self.0.get(&key).map_err(failed)? {
                flows.insert(BypassKey::of_bytes(&key), of_value(&value));
            }
            last = Some(key);
        }
        Ok(flows.into_iter().map(|(key, (verdict, counts))| (key, verdict, counts)).collect())
    }

    /// Returns the instructions that look a packet up, before those of `rest`. They expect the context in r1, and so do those.
    pub(super) fn before(&self, rest: &[Insn]) -> Vec<Insn> {
        lookup(self.0.raw(), rest)
    }
}

fn failed(source: io::Error) -> Error {
    Error::os(Step::BypassFlow, source)
}

fn of_value(value: &[u8; VALUE_LEN]) -> (BypassVerdict, BypassCounts) {
    let double =
        |at: usize| u64::from_ne_bytes(value[at..].first_chunk().copied().unwrap_or_default());
    let verdict = match u32::from_ne_bytes(value.first_chunk().copied().unwrap_or_default()) {
        XDP_PASS => BypassVerdict::Pass,
        _ => BypassVerdict::Drop,
    };
    (verdict, BypassCounts { packets: double(PACKETS), bytes: double(BYTES) })
}

impl fmt::Debug for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bypass").finish_non_exhaustive()
    }
}

/// Registers. Those from r6 to r9 outlive calls.
const KIND: u8 = 2;
const SHORT: u8 = 3;
const HEADER_LEN: u8 = 4;
const CONTEXT: u8 = 6;
const AT: u8 = 7;
const END: u8 = 8;
const LEN: u8 = 9;

/// Subtraction of registers, of 64 bits.
const SUBTRACT: u8 = 0x1f;
/// `bpf_map_lookup_elem`, bpf-helpers(7).
const LOOK_UP: i32 = 1;
/// In the place of a source register: the number is a map's descriptor (`BPF_PSEUDO_MAP_FD`).
const MAP: u8 = 1;

const ETHERNET_LEN: i32 = 14;
const TAG_LEN: i32 = 4;
const IPV4_LEN: i32 = 20;
const IPV6_LEN: i32 = 40;

/// A number of two bytes as it is loaded from a packet.
fn network(number: u16) -> i32 {
    i32::from(number.to_be())
}

/// The offset of a part of the key in the stack frame.
fn key(at: usize) -> i16 {
    at as i16 - KEY_LEN as i16
}

/// A program with the jumps out of it that are still open.
struct Lookup {
    program: Program,
    /// To the rest: this packet is not one of a flow.
    out: Vec<usize>,
}

impl Lookup {
    fn put(&mut self, code: u8, destination: u8, source: u8, offset: i16, number: i32) -> usize {
        self.program.put(code, destination, source, offset, number)
    }

    /// Jumps out by this comparison.
    fn out_if(&mut self, code: u8, register: u8, source: u8, number: i32) {
        let jump = self.put(code, register, source, 0, number);
        self.out.push(jump);
    }

    /// Jumps out unless the packet has `len` more bytes, which the verifier wants to see.
    fn need(&mut self, len: i32) {
        self.put(MOVE, 1, AT, 0, 0);
        self.put(ADD_NUMBER, 1, 0, 0, len);
        self.out_if(IF_GREATER, 1, END, 0);
    }

    /// Copies words of the packet into the key.
    fn copy(&mut self, from: i16, to: usize, words: i16) {
        for word in 0..words {
            self.put(LOAD_WORD, 1, AT, from + 4 * word, 0);
            self.put(STORE_WORD, FRAME, 1, key(to) + 4 * word, 0);
        }
    }

    /// Goes behind a VLAN tag, if there is one.
    fn tag(&mut self) {
        let tags =
            [0x8100, 0x88a8].map(|kind| self.put(IF_EQUAL_NUMBER, KIND, 0, 0, network(kind)));
        let none = self.put(JUMP, 0, 0, 0, 0);
        tags.into_iter().for_each(|jump| self.program.land(jump));
        self.need(TAG_LEN);
        self.put(LOAD_HALF, KIND, AT, 2, 0);
        self.put(ADD_NUMBER, AT, 0, 0, TAG_LEN);
        self.program.land(none);
    }

    /// Reads a header of IPv4, and goes behind it.
    fn ipv4(&mut self) {
        self.need(IPV4_LEN);
        self.put(LOAD_BYTE, SHORT, AT, 0, 0);
        self.put(MOVE, HEADER_LEN, SHORT, 0, 0);
        self.put(AND_NUMBER, SHORT, 0, 0, 0xf0);
        self.out_if(UNLESS_EQUAL_NUMBER, SHORT, 0, 0x40);
        self.put(AND_NUMBER, HEADER_LEN, 0, 0, 0x0f);
        self.put(SHIFT_LEFT_NUMBER, HEADER_LEN, 0, 0, 2);
        self.out_if(IF_LESS_NUMBER, HEADER_LEN, 0, IPV4_LEN);
        // Neither a later fragment, which has no ports, nor a first one, so that none is torn apart.
        self.put(LOAD_HALF, SHORT, AT, 6, 0);
        self.put(AND_NUMBER, SHORT, 0, 0, network(0x3fff));
        self.out_if(UNLESS_EQUAL_NUMBER, SHORT, 0, 0);
        self.put(LOAD_BYTE, SHORT, AT, 9, 0);
        self.put(STORE_BYTE_NUMBER, FRAME, 0, key(VERSION), 4);
        self.copy(12, SOURCE, 1);
        self.copy(16, DESTINATION, 1);
        self.put(ADD, AT, HEADER_LEN, 0, 0);
    }

    /// Reads a header of IPv6, and goes behind it.
    fn ipv6(&mut self) {
        self.need(IPV6_LEN);
        self.put(LOAD_BYTE, SHORT, AT, 6, 0);
        self.put(STORE_BYTE_NUMBER, FRAME, 0, key(VERSION), 6);
        self.copy(8, SOURCE, 4);
        self.copy(24, DESTINATION, 4);
        self.put(ADD_NUMBER, AT, 0, 0, IPV6_LEN);
    }
}

fn lookup(map: i32, rest: &[Insn]) -> Vec<Insn> {
    let mut of = Lookup { program: Program::default(), out: Vec::new() };
    of.put(MOVE, CONTEXT, 1, 0, 0);
    of.put(LOAD_WORD, AT, CONTEXT, 0, 0);
    of.put(LOAD_WORD, END, CONTEXT, 4, 0);
    // The length, before the start moves.
    of.put(MOVE, LEN, END, 0, 0);
    of.put(SUBTRACT, LEN, AT, 0, 0);
    for at in (0..KEY_LEN).step_by(8) {
        of.put(STORE_DOUBLE_NUMBER, FRAME, 0, key(at), 0);
    }
    of.need(ETHERNET_LEN);
    of.put(LOAD_HALF, KIND, AT, 12, 0);
    of.put(ADD_NUMBER, AT, 0, 0, ETHERNET_LEN);
    of.tag();
    of.tag();
    let is_v4 = of.put(IF_EQUAL_NUMBER, KIND, 0, 0, network(0x0800));
    of.out_if(UNLESS_EQUAL_NUMBER, KIND, 0, network(0x86dd));
    of.ipv6();
    let is_done = of.put(JUMP, 0, 0, 0, 0);
    of.program.land(is_v4);
    of.ipv4();
    of.program.land(is_done);
    let known = [6, 17, 132].map(|protocol| of.put(IF_EQUAL_NUMBER, SHORT, 0, 0, protocol));
    of.out_if(JUMP, 0, 0, 0);
    known.into_iter().for_each(|jump| of.program.land(jump));
    of.put(STORE_BYTE, FRAME, SHORT, key(PROTOCOL), 0);
    of.need(4);
    of.copy(0, PORTS, 1);
    of.put(LOAD_MAP, 1, MAP, 0, map);
    of.put(0, 0, 0, 0, 0); // the second half of that instruction
    of.put(MOVE, 2, FRAME, 0, 0);
    of.put(ADD_NUMBER, 2, 0, 0, -(KEY_LEN as i32));
    of.put(CALL, 0, 0, 0, LOOK_UP);
    of.out_if(IF_EQUAL_NUMBER, 0, 0, 0);
    of.put(MOVE_NUMBER, 1, 0, 0, 1);
    of.put(ATOMIC, 0, 1, PACKETS as i16, 0);
    of.put(ATOMIC, 0, LEN, BYTES as i16, 0);
    of.put(LOAD_WORD, 0, 0, 0, 0);
    of.put(EXIT, 0, 0, 0, 0);
    let Lookup { mut program, out } = of;
    out.into_iter().for_each(|jump| program.land(jump));
    program.put(MOVE, 1, CONTEXT, 0, 0);
    program.extend(rest);
    program.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_it_was_made_of() {
        for (source, destination) in
            [("10.0.0.1:80", "192.0.2.7:65535"), ("[2001:db8::1]:0", "[fe80::2]:443")]
        {
            let flow = BypassKey::new(source.parse().unwrap(), destination.parse().unwrap(), 6);
            assert_eq!(BypassKey::of_bytes(&flow.bytes()), flow);
            assert_ne!(flow.reversed(), flow);
            assert_eq!(flow.reversed().reversed(), flow);
        }
    }
}
