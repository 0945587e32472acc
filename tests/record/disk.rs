//! Disks that are full, gone, or refuse; and processes that are killed.

use std::future::{Future, poll_fn};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::task::Poll;
use std::time::Duration;

use ringtap::error::FileFault;
use ringtap::pcap::FileInterface;
use ringtap::record::{Archive, OnDiskError, OnSlowDisk, Recorder, RecorderBuilder, Why};
use ringtap::{Error, executor, time};
use ringtap_lab::{Directory, Generator, Tally, Traffic, child as process, namespace};

use crate::{capture, files, found, give, indexes, packets, recorded, ring};

fn recorder(directory: &Directory) -> RecorderBuilder {
    Recorder::builder(directory.path(), "p").interface(FileInterface::ethernet("right"))
}

fn is_full(error: &Error) -> bool {
    let Error::File(error) = error else { return false };
    matches!(error.fault(), FileFault::Io(error) if error.kind() == std::io::ErrorKind::StorageFull)
}

#[ringtap_lab::test]
fn a_full_disk_is_an_error_or_counted_and_gone_on_with_when_there_is_room() {
    let Some(net) = namespace() else { return };
    for policy in [OnDiskError::Stop, OnDiskError::DropAndRetry] {
        let veth = net.veth();
        // In a thread of its own: the kernel's workers keep the mounts that a thread had at first.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let Some(disk) = ringtap_lab::directory::tmpfs(2 << 20) else { return };
                executor::block_on(fill(&veth, &disk, policy));
            });
        });
    }
}

async fn fill(veth: &ringtap_lab::Veth, disk: &Directory, policy: OnDiskError) {
    let traffic = Traffic { len: 1000, ..Traffic::default() };
    let mut capture = capture(ring(&veth.right));
    let mut recorder = recorder(disk).on_error(policy).build().unwrap();
    let mut generator = Generator::new(&veth.left, &traffic);
    generator.flood(4_000);
    let told = give(&mut recorder, &mut capture, 4_000).await;
    let flushed = recorder.flush().await.err();
    let told = match policy {
        OnDiskError::Stop => told.or(flushed),
        _ => {
            assert!(told.is_none() && flushed.is_none());
            recorder.take_error()
        }
    };
    assert!(told.as_ref().is_some_and(is_full), "{told:?}");
    let stats = recorder.stats();
    assert_eq!((stats.packets, stats.pending), (4_000, 0));
    assert!(stats.written > 1_000 && stats.lost > 0 && stats.errors > 0, "{stats:?}");
    assert_eq!(stats.written + stats.lost, 4_000);

    // There is room again.
    for path in files(disk.path()) {
        std::fs::remove_file(path).unwrap();
    }
    let before = stats.written;
    if policy == OnDiskError::DropAndRetry {
        time::sleep(Duration::from_millis(1_100)).await;
    }
    generator.flood(500);
    let told = give(&mut recorder, &mut capture, 500).await;
    assert!(told.is_none(), "{told:?}");
    let stats = recorder.finish().await.unwrap();
    assert_eq!((stats.written - before, stats.packets), (500, 4_500), "{stats:?}");
    let tally = recorded(disk.path(), &traffic, 4_500);
    tally.assert_sound();
    assert_eq!(tally.received(), 500);
}

#[ringtap_lab::test]
fn what_is_in_the_files_of_a_full_disk_is_what_was_counted() {
    let Some(net) = namespace() else { return };
    let Some(disk) = ringtap_lab::directory::tmpfs(3 << 20) else { return };
    let veth = net.veth();
    executor::block_on(async {
        let traffic = Traffic { len: 500, ..Traffic::default() };
        let mut capture = capture(ring(&veth.right));
        let builder = recorder(&disk).on_error(OnDiskError::DropAndRetry).max_bytes(1 << 20);
        let mut recorder = builder.build().unwrap();
        Generator::new(&veth.left, &traffic).flood(10_000);
        assert!(give(&mut recorder, &mut capture, 10_000).await.is_none());
        let stats = recorder.finish().await.unwrap();
        assert_eq!((stats.packets, stats.pending), (10_000, 0));
        let tally = found(disk.path(), &traffic, 10_000);
        tally.assert_sound();
        assert_eq!(tally.received(), stats.written, "{stats:?}");
        assert!(stats.lost > 0 && stats.files >= 2, "{stats:?}");
    });
}

