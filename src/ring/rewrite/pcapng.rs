//! A block of the ring turned into blocks of a pcapng file, where it lies.
//!
//! Each enhanced packet block begins 28 bytes before its packet's bytes, in what was the kernel's header of the packet, and
//! ends where the next one begins. What is left between a packet's bytes and that place is inside of an option. Before the
//! first there is an account of the block, in a block of a type for local use, which readers skip:
//!
//! ```text
//!   kernel:  block header │ header │ sll │ bytes │ header │ sll │ bytes │ ...
//!   file:    account           │ packet block: bytes, option │ packet block: bytes, option │
//! ```
//!
//! Packet blocks are multiples of 4 bytes, so packets must begin at one: the kernel does that if it is asked to keep two
//! bytes before an Ethernet frame (`PACKET_RESERVE`). Where it was not, each packet is moved by up to three bytes.

use super::super::block::BODY_AT;
use super::super::rx_features::Extras;
use super::super::tpacket_v3::{self, BlockHeader, Walk};
use super::data_at;
use crate::packet::{Packet, VlanTag};

/// The type of an account: one for local use. (A custom block would be a packet to Wireshark.)
pub(crate) const ACCOUNT: u32 = 0x8052_5401;
/// What an account begins with. It is odd, and so is a status word that says that a block is ours.
pub(crate) const MARK: u32 = 0x5254_4151;

const PACKET: u32 = 6;
/// Bytes of an enhanced packet block before its packet's bytes, and after them and their options.
const HEAD: usize = 28;
const TRAILER: usize = 4;
/// The option that takes in what is left; the code is one for local use.
const FILLER: u16 = 0x8001;
const FLAGS: u16 = 2;
/// Bytes of the option for flags.
const FLAGS_LEN: usize = 8;
const ADDRESSES: usize = 12;
/// The most bytes of a filler.
const LONGEST: usize = u16::MAX as usize - 3;

/// Our account of a block of a ring, or of packets that were copied, before these packets; see `docs/RECORDING.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Account {
    /// The kernel's number of the block; 0 for packets that were copied. In an account without packets, [`FINISHED`] or 0.
    pub(crate) sequence: u64,
    /// Packets in all blocks of the recording before this one.
    pub(crate) before: u64,
    /// Packets that are known to be missing before this block.
    pub(crate) missing: u64,
    /// Tells this recorder's accounts from those of another one: when it was made, in nanoseconds.
    pub(crate) run: u64,
}

impl Account {
    /// Returns the account of this number of packets, in `span` bytes.
    pub(crate) fn of(&self, packets: u32, span: u32, times: (u64, u64)) -> Told {
        let Self { sequence, before, missing, run } = *self;
        Told { packets, span, sequence, before, missing, times, run }
    }
}

/// The sequence number of the last account of a recorder that was finished.
pub(crate) const FINISHED: u64 = 1;

/// Bytes of an account behind its mark: the number of packets and of bytes up to the next account, three numbers, the times of
/// the earliest and the latest packet, and the run.
const ACCOUNT_LEN: usize = 56;

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Converted {
    /// Bytes before the packets, from the block's beginning.
    pub(crate) head: usize,
    /// Bytes to be written, from the block's beginning.
    pub(crate) len: usize,
    pub(crate) packets: u64,
    /// Packets left out, because a header was inconsistent.
    pub(crate) left_out: u64,
    /// The times of the earliest and the latest packet.
    pub(crate) times: (u64, u64),
}

/// A packet on its way into the file.
#[derive(Debug, Clone, Copy)]
struct Moved {
    /// Where its bytes begin, and their number.
    at: usize,
    captured: usize,
    wire_len: u32,
    nanos: u64,
    flags: u32,
}

impl Moved {
    fn start(&self) -> usize {
        self.at - HEAD
    }

    fn end(&self) -> usize {
        (self.at + self.captured).next_multiple_of(4)
    }

    fn placed<'a>(&self, body: &'a [u8]) -> Placed<'a> {
        let data = &body[self.at..self.at + self.captured];
        Placed { at: BODY_AT + self.start(), nanos: self.nanos, data }
    }

    /// The room for options and the trailer that it takes at least.
    fn least(&self) -> usize {
        if self.flags == 0 { TRAILER } else { FLAGS_LEN + TRAILER }
    }
}

/// How a block is turned into a part of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    /// The file's bytes end at a multiple of this, of which the block's size is one.
    pub(crate) align: usize,
    /// Bytes of a packet that are kept.
    pub(crate) most: usize,
    pub(crate) account: &'a Account,
}

/// A packet as it is going to be in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed<'a> {
    /// Where its block begins, from the beginning of the ring's block.
    pub(crate) at: usize,
    pub(crate) nanos: u64,
    pub(crate) data: &'a [u8],
}

