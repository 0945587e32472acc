//! Capture files: any bytes are read or refused, and what was read is written and read again the same.

use std::io::Cursor;

use ringtap::packet::OwnedPacket;
use ringtap::pcap::{
    CaptureReader, CaptureWriter, FileBlock, FileFormat, FileInterface, PacketNote,
};

/// A pcapng file, or any other.
pub fn capture_pcapng(bytes: &[u8]) {
    let (interfaces, packets) = read(bytes.to_vec());
    // Written with the interfaces that it has, and read again.
    let mut options = CaptureWriter::builder();
    for interface in &interfaces {
        let mut same = FileInterface::new(interface.link_type);
        (same.name, same.description) = (interface.name.clone(), interface.description.clone());
        options = options.interface(same);
    }
    let mut writer = options.to(Vec::new()).expect("a Vec takes all");
    for (interface, packet) in &packets {
        let note = PacketNote { interface: Some(*interface as u32), comment: None, hash: None };
        writer.write_with(&packet.as_packet(), &note).expect("a Vec takes all");
    }
    let (_, again) = read(writer.finish().expect("a Vec takes all"));
    assert_eq!(again, packets);
}

/// A file of the classic format, whose kind the first byte says.
pub fn capture_pcap(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let magic = [0xa1b2_c3d4_u32, 0xa1b2_3c4d, 0xa1b2_cd34][usize::from(kind >> 1) % 3];
    let magic = if kind & 1 == 0 { magic.to_le_bytes() } else { magic.to_be_bytes() };
    let (interfaces, packets) = read([&magic, rest].concat());
    let Some(interface) = interfaces.first() else { return };
    let same = FileInterface::new(interface.link_type);
    let options = CaptureWriter::builder().format(FileFormat::PcapNanos);
    let mut writer = options.interface(same).to(Vec::new()).expect("a Vec takes all");
    for (_, packet) in &packets {
        writer.write(&packet.as_packet()).expect("a Vec takes all");
    }
    let (_, again) = read(writer.finish().expect("a Vec takes all"));
    assert_eq!(again, packets);
}

/// A compressed file: gzip's where the first byte is even, else lz4's.
pub fn capture_compressed(bytes: &[u8]) {
    /// More than the seeds hold; what unpacks to more is not looked at further.
    const MOST: usize = 10_000;
    let Some((kind, rest)) = bytes.split_first() else { return };
    let magic: &[u8] = if kind & 1 == 0 { &[0x1f, 0x8b] } else { &[0x04, 0x22, 0x4d, 0x18] };
    let Ok(mut reader) = CaptureReader::from_reader(Cursor::new([magic, rest].concat())) else {
        return;
    };
    let mut offset = reader.offset();
    for _ in 0..MOST {
        match reader.next_block() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
        assert!(reader.offset() > offset, "on and on");
        offset = reader.offset();
    }
}

type Read = (Vec<FileInterface>, Vec<(usize, OwnedPacket)>);

fn read(bytes: Vec<u8>) -> Read {
    let len = bytes.len() as u64;
    let mut packets = Vec::new();
    let Ok(mut reader) = CaptureReader::from_reader(Cursor::new(bytes)) else {
        return (Vec::new(), packets);
    };
    let mut offset = reader.offset();
    loop {
        match reader.next_block() {
            Ok(Some(FileBlock::Packet(record))) => {
                let packet = record.packet();
                assert_eq!(packet.interface_index(), Some(record.interface() as u32));
                assert!(packet.timestamp().nanos < 1_000_000_000);
                packets.push((record.interface(), packet.to_owned()));
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert!(reader.next_record().is_ok_and(|record| record.is_none()), "the end");
                break;
            }
        }
        assert!(reader.offset() > offset && reader.offset() <= len, "on and on");
        offset = reader.offset();
    }
    (reader.interfaces().to_vec(), packets)
}