#[ringtap_lab::test]
fn a_directory_that_goes_or_is_closed_is_an_error_that_names_the_file() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    executor::block_on(async {
        let directory = Directory::new();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let mut capture = capture(ring(&veth.right));
        let mut generator = Generator::new(&veth.left, &Traffic::default());
        let mut recorder = Recorder::builder(&inner, "p").build().unwrap();
        std::fs::remove_dir(&inner).unwrap();
        generator.flood(5);
        let told = give(&mut recorder, &mut capture, 5).await;
        let Some(Error::File(error)) = told else { panic!("{told:?}") };
        assert!(error.path().unwrap().starts_with(&inner), "{error}");
        // It comes back.
        std::fs::create_dir(&inner).unwrap();
        generator.flood(5);
        assert!(give(&mut recorder, &mut capture, 5).await.is_none());
        let stats = recorder.finish().await.unwrap();
        assert_eq!((stats.written, stats.lost, stats.packets), (5, 5, 10));

        // Root of the machine may write anywhere.
        let closed = directory.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
        if std::fs::write(closed.join("try"), "").is_err() {
            let mut recorder = Recorder::builder(&closed, "p").build().unwrap();
            generator.flood(5);
            let told = give(&mut recorder, &mut capture, 5).await;
            assert!(matches!(told, Some(Error::File(_))), "{told:?}");
        }
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    });
}

#[ringtap_lab::test]
fn a_file_written_through_the_page_cache_is_the_same() {
    let Some(net) = namespace() else { return };
    executor::block_on(async {
        let (veth, directory) = (net.veth(), Directory::new());
        let traffic = Traffic { len: 1400, ..Traffic::default() };
        let mut capture = capture(ring(&veth.right));
        let mut recorder = recorder(&directory).direct(false).build().unwrap();
        for _ in 0..4 {
            Generator::new(&veth.left, &traffic).flood(2_000);
            assert!(give(&mut recorder, &mut capture, 2_000).await.is_none());
        }
        let stats = recorder.finish().await.unwrap();
        assert_eq!((stats.written, stats.lost), (8_000, 0));
        let read: usize = files(directory.path()).iter().map(|path| packets(path).0.len()).sum();
        assert_eq!(read, 8_000);
    });
}

#[ringtap_lab::test]
fn files_that_cannot_be_written_push_out_none_that_were() {
    let Some(net) = namespace() else { return };
    for policy in [OnDiskError::Stop, OnDiskError::DropAndRetry] {
        let veth = net.veth();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let Some(disk) = ringtap_lab::directory::tmpfs(2 << 20) else { return };
                executor::block_on(find_no_room(&veth, &disk, policy));
            });
        });
    }
}

async fn find_no_room(veth: &ringtap_lab::Veth, disk: &Directory, policy: OnDiskError) {
    let traffic = Traffic { len: 400, ..Traffic::default() };
    let mut capture = capture(ring(&veth.right));
    let mut generator = Generator::new(&veth.left, &traffic);
    let mut recorder = recorder(disk).keep_files(3).on_error(policy).build().unwrap();
    for _ in 0..3 {
        generator.flood(100);
        assert!(give(&mut recorder, &mut capture, 100).await.is_none());
        recorder.rotate().unwrap();
    }
    recorder.flush().await.unwrap();
    let good = files(disk.path());
    // Others take all that is left; files can still be created.
    let other = disk.path().join("other");
    let mut filler = std::fs::File::create(&other).unwrap();
    // In pages: where a longer write finds no room, a shorter one may.
    let filled = (0..1000).find_map(|_| filler.write_all(&[1; 4096]).err());
    assert_eq!(filled.unwrap().kind(), std::io::ErrorKind::StorageFull);
    let rounds = if policy == OnDiskError::Stop { 10 } else { 3 };
    for _ in 0..rounds {
        generator.flood(100);
        let _ = give(&mut recorder, &mut capture, 100).await;
        let _ = recorder.flush().await;
        if policy == OnDiskError::DropAndRetry {
            time::sleep(Duration::from_millis(1_100)).await;
        }
    }
    let stats = recorder.stats();
    assert!(stats.errors >= 3 && stats.removed == 0, "{stats:?}");
    assert_eq!((stats.written, stats.lost), (300, 100 * rounds), "{stats:?}");
    let _ = recorder.finish().await;
    std::fs::remove_file(other).unwrap();
    assert_eq!(files(disk.path()), good, "those without packets are gone");
    let named = |path: &PathBuf| path.with_extension("");
    let (of_good, left) = (good.iter().map(named), indexes(disk.path()));
    assert!(left.iter().map(named).eq(of_good), "and so are their indexes: {left:?}");
    assert!(good.iter().all(|path| packets(path).0.len() == 100));
}

