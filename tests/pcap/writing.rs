//! Capture files that we write: played over a wire, gone on with, and written where writing fails.

use std::io::Write;
use std::time::Duration;

use crate::files::{FORMATS, packets, real};
use ringtap::capture::RingLayout;
use ringtap::error::FileFault;
use ringtap::packet::{LinkType, OwnedPacket, Timestamp};
use ringtap::pcap::{
    CaptureReader, CaptureWriter, FileFormat, FileInterface, MAX_SNAP_LEN, PcapSource,
};
use ringtap::{Capture, Error, Injector, Packet};
use ringtap_lab::{Directory, namespace, pcap, skip};

#[ringtap_lab::test]
fn a_file_played_over_a_wire_and_captured_and_written_is_the_same_file() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let Some(net) = namespace() else { return };
    let scratch = Directory::new();
    let veth = net.veth();
    veth.set_mtu(65_535);
    let (mut files, mut frames) = (0, 0);
    let mut injector = Injector::builder()
        .interface(&veth.left)
        .frame_size(1 << 17)
        .frame_count(64)
        .build()
        .unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // Conformance files of the formats are not captures.
        let is_pcap = path.extension().is_some_and(|e| e == "pcap" || e == "pcapng");
        if !is_pcap || path.to_string_lossy().contains("-format-") {
            continue;
        }
        let Ok(mut source) = PcapSource::open(&path) else { continue };
        if source.interfaces().first().is_some_and(|first| first.link_type != LinkType::ETHERNET) {
            continue;
        }
        let Ok(batches) = source.batches().collect::<Result<Vec<_>, _>>() else { continue };
        let is_ethernet = source.interfaces().iter().all(|one| one.link_type == LinkType::ETHERNET);
        let sendable: Vec<&[u8]> = batches
            .iter()
            .flat_map(|batch| batch.iter())
            .map(|packet| packet.data())
            .filter(|frame| (14..=65_549).contains(&frame.len()))
            .collect();
        if !is_ethernet || sendable.is_empty() || sendable.len() >= 5_000 {
            continue;
        }
        for layout in [RingLayout::Blocks, RingLayout::Frames] {
            let ring = Capture::builder().interface(&veth.right).layout(layout).block_timeout_ms(2);
            let mut capture =
                ring.block_size(1 << 17).frame_size(1 << 17).block_count(64).build().unwrap();
            let written = scratch.path().join("written.pcapng");
            let mut writer = CaptureWriter::create(&written).unwrap();
            for burst in sendable.chunks(32) {
                for frame in burst {
                    injector.send(frame).unwrap();
                }
                injector.flush().unwrap();
                let mut left = burst.len();
                while left > 0 {
                    let batch = capture.next_batch_timeout(Duration::from_secs(2)).unwrap();
                    let batch = batch.unwrap_or_else(|| {
                        panic!("{left} frames of {} did not come", path.display())
                    });
                    left -= batch.len();
                    writer.write_batch(&batch).unwrap();
                }
            }
            writer.finish().unwrap();
            let read = packets(&written);
            assert!(
                read.iter().map(OwnedPacket::data).eq(sendable.iter().copied()),
                "{}",
                path.display()
            );
        }
        files += 1;
        frames += sendable.len();
    }
    println!("{frames} frames of {files} files");
    assert!(files >= 73 && frames >= 9_623, "{frames} frames of {files} files");
}

#[ringtap_lab::test]
fn a_file_is_gone_on_with_behind_its_last_whole_packet() {
    let Some(source) = real("tcpreplay-flows-test.pcap") else { return };
    let directory = Directory::new();
    let original = packets(&source);
    for format in FORMATS {
        let path = directory.path().join(format!("{format:?}"));
        let append = || CaptureWriter::builder().format(format).append(&path).unwrap();
        for part in original.chunks(60) {
            let mut writer = append();
            part.iter().for_each(|packet| writer.write(&packet.as_packet()).unwrap());
            writer.finish().unwrap();
        }
        assert!(
            packets(&path).iter().map(OwnedPacket::data).eq(original.iter().map(OwnedPacket::data))
        );
        // As after a crash.
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        let mut writer = append();
        writer.write(&original[0].as_packet()).unwrap();
        drop(writer);
        let read = packets(&path);
        assert_eq!(read.len(), original.len());
        assert_eq!(read.last().unwrap().data(), original[0].data());
    }
    let other = CaptureWriter::builder().format(FileFormat::PcapNanos);
    let error = other.append(directory.path().join("PcapMicros")).unwrap_err();
    assert!(
        matches!(&error, Error::File(error) if matches!(error.fault(), FileFault::Differs)),
        "{error}"
    );
    let other = CaptureWriter::builder().format(FileFormat::PcapMicros);
    let other = other.interface(FileInterface::new(LinkType::RAW));
    let error = other.append(directory.path().join("PcapMicros")).unwrap_err();
    assert!(error.to_string().contains("PcapMicros"), "{error}");
    // Old and peculiar ones, behind which ours would be read wrong.
    let classic = std::fs::read(directory.path().join("PcapMicros")).unwrap();
    for (at, value) in [(0, 0xa1b2_cd34_u32.to_ne_bytes()), (4, [2, 0, 2, 0])] {
        let mut bytes = classic[..24].to_vec();
        bytes[at..at + 4].copy_from_slice(&value);
        let path = directory.path().join("peculiar");
        std::fs::write(&path, bytes).unwrap();
        let error = CaptureWriter::builder().format(FileFormat::PcapMicros).append(&path);
        assert!(
            matches!(&error, Err(Error::File(error)) if matches!(error.fault(), FileFault::Differs)),
            "{error:?}"
        );
    }
    let path = directory.path().join("PcapMicros");
    let writer = CaptureWriter::builder().format(FileFormat::PcapMicros).append(&path).unwrap();
    assert_eq!(writer.len(), path.metadata().unwrap().len());
    drop(writer);
    let text = directory.path().join("text");
    std::fs::write(&text, "no capture file").unwrap();
    let error = CaptureWriter::append(&text).unwrap_err();
    assert!(error.to_string().contains("not a pcap or pcapng file"), "{error}");
}

