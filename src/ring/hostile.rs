//! A kernel that writes arbitrary bytes into a ring: fuzzer input for the code that reads it.
//!
//! A forked child can write to the memory that the kernel shares, too. Whatever the bytes are, reading them
//! never panics and stays inside the ring.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::batch::PacketBatch;
use super::block::BlockRing;
use super::rx_features::Extras;
use super::{rewrite, tpacket_v2};
use crate::packet::Packet;
use crate::sys::Mapping;

/// Bytes of a block's status word and of the fields before it.
const BEFORE_BODY: usize = 16;

fn extras(bits: u8) -> Extras {
    Extras {
        rxhash: bits & 1 != 0,
        offload: bits & 2 != 0,
        retag: bits & 4 != 0,
        cooked: bits & 8 != 0,
    }
}

/// Reads a block that has these bytes after its status word; the first byte selects the options of the ring.
///
/// # Panics
/// Panics if a packet lies outside of the block, or if its copy differs from it.
pub fn block(bytes: &[u8]) {
    let Some((&bits, body)) = bytes.split_first() else { return };
    let size = (body.len() + BEFORE_BODY).next_multiple_of(8).max(256);
    let malformed = Arc::new(AtomicU64::new(0));
    let mut ring = BlockRing::new(Mapping::heap(size), size, extras(bits), malformed);
    assert!(ring.kernel_half().retire(0, body, u32::from(bits) << 8), "it is the kernel's");
    let Some(batch) = ring.take().map(PacketBatch::from_block) else { return };
    let detached = batch.to_detached();
    #[cfg(feature = "record")]
    to_disk(body, bits);
    let mut packets = 0;
    for packet in &batch {
        look(&packet, size);
        packets += 1;
    }
    assert!(packets <= batch.len());
    drop((batch, ring));
    detached.iter().for_each(|packet| look(&packet, size));
}

/// Turns the same block into a part of a file.
#[cfg(feature = "record")]
fn to_disk(body: &[u8], bits: u8) {
    use super::rewrite::pcapng::{Account, Plan};
    let size = (body.len() + BEFORE_BODY).next_multiple_of(4096);
    let mut ring =
        BlockRing::new(Mapping::heap(size), size, extras(bits & 3), Arc::new(AtomicU64::new(0)));
    assert!(ring.kernel_half().retire(0, body, 0), "it is the kernel's");
    let Some(batch) = ring.take().map(PacketBatch::from_block) else { return };
    let announced = batch.len() as u64;
    let plan = Plan { align: 4096, most: 1 << 18, account: &Account::default() };
    let mut seen = 0;
    let Ok((buffer, converted)) = batch.into_disk(&plan, |_| seen += 1) else { return };
    assert!(seen >= converted.packets);
    assert_eq!(converted.packets + converted.left_out, announced);
    assert!(buffer.bytes().len() == converted.len && converted.len.is_multiple_of(4096));
}

/// Reads a slot that has this status word followed by these bytes; the first byte selects the options of the
/// ring.
///
/// # Panics
/// Panics if the packet lies outside of the slot.
pub fn slot(bytes: &[u8]) {
    let Some((&[bits, a, b, c, d], body)) = bytes.split_first_chunk::<5>() else { return };
    let (mut body, extras) = (body.to_vec(), extras(bits));
    let status = u32::from_ne_bytes([a, b, c, d]);
    if let Some(packet) = tpacket_v2::read(status, &body, extras) {
        look(&packet, body.len());
    }
    if rewrite::rewrite_frame(status, &mut body, extras) {
        let status = status & !rewrite::BESIDE;
        let packet = tpacket_v2::read(status, &body, extras).expect("it held together before");
        look(&packet, body.len());
    }
}

