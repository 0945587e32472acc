//! Packets recorded to disk by the reactor.

mod asked;
mod disk;
mod end;
mod export;
mod index;
mod live;
mod power;
mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringtap::capture::CaptureBuilder;
use ringtap::packet::OwnedPacket;
use ringtap::pcap::CaptureReader;
use ringtap::record::Recorder;
use ringtap::{AsyncCapture, Capture, Error, time};
use ringtap_lab::{Tally, Traffic};

ringtap_lab::test_binary!();

/// A ring that holds whatever a test sends before it reads.
fn ring(interface: &str) -> CaptureBuilder {
    let options = Capture::builder().interface(interface).ignore_outgoing(true);
    options.block_size(1 << 16).block_count(256).block_timeout_ms(2).for_recording(true)
}

fn capture(options: CaptureBuilder) -> AsyncCapture {
    AsyncCapture::new(options.build().unwrap()).unwrap()
}

/// Hands batches to the recorder until they held `count` frames. Returns the first error.
async fn give(recorder: &mut Recorder, capture: &mut AsyncCapture, count: u64) -> Option<Error> {
    let (mut taken, mut first) = (0, None);
    while taken < count {
        let batch = time::timeout(Duration::from_secs(20), capture.next_batch()).await;
        let batch = batch.expect("they come").unwrap().unwrap();
        taken += batch.len() as u64;
        if let Err(error) = recorder.write(batch).await {
            first.get_or_insert(error);
        }
    }
    first
}

/// The files in a directory, without indexes, in the order of their names.
fn files(directory: &Path) -> Vec<PathBuf> {
    entries(directory).into_iter().filter(|path| !is_index(path)).collect()
}

/// The indexes in a directory.
fn indexes(directory: &Path) -> Vec<PathBuf> {
    entries(directory).into_iter().filter(|path| is_index(path)).collect()
}

fn is_index(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "idx")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

/// All packets of a file, and whether it was whole.
fn packets(path: &Path) -> (Vec<OwnedPacket>, bool) {
    let mut packets = Vec::new();
    let Ok(mut reader) = CaptureReader::open(path) else { return (packets, false) };
    loop {
        match reader.next_record() {
            Ok(Some(record)) => packets.push(record.packet().to_owned()),
            end => return (packets, end.is_ok()),
        }
    }
}

/// Returns the tally of a directory's files, each of which must be readable to its end.
fn recorded(directory: &Path, traffic: &Traffic, count: u64) -> Tally {
    for path in files(directory) {
        assert!(packets(&path).1, "{}", path.display());
    }
    found(directory, traffic, count)
}

/// Returns the tally of a directory's files, as far as they can be read.
fn found(directory: &Path, traffic: &Traffic, count: u64) -> Tally {
    let mut tally = Tally::new(traffic, count);
    for path in files(directory) {
        packets(&path).0.iter().for_each(|packet| tally.record(packet.data()));
    }
    tally
}
