//! Recorders that are dropped, and reactors that end while writes are in flight.

use std::time::Duration;

use ringtap::pcap::FileInterface;
use ringtap::reactor::{Backend, Reactor};
use ringtap::record::{OnDiskError, Recorder};
use ringtap::{Error, executor, time};
use ringtap_lab::{Directory, Generator, Traffic, child as process, namespace, seccomp};

use crate::{capture, found, give, recorded, ring};

#[ringtap_lab::test]
fn a_future_dropped_while_it_waits_loses_its_batch_and_counts_it() {
    let Some(net) = namespace() else { return };
    let (veth, directory) = (net.veth(), Directory::new());
    executor::block_on(async {
        let traffic = Traffic { len: 600, ..Traffic::default() };
        let mut capture = capture(ring(&veth.right));
        let builder = Recorder::builder(directory.path(), "p").depth(1).max_bytes(1 << 18);
        let mut recorder = builder.build().unwrap();
        Generator::new(&veth.left, &traffic).flood(5_000);
        let mut taken = 0;
        while taken < 5_000 {
            let batch = capture.next_batch().await.unwrap().unwrap();
            taken += batch.len() as u64;
            // Polled once or a few times, and given up.
            let limit = Duration::from_micros(taken % 300);
            let _ = time::timeout(limit, recorder.write(batch)).await;
            let stats = recorder.stats();
            assert_eq!(stats.written + stats.pending + stats.lost, stats.packets, "{stats:?}");
        }
        let stats = recorder.finish().await.unwrap();
        let tally = found(directory.path(), &traffic, 5_000);
        tally.assert_sound();
        assert_eq!(tally.received(), stats.written, "{stats:?}");
        assert_eq!(stats.written + stats.lost, 5_000, "{stats:?}");
    });
}

#[ringtap_lab::test]
fn whatever_is_dropped_first_files_are_sound_and_blocks_come_back() {
    let Some(net) = namespace() else { return };
    for order in 0..4 {
        let (veth, directory) = (net.veth(), Directory::new());
        let traffic = Traffic { len: 600, ..Traffic::default() };
        let left = executor::block_on(async {
            let mut capture = capture(ring(&veth.right));
            let mut recorder = Recorder::builder(directory.path(), "p").build().unwrap();
            Generator::new(&veth.left, &traffic).flood(3_000);
            assert!(give(&mut recorder, &mut capture, 3_000).await.is_none());
            match order {
                0 => drop(recorder),
                1 => {
                    drop(capture);
                    drop(recorder);
                }
                2 => {
                    drop(capture);
                    assert_eq!(recorder.finish().await.unwrap().written, 3_000);
                }
                _ => return Some((capture, recorder)), // outlive their reactor
            }
            None
        });
        if let Some((_, mut recorder)) = left {
            let packets: Vec<&[u8]> = vec![&[0; 60]];
            let (mut ring, mut peer) = ringtap::testing::TestRing::new(1 << 14, 2);
            peer.retire(packets);
            let batch = ring.next_batch().unwrap();
            let error = executor::block_on(recorder.write(batch));
            assert!(matches!(error, Err(Error::ReactorGone)), "{error:?}");
            drop(recorder);
        }
        let tally = found(directory.path(), &traffic, 3_000);
        tally.assert_sound();
        assert!(order != 2 || tally.received() == 3_000);
    }
}

