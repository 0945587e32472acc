//! Damaged files, full disks, writers that hang, processes that are killed.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringtap::error::FileFault;
use ringtap::packet::OwnedPacket;
use ringtap::pcap::{
    BackgroundWriter, CaptureReader, CaptureWriter, FileFormat, PacketNote, PacketSink,
    RotatingWriter,
};
use ringtap::{Capture, Error};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Directory, Generator, Traffic, directory, namespace};

const PATIENCE: Duration = Duration::from_secs(20);

/// Where to write what into a file; where the fault is, and which.
type Case = (usize, &'static [u32], usize, fn(&FileFault) -> bool);

/// A little file of this format, and its packets.
fn little(format: FileFormat) -> (Vec<u8>, Vec<OwnedPacket>) {
    let directory = Directory::new();
    let path = directory.path().join("little");
    let mut writer =
        CaptureWriter::builder().format(format).comment("little").create(&path).unwrap();
    let packets = packets(20);
    for packet in &packets {
        writer.write(&packet.as_packet()).unwrap();
    }
    writer.finish().unwrap();
    (fs::read(&path).unwrap(), packets)
}

/// Packets of a capture file made for it: there is no other way to one without a socket.
fn packets(count: u64) -> Vec<OwnedPacket> {
    let traffic = Traffic { len: 70, ..Traffic::default() };
    let mut bytes = Vec::new();
    for word in [0xa1b2_3c4d_u32, 2 | 4 << 16, 0, 0, 65_535, 1] {
        bytes.extend(word.to_ne_bytes());
    }
    for number in 0..count {
        let frame = traffic.frame(number, 0);
        let len = frame.len() as u32;
        for word in [1_700_000_000 + number as u32, 5_000, len, len] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(frame);
    }
    read_all(bytes).0
}

fn read_all(bytes: Vec<u8>) -> (Vec<OwnedPacket>, Option<Error>) {
    let mut packets = Vec::new();
    let read = || -> ringtap::Result<()> {
        let mut reader = CaptureReader::from_reader(Cursor::new(bytes))?;
        while let Some(record) = reader.next_record()? {
            packets.push(record.packet().to_owned());
        }
        Ok(())
    };
    let error = read().err();
    (packets, error)
}

fn fault(error: &Error) -> (&FileFault, u64) {
    match error {
        Error::File(error) => (error.fault(), error.offset()),
        other => panic!("{other:?}"),
    }
}

#[ringtap_lab::test]
fn a_file_cut_anywhere_gives_its_whole_packets_and_says_where_it_ends() {
    for format in [FileFormat::Pcapng, FileFormat::PcapNanos] {
        let (bytes, packets) = little(format);
        let mut before = 0;
        for len in 0..bytes.len() {
            let (read, error) = read_all(bytes[..len].to_vec());
            assert_eq!(read[..], packets[..read.len()]);
            assert!(read.len() >= before);
            before = read.len();
            match error {
                None => assert!(read.len() == packets.len() || len % 2 == 0, "between two packets"),
                Some(error) => match fault(&error) {
                    (FileFault::CutShort, offset) => assert!(offset <= len as u64),
                    (FileFault::NotACapture { .. }, 0) => assert!(len < 4),
                    other => panic!("{len}: {other:?}"),
                },
            }
        }
        assert!(before >= packets.len() - 1);
    }
}

#[ringtap_lab::test]
fn any_byte_may_be_any_other() {
    for format in [FileFormat::Pcapng, FileFormat::PcapNanos] {
        let (bytes, _) = little(format);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 4] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                let (_, error) = read_all(bytes);
                if let Some(error) = error {
                    fault(&error);
                }
            }
        }
    }
}