/// Takes some bytes now and then, and fails in between.
struct Moody {
    bytes: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    turn: usize,
}

impl Write for Moody {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.turn += 1;
        match self.turn % 3 {
            0 => Err(std::io::ErrorKind::StorageFull.into()),
            turn => {
                let some = bytes.len().min(77_777 * turn + 1);
                self.bytes.lock().unwrap().extend_from_slice(&bytes[..some]);
                Ok(some)
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[ringtap_lab::test]
fn where_writing_fails_now_and_then_each_packet_is_whole_in_the_file_or_counted() {
    let Some(source) = real("tcpreplay-flows-test.pcap") else { return };
    let original = packets(&source);
    for format in FORMATS {
        let bytes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let moody = Moody { bytes: bytes.clone(), turn: 0 };
        let mut writer = CaptureWriter::builder().format(format).to(moody).unwrap();
        let mut taken = Vec::new();
        for packet in original.iter().cycle().take(30_000) {
            let before = writer.stats().packets;
            let outcome = writer.write(&packet.as_packet());
            if writer.stats().packets > before {
                taken.push(packet.data());
            } else {
                assert!(outcome.is_err());
            }
        }
        while writer.flush().is_err() {}
        let stats = writer.stats();
        assert_eq!(stats.packets + stats.dropped, 30_000);
        assert!(stats.errors > 3, "{stats:?}");
        assert_eq!(stats.bytes, writer.len());
        let file = std::io::Cursor::new(bytes.lock().unwrap().clone());
        let mut reader = CaptureReader::from_reader(file).unwrap();
        let mut at = 0;
        while let Some(record) = reader.next_record().unwrap() {
            assert_eq!(record.packet().data(), taken[at]);
            at += 1;
        }
        assert_eq!(at, taken.len());
    }
    // Nothing is taken at all.
    let error = CaptureWriter::create("/dev/full").unwrap_err();
    assert!(error.to_string().contains("/dev/full"), "{error}");
}

/// A packet longer than other readers take, as hosts send them whose segmentation is left to the card.
fn giant() -> OwnedPacket {
    let mut frame = vec![0xa5; 300_000];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00]);
    Packet::from_bytes(&frame, Timestamp { secs: 1, nanos: 0 }).to_owned()
}

#[ringtap_lab::test]
fn no_packet_is_written_longer_than_other_readers_take_unless_it_is_asked_for() {
    let scratch = Directory::new();
    for format in FORMATS {
        let path = scratch.path().join(format!("{format:?}.pcap"));
        let mut writer = CaptureWriter::builder().format(format).create(&path).unwrap();
        writer.write(&giant().as_packet()).unwrap();
        writer.write(&Packet::from_bytes(&[7; 60], Timestamp { secs: 2, nanos: 0 })).unwrap();
        writer.finish().unwrap();
        let mut source = PcapSource::open(&path).unwrap();
        let batches: Vec<_> = source.batches().collect::<Result<_, _>>().unwrap();
        assert_eq!(source.interfaces()[0].snap_len, MAX_SNAP_LEN);
        let packets: Vec<_> = batches.iter().flat_map(|batch| batch.iter()).collect();
        let lens: Vec<_> = packets.iter().map(|p| (p.len(), p.original_len())).collect();
        assert_eq!(lens, [(262_144, 300_000), (60, 60)], "{format:?}");
        // What others read of it.
        let Some(read) = tshark_count(&path) else { continue };
        assert_eq!(read, 2, "{format:?}");
    }
    let path = scratch.path().join("asked.pcapng");
    let mut interface = FileInterface::ethernet("eth0");
    interface.snap_len = 1 << 20;
    let mut writer = CaptureWriter::builder().interface(interface).create(&path).unwrap();
    writer.write(&giant().as_packet()).unwrap();
    writer.finish().unwrap();
    let batches: Vec<_> =
        PcapSource::open(&path).unwrap().batches().collect::<Result<_, _>>().unwrap();
    assert_eq!(batches[0].iter().next().unwrap().len(), 300_000);
}

/// Packets that tshark reads; `None`, said loudly, where there is none. (tcpdump has the same limit, but reads nothing as
/// root of a user namespace, where it cannot become another user.)
fn tshark_count(path: &std::path::Path) -> Option<usize> {
    let options = ["-n", "-T", "fields", "-e", "frame.len", "-r"];
    match std::process::Command::new("tshark").args(options).arg(path).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).lines().count()),
        Err(_) => {
            skip("there is no tshark");
            None
        }
    }
}