/// Calls all accessors of a packet.
fn look(packet: &Packet<'_>, most: usize) {
    assert!(packet.len() <= most, "{} bytes of {most}", packet.len());
    let _ = (packet.original_len(), packet.timestamp(), packet.clock(), packet.direction());
    let _ = (packet.vlan(), packet.inner_vlan(), packet.stripped_vlan(), packet.rxhash());
    let _ = (packet.ll_protocol(), packet.interface_index(), packet.is_truncated());
    let _ = packet.source_ll_addr().map(|address| address.to_string());
    if let Some(offload) = packet.offload() {
        let _ = (offload.wire_len(packet.data()), offload.fits(packet.data()));
    }
}

/// Receives and completes arbitrary input from a kernel over AF_XDP's rings: records of 13 bytes, each with
/// an operation, an address, a length and options.
///
/// # Panics
/// Panics if a chunk has two owners or is lost, or if a frame lies outside of its chunk.
#[cfg(feature = "af-xdp")]
pub fn descriptors(bytes: &[u8]) {
    use super::umem::{Completions, Holder, Lending, Umem};
    use super::xsk_ring::{Consumer, IndexLayout, IndexRing, Producer};

    const CHUNK: u32 = 2048;
    const CHUNKS: u32 = 16;
    let umem = Arc::new(Umem::new(Mapping::heap((CHUNKS * CHUNK) as usize), CHUNK, 0, 2));
    let mut shares = [umem.take_share(), umem.take_share()].map(|share| share.expect("two"));
    let layout = IndexLayout { producer: 0, consumer: 64, flags: 128, entries: 192, size: 8 };
    let ring = Arc::new(IndexRing::<u64>::new(Mapping::heap(4096), layout));
    let mut kernel = Producer::new(Arc::clone(&ring));
    let own = CHUNKS / 2..CHUNKS;
    let completions = Arc::new(Completions::new(Consumer::new(ring), own, shares[1].number));
    umem.register(&completions);
    let mut leases = Vec::new();
    for run in bytes.chunks_exact(13) {
        let address = u64::from_le_bytes(run[1..9].try_into().expect("8 of 13"));
        // Most random addresses would be far outside.
        let address = if run[0] & 8 != 0 { address } else { address % u64::from(CHUNKS * CHUNK) };
        let len = u32::from_le_bytes(run[9..13].try_into().expect("4 of 13"));
        let len = if run[0] & 16 != 0 { len } else { len % (CHUNK + 64) };
        match run[0] & 7 {
            0 | 1 => {
                if let Some(chunk) = shares[0].chunks.pop() {
                    umem.give(chunk, shares[0].holder.holder());
                }
            }
            2 | 3 => {
                let mut lending = Lending::new(&umem);
                if let Err(Some(chunk)) = lending.receive(address, len, &mut shares[0].holder) {
                    shares[0].chunks.push(chunk);
                }
                leases.extend(lending.lend(1));
            }
            4 => {
                if let Some(taken) = leases.pop().and_then(|mut lease| lease.take_first()) {
                    umem.give(taken.chunk, Holder::tx(shares[1].number));
                }
            }
            5 => {
                let mut free = Vec::new();
                if completions.take(&umem, &mut free).entries < 8 && kernel.vacant(1) > 0 {
                    kernel.push(address);
                    kernel.publish();
                }
                shares[1].chunks.append(&mut free);
            }
            6 => umem.gather_completions(),
            _ => leases.clear(),
        }
    }
    for lease in &leases {
        let mut place = lease.start();
        while let Some(frame) = lease.frame(&mut place) {
            assert!(frame.len() <= CHUNK as usize);
        }
    }
    leases.clear();
    umem.gather_completions();
    umem.bring_home(shares[1].number);
    let mut seen = [false; CHUNKS as usize];
    let mut note = |number: u32| {
        assert!(
            !std::mem::replace(&mut seen[number as usize], true),
            "chunk {number} has two owners"
        );
    };
    shares[0].chunks.iter().chain(&shares[1].chunks).for_each(|chunk| note(chunk.number()));
    for share in &shares {
        umem.take_returned(share.number, |chunk| note(chunk.keep().number()));
    }
}

/// Does nothing without the feature `af-xdp`.
#[cfg(not(feature = "af-xdp"))]
pub fn descriptors(_: &[u8]) {}
