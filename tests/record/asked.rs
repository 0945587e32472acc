//! Recordings that are asked for packets.

use std::time::Duration;

use ringtap::capture::RingLayout;
use ringtap::error::FileFault;
use ringtap::interface::Interface;
use ringtap::packet::{OwnedPacket, Timestamp};
use ringtap::record::{Archive, Recorder};
use ringtap::{BpfFilter, Error, executor};
use ringtap_lab::{Directory, Generator, Traffic, namespace};

use crate::{capture, files, packets, ring};

/// Two series of several files: of blocks, and of packets that were copied. Returns all packets, in the order of their times.
fn recorded(net: &ringtap_lab::Namespace, directory: &Directory) -> Vec<OwnedPacket> {
    executor::block_on(async {
        let veth = net.veth();
        let traffic = Traffic { len: 500, flows: 7, ..Traffic::default() };
        let mut captures = [
            capture(ring(&veth.right)),
            capture(ring(&veth.right).layout(RingLayout::Frames).frame_size(2048)),
        ];
        let stops = captures.each_mut().map(|capture| capture.stop_handle().unwrap());
        Generator::new(&veth.left, &traffic).bursts(10_000, 100, Duration::from_millis(1));
        stops.iter().for_each(|stop| stop.stop());
        for (capture, name) in captures.iter_mut().zip(["blocks", "frames_2"]) {
            let builder = Recorder::builder(directory.path(), name).max_bytes(1 << 20);
            let mut recorder = builder.build().unwrap();
            recorder.record(capture).await.unwrap();
            assert_eq!(recorder.finish().await.unwrap().lost, 0);
        }
    });
    let mut all: Vec<OwnedPacket> =
        files(directory.path()).iter().flat_map(|path| packets(path).0).collect();
    assert!(all.len() > 15_000);
    all.sort_by_key(|packet| packet.as_packet().timestamp());
    all
}

fn times(packets: &[OwnedPacket]) -> Vec<Timestamp> {
    packets.iter().map(|packet| packet.as_packet().timestamp()).collect()
}

/// Whether these are the same packets, in the order of their times: those of one time may be in any order.
fn are_same(mut answer: Vec<OwnedPacket>, wanted: &[OwnedPacket]) {
    assert!(times(&answer).is_sorted() && answer.len() == wanted.len());
    let mut wanted = wanted.to_vec();
    let key = |packet: &OwnedPacket| (packet.as_packet().timestamp(), packet.data().to_vec());
    answer.sort_by_key(key);
    wanted.sort_by_key(key);
    assert!(answer == wanted);
}

#[ringtap_lab::test]
fn the_packets_of_a_time_and_a_filter_are_returned_and_no_others() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    let all = recorded(&net, &directory);
    std::fs::write(directory.path().join("notes.txt"), "not a recording").unwrap();
    let archive = Archive::open(directory.path()).unwrap();
    assert!(archive.series().eq(["blocks", "frames_2"]));
    assert!(archive.files("blocks").len() > 2 && archive.files("none").is_empty());

    let mut answer = archive.query().packets();
    are_same(answer.by_ref().collect::<Result<Vec<_>, _>>().unwrap(), &all);
    let report = answer.report();
    assert_eq!((report.packets, report.passed_over, report.cut_short), (all.len() as u64, 0, 0));
    assert_eq!(report.files as usize, files(directory.path()).len() - 1);

    let stamps = times(&all);
    let filter: BpfFilter = "udp src port 10003".parse().unwrap();
    for (from, to) in [(0, 100), (40, 45), (97, 100), (50, 50), (0, 3)] {
        let at = |percent: usize| stamps[(percent * stamps.len() / 100).min(stamps.len() - 1)];
        let (from, to) = (at(from), at(to));
        for filter in [None, Some(&filter)] {
            let wanted: Vec<OwnedPacket> = all
                .iter()
                .filter(|packet| {
                    let packet = packet.as_packet();
                    let is_in = (from..to).contains(&packet.timestamp());
                    is_in && filter.is_none_or(|filter| packet.matches(filter))
                })
                .cloned()
                .collect();
            let mut query = archive.query().from(from).to(to);
            if let Some(filter) = filter {
                query = query.filter(filter.clone());
            }
            let mut answer = query.packets();
            are_same(answer.by_ref().collect::<Result<Vec<_>, _>>().unwrap(), &wanted);
            let report = answer.report();
            assert_eq!(report.packets as usize, wanted.len());
            let is_narrow = from > stamps[0] && to < stamps[stamps.len() - 1];
            assert!(!is_narrow || report.passed_over > report.read, "{report:?}");
        }
    }
    let one = archive.query().series("blocks").packets().count();
    let other = archive.query().series("frames_2").packets().count();
    assert_eq!(one + other, all.len());
    assert_eq!(archive.query().series("none").packets().count(), 0);
}

