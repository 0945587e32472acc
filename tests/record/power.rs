//! Disks that fail with EIO, and lose power.

use std::time::Duration;

use ringtap::error::FileFault;
use ringtap::record::{Archive, FaultKind, OnDiskError, Recorder, Why};
use ringtap::{Error, executor, time};
use ringtap_lab::disk::Disk;
use ringtap_lab::{Generator, Tally, Traffic, Veth, namespace};

use crate::{capture, files, found, give, packets, ring};

/// In a thread of its own, since the kernel's workers keep the mounts that a thread had at first. Returns false, which it says loudly,
/// where there can be no disk.
fn on_a_disk(run: impl Fn(&Disk) + Sync) -> bool {
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| Disk::new(64 << 20).map(|disk| run(&disk))).join()
    });
    let ended = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    ended.map_err(|why| ringtap_lab::skip(&why)).is_ok()
}

fn is_io(error: &Error) -> bool {
    let Error::File(error) = error else { return false };
    let FileFault::Io(cause) = error.fault() else { return false };
    // EROFS: ext4 creates no file on a disk that has failed.
    error.path().is_some() && matches!(cause.raw_os_error(), Some(libc::EIO | libc::EROFS))
}

#[ringtap_lab::test]
fn a_disk_that_fails_is_an_error_and_what_it_has_lost_is_counted() {
    if !ringtap_lab::bootstrap::was_root() {
        return ringtap_lab::skip_for_ordinary_users("mounting a loop device takes root");
    }
    let Some(net) = namespace() else { return };
    for policy in [OnDiskError::Stop, OnDiskError::DropAndRetry] {
        let veth = net.veth();
        if !on_a_disk(|disk| executor::block_on(fail(&veth, disk, policy))) {
            return;
        }
    }
}

async fn fail(veth: &Veth, disk: &Disk, policy: OnDiskError) {
    let traffic = Traffic { len: 600, ..Traffic::default() };
    let mut capture = capture(ring(&veth.right));
    let mut generator = Generator::new(&veth.left, &traffic);
    let builder = Recorder::builder(disk.path(), "p").max_bytes(1 << 20).on_error(policy);
    let mut recorder = builder.build().unwrap();
    generator.flood(3_000);
    assert!(give(&mut recorder, &mut capture, 3_000).await.is_none());
    recorder.flush().await.unwrap();
    let written = recorder.stats().written;
    assert_eq!(written, 3_000);
    disk.cut();
    generator.flood(3_000);
    let told = give(&mut recorder, &mut capture, 3_000).await;
    let flushed = recorder.flush().await.err();
    let told = told.or(flushed).or_else(|| recorder.take_error());
    assert!(told.as_ref().is_some_and(is_io), "{told:?}");
    // The capture goes on, and it is all counted.
    generator.flood(500);
    let _ = give(&mut recorder, &mut capture, 500).await;
    let _ = recorder.flush().await;
    let stats = recorder.stats();
    assert_eq!((stats.packets, stats.pending), (6_500, 0), "{stats:?}");
    assert_eq!(stats.written + stats.lost, 6_500, "{stats:?}");
    assert!(stats.errors > 0 && stats.lost >= 500, "{stats:?}");
    let _ = recorder.finish().await;
    disk.restart();
    let tally = found(disk.path(), &traffic, 6_500);
    tally.assert_sound();
    assert!(tally.received() <= stats.written, "{} of {stats:?}", tally.received());
}

/// Cuts the power at any time. What was synchronised before is all there, and what is in the last file goes up to a block.
#[ringtap_lab::test]
fn what_was_synchronised_is_there_after_the_power_was_cut() {
    if !ringtap_lab::bootstrap::was_root() {
        return ringtap_lab::skip_for_ordinary_users("mounting a loop device takes root");
    }
    let Some(net) = namespace() else { return };
    for round in 0..6_u64 {
        let veth = net.veth();
        if !on_a_disk(|disk| executor::block_on(cut_after(round * 700 + 50, &veth, disk))) {
            return;
        }
    }
}

async fn cut_after(count: u64, veth: &Veth, disk: &Disk) {
    let traffic = Traffic { len: 600, flows: 1, ..Traffic::default() };
    let mut capture = capture(ring(&veth.right));
    let mut generator = Generator::new(&veth.left, &traffic);
    let builder = Recorder::builder(disk.path(), "p").max_bytes(1 << 20).sync(true);
    let mut recorder = builder.build().unwrap();
    generator.flood(5_000);
    assert!(give(&mut recorder, &mut capture, 5_000).await.is_none());
    recorder.rotate().unwrap();
    generator.flood(count);
    assert!(give(&mut recorder, &mut capture, count).await.is_none());
    // What was closed has been synchronised by then.
    recorder.flush().await.unwrap();
    generator.flood(count);
    assert!(give(&mut recorder, &mut capture, count).await.is_none());
    disk.cut();
    let _ = recorder.finish().await;
    disk.restart();
    let mut tally = Tally::new(&traffic, 5_000 + 2 * count);
    for path in files(disk.path()) {
        packets(&path).0.iter().for_each(|packet| tally.record(packet.data()));
    }
    tally.assert_sound();
    let received = tally.received();
    assert!(received >= 5_000, "{received} of {}", 5_000 + count);
    let archive = Archive::open(disk.path()).unwrap();
    for verified in archive.query().verify().unwrap() {
        assert_eq!(verified.packets, received);
        let is_end = |why: &Why| matches!(why, Why::Open);
        assert!(verified.missing.iter().all(|missing| is_end(&missing.why)), "{verified:?}");
        let is_cut = |kind: &FaultKind| matches!(kind, FaultKind::CutShort);
        assert!(verified.faults.iter().all(|fault| is_cut(&fault.kind)), "{verified:?}");
    }
    // A recorder that is started anew goes on in the same directory.
    let mut again = Recorder::builder(disk.path(), "p").build().unwrap();
    generator.flood(100);
    let waited = time::timeout(Duration::from_secs(20), give(&mut again, &mut capture, 100)).await;
    assert!(waited.expect("they come").is_none());
    assert_eq!(again.finish().await.unwrap().lost, 0);
}