#[ringtap_lab::test]
fn what_cannot_be_is_refused_with_its_place_and_without_much_memory() {
    let (bytes, packets) = little(FileFormat::Pcapng);
    let block_at = |kind: u32| {
        let mut at = 0;
        loop {
            let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            if word(at) == kind {
                return at;
            }
            at += word(at + 4) as usize;
        }
    };
    let (interface, packet) = (block_at(1), block_at(6));
    let with = |at: usize, words: &[u32]| {
        let mut bytes = bytes.clone();
        for (number, word) in words.iter().enumerate() {
            bytes[at + 4 * number..][..4].copy_from_slice(&word.to_ne_bytes());
        }
        read_all(bytes)
    };
    let cases: &[Case] = &[
        (packet + 4, &[0], packet, |fault| matches!(fault, FileFault::BlockLength { len: 0, .. })),
        (packet + 4, &[11], packet, |fault| matches!(fault, FileFault::BlockLength { .. })),
        (packet + 4, &[13], packet, |fault| matches!(fault, FileFault::BlockLength { .. })),
        (packet + 4, &[100], packet, |fault| matches!(fault, FileFault::BlockLength { .. })),
        (packet + 4, &[u32::MAX], packet, |fault| matches!(fault, FileFault::TooLong { .. })),
        (packet + 4, &[16 << 20], packet, |fault| matches!(fault, FileFault::CutShort)),
        (packet + 8, &[1], packet, |fault| matches!(fault, FileFault::NoInterface { id: 1 })),
        (packet + 8, &[u32::MAX], packet, |fault| matches!(fault, FileFault::NoInterface { .. })),
        (packet + 20, &[u32::MAX], packet, |fault| matches!(fault, FileFault::BlockLength { .. })),
        (interface + 16, &[0xffff_0002], interface, |fault| {
            matches!(fault, FileFault::Option { code: 2, .. })
        }),
        (8, &[0x1234_5678], 0, |fault| matches!(fault, FileFault::NotACapture { .. })),
        (12, &[9], 0, |fault| matches!(fault, FileFault::Version { major: 9, minor: 0 })),
    ];
    for (at, words, place, is_it) in cases {
        let (read, error) = with(*at, words);
        let error = error.unwrap_or_else(|| panic!("{at} {words:?}"));
        let (fault, offset) = fault(&error);
        assert!(is_it(fault), "{at} {words:?}: {error}");
        assert_eq!((offset, read.len()), (*place as u64, 0), "{error}");
        assert!(error.to_string().contains(&format!("byte {place}")), "{error}");
    }
    // A packet of a file without end that tells of 3 GiB.
    let (bytes, _) = little(FileFormat::PcapMicros);
    for (len, is_it) in [(3_u32 << 30, true), (15 << 20, false)] {
        let mut bytes = bytes.clone();
        bytes[32..36].copy_from_slice(&len.to_ne_bytes());
        let (_, error) = read_all(bytes);
        let error = error.unwrap();
        assert_eq!(matches!(fault(&error).0, FileFault::TooLong { .. }), is_it, "{error}");
        assert_eq!(fault(&error).1, 24);
    }
    assert_eq!(packets.len(), 20);
    // Sections without end, of a reader that never stops: it goes on, and keeps nothing.
    struct Sections(Vec<u8>, usize);
    impl std::io::Read for Sections {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let Self(section, at) = self;
            let count = into.len().min(section.len() - *at % section.len());
            into[..count].copy_from_slice(&section[*at % section.len()..][..count]);
            *at += count;
            Ok(if *at > 300 << 20 { 0 } else { count })
        }
    }
    let section: Vec<u8> = [0x0a0d_0d0a_u32, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let mut reader = CaptureReader::from_reader(Sections(section, 0)).unwrap();
    while reader.next_record().is_ok_and(|record| record.is_some()) {}
    assert!(reader.offset() > 299 << 20);
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn read_file(path: &Path) -> (Vec<OwnedPacket>, Option<Error>) {
    read_all(fs::read(path).unwrap())
}

#[ringtap_lab::test]
fn files_rotate_by_size_and_number_and_the_oldest_go() {
    let packets = packets(1_000);
    for format in [FileFormat::Pcapng, FileFormat::PcapMicros] {
        let directory = Directory::new();
        let at = directory.path();
        fs::write(at.join("other.pcap"), "not ours").unwrap();
        let write = |options: ringtap::pcap::RotatingWriterBuilder| {
            let options = options.file(CaptureWriter::builder().format(format));
            let mut writer = options.build().unwrap();
            packets.iter().for_each(|packet| writer.write_packet(&packet.as_packet()).unwrap());
            writer.finish().unwrap()
        };
        let stats = write(RotatingWriter::builder(at, "a").max_packets(300));
        assert_eq!((stats.packets, stats.files, stats.removed, stats.errors), (1_000, 4, 0, 0));
        let all = |prefix: &str| -> Vec<_> {
            let mut all = files(at);
            all.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
            all.iter()
                .map(|path| read_file(path))
                .map(|(read, error)| {
                    assert!(error.is_none(), "{error:?}");
                    read
                })
                .collect()
        };
        assert!(all("a_").concat() == packets);
        assert!(all("a_").iter().all(|file| file.len() <= 300));
        // Another run goes on behind the first; of both the last two are kept.
        let stats = write(RotatingWriter::builder(at, "a").max_packets(600).keep_files(2));
        assert_eq!((stats.files, stats.removed), (2, 4));
        assert!(all("a_").concat() == packets);
        assert!(files(at).iter().any(|path| path.to_str().unwrap().contains("a_00006_")));
        let options = RotatingWriter::builder(at, "b").max_bytes(20_000).keep_bytes(60_000);
        let stats = write(options);
        assert!(stats.files > 4 && stats.removed > 0, "{stats:?}");
        let left = files(at).into_iter().filter(|path| path.to_str().unwrap().contains("/b_"));
        let bytes: u64 = left.map(|path| path.metadata().unwrap().len()).sum();
        assert!((20_000..=60_000).contains(&bytes), "{bytes} bytes");
        assert!(packets.ends_with(&all("b_").concat()));
        assert!(at.join("other.pcap").exists());
        // By age, when the next packet comes.
        let options = RotatingWriter::builder(at, "c").max_time(Duration::from_millis(20));
        let mut writer = options.build().unwrap();
        for packet in &packets[..3] {
            writer.write_packet(&packet.as_packet()).unwrap();
            std::thread::sleep(Duration::from_millis(30));
        }
        assert_eq!(writer.finish().unwrap().files, 3);
    }
}

#[ringtap_lab::test]
fn mistakes_cost_nothing_and_two_writers_share_a_series() {
    let directory = Directory::new();
    let at = directory.path();
    let packets = packets(100);
    let start = || RotatingWriter::builder(at, "a").max_packets(30).build().unwrap();
    let (mut one, mut other) = (start(), start());
    for packet in &packets {
        one.write_packet(&packet.as_packet()).unwrap();
        other.write_packet(&packet.as_packet()).unwrap();
    }
    let note = PacketNote { interface: Some(7), ..PacketNote::default() };
    let error = one.write_with(&packets[0].as_packet(), &note).unwrap_err();
    assert!(matches!(fault(&error).0, FileFault::NoInterface { id: 7 }));
    for writer in [one, other] {
        let stats = writer.finish().unwrap();
        assert_eq!((stats.packets, stats.lost, stats.files, stats.errors), (100, 0, 4, 0));
    }
    let all: usize = files(at).iter().map(|path| read_file(path).0.len()).sum();
    assert_eq!((files(at).len(), all), (8, 200));
    for prefix in ["", "b/c", "/tmp/b"] {
        assert!(RotatingWriter::builder(at, prefix).build().is_err(), "{prefix}");
    }
    // A rotation by hand that fails counts no packet, and one that works ends the wait.
    let gone = at.join("gone");
    fs::create_dir(&gone).unwrap();
    let mut writer = RotatingWriter::builder(&gone, "a").build().unwrap();
    fs::remove_dir_all(&gone).unwrap();
    writer.rotate().unwrap_err();
    assert_eq!((writer.stats().packets, writer.stats().lost), (0, 0));
    fs::create_dir(&gone).unwrap();
    writer.rotate().unwrap();
    writer.write_packet(&packets[0].as_packet()).unwrap();
    assert_eq!(writer.finish().unwrap().lost, 0);
    assert_eq!(read_file(&files(&gone)[0]).0.len(), 1);
}

#[ringtap_lab::test]
fn a_sink_that_panics_is_told_of_and_what_comes_later_counted() {
    struct Panics;
    impl PacketSink for Panics {
        fn write_packet(&mut self, _: &ringtap::Packet<'_>) -> ringtap::Result<()> {
            panic!("deliberate")
        }
        fn flush(&mut self) -> ringtap::Result<()> {
            Ok(())
        }
    }
    let mut writer = BackgroundWriter::spawn(Panics, 1 << 20).unwrap();
    let packets = packets(10);
    let begun = Instant::now();
    while writer.write_packet(&packets[0].as_packet()).is_ok() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert!(writer.write_packet(&packets[0].as_packet()).is_err());
    assert!(writer.stats().dropped >= 2);
    assert!(writer.finish().is_err());
}

#[ringtap_lab::test]
fn a_full_disk_and_a_directory_that_is_gone_are_counted_and_passed_by() {
    let Some(disk) = directory::tmpfs(1 << 20) else { return };
    let packets = packets(2_000);
    let mut writer =
        RotatingWriter::builder(disk.path(), "a").max_bytes(600 << 10).build().unwrap();
    let mut errors = 0;
    let mut write = |writer: &mut RotatingWriter| {
        for packet in packets.iter().cycle().take(12_000) {
            errors += u64::from(writer.write_packet(&packet.as_packet()).is_err());
        }
        errors
    };
    assert_eq!(write(&mut writer), 1, "it is told once");
    let stats = writer.stats();
    assert_eq!(stats.packets, 12_000);
    assert!(stats.lost > 0, "{stats:?}");
    // What is there is whole.
    let whole: usize = files(disk.path())
        .iter()
        .map(|path| read_file(path))
        .map(|(read, error)| {
            assert!(error.is_none(), "{error:?}");
            read.len()
        })
        .sum();
    assert_eq!(whole as u64, stats.packets - stats.lost);
    // Room again.
    files(disk.path()).iter().for_each(|path| fs::remove_file(path).unwrap());
    std::thread::sleep(Duration::from_millis(1_100));
    writer.write_packet(&packets[0].as_packet()).unwrap();
    let stats = writer.finish().unwrap();
    assert_eq!(stats.packets - stats.lost, whole as u64 + 1);

    let directory = Directory::new();
    let gone = directory.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let mut writer = RotatingWriter::builder(&gone, "a").max_packets(10).build().unwrap();
    fs::remove_dir_all(&gone).unwrap();
    let outcomes: Vec<_> =
        packets[..30].iter().map(|packet| writer.write_packet(&packet.as_packet())).collect();
    let told: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].to_string().contains("gone/a_00002"), "{}", told[0]);
    assert_eq!((writer.stats().packets, writer.stats().lost), (30, 20));
    let missing = RotatingWriter::builder(&gone, "a").build();
    assert!(matches!(missing, Err(Error::File(_))));
}