/// Turns a block, whose `body` begins after the status word, into pcapng. `see` is given each packet.
pub(crate) fn convert(
    body: &mut [u8],
    extras: Extras,
    plan: &Plan<'_>,
    mut see: impl FnMut(Placed<'_>),
) -> Converted {
    let announced = u64::from(BlockHeader::read(body).packets);
    let walk = Walk::new(body, extras);
    let (mut place, mut packets, mut times) = ((walk.at(), walk.left()), 0_u64, (u64::MAX, 0));
    let (mut first, mut before, mut last): (Option<Moved>, Option<Moved>, Option<Moved>) =
        Default::default();
    while let Some((moved, next)) = take(body, place, extras, plan.most) {
        place = next;
        let room_from = last.map_or(ACCOUNT_LEN + TRAILER, |last| last.end() + last.least());
        let Some(moved) = settle(body, moved, place.1 == 0, room_from) else { break };
        if let Some(last) = last {
            see(last.placed(body));
            put_end(body, &last, moved.start());
        }
        put_head(body, &moved);
        times = (times.0.min(moved.nanos), times.1.max(moved.nanos));
        first = first.or(Some(moved));
        (before, last, packets) = (last, Some(moved), packets + 1);
    }
    // The walk has ended before the last packet, so that the one which turned out last was given no room.
    if last.is_some_and(|last| last.end() + last.least() > body.len()) {
        (last, packets) = (before, packets - 1);
    } else if let Some(last) = last {
        see(last.placed(body));
    }
    // Saturating: a forked child may write to the block between two looks.
    let left_out = announced.saturating_sub(packets);
    let (Some(first), Some(last)) = (first.filter(|_| packets > 0), last) else {
        return Converted { head: 0, len: 0, packets: 0, left_out, times };
    };
    let len = (last.end() + last.least() + BODY_AT).next_multiple_of(plan.align);
    put_end(body, &last, len - BODY_AT);
    let first = first.start();
    put_account(body, first, [packets as u32, len as u32], plan.account, times);
    Converted { head: first + BODY_AT, len, packets, left_out, times }
}

/// Reads the packet at `place`, puts its tag into it, and moves its bytes to a multiple of 4. Returns it, and where the next
/// one is.
fn take(
    body: &mut [u8],
    (at, left): (usize, u32),
    extras: Extras,
    most: usize,
) -> Option<(Moved, (usize, u32))> {
    let mut walk = Walk::new(body, extras);
    walk.go_to(at, left);
    let packet = walk.next()?;
    let next = (walk.at(), walk.left());
    let (mut moved, tag) = (describe(&packet), packet.stripped_vlan());
    moved.at = at + data_at(&body[at..], &tpacket_v3::FIELDS);
    if let Some(tag) = tag {
        moved.wire_len = moved.wire_len.saturating_add(VlanTag::LEN as u32);
        // A frame cut within its addresses has no place for the tag.
        if moved.captured >= ADDRESSES {
            body.copy_within(moved.at..moved.at + ADDRESSES, moved.at - VlanTag::LEN);
            let end = moved.at + ADDRESSES;
            body[end - VlanTag::LEN..end].copy_from_slice(&tag.to_bytes());
            moved.at -= VlanTag::LEN;
            moved.captured += VlanTag::LEN;
        }
    }
    moved.captured = moved.captured.min(most);
    let aside = moved.at % 4;
    if aside > 0 {
        body.copy_within(moved.at..moved.at + moved.captured, moved.at - aside);
        moved.at -= aside;
    }
    Some((moved, next))
}

fn describe(packet: &Packet<'_>) -> Moved {
    Moved {
        at: 0,
        captured: packet.len(),
        wire_len: packet.original_len() as u32,
        nanos: packet.timestamp().as_nanos(),
        flags: packet.pcapng_flags(),
    }
}

/// Makes room behind the last packet of a block. Returns `None` if a packet begins before `room_from`, which the kernel
/// does not do.
fn settle(body: &mut [u8], mut moved: Moved, is_last: bool, room_from: usize) -> Option<Moved> {
    let behind = (moved.end() + moved.least()).saturating_sub(body.len());
    if is_last && behind > 0 {
        // There are 40 bytes or more between the bytes of two packets, and the kernel leaves some behind the last.
        let back = behind.next_multiple_of(4);
        moved.at.checked_sub(back + HEAD).filter(|start| *start >= room_from)?;
        body.copy_within(moved.at..moved.at + moved.captured, moved.at - back);
        moved.at -= back;
    }
    (moved.start() >= room_from).then_some(moved)
}

fn put_head(body: &mut [u8], moved: &Moved) {
    let (start, captured) = (moved.start(), moved.captured as u32);
    let [high, low] = [(moved.nanos >> 32) as u32, moved.nanos as u32];
    // The length is put when the next packet is known.
    put(body, start, &[PACKET, 0, 0, high, low, captured, moved.wire_len]);
}

/// Writes what follows a packet's bytes, up to `next`, where something else begins.
fn put_end(body: &mut [u8], moved: &Moved, next: usize) {
    let (mut at, trailer) = (moved.end(), next - TRAILER);
    body[moved.at + moved.captured..at].fill(0);
    if moved.flags != 0 {
        put(body, at, &[option(FLAGS, 4), moved.flags]);
        at += FLAGS_LEN;
    }
    // Fillers, and 4 bytes that say that there are no more options; those alone if there is room for no more.
    while trailer - at >= 8 {
        let filler = (trailer - at - 8).min(LONGEST);
        put(body, at, &[option(FILLER, filler as u16)]);
        body[at + 4..at + 4 + filler].fill(0);
        at += 4 + filler;
    }
    body[at..trailer].fill(0);
    let len = (next - moved.start()) as u32;
    put(body, trailer, &[len]);
    put(body, moved.start() + 4, &[len]);
}

/// Writes the part of the account that is in the body, up to `first`.
fn put_account(
    body: &mut [u8],
    first: usize,
    counts: [u32; 2],
    account: &Account,
    (earliest, latest): (u64, u64),
) {
    body[..first].fill(0);
    put(body, 0, &counts);
    let Account { sequence, before, missing, run } = *account;
    let numbers = [sequence, before, missing, earliest, latest, run];
    for (number, bytes) in numbers.iter().zip(body[8..].chunks_exact_mut(8)) {
        bytes.copy_from_slice(&number.to_ne_bytes());
    }
    put(body, first - TRAILER, &[(first + BODY_AT) as u32]);
}

/// The first word of an option.
fn option(code: u16, len: u16) -> u32 {
    let ([a, b], [c, d]) = (code.to_ne_bytes(), len.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

#[inline]
fn put(body: &mut [u8], at: usize, words: &[u32]) {
    for (word, bytes) in words.iter().zip(body[at..].chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
}

/// The whole of an account, with its length.
pub(crate) const WHOLE_ACCOUNT: usize = 12 + ACCOUNT_LEN + TRAILER;

/// Returns an account as a block of its own. `span` is the number of bytes from its beginning to the next account.
pub(crate) fn account_block(
    account: &Account,
    packets: u32,
    span: u32,
    times: (u64, u64),
) -> [u8; WHOLE_ACCOUNT] {
    let mut block = [0; WHOLE_ACCOUNT];
    put(&mut block, 0, &[ACCOUNT, WHOLE_ACCOUNT as u32, MARK]);
    put_account(&mut block[BODY_AT..], WHOLE_ACCOUNT - BODY_AT, [packets, span], account, times);
    block
}

/// What an account says: the number of packets and of bytes, the packets recorded and missing before, and the times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) packets: u32,
    pub(crate) span: u32,
    pub(crate) sequence: u64,
    pub(crate) before: u64,
    pub(crate) missing: u64,
    pub(crate) times: (u64, u64),
    pub(crate) run: u64,
}

impl Told {
    /// Reads the account that some bytes begin with, if they do.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first_chunk()?;
        let (_, body) = rest.split_first_chunk::<4>()?;
        if u32::from_ne_bytes(*kind) == ACCOUNT { Self::of_body(body) } else { None }
    }

    /// Reads the body of a block of our type.
    pub(crate) fn of_body(body: &[u8]) -> Option<Self> {
        let (mark, body) = body.split_first_chunk()?;
        let body: &[u8; ACCOUNT_LEN] = body.first_chunk()?;
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|byte| body[at + byte]));
        let double = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| body[at + byte]));
        (u32::from_ne_bytes(*mark) == MARK).then(|| Self {
            packets: word(0),
            span: word(4),
            sequence: double(8),
            before: double(16),
            missing: double(24),
            times: (double(32), double(40)),
            run: double(48),
        })
    }
}

/// Returns a block of `len` bytes that readers skip, or of `align` more where that is too short for one; none for 0.
pub(crate) fn filler(len: usize, align: usize) -> Vec<u8> {
    let len = match len {
        0 => return Vec::new(),
        _ if len < 4 * TRAILER => len + align,
        _ => len,
    };
    let mut block = vec![0; len];
    put(&mut block, 0, &[ACCOUNT, len as u32, 0]);
    put(&mut block, len - TRAILER, &[len as u32]);
    block
}
