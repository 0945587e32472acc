//! What an archive says is missing, and what is not as it was written.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::task::Poll;

use ringtap::executor;
use ringtap::packet::Timestamp;
use ringtap::pcap::CaptureWriter;
use ringtap::record::{Archive, Fault, FaultKind, Missing, OnDiskError, Recorder, Verified, Why};
use ringtap_lab::{Directory, Generator, Traffic, namespace};

use crate::{capture, files, packets, ring};

/// Records this many packets of one capture, in files of some 100 packets each. Returns whether the recorder was finished.
fn record(net: &ringtap_lab::Namespace, directory: &Directory, count: u64, is_finished: bool) {
    let veth = net.veth();
    executor::block_on(async {
        let mut capture = capture(ring(&veth.right));
        let mut generator = Generator::new(&veth.left, &Traffic { len: 300, ..Traffic::default() });
        let mut recorder = Recorder::builder(directory.path(), "p").build().unwrap();
        for _ in 0..count / 100 {
            generator.flood(100);
            assert!(crate::give(&mut recorder, &mut capture, 100).await.is_none());
            recorder.flush().await.unwrap();
            recorder.rotate().unwrap();
        }
        recorder.flush().await.unwrap();
        if is_finished {
            generator.flood(100);
            assert!(crate::give(&mut recorder, &mut capture, 100).await.is_none());
            assert_eq!(recorder.finish().await.unwrap().lost, 0);
        }
    });
}

fn verified(directory: &Path) -> Verified {
    let archive = Archive::open(directory).unwrap();
    let [verified] = &archive.query().verify().unwrap()[..] else { panic!("one series") };
    // Accounts alone say the same.
    assert_eq!(archive.query().missing().unwrap(), verified.missing);
    let held = archive.query().held().unwrap();
    assert_eq!((held.packets, held.times), (verified.packets, verified.times));
    verified.clone()
}

fn why(verified: &Verified) -> Vec<Why> {
    verified.missing.iter().map(|Missing { why, .. }| *why).collect()
}

fn kinds(verified: &Verified) -> Vec<FaultKind> {
    verified.faults.iter().map(|Fault { kind, .. }| *kind).collect()
}

/// The times of a file's first and last packet.
fn times(path: &Path) -> (Timestamp, Timestamp) {
    let packets = packets(path).0;
    let time =
        |packet: Option<&ringtap::packet::OwnedPacket>| packet.unwrap().as_packet().timestamp();
    (time(packets.first()), time(packets.last()))
}

#[ringtap_lab::test]
fn a_recording_that_was_finished_is_complete_and_one_without_a_file_is_not() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    record(&net, &directory, 400, true);
    let whole = verified(directory.path());
    assert!(whole.is_complete(), "{whole:?}");
    assert_eq!((whole.packets, whole.files, whole.runs), (500, 5, 1));
    let files = files(directory.path());
    assert_eq!(whole.times, Some((times(&files[0]).0, times(&files[4]).1)));

    std::fs::remove_file(&files[2]).unwrap();
    let gap = verified(directory.path());
    assert_eq!((why(&gap), gap.packets), (vec![Why::Removed(100)], 400));
    let place = (gap.missing[0].after, gap.missing[0].before);
    assert_eq!(place, (Some(times(&files[1]).1), Some(times(&files[3]).0)));
    // Whoever asks for another time is not told.
    let query = Archive::open(directory.path()).unwrap().query();
    let asked = |query: &ringtap::record::Query| query.missing().unwrap().len();
    assert_eq!(asked(&query.clone().from(times(&files[3]).1)), 0);
    assert_eq!(asked(&query.clone().to(times(&files[1]).0)), 0);
    assert_eq!(asked(&query.from(times(&files[1]).0).to(times(&files[3]).1)), 1);

    // The beginning is what retention takes away.
    std::fs::remove_file(&files[0]).unwrap();
    let later = verified(directory.path());
    assert_eq!(why(&later), [Why::Removed(100), Why::Removed(100)]);
    assert_eq!(later.missing[0].after, None);
}

#[ringtap_lab::test]
fn a_recorder_that_was_not_finished_is_told_of() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    record(&net, &directory, 200, false);
    assert_eq!(why(&verified(directory.path())), [Why::Open]);
    record(&net, &directory, 100, true);
    let verified = verified(directory.path());
    assert_eq!((why(&verified), verified.runs), (vec![Why::Restarted], 2));
    assert_eq!((verified.packets, verified.faults.len()), (400, 0));
}