/// Packets that a child writes again and again.
const ROUND: u64 = 500;

#[ringtap_lab::test]
fn a_killed_process_leaves_whole_files_and_what_was_flushed() {
    let directory = Directory::new();
    let mut in_all = 0;
    for round in 0..100 {
        let at = directory.path().join(round.to_string());
        fs::create_dir(&at).unwrap();
        let mut child =
            ringtap_lab::child::start(module_path!(), "rotates_for_ever", at.to_str().unwrap());
        let begun = Instant::now();
        while files(&at).is_empty() {
            assert!(begun.elapsed() < PATIENCE, "no file");
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(1 + round * 137 % 9_000));
        // It, or a mark that it made before, tells how many packets it has flushed.
        let flushed = fs::read(at.join("flushed")).unwrap_or_default().len() as u64;
        child.kill().unwrap();
        child.wait().unwrap();
        let mut names = files(&at);
        names.retain(|path| path.extension().is_some_and(|extension| extension == "pcapng"));
        let (mut next, last) = (0, names.len() - 1);
        for (number, path) in names.iter().enumerate() {
            let (read, error) = read_file(path);
            if let Some(error) = &error {
                assert_eq!(number, last, "{}: {error}", path.display());
                assert!(matches!(fault(error).0, FileFault::CutShort), "{error}");
            }
            for packet in read {
                let mark = ringtap_lab::Mark::find(packet.data()).expect("one of ours");
                assert_eq!(mark.number, next % ROUND, "{}", path.display());
                next += 1;
            }
        }
        assert!(next >= 50 * flushed, "{next} packets, {} of them flushed", 50 * flushed);
        in_all += next;
    }
    println!("{in_all} packets in 100 rounds");
    assert!(in_all > 0, "every child was killed before it wrote");
}

