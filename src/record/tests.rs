//! Blocks turned into pcapng in place, and read back.

use std::io::Cursor;

use proptest::prelude::*;

use super::copying::{ALIGN, Copying};
use crate::packet::{LinkLayer, PacketMeta, PacketStatus, Timestamp, VlanTag};
use crate::pcap::{CaptureReader, CaptureWriter};
use crate::ring::batch::PacketBatch;
use crate::ring::block_writer::BlockImage;
use crate::ring::rewrite::pcapng::{ACCOUNT, Account, MARK, Plan, convert, filler};
use crate::ring::rx_features::Extras;

const BLOCK: usize = 1 << 14;
/// Bytes of a block before its body: two words and the status word.
const BODY_AT: usize = 12;

/// A packet as a reader has it: its bytes, its length on the wire, and its time.
type Read = (Vec<u8>, usize, Timestamp);

/// The packets of a file that begins with `file`.
fn packets(file: Vec<u8>) -> Vec<Read> {
    let mut reader = CaptureReader::from_reader(Cursor::new(file)).unwrap();
    let mut packets = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        let packet = record.packet();
        packets.push((packet.data().to_vec(), packet.original_len(), packet.timestamp()));
    }
    packets
}

/// The packets of an image as a writer writes them.
fn expected(body: &[u8]) -> Vec<Read> {
    let batch = PacketBatch::of_body(body.into());
    let mut writer = CaptureWriter::builder().to(Vec::new()).unwrap();
    writer.write_batch(&batch).unwrap();
    packets(writer.finish().unwrap())
}

/// A file with a block that was turned into pcapng.
fn file(body: &mut [u8]) -> (Vec<u8>, u64) {
    body.len().checked_add(BODY_AT).filter(|len| *len == BLOCK).unwrap();
    let account = Account { sequence: 7, before: 8, missing: 9, run: 10 };
    let plan = Plan { align: ALIGN, most: 1 << 18, account: &account };
    let converted = convert(body, Extras::default(), &plan, |_| ());
    let mut file = Copying::new(&CaptureWriter::builder(), false).unwrap();
    let mut file = file.take(&account).unwrap().unwrap().buffer.bytes().to_vec();
    assert!(file.len().is_multiple_of(ALIGN) && converted.len.is_multiple_of(ALIGN));
    if converted.packets > 0 {
        assert_eq!(body[..4], (converted.packets as u32).to_ne_bytes());
        assert_eq!(body[4..8], (converted.len as u32).to_ne_bytes());
        assert_eq!(body[8..16], 7_u64.to_ne_bytes());
        let head = [ACCOUNT, converted.head as u32, MARK].map(u32::to_ne_bytes);
        file.extend(head.as_flattened());
        file.extend(&body[..converted.len - BODY_AT]);
    }
    (file, converted.left_out)
}

fn image(packets: impl IntoIterator<Item = (usize, PacketMeta)>) -> Vec<u8> {
    let mut image = BlockImage::new(BLOCK);
    for (number, (len, meta)) in packets.into_iter().enumerate() {
        let data: Vec<u8> = (0..len).map(|at| (number * 31 + at) as u8).collect();
        if !image.push(&data, &meta) {
            break;
        }
    }
    let mut body = image.finish(7);
    body.resize(BLOCK - BODY_AT, 0xee); // of a packet in an earlier round
    body
}

fn meta(len: usize, cut: u32, pkttype: u8, tag: Option<u16>, nanos: u32) -> PacketMeta {
    let mut status = PacketStatus::empty();
    if tag.is_some() {
        status = PacketStatus::VLAN_VALID | PacketStatus::VLAN_TPID_VALID;
    }
    PacketMeta {
        wire_len: len as u32 + cut,
        timestamp: Timestamp { secs: 1_700_000_000, nanos },
        status,
        vlan: tag.map(|tci| VlanTag { tci, tpid: 0x8100 }),
        link: Some(LinkLayer { pkttype, ..LinkLayer::sample() }),
        ..PacketMeta::plain(len)
    }
}

#[test]
fn blocks_that_are_full_to_the_last_byte_lose_nothing() {
    // The kernel leaves 8 bytes behind the last packet; here it leaves 0, and up to 7 in the last packet's slot.
    for len in 0..300 {
        let mut body =
            image((0..500).map(|number| (len, meta(len, 0, number as u8 % 5, None, number))));
        let wanted = expected(&body);
        let (file, left_out) = file(&mut body);
        assert_eq!((packets(file), left_out), (wanted, 0), "packets of {len} bytes");
    }
}