#[ringtap_lab::test]
fn files_that_were_changed_are_found() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    record(&net, &directory, 600, true);
    let all = files(directory.path());
    let change = |file: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(&all[file]).unwrap();
        change(&mut bytes);
        std::fs::write(&all[file], bytes).unwrap();
    };
    // The first packet block, behind the header of the file and an account.
    let packet = |bytes: &[u8]| {
        let mut at = 4096;
        while bytes[at..at + 4] != 6_u32.to_ne_bytes() {
            at += u32::from_ne_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        }
        at
    };
    change(0, &|bytes| {
        let at = packet(bytes);
        bytes[at..at + 4].copy_from_slice(&0x8000_0bad_u32.to_ne_bytes()); // no packet any more
    });
    change(1, &|bytes| {
        let at = packet(bytes);
        bytes[at + 12] ^= 0x80; // another time
    });
    change(2, &|bytes| bytes.truncate(bytes.len() - 5000));
    change(3, &|bytes| {
        let at = 4096; // the first account, and all up to the next
        let span = u32::from_ne_bytes(bytes[at + 16..at + 20].try_into().unwrap()) as usize;
        bytes.drain(at..at + span);
    });
    let changed = verified(directory.path());
    let found = kinds(&changed);
    assert!(
        matches!(found[0], FaultKind::Packets { told, found } if told == found + 1),
        "{found:?}"
    );
    assert_eq!(found[1], FaultKind::Times);
    assert!(found[2..].contains(&FaultKind::CutShort), "{found:?}");
    assert!(changed.faults.iter().all(|fault| fault.path != all[3]), "{:?}", changed.faults);
    let removed = why(&changed);
    assert!(matches!(removed[..], [Why::Removed(1..=100)]), "{removed:?}");
    assert!(changed.faults[0].to_string().contains("packets where its account says"));
}

#[ringtap_lab::test]
fn a_file_that_is_there_twice_or_of_somebody_else_is_found() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    record(&net, &directory, 200, true);
    let all = files(directory.path());
    std::fs::copy(&all[1], directory.path().join("p_00004_20300101T000000.pcapng")).unwrap();
    let foreign = directory.path().join("q_00001_20300101T000000.pcapng");
    let mut writer = CaptureWriter::create(&foreign).unwrap();
    writer.write(&packets(&all[0]).0[0].as_packet()).unwrap();
    writer.finish().unwrap();
    let [p, q] = &Archive::open(directory.path()).unwrap().query().verify().unwrap()[..] else {
        panic!()
    };
    assert!(matches!(kinds(p)[0], FaultKind::Backwards(200)), "{p:?}");
    assert_eq!(kinds(q), [FaultKind::Foreign]);
}

#[ringtap_lab::test]
fn what_the_kernel_has_dropped_is_told_of_to_the_packet() {
    let Some(net) = namespace() else { return };
    let (directory, veth) = (Directory::new(), net.veth());
    let dropped = executor::block_on(async {
        let mut capture = capture(ring(&veth.right).block_count(4));
        let stop = capture.stop_handle().unwrap();
        let mut generator = Generator::new(&veth.left, &Traffic { len: 300, ..Traffic::default() });
        let mut recorder = Recorder::builder(directory.path(), "p").depth(2).build().unwrap();
        generator.flood(3000); // more than the ring has room for
        assert!(crate::give(&mut recorder, &mut capture, 400).await.is_none());
        recorder.flush().await.unwrap();
        stop.stop();
        recorder.record(&mut capture).await.unwrap();
        let (stats, recorded) = (capture.stats().unwrap(), recorder.finish().await.unwrap());
        assert_eq!(recorded.packets + stats.drops, 3000);
        stats.drops
    });
    let verified = verified(directory.path());
    let Why::Dropped(told) = why(&verified)[0] else { panic!("{verified:?}") };
    let all: u64 = why(&verified)
        .iter()
        .map(|why| match why {
            Why::Dropped(packets) => *packets,
            _ => 0,
        })
        .sum();
    assert!(dropped > 0 && told > 0);
    assert_eq!((all, verified.packets, verified.faults.len()), (dropped, 3000 - dropped, 0));
}

#[ringtap_lab::test]
fn runs_that_count_alike_are_told_apart() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    record(&net, &directory, 100, true);
    record(&net, &directory, 200, true);
    let all = files(directory.path());
    assert_eq!(why(&verified(directory.path())), []);
    // The second run goes on at the number at which the first has ended.
    std::fs::remove_file(&all[2]).unwrap();
    std::fs::remove_file(&all[3]).unwrap();
    let fewer = verified(directory.path());
    assert_eq!((why(&fewer), fewer.runs), (vec![Why::Removed(200)], 2));
}