#[ringtap_lab::test]
fn a_next_file_that_cannot_be_created_costs_nothing_of_this_one() {
    let Some(net) = namespace() else { return };
    for policy in [OnDiskError::Stop, OnDiskError::DropAndRetry] {
        let veth = net.veth();
        executor::block_on(async {
            let directory = Directory::new();
            let (inner, away) = (directory.path().join("inner"), directory.path().join("away"));
            std::fs::create_dir(&inner).unwrap();
            let traffic = Traffic { len: 1000, ..Traffic::default() };
            let mut capture = capture(ring(&veth.right));
            let builder = Recorder::builder(&inner, "p").max_bytes(4 << 20).on_error(policy);
            let mut recorder = builder.build().unwrap();
            let mut generator = Generator::new(&veth.left, &traffic);
            generator.flood(1_000);
            assert!(give(&mut recorder, &mut capture, 1_000).await.is_none());
            std::fs::rename(&inner, &away).unwrap();
            // The file is more than half full by then, and has room for all of this.
            generator.flood(2_000);
            assert!(give(&mut recorder, &mut capture, 2_000).await.is_none());
            let stats = recorder.finish().await.unwrap();
            assert_eq!((stats.written, stats.lost, stats.files), (3_000, 0, 1), "{stats:?}");
            recorded(&away, &traffic, 3_000).assert_complete();
        });
    }
}

#[ringtap_lab::test]
fn limits_and_prefixes_that_make_no_sense_do_no_harm() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    executor::block_on(async {
        let directory = Directory::new();
        for prefix in ["", "../p", "a/b", "a\0b"] {
            let refused = Recorder::builder(directory.path(), prefix).build();
            assert!(matches!(refused, Err(Error::File(_))), "{prefix:?}");
        }
        let mut capture = capture(ring(&veth.right));
        let builder = Recorder::builder(directory.path(), "p").max_bytes(u64::MAX).keep_bytes(1);
        let mut recorder = builder.keep_files(0).depth(0).build().unwrap();
        for _ in 0..3 {
            Generator::new(&veth.left, &Traffic::default()).flood(10);
            assert!(give(&mut recorder, &mut capture, 10).await.is_none());
            recorder.rotate().unwrap();
        }
        let stats = recorder.finish().await.unwrap();
        assert_eq!((stats.written, stats.lost, stats.files), (30, 0, 3), "{stats:?}");
    });
}

/// Kills a recorder at any time. What its files have up to there is sound, and goes without a gap.
#[ringtap_lab::test]
fn a_kill_at_any_time_leaves_files_that_are_whole_up_to_a_block() {
    if namespace().is_none() {
        return;
    }
    let mut recorded = 0;
    for run in 0..30_u64 {
        let directory = Directory::new();
        let value = directory.path().display().to_string();
        let mut child = process::start(module_path!(), "records_until_it_is_killed", &value);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !lines.next().expect("it begins").unwrap().ends_with("recording") {}
        std::thread::sleep(Duration::from_millis(3 + 7 * run));
        child.kill().unwrap();
        child.wait().unwrap();
        let traffic = child::traffic();
        let mut tally = Tally::new(&traffic, child::FRAMES);
        let all = files(directory.path());
        for (number, path) in all.iter().enumerate() {
            let (packets, _) = packets(path);
            packets.iter().for_each(|packet| tally.record(packet.data()));
            // Only what was written last, and the file that was prepared, may be cut.
            assert!(number + 3 >= all.len() || !packets.is_empty(), "{}", path.display());
        }
        tally.assert_sound();
        recorded += tally.received();
    }
    assert!(recorded > 10_000, "{recorded}");
}

/// A process that is killed when this is dropped.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes that a file takes, beyond its length.
fn surplus(path: &std::path::Path) -> u64 {
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.blocks() * 512).saturating_sub(metadata.len())
}

#[ringtap_lab::test]
fn room_that_a_killed_recorder_had_reserved_is_given_back_when_one_is_started_again() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    let value = directory.path().display().to_string();
    let child = process::start(module_path!(), "reserves_room_until_it_is_killed", &value);
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    while !lines.next().expect("it begins").unwrap().ends_with("recorded") {}
    let held: u64 = files(directory.path()).iter().map(|path| surplus(path)).sum();
    let start = || executor::block_on(async { recorder(&directory).build().map(drop) });
    // While it is at work, it keeps what it has reserved.
    start().unwrap();
    let still: u64 = files(directory.path()).iter().map(|path| surplus(path)).sum();
    drop(child);
    assert_eq!(held, still);
    if held < 16 << 20 {
        return ringtap_lab::skip("this file system reserves no room");
    }
    let read: usize = files(directory.path()).iter().map(|path| packets(path).0.len()).sum();
    start().unwrap();
    let left: u64 = files(directory.path()).iter().map(|path| surplus(path)).sum();
    assert!(left < 1 << 18, "{left} of {held}");
    let after: usize = files(directory.path()).iter().map(|path| packets(path).0.len()).sum();
    assert_eq!((read, after), (200, 200));
    drop(net);
}