mod child {
    use std::io::Write;

    use ringtap::pcap::{PacketSink, RotatingWriter};

    #[ringtap_lab::test]
    fn rotates_for_ever() {
        let Some(directory) = ringtap_lab::child::value() else { return };
        let packets = super::packets(super::ROUND);
        let writer = RotatingWriter::builder(&directory, "a").max_bytes(30_000);
        let mut writer = writer.build().unwrap();
        let mut marks = std::fs::File::create(format!("{directory}/flushed")).unwrap();
        for (number, packet) in packets.iter().cycle().enumerate() {
            writer.write_packet(&packet.as_packet()).unwrap();
            if number % 50 == 49 {
                writer.flush().unwrap();
                marks.write_all(b".").unwrap();
            }
        }
    }
}

#[ringtap_lab::test]
fn a_writer_that_hangs_holds_up_no_capture_and_no_end() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let directory = Directory::new();
    let fifo = directory.path().join("fifo");
    let status = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(status.success());
    // Opened to be read, and never read.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let writer = CaptureWriter::create(&fifo).unwrap();
    let mut writer = BackgroundWriter::spawn(writer, 1 << 20).unwrap();
    let mut capture = Capture::builder().interface(&veth.right).block_timeout_ms(20);
    capture = capture.block_size(1 << 18).block_count(64);
    let mut capture = capture.build().unwrap();
    let mut generator = Generator::new(&veth.left, &Traffic { len: 1_000, ..Traffic::default() });
    let mut seen = 0;
    for round in 1..=20 {
        generator.flood(1_000);
        while seen < 1_000 * round {
            let batch = capture.next_batch_timeout(PATIENCE).unwrap().expect("frames come");
            seen += batch.len();
            writer.write_batch(&batch).unwrap();
        }
    }
    let (captured, written) = (capture.stats().unwrap(), writer.stats());
    assert_eq!((captured.packets, captured.drops, captured.delivered), (20_000, 0, 20_000));
    assert_eq!(written.taken + written.dropped, 20_000, "{written:?}");
    assert!(written.dropped > 10_000, "{written:?}");
    // Whether this returns is what is tested: the sink never does.
    drop(writer);
}