#[ringtap_lab::test]
fn files_that_are_cut_or_gone_or_foreign_end_nothing() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    let all = recorded(&net, &directory);
    let archive = Archive::open(directory.path()).unwrap();
    let [cut, zeros, gone, empty, ..] = archive.files("blocks") else { panic!("a few files") };
    let before: usize = [cut, zeros, gone, empty].map(|path| packets(path).0.len()).iter().sum();
    let bytes = std::fs::read(cut).unwrap();
    std::fs::write(cut, &bytes[..bytes.len() / 2 + 100]).unwrap();
    let mut bytes = std::fs::read(zeros).unwrap();
    let half = (bytes.len() / 2).next_multiple_of(4096);
    bytes[half..].fill(0); // a write that was in flight, and one behind it that was not
    std::fs::write(zeros, &bytes).unwrap();
    std::fs::remove_file(gone).unwrap();
    std::fs::write(empty, "").unwrap();
    let left: usize = [cut, zeros].map(|path| packets(path).0.len()).iter().sum();
    let mut answer = archive.query().packets();
    let read = answer.by_ref().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(read.len(), all.len() - before + left);
    assert!(left > 0 && times(&read).is_sorted());
    assert_eq!(answer.report().cut_short, 3, "{:?}", answer.report());
    let missing = Archive::open(directory.path().join("missing")).unwrap_err();
    let Error::File(error) = missing else { panic!("{missing:?}") };
    assert!(matches!(error.fault(), FileFault::Io(_)));
}

#[ringtap_lab::test]
fn descriptions_of_interfaces_are_never_passed_over() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    let (first, second) = (net.veth(), net.veth());
    let between = executor::block_on(async {
        let options = ringtap::Capture::builder().interface(Interface::Any).ignore_outgoing(true);
        let mut capture = capture(options.block_size(1 << 16).block_count(256).block_timeout_ms(2));
        let stop = capture.stop_handle().unwrap();
        let builder = Recorder::builder(directory.path(), "any").each_interface();
        let mut recorder = builder.build().unwrap();
        Generator::new(&first.left, &Traffic::default()).flood(30);
        while recorder.stats().packets < 30 {
            recorder.write(capture.next_batch().await.unwrap().unwrap()).await.unwrap();
        }
        recorder.flush().await.unwrap();
        let between = Timestamp::now();
        Generator::new(&second.left, &Traffic::default()).flood(20);
        stop.stop();
        recorder.record(&mut capture).await.unwrap();
        assert_eq!(recorder.finish().await.unwrap().lost, 0);
        between
    });
    let archive = Archive::open(directory.path()).unwrap();
    let later = archive.query().from(between).packets();
    assert!(later.filter(|packet| packet.as_ref().unwrap().data().len() > 60).count() >= 20);
}

#[ringtap_lab::test]
fn blocks_of_a_named_interface_are_described_too() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    let veth = net.veth();
    executor::block_on(async {
        let mut capture = capture(ring(&veth.right));
        let stop = capture.stop_handle().unwrap();
        Generator::new(&veth.left, &Traffic::default()).flood(100);
        stop.stop();
        let builder = Recorder::builder(directory.path(), "each").each_interface();
        let mut recorder = builder.build().unwrap();
        recorder.record(&mut capture).await.unwrap();
        assert_eq!(recorder.finish().await.unwrap().written, 100);
    });
    let (packets, is_whole) = packets(&files(directory.path())[0]);
    assert!(is_whole && packets.len() == 100);
}

/// The accounts of a file: packets, those recorded before, and those missing before.
fn accounts(path: &std::path::Path) -> Vec<(u32, u64, u64)> {
    use ringtap::pcap::{CaptureReader, FileBlock};
    let mut reader = CaptureReader::open(path).unwrap();
    let mut accounts = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        let FileBlock::Other { kind: 0x8052_5401, body } = block else { continue };
        if body[..4] == 0x5254_4151_u32.to_ne_bytes() {
            let double = |at: usize| u64::from_ne_bytes(body[at..at + 8].try_into().unwrap());
            let packets = u32::from_ne_bytes(body[4..8].try_into().unwrap());
            accounts.push((packets, double(20), double(28)));
        }
    }
    accounts
}

#[ringtap_lab::test]
fn the_accounts_of_a_file_add_up() {
    let directory = Directory::new();
    executor::block_on(async {
        let mut recorder = Recorder::builder(directory.path(), "p").build().unwrap();
        let (mut ring, mut peer) = ringtap::testing::TestRing::new(1 << 14, 4);
        let frame = [7_u8; 100];
        for number in 0..20 {
            peer.retire([&frame[..]; 3]).unwrap();
            let batch = ring.next_batch().unwrap();
            // Some are copied, and some are not.
            let batch = if number % 3 == 0 { batch.detach() } else { batch };
            recorder.write(batch).await.unwrap();
            recorder.flush().await.unwrap();
        }
        let stats = recorder.finish().await.unwrap();
        assert_eq!((stats.written, stats.lost, stats.copied), (60, 0, 7));
    });
    let mut before = 0;
    for (packets, earlier, missing) in accounts(&files(directory.path())[0]) {
        assert_eq!((earlier, missing), (before, 0));
        before += u64::from(packets);
    }
    assert_eq!(before, 60);
}