mod child {
    use super::*;

    pub(super) const FRAMES: u64 = 400_000;

    pub(super) fn traffic() -> Traffic {
        Traffic { len: 400, flows: 1, ..Traffic::default() }
    }

    #[ringtap_lab::test]
    fn reserves_room_until_it_is_killed() {
        let Some(directory) = process::value() else { return };
        let net = ringtap_lab::Namespace::enter().unwrap();
        let veth = net.veth();
        executor::block_on(async {
            let mut capture = capture(ring(&veth.right));
            let builder = Recorder::builder(directory, "p").max_bytes(32 << 20);
            let mut recorder = builder.build().unwrap();
            Generator::new(&veth.left, &traffic()).flood(200);
            assert!(give(&mut recorder, &mut capture, 200).await.is_none());
            recorder.flush().await.unwrap();
            println!("recorded");
            std::future::pending::<()>().await;
        });
    }

    #[ringtap_lab::test]
    fn records_until_it_is_killed() {
        let Some(directory) = process::value() else { return };
        let net = ringtap_lab::Namespace::enter().unwrap();
        let veth = net.veth();
        let left = veth.left.clone();
        std::thread::spawn(move || {
            Generator::new(&left, &traffic()).bursts(FRAMES, 64, Duration::from_micros(300));
        });
        executor::block_on(async {
            let mut capture = capture(ring(&veth.right));
            let builder = Recorder::builder(directory, "p").max_bytes(1 << 20);
            let mut recorder = builder.build().unwrap();
            println!("recording");
            recorder.record(&mut capture).await.unwrap();
        });
    }
}

#[ringtap_lab::test]
fn the_oldest_or_the_newest_packets_go_while_the_disk_is_slow() {
    // A disk is slow that has had no turn to write.
    let record = |policy: OnSlowDisk| {
        let directory = Directory::new();
        let (written, lost) = executor::block_on(async {
            let builder = Recorder::builder(directory.path(), "p").depth(2).on_slow_disk(policy);
            let mut recorder = builder.build().unwrap();
            let (mut ring, mut peer) = ringtap::testing::TestRing::new(1 << 14, 8);
            let mut next = |number: u8| {
                peer.retire([&[number; 100][..]; 3]).unwrap();
                ring.next_batch().unwrap()
            };
            recorder.write(next(0)).await.unwrap();
            recorder.flush().await.unwrap();
            for number in 1..6 {
                let mut write = Box::pin(recorder.write(next(number)));
                let at_once = poll_fn(|cx| {
                    let first = write.as_mut().poll(cx);
                    Poll::Ready(if first.is_ready() { first } else { write.as_mut().poll(cx) })
                });
                let at_once = at_once.await;
                assert!(at_once.is_ready() || policy == OnSlowDisk::DropNewest);
                if at_once.is_pending() {
                    write.await.unwrap();
                }
            }
            recorder.flush().await.unwrap();
            recorder.write(next(6)).await.unwrap();
            let stats = recorder.finish().await.unwrap();
            assert_eq!((stats.packets, stats.pending), (21, 0));
            (stats.written, stats.lost)
        });
        let numbers: Vec<u8> = files(directory.path())
            .iter()
            .flat_map(|path| packets(path).0)
            .map(|packet| packet.data()[0])
            .collect();
        assert_eq!((numbers.len() as u64, written + lost), (written, 21));
        let missing = Archive::open(directory.path()).unwrap().query().missing().unwrap();
        assert_eq!(missing.len(), usize::from(lost > 0));
        assert!(missing.iter().all(|missing| missing.why == Why::Dropped(lost)), "{missing:?}");
        (numbers, lost)
    };
    let (numbers, lost) = record(OnSlowDisk::DropOldest);
    assert_eq!(numbers, [0, 0, 0, 1, 1, 1, 2, 2, 2, 6, 6, 6]);
    assert_eq!(lost, 9);
    // What the ring has room for waits.
    let (numbers, lost) = record(OnSlowDisk::DropNewest);
    assert_eq!((numbers.len(), lost), (21, 0));
}
