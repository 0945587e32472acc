//! Real capture files, for the tests that read and write them.

use std::path::{Path, PathBuf};

use ringtap::packet::OwnedPacket;
use ringtap::pcap::{CaptureReader, FileFormat};
use ringtap_lab::{pcap, skip};

/// Every way a file is written.
pub(crate) const FORMATS: [FileFormat; 3] =
    [FileFormat::Pcapng, FileFormat::PcapNanos, FileFormat::PcapMicros];

/// A real capture; `None`, said loudly, where they are not beside the repository.
pub(crate) fn real(name: &str) -> Option<PathBuf> {
    let directory = pcap::directory();
    if directory.is_none() {
        skip("no captures beside the repository");
    }
    Some(directory?.join(name))
}

/// All packets of a file.
pub(crate) fn packets(path: &Path) -> Vec<OwnedPacket> {
    let mut reader = CaptureReader::open(path).unwrap();
    let mut packets = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        packets.push(record.packet().to_owned());
    }
    packets
}