#[ringtap_lab::test]
fn a_thread_writes_all_that_it_has_taken() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let directory = Directory::new();
    let path = directory.path().join("file");
    let file = CaptureWriter::create(&path).unwrap();
    let mut writer = BackgroundWriter::spawn(file, 16 << 20).unwrap();
    let mut capture = Capture::builder().interface(&veth.right).block_timeout_ms(10);
    capture = capture.block_size(1 << 18).block_count(32);
    let mut capture = capture.build().unwrap();
    let traffic = Traffic::default();
    let sender = Sender::open(&veth.left).unwrap();
    let frames: Vec<_> = (0..5_000).map(|number| traffic.frame(number, 0)).collect();
    for frames in frames.chunks(500) {
        sender.send_all(frames).unwrap();
        let mut left = frames.len();
        while left > 0 {
            let batch = capture.next_batch_timeout(PATIENCE).unwrap().expect("frames come");
            left -= batch.len();
            assert!(writer.write(batch).unwrap());
        }
    }
    let (file, stats) = writer.finish().unwrap();
    assert_eq!((stats.taken, stats.written, stats.dropped, stats.errors), (5_000, 5_000, 0, 0));
    file.finish().unwrap();
    let (read, error) = read_file(&path);
    assert!(error.is_none());
    assert!(read.iter().map(OwnedPacket::data).eq(frames.iter().map(|frame| &frame[..])));
}

#[ringtap_lab::test]
fn texts_of_interfaces_are_bounded_in_all_however_small_the_file_is() {
    let mut bytes = Vec::new();
    let block = |bytes: &mut Vec<u8>, kind: u32, body: &[u8]| {
        let len = 12 + body.len() as u32;
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(len.to_ne_bytes());
        bytes.extend(body);
        bytes.extend(len.to_ne_bytes());
    };
    let section = [&0x1a2b_3c4d_u32.to_ne_bytes()[..], &1_u16.to_ne_bytes(), &[0; 2], &[0xff; 8]];
    block(&mut bytes, 0x0a0d_0d0a, &section.concat());
    let text = [b'x'; 65_532];
    let mut interface = [&1_u16.to_ne_bytes()[..], &[0; 6]].concat();
    for code in [2_u16, 3] {
        interface.extend(code.to_ne_bytes());
        interface.extend((text.len() as u16).to_ne_bytes());
        interface.extend(text);
    }
    // Some 130 KB each: 16 MiB are 128 of them.
    (0..200).for_each(|_| block(&mut bytes, 1, &interface));
    let mut reader = CaptureReader::from_reader(Cursor::new(bytes)).unwrap();
    let mut described = 0;
    let error = loop {
        match reader.next_block() {
            Ok(Some(_)) => described += 1,
            Ok(None) => panic!("it has no end of texts"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("16 MiB"), "{error}");
    assert!((100..140).contains(&described), "{described}");
    assert!(reader.interfaces().len() < 140);
}