#[ringtap_lab::test]
fn blocks_are_recorded_in_one_thread_while_their_capture_ends_in_another() {
    let Some(net) = namespace() else { return };
    let (veth, directory) = (net.veth(), Directory::new());
    let traffic = Traffic { len: 900, flows: 1, ..Traffic::default() };
    let (rounds, frames) = (40_u64, 400);
    let (sender, batches) = std::sync::mpsc::channel();
    let recording = std::thread::scope(|scope| {
        let recording = scope.spawn(|| {
            executor::block_on(async {
                let mut recorder = Recorder::builder(directory.path(), "p").build().unwrap();
                for batch in batches {
                    recorder.write(batch).await.unwrap();
                }
                recorder.finish().await.unwrap()
            })
        });
        let mut generator = Generator::new(&veth.left, &traffic);
        for _ in 0..rounds {
            let mut capture = ring(&veth.right).build().unwrap();
            generator.flood(frames);
            let mut taken = 0;
            while taken < frames {
                let batch = capture.next_batch_timeout(Duration::from_secs(20)).unwrap().unwrap();
                taken += batch.len() as u64;
                sender.send(batch).unwrap();
            }
            drop(capture); // its pages are replaced, while some of its blocks are turned into pcapng
        }
        drop(sender);
        recording.join().unwrap()
    });
    assert_eq!((recording.written, recording.lost), (rounds * frames, 0), "{recording:?}");
    recorded(directory.path(), &traffic, rounds * frames).assert_complete();
}

#[ringtap_lab::test]
fn a_forked_child_leaves_its_parents_file_alone() {
    if namespace().is_some() {
        process::run(module_path!(), "forks", "");
    }
}

#[ringtap_lab::test]
fn a_ring_refused_while_writes_are_in_flight_is_gone_on_without() {
    if namespace().is_some() {
        process::run(module_path!(), "enter_is_refused", "");
    }
}

mod child {
    use super::*;

    #[ringtap_lab::test]
    fn forks() {
        if process::value().is_none() {
            return;
        }
        let net = ringtap_lab::Namespace::enter().unwrap();
        let (veth, directory) = (net.veth(), Directory::new());
        let traffic = Traffic { len: 600, ..Traffic::default() };
        executor::block_on(async {
            let mut capture = capture(ring(&veth.right));
            let mut recorder = Recorder::builder(directory.path(), "p").build().unwrap();
            let mut generator = Generator::new(&veth.left, &traffic);
            let mut children = Vec::new();
            for _ in 0..3 {
                generator.flood(1_000);
                assert!(give(&mut recorder, &mut capture, 1_000).await.is_none());
                // SAFETY: the child drops what it has of the recorder, later than the parent has written on, and ends.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    std::thread::sleep(Duration::from_millis(100));
                    drop(recorder);
                    // SAFETY: it ends here, and does nothing of its parent's.
                    unsafe { libc::_exit(0) };
                }
                children.push(child);
            }
            for child in children {
                // SAFETY: a child of ours.
                assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
            }
            let stats = recorder.finish().await.unwrap();
            assert_eq!((stats.written, stats.lost), (3_000, 0), "{stats:?}");
        });
        recorded(directory.path(), &traffic, 3_000).assert_complete();
    }

    #[ringtap_lab::test]
    fn enter_is_refused() {
        if process::value().is_none() {
            return;
        }
        let net = ringtap_lab::Namespace::enter().unwrap();
        let (veth, directory) = (net.veth(), Directory::new());
        let traffic = Traffic { len: 600, ..Traffic::default() };
        executor::block_on(async {
            let mut capture = capture(ring(&veth.right));
            let builder = Recorder::builder(directory.path(), "p");
            let builder = builder.interface(FileInterface::ethernet("right"));
            let mut recorder = builder.on_error(OnDiskError::DropAndRetry).build().unwrap();
            let mut generator = Generator::new(&veth.left, &traffic);
            for round in 0..4 {
                generator.flood(1_000);
                assert!(give(&mut recorder, &mut capture, 1_000).await.is_none());
                if round == 1 {
                    seccomp::refuse(libc::SYS_io_uring_enter, libc::EPERM);
                }
                time::sleep(Duration::from_millis(if round == 2 { 1_100 } else { 0 })).await;
            }
            assert_eq!(Reactor::current().unwrap().backend().unwrap(), Backend::Poll);
            let stats = recorder.finish().await.unwrap();
            assert_eq!((stats.packets, stats.pending), (4_000, 0));
            let tally = found(directory.path(), &traffic, 4_000);
            tally.assert_sound();
            assert!(tally.received() >= stats.written, "{stats:?}");
            // What was behind a write in flight is lost with it; the last round is written without a ring.
            assert!(stats.written >= 1_000 && stats.written + stats.lost == 4_000, "{stats:?}");
        });
    }
}
