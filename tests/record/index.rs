//! Indexes: what they pass over, and that nothing is missed by them.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use ringtap::packet::OwnedPacket;
use ringtap::pcap::FileInterface;
use ringtap::record::{Archive, RecordStats, Recorder, RecorderBuilder, Report};
use ringtap::testing::TestRing;
use ringtap::{BpfFilter, executor};
use ringtap_lab::Directory;

use crate::{files, indexes, packets};

/// Sizes of blocks, and how many packets are put into one: a small block is a part of a group, a large one is several groups.
const BLOCKS: [(usize, u32); 2] = [(1 << 14, 50), (1 << 20, 3000)];

/// A UDP datagram in a frame, perhaps with a tag. Each tenth of packets has hosts of its own.
fn frame(number: u32) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if number.is_multiple_of(97) {
        frame.extend([0x81, 0, 0, (number % 5) as u8]);
    }
    let [_, a, b, c] = (number / 1000).to_be_bytes();
    let tenth = (number / 2000) as u8;
    if number.is_multiple_of(3) {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, tenth, 0, 0, 0, 0, 0, a, b, c]);
        frame.extend([0xfd; 16]);
    } else {
        frame.extend([8, 0, 0x45, 0, 0, 128, 0, 0, 0, 0, 64, 17, 0, 0, 10, a, b, c]);
        frame.extend([192, 0, tenth, 1]);
    }
    frame.extend(((1000 + number / 1000) as u16).to_be_bytes());
    frame.extend([0, 53, 0, 108, 0, 0]);
    frame.resize(200, number as u8);
    frame
}

/// Records `count` frames: each third batch is copied, the others are written from where they are.
fn record(builder: RecorderBuilder, count: u32) -> RecordStats {
    record_blocks(builder, count, BLOCKS[0])
}

fn record_blocks(builder: RecorderBuilder, count: u32, (size, most): (usize, u32)) -> RecordStats {
    executor::block_on(async {
        let mut recorder = builder.depth(2).build().unwrap();
        let (mut ring, mut peer) = TestRing::new(size, 8);
        for from in (0..count).step_by(most as usize) {
            let frames: Vec<Vec<u8>> = (from..(from + most).min(count)).map(frame).collect();
            // A block may still be on its way to the disk, long after others.
            while peer.retire(frames.iter().map(Vec::as_slice)).is_none() {
                recorder.flush().await.unwrap();
            }
            let batch = ring.next_batch().unwrap();
            let batch = if from / most % 3 == 0 { batch.detach() } else { batch };
            recorder.write(batch).await.unwrap();
        }
        recorder.finish().await.unwrap()
    })
}

fn two_series(directory: &Directory) {
    for (series, blocks) in ["a", "b"].into_iter().zip(BLOCKS) {
        let builder = Recorder::builder(directory.path(), series).max_bytes(2 << 20);
        let builder = builder.interface(FileInterface::ethernet("eth0"));
        let stats = record_blocks(builder, 20_000, blocks);
        assert_eq!((stats.written, stats.lost, stats.unindexed), (20_000, 0, 0));
        assert!(stats.copied > 1 && stats.blocks > 2 && stats.files > 2);
    }
}

const FILTERS: [&str; 14] = [
    "host 192.0.3.1",
    "host 192.0.200.1",
    "net 192.0.3.0/24 and udp",
    "ip6 host fd00:0:0:4::7",
    "net fd00:0:0:4::/64",
    "udp port 1003",
    "port 1003 or port 1017",
    "tcp",
    "vlan 3",
    "vlan 3 and host 192.0.3.1",
    "host 192.0.3.1 and not port 1003",
    "less 100",
    "arp",
    "host 192.0.3.1 or arp",
];

fn answer(directory: &Path, filter: &str) -> (Vec<OwnedPacket>, Report) {
    let query = Archive::open(directory).unwrap().query().filter(filter.parse().unwrap());
    let explained = query.explain().unwrap();
    let mut answer = query.packets();
    let packets: Vec<OwnedPacket> = answer.by_ref().collect::<Result<_, _>>().unwrap();
    let report = answer.report();
    let told = (explained.to_read, explained.without_terms, explained.indexed, explained.files);
    assert_eq!(told, (report.read, report.ruled_out, report.indexed, report.files), "{filter}");
    assert_eq!(explained.bytes, report.read + report.passed_over, "{explained}");
    (packets, report)
}

fn matching(directory: &Path, filter: &str) -> usize {
    let filter: BpfFilter = filter.parse().unwrap();
    let all = files(directory).into_iter().flat_map(|path| packets(&path).0);
    all.filter(|packet| packet.as_packet().matches(&filter)).count()
}

