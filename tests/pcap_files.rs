//! Capture files: read as tshark reads them, written so that other tools read what we wrote.
#![cfg(feature = "pcap")]

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use ringtap::pcap::{CaptureReader, FileBlock};
use ringtap_lab::{pcap, skip};

ringtap_lab::test_binary!();

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

#[test]
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
