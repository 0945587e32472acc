//! Capture files: read as tshark reads them, written so that other tools read what we wrote. Not in a namespace: tcpdump
//! needs one that maps all users.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::files::{FORMATS, packets, real};
use ringtap::packet::OwnedPacket;
use ringtap::pcap::{
    CaptureReader, CaptureWriter, FileBlock, FileFormat, FileInterface, InterfaceStatistics,
    PacketNote,
};
use ringtap_lab::{Directory, pcap, skip, tool};

/// The rows of a table of `../shared/pcaps`, by column.
fn table(name: &str) -> Option<Vec<HashMap<String, String>>> {
    let text = std::fs::read_to_string(pcap::directory()?.join(name)).unwrap();
    let mut lines = text.lines().map(|line| line.split('\t').map(str::to_owned));
    let columns: Vec<String> = lines.next().unwrap().collect();
    Some(lines.map(|line| columns.iter().cloned().zip(line).collect()).collect())
}

/// What tshark tells of a file.
#[derive(Debug, Default, PartialEq)]
struct Summary {
    packets: u64,
    wire_bytes: u64,
    captured_bytes: u64,
    truncated: u64,
    longest: u64,
    /// The first and the last packet's, of those that have one.
    times: Option<(String, String)>,
    is_refused: bool,
}

impl Summary {
    fn of(row: &HashMap<String, String>) -> Self {
        let number = |column: &str| row[column].parse().unwrap_or(0);
        let times = (row["first_ts"].clone(), row["last_ts"].clone());
        Self {
            packets: number("packets"),
            wire_bytes: number("wire_bytes"),
            captured_bytes: number("cap_bytes"),
            truncated: number("truncated_pkts"),
            longest: number("max_frame"),
            times: (!times.0.is_empty()).then_some(times),
            is_refused: row["tshark_rc"] != "0",
        }
    }

    fn count(&mut self, len: u64, wire_len: u64) {
        self.packets += 1;
        self.wire_bytes += wire_len;
        self.captured_bytes += len;
        self.truncated += u64::from(len < wire_len);
        self.longest = self.longest.max(wire_len);
    }
}

/// What we find in a file, and the numbers, within their sections, of interfaces that packets are of.
fn summarized(path: &Path) -> (Summary, BTreeSet<usize>) {
    let (mut summary, mut interfaces) = (Summary::default(), BTreeSet::new());
    let (mut described, mut first) = (0, 0);
    let mut read = || -> ringtap::Result<()> {
        let mut reader = CaptureReader::open(path)?;
        while let Some(block) = reader.next_block()? {
            match block {
                FileBlock::Packet(record) => {
                    let packet = record.packet();
                    summary.count(packet.len() as u64, packet.original_len() as u64);
                    interfaces.insert(record.interface() - first);
                    if record.has_time() {
                        let time = packet.timestamp().to_string();
                        let first = summary.times.take().map_or(time.clone(), |(first, _)| first);
                        summary.times = Some((first, time));
                    }
                }
                FileBlock::Interface(_) => described += 1,
                FileBlock::Section => first = described,
                // tshark counts custom blocks as packets.
                FileBlock::Other { kind: 0xbad | 0x4000_0bad, body } => {
                    let len = body.len() as u64 - 4; // behind the number of who made it
                    summary.count(len, len);
                }
                _ => {}
            }
        }
        Ok(())
    };
    let outcome = read();
    summary.is_refused = outcome.is_err();
    (summary, interfaces)
}

#[ringtap_lab::test]
fn every_file_is_read_as_tshark_reads_it() {
    let Some(rows) = table("ORACLE.tsv") else {
        return skip("no captures beside the repository");
    };
    let mut faults = Vec::new();
    for row in &rows {
        let name = &row["file"];
        let (ours, interfaces) = summarized(&pcap::directory().unwrap().join(name));
        let mut theirs = Summary::of(row);
        if name == "tcpdump-format-timestamp_invalid_nano.pcap" {
            // Packets with 999,999,999 nanoseconds, none, and 2,147,483,648: tshark prints what it finds.
            assert_eq!(theirs.times.take().unwrap().1, "-1418145370.2147483648");
            theirs.times =
                Some(("1418145369.999999999".to_owned(), "1418145372.147483648".to_owned()));
        }
        if ours != theirs {
            faults.push(format!("{name}:\n {ours:?}\n {theirs:?}"));
        }
        if row["filetype"].contains("pcapng") && row["interfaces"] != interfaces.len().to_string() {
            faults.push(format!("{name}: {interfaces:?}, not {}", row["interfaces"]));
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), rows.len(), faults.join("\n"));
    assert_eq!(rows.len(), 115);
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    tool::run(program, arguments, &[])
}