/// Every filter finds the packets that reading everything finds. Returns how much each has passed over by the index.
fn compare(directory: &Path) -> Vec<u64> {
    let compare = |filter: &&str| {
        let (packets, report) = answer(directory, filter);
        assert_eq!(packets.len(), matching(directory, filter), "{filter}");
        report.ruled_out
    };
    FILTERS.iter().map(compare).collect()
}

#[ringtap_lab::test]
fn what_an_index_rules_out_is_passed_over_and_nothing_is_missed() {
    let directory = Directory::new();
    two_series(&directory);
    assert_eq!(indexes(directory.path()).len(), files(directory.path()).len());
    let size = |paths: Vec<std::path::PathBuf>| -> u64 {
        paths.iter().map(|path| path.metadata().unwrap().len()).sum()
    };
    let (bytes, index) = (size(files(directory.path())), size(indexes(directory.path())));
    assert!(index * 100 < bytes && index > 1000, "{index} of {bytes}");
    let ruled_out = compare(directory.path());
    for (filter, ruled_out) in FILTERS.iter().zip(&ruled_out) {
        let share = *ruled_out as f64 / bytes as f64;
        match *filter {
            "less 100" => assert_eq!(*ruled_out, 0),
            "vlan 3" => assert!(share < 0.5, "{filter}: {share}"), // everywhere
            _ => assert!(share > 0.5, "{filter}: {share}"),
        }
    }
    let query = Archive::open(directory.path()).unwrap().query();
    let told = query.filter("udp port 53 and less 100".parse().unwrap()).explain().unwrap();
    assert!(told.to_string().starts_with("by index: udp and port 53\n"), "{told}");
}

#[ringtap_lab::test]
fn an_index_that_is_gone_cut_damaged_or_of_another_file_misleads_nobody() {
    let directory = Directory::new();
    two_series(&directory);
    let indexes = indexes(directory.path());
    let before = compare(directory.path());
    let [gone, cut, foreign, damaged, empty, _] = &indexes[..] else { panic!("{indexes:?}") };
    std::fs::copy(damaged, foreign).unwrap();
    std::fs::remove_file(gone).unwrap();
    let bytes = std::fs::read(cut).unwrap();
    std::fs::write(cut, &bytes[..bytes.len() / 2]).unwrap();
    let mut bytes = std::fs::read(damaged).unwrap();
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    std::fs::write(damaged, bytes).unwrap();
    std::fs::write(empty, "").unwrap();
    let after = compare(directory.path());
    assert!(before.iter().zip(&after).all(|(before, after)| after <= before));
    assert!(after[0] > 0 && after[0] < before[0]);

    // They are made anew from the files.
    let archive = Archive::open(directory.path()).unwrap();
    let made = archive.index().unwrap();
    assert_eq!((made.files, made.written), (indexes.len() as u64, 5), "{made:?}");
    assert!(made.bytes > 0 && made.bytes * 100 < made.of_bytes);
    // They are hardly coarser than what was written at first: groups begin elsewhere.
    let sum = |ruled_out: &[u64]| ruled_out.iter().sum::<u64>();
    let again = compare(directory.path());
    assert!(sum(&again) * 10 > sum(&before) * 9, "{before:?}, {again:?}");
    assert_eq!(archive.index().unwrap().written, 0);
}

#[ringtap_lab::test]
fn a_file_that_was_recorded_without_an_index_gets_one() {
    let directory = Directory::new();
    let builder = Recorder::builder(directory.path(), "p").index(false).max_bytes(1 << 20);
    record(builder, 10_000);
    assert!(indexes(directory.path()).is_empty());
    assert!(compare(directory.path()).iter().all(|ruled_out| *ruled_out == 0));
    let made = Archive::open(directory.path()).unwrap().index().unwrap();
    assert_eq!(made.written as usize, files(directory.path()).len());
    assert!(compare(directory.path())[0] > 0);
}

#[ringtap_lab::test]
fn an_index_goes_with_its_file() {
    let directory = Directory::new();
    let builder = Recorder::builder(directory.path(), "p").max_bytes(1 << 19).keep_files(2);
    let stats = record(builder, 20_000);
    assert!(stats.removed > 3, "{stats:?}");
    let of = |path: &std::path::PathBuf| path.with_extension("");
    let kept: Vec<_> = files(directory.path()).iter().map(of).collect();
    assert_eq!(indexes(directory.path()).iter().map(of).collect::<Vec<_>>(), kept);
    assert_eq!(kept.len(), 2);
}