#[ringtap_lab::test]
fn files_that_go_while_they_are_verified_are_missing_and_no_error() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    record(&net, &directory, 200, true);
    let archive = Archive::open(directory.path()).unwrap();
    std::fs::remove_file(&files(directory.path())[1]).unwrap();
    let verified = archive.query().verify().unwrap();
    assert_eq!(why(&verified[0]), [Why::Removed(100)]);
}

#[ringtap_lab::test]
fn numbers_that_are_too_large_are_no_harm() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    record(&net, &directory, 100, true);
    let path = &files(directory.path())[0];
    let bytes = std::fs::read(path).unwrap();
    // All that an account says, one word after another.
    for at in (4096 + 12..4096 + 68).step_by(4) {
        let mut changed = bytes.clone();
        changed[at..at + 4].fill(0xff);
        std::fs::write(path, changed).unwrap();
        let archive = Archive::open(directory.path()).unwrap();
        archive.query().verify().unwrap();
        archive.query().missing().unwrap();
        archive.index().unwrap();
        archive.query().explain().unwrap();
        archive.query().packets().for_each(drop);
        let _ = std::fs::remove_file(path.with_extension("idx")); // there may be none to be had
    }
}

#[ringtap_lab::test]
fn packets_whose_write_failed_behind_the_next_ones_are_dropped_and_not_removed() {
    // A disk with room for the first file alone, while a file that was rotated is still being written.
    std::thread::spawn(|| {
        let Some(disk) = ringtap_lab::directory::tmpfs(1 << 20) else { return };
        let lost = executor::block_on(async {
            let builder = Recorder::builder(disk.path(), "p");
            let mut recorder = builder.on_error(OnDiskError::DropAndRetry).build().unwrap();
            let write = async |recorder: &mut Recorder, size: usize, count: usize| {
                let (mut ring, mut peer) = ringtap::testing::TestRing::new(size, 1);
                assert_eq!(peer.retire(vec![&[7; 200][..]; count]), Some(count));
                recorder.write(ring.next_batch().unwrap()).await.unwrap();
            };
            write(&mut recorder, 1 << 16, 10).await;
            recorder.flush().await.unwrap();
            write(&mut recorder, 1 << 21, 6000).await; // for which there is no room
            recorder.rotate().unwrap();
            write(&mut recorder, 1 << 16, 20).await;
            recorder.flush().await.unwrap();
            write(&mut recorder, 1 << 16, 30).await;
            let stats = recorder.finish().await.unwrap();
            assert_eq!(stats.packets, 6060);
            stats.lost
        });
        let verified = verified(disk.path());
        assert!(lost >= 6000 && verified.faults.is_empty(), "{verified:?}");
        let dropped = |why: &Why| if let Why::Dropped(packets) = why { *packets } else { 0 };
        let told: u64 = why(&verified).iter().map(dropped).sum();
        assert_eq!((verified.packets, told), (6060 - lost, lost), "{verified:?}");
    })
    .join()
    .unwrap();
}

#[ringtap_lab::test]
fn a_recorder_that_was_finished_between_two_files_is_not_open() {
    let directory = Directory::new();
    let lost = executor::block_on(async {
        let mut recorder = Recorder::builder(directory.path(), "p").max_bytes(1).build().unwrap();
        let batch = |byte: u8| {
            let (mut ring, mut peer) = ringtap::testing::TestRing::new(1 << 14, 1);
            peer.retire([&[byte; 100][..]; 3]).unwrap();
            ring.next_batch().unwrap()
        };
        recorder.write(batch(1)).await.unwrap();
        // The next file is never begun, and its packets are lost.
        let mut write = Box::pin(recorder.write(batch(2)));
        assert!(poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await.is_pending());
        drop(write);
        let stats = recorder.finish().await.unwrap();
        assert_eq!((stats.written, stats.lost), (3, 3));
        stats.lost
    });
    let verified = verified(directory.path());
    assert_eq!((why(&verified), verified.faults.len()), (vec![Why::Dropped(lost)], 0));
    assert!(packets(&files(directory.path())[0]).1);

    let directory = Directory::new();
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    executor::block_on(async {
        let mut capture = capture(ring(&veth.right));
        let mut recorder = Recorder::builder(directory.path(), "p").build().unwrap();
        Generator::new(&veth.left, &Traffic::default()).flood(10);
        assert!(crate::give(&mut recorder, &mut capture, 10).await.is_none());
        recorder.rotate().unwrap();
        recorder.finish().await.unwrap();
    });
    assert!(self::verified(directory.path()).is_complete());
}