#[ringtap_lab::test]
fn other_tools_read_the_same_packets_interfaces_comments_and_counts() {
    let Some(source) = real("zeek-flows-wikipedia.pcap") else { return };
    let directory = Directory::new();
    let packets = packets(&source);
    for format in FORMATS {
        let path = directory.path().join("file");
        let mut second = FileInterface::ethernet("eth7");
        second.description = Some("the second one".to_owned());
        second.filter = Some("tcp or udp".to_owned());
        // libpcap reads no file whose interfaces differ in this.
        let mut first = FileInterface::ethernet("eth3");
        (first.snap_len, second.snap_len) = (60, 60);
        let options = CaptureWriter::builder().format(format).comment("all of it");
        let options = options.interface(first).interface(second);
        let mut writer = options.create(&path).unwrap();
        for (number, packet) in packets.iter().enumerate() {
            let comment = (number == 5).then_some("five, and äöü");
            let interface = u32::from(format == FileFormat::Pcapng && number % 2 == 1);
            let note = PacketNote { interface: Some(interface), comment, hash: None };
            writer.write_with(&packet.as_packet(), &note).unwrap();
        }
        let mut counted = InterfaceStatistics::default();
        (counted.received, counted.dropped) = (Some(1000), Some(7));
        writer.write_statistics(0, &InterfaceStatistics::default()).unwrap();
        writer.set_statistics(1, counted);
        assert_eq!(writer.stats().packets, packets.len() as u64);
        writer.finish().unwrap();

        let file = path.to_str().unwrap();
        let fields = [
            "frame.time_epoch",
            "frame.len",
            "frame.cap_len",
            "frame.interface_name",
            "frame.comment",
        ];
        let mut arguments = vec!["-r", file, "-T", "fields", "-E", "separator=;"];
        fields.iter().for_each(|field| arguments.extend(["-e", field]));
        let Some(text) = run("tshark", &arguments) else { return };
        for (number, (line, packet)) in text.lines().zip(&packets).enumerate() {
            let packet = packet.as_packet();
            let mut time = packet.timestamp();
            let is_second = format == FileFormat::Pcapng && number % 2 == 1;
            let kept = packet.len().min(60);
            if format == FileFormat::PcapMicros {
                time.nanos -= time.nanos % 1000;
            }
            let (name, comment) = match (format, is_second) {
                (FileFormat::Pcapng, true) => {
                    ("eth7", if number == 5 { "five, and äöü" } else { "" })
                }
                (FileFormat::Pcapng, false) => ("eth3", ""),
                _ => ("", ""),
            };
            let expected = format!("{time};{};{kept};{name};{comment}", packet.original_len());
            assert_eq!(line, expected, "{format:?} {number}");
        }
        assert_eq!(text.lines().count(), packets.len());
        // As root it becomes another user before it reads, which a user namespace of one's own does not permit.
        if ringtap_lab::bootstrap::was_root() {
            let Some(text) = run("tcpdump", &["-r", file, "-n", "-q"]) else { return };
            assert_eq!(text.lines().count(), packets.len(), "{format:?}");
        }
        let Some(text) = run("capinfos", &["-M", file]) else { return };
        if format == FileFormat::Pcapng {
            for expected in [
                "all of it",
                "Name = eth3",
                "Name = eth7",
                "the second one",
                "Capture length = 60",
                "Filter string = tcp or udp",
                "ringtap",
            ] {
                assert!(text.contains(expected), "{expected}:\n{text}");
            }
            // Of the file's own structure, in which the counts are.
            let arguments = ["-r", file, "-X", "read_format:MIME Files Format", "-V"];
            let Some(text) = run("tshark", &arguments) else { return };
            for expected in ["Number of Received Packets: 1000", "Number of Dropped Packets: 7"] {
                assert!(text.contains(expected), "{expected}");
            }
            let mut reader = CaptureReader::open(&path).unwrap();
            while reader.next_record().unwrap().is_some() {}
            assert_eq!(reader.interfaces()[1].statistics, counted);
        }
    }
}

#[ringtap_lab::test]
fn what_other_tools_write_is_read() {
    let Some(source) = real("zeek-flows-wikipedia.pcap") else { return };
    let directory = Directory::new();
    let original = packets(&source);
    for format in ["pcap", "nsecpcap", "pcapng", "modpcap"] {
        let path = directory.path().join(format);
        let arguments = ["-F", format, source.to_str().unwrap(), path.to_str().unwrap()];
        if run("editcap", &arguments).is_none() {
            return;
        }
        let read = packets(&path);
        assert!(
            read.iter().map(OwnedPacket::data).eq(original.iter().map(OwnedPacket::data)),
            "{format}"
        );
        let times = |packets: &[OwnedPacket]| -> Vec<_> {
            packets.iter().map(|packet| packet.as_packet().timestamp()).collect()
        };
        assert_eq!(times(&read), times(&original), "{format}");
    }
    let path = directory.path().join("tshark");
    let arguments = ["-r", source.to_str().unwrap(), "-w", path.to_str().unwrap()];
    if run("tshark", &arguments).is_none() {
        return;
    }
    assert_eq!(packets(&path), original, "all, with its times");
}