#[ringtap_lab::test]
fn an_index_that_cannot_be_written_is_counted_and_no_harm() {
    let directory = Directory::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for secs in now..now + 60 {
        let mut date = Command::new("date");
        let date = date.args(["-u", "+%Y%m%dT%H%M%S", "-d", &format!("@{secs}")]).output().unwrap();
        let time = String::from_utf8(date.stdout).unwrap();
        // As the index of the first file is going to be named.
        let name = format!("p_00001_{}.idx", time.trim());
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    let stats = record(Recorder::builder(directory.path(), "p").max_bytes(1 << 20), 10_000);
    assert_eq!((stats.written, stats.lost, stats.errors), (10_000, 0, 0));
    assert_eq!(stats.unindexed, 1, "{stats:?}");
    assert_eq!(matching(directory.path(), "udp"), 10_000 - 10_000_usize.div_ceil(97));
}

/// Frames of one host each, in blocks of their own.
async fn write_hosts(
    recorder: &mut Recorder,
    hosts: std::ops::Range<u8>,
    count: usize,
) -> Vec<bool> {
    let mut written = Vec::new();
    for host in hosts {
        let (mut ring, mut peer) = TestRing::new(1 << 19, 1);
        let mut frame = frame(1);
        frame[26..30].copy_from_slice(&[10, 9, 0, host]);
        assert_eq!(peer.retire(vec![&frame[..]; count]), Some(count));
        written.push(recorder.write(ring.next_batch().unwrap()).await.is_ok());
    }
    written
}

#[ringtap_lab::test]
fn a_write_that_could_not_begin_leaves_no_entry_for_what_is_written_in_its_place() {
    let directory = Directory::new();
    // No more than some operations at once: some writes are refused.
    let reactor = ringtap::reactor::ReactorOptions::new().max_ops(6);
    executor::Executor::new(reactor).unwrap().block_on(async {
        let builder = Recorder::builder(directory.path(), "p").depth(64);
        let mut recorder = builder.build().unwrap();
        let (mut refused, mut host) = (0, 0);
        while host < 100 && refused < 20 {
            let written = write_hosts(&mut recorder, host..host + 5, 1500).await;
            refused += written.iter().filter(|is_written| !**is_written).count();
            host += 5;
            if !written[4] {
                recorder.flush().await.unwrap();
            }
        }
        assert!(refused > 0);
        recorder.flush().await.unwrap();
        let stats = recorder.finish().await.unwrap();
        assert_eq!(stats.written + stats.lost, stats.packets);
    });
    for host in 0..100 {
        let filter = format!("host 10.9.0.{host}");
        let (found, _) = answer(directory.path(), &filter);
        assert_eq!(found.len(), matching(directory.path(), &filter), "{filter}");
    }
}

#[ringtap_lab::test]
fn an_index_that_is_made_while_its_file_grows_knows_nothing_of_what_came_behind() {
    let directory = Directory::new();
    executor::block_on(async {
        let builder = Recorder::builder(directory.path(), "p").index(false);
        let mut recorder = builder.build().unwrap();
        write_hosts(&mut recorder, 0..3, 300).await;
        recorder.finish().await.unwrap();
    });
    let file = &files(directory.path())[0];
    let whole = std::fs::read(file).unwrap();
    for at in (8192..whole.len()).step_by(4096) {
        // As a reader sees it whom a write overtakes.
        std::fs::write(file, &whole[..at]).unwrap();
        let archive = Archive::open(directory.path()).unwrap();
        archive.index().unwrap();
        std::fs::write(file, &whole).unwrap();
        for host in 0..3 {
            let filter = format!("host 10.9.0.{host}");
            assert_eq!(answer(directory.path(), &filter).0.len(), 300, "{filter} at {at}");
        }
        indexes(directory.path()).iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }
}

#[ringtap_lab::test]
fn an_index_that_is_being_written_is_left_alone() {
    let directory = Directory::new();
    executor::block_on(async {
        let mut recorder = Recorder::builder(directory.path(), "p").build().unwrap();
        write_hosts(&mut recorder, 0..2, 300).await;
        recorder.flush().await.unwrap();
        assert_eq!(Archive::open(directory.path()).unwrap().index().unwrap().written, 0);
        write_hosts(&mut recorder, 2..40, 300).await;
        recorder.finish().await.unwrap();
    });
    let query = Archive::open(directory.path()).unwrap().query();
    let told = query.filter("host 10.10.0.1".parse().unwrap()).explain().unwrap();
    assert!(told.without_terms > 9 * told.to_read, "{told}");
}