#[test]
fn a_block_without_packets_is_nothing() {
    let (file, left_out) = file(&mut image([]));
    assert_eq!((file.len(), left_out), (ALIGN, 0));
}

#[test]
fn packets_behind_an_inconsistent_header_are_left_out() {
    for (field, value) in [(0, 8_u32), (0, 70), (0, 1 << 13), (12, u32::MAX), (24, 3)] {
        let mut body = image((0..20).map(|_| (100, meta(100, 0, 0, None, 0))));
        let first = 48 - BODY_AT;
        let second = first + 184;
        body[second + field..second + field + 4].copy_from_slice(&value.to_ne_bytes());
        let (file, left_out) = file(&mut body);
        let read = packets(file).len() as u64;
        assert!(read >= 1 && read + left_out == 20, "{field}={value}: {read} and {left_out}");
    }
}

#[test]
fn a_packet_that_turns_out_last_without_room_is_left_out() {
    // The second packet's header is inconsistent, and the first one reaches to the end of the block or almost.
    for short in 0..40 {
        let mut body = image((0..2).map(|_| (100, meta(100, 0, 0, None, 0))));
        let (first, len) = (48 - BODY_AT, BLOCK - BODY_AT);
        let captured = (len - first - 82 - short) as u32;
        body[first + 12..first + 16].copy_from_slice(&captured.to_ne_bytes());
        body[first + 184 + 24..first + 184 + 26].copy_from_slice(&3_u16.to_ne_bytes());
        let (file, left_out) = file(&mut body);
        assert_eq!(packets(file).len() as u64 + left_out, 2, "{short}");
    }
}

#[test]
fn packets_that_are_longer_than_readers_take_are_cut() {
    let mut body = image((0..3).map(|_| (3000, meta(3000, 0, 0, None, 7))));
    let account = Account { sequence: 7, before: 8, missing: 9, run: 10 };
    let plan = Plan { align: ALIGN, most: 1001, account: &account };
    let converted = convert(&mut body, Extras::default(), &plan, |_| ());
    assert_eq!((converted.packets, converted.left_out), (3, 0));
    let header = Copying::new(&CaptureWriter::builder(), false).unwrap().take(&account);
    let mut file = header.unwrap().unwrap().buffer.bytes().to_vec();
    file.extend([ACCOUNT, converted.head as u32, MARK].map(u32::to_ne_bytes).as_flattened());
    file.extend(&body[..converted.len - BODY_AT]);
    let read = packets(file);
    assert!(read.iter().all(|(data, wire_len, _)| (data.len(), *wire_len) == (1001, 3000)));
    assert_eq!(read.len(), 3);
}

#[test]
fn a_filler_is_one_block_of_its_length() {
    for len in (0..ALIGN).step_by(4) {
        let filler = filler(len, ALIGN);
        assert!(filler.len() == len || filler.len() == len + ALIGN && len < 16, "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    #[test]
    fn what_is_turned_in_place_reads_as_what_a_writer_writes(
        all in prop::collection::vec((0_usize..400, 0_u32..3, 0_u8..6, prop::option::of(1_u16..4095), 0_u32..1_000_000_000), 0..120)
    ) {
        let metas = all.iter().map(|&(len, cut, kind, tag, nanos)| (len, meta(len, cut, kind, tag, nanos)));
        let mut body = image(metas);
        let wanted = expected(&body);
        let (file, left_out) = file(&mut body);
        prop_assert_eq!(packets(file), wanted);
        prop_assert_eq!(left_out, 0);
    }

    #[test]
    fn any_bytes_are_turned_without_a_panic(
        mut body in prop::collection::vec(any::<u8>(), BLOCK - BODY_AT..=BLOCK - BODY_AT),
        count in 0_u32..50, first in 36_u32..100, step in 0_u32..300,
    ) {
        body[..4].copy_from_slice(&count.to_ne_bytes());
        body[4..8].copy_from_slice(&first.to_ne_bytes());
        let mut at = first as usize - BODY_AT;
        while step > 0 && at + 28 < body.len() {
            body[at..at + 4].copy_from_slice(&step.to_ne_bytes());
            // The last of them may reach to the end of the block, or behind it.
            let captured = if u32::from(body[at + 16]) % 40 == 0 { (body.len() - at).saturating_sub(69) as u32 } else { step / 2 };
            body[at + 12..at + 16].copy_from_slice(&captured.to_ne_bytes());
            body[at + 24..at + 26].copy_from_slice(&(68 + (step % 40) as u16).to_ne_bytes());
            at += step as usize;
        }
        let (file, left_out) = file(&mut body);
        prop_assert_eq!(packets(file).len() as u64 + left_out, u64::from(count));
    }
}
