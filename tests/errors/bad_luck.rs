//! Bad input and bad luck: typed errors that name the step and the remedy, and no hang.

use std::time::{Duration, Instant};

use ringtap::capture::CaptureBuilder;
use ringtap::error::{GeometryError, Step};
use ringtap::fanout::{FanoutFlags, FanoutMode};
use ringtap::{AsyncCapture, Capture, Error, PacketBatch, Shards, executor, time};
use ringtap_lab::{Generator, Tally, Traffic, child as process, limits, link, namespace};

const PATIENCE: Duration = Duration::from_secs(60);

fn small(interface: &str) -> CaptureBuilder {
    Capture::builder().interface(interface).block_size(1 << 16).block_count(64).block_timeout_ms(5)
}

/// Batches of `count` packets in all.
fn read(capture: &mut Capture, count: usize) -> Vec<PacketBatch> {
    let mut batches = Vec::new();
    while batches.iter().map(PacketBatch::len).sum::<usize>() < count {
        batches.push(capture.next_batch_timeout(PATIENCE).unwrap().expect("frames come"));
    }
    batches
}

#[ringtap_lab::test]
fn an_unknown_interface_is_named() {
    let Some(_net) = namespace() else { return };
    for name in ["nowhere0", "", "a-name-longer-than-fifteen-bytes", "a/b"] {
        let error = Capture::open(name).unwrap_err();
        assert!(
            matches!(&error, Error::NoSuchInterface { name: named } if named == name),
            "{error}"
        );
    }
    assert!(matches!(Capture::builder().build(), Err(Error::InterfaceMissing)));
    assert!(matches!(
        ringtap::interface::interface_info("nowhere0"),
        Err(Error::NoSuchInterface { .. })
    ));
}

#[ringtap_lab::test]
fn illegal_sizes_never_reach_the_kernel() {
    let Some(_net) = namespace() else { return };
    let error = small("lo").block_size(5000).build().unwrap_err();
    assert!(matches!(error, Error::Geometry(GeometryError::BlockNotPageAligned { .. })));
    assert!(error.to_string().contains("round it up to 8192"), "{error}");
    let error = small("lo").snap_len(0).build().unwrap_err();
    assert!(matches!(error, Error::Geometry(GeometryError::NoSnapLen)));
    let error = small("lo").block_count(1 << 30).build().unwrap_err();
    assert!(matches!(error, Error::Geometry(GeometryError::TooLarge { .. })));
}

#[ringtap_lab::test]
fn sizes_at_the_edge_of_what_is_legal_are_taken_by_the_kernel() {
    let Some(_net) = namespace() else { return };
    for (block, count, frame) in
        [(4096, 1, 80), (4096, 3, 4096), (12_288, 2, 2048), (1 << 16, 1, 96)]
    {
        small("lo").block_size(block).block_count(count).frame_size(frame).build().unwrap();
    }
}

#[ringtap_lab::test]
fn a_ring_that_does_not_fit_says_how_much_was_asked() {
    let Some(_net) = namespace() else { return };
    // Address space is what a process can be made short of; memory is everybody's.
    process::run(module_path!(), "a_ring_in_little_address_space", "");
}

#[ringtap_lab::test]
fn without_the_capability_the_remedy_is_named() {
    let Some(_net) = namespace() else { return };
    process::run(module_path!(), "a_capture_without_capabilities", "");
}

#[ringtap_lab::test]
fn a_fanout_group_refuses_other_modes_and_flags_and_says_why() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let first = small(&veth.right).fanout(FanoutMode::Hash, 5).build().unwrap();
    assert_eq!(first.fanout_group(), Some(5));
    let others = [
        small(&veth.right).fanout(FanoutMode::LoadBalance, 5),
        small(&veth.right).fanout(FanoutMode::Hash, 5).fanout_flags(FanoutFlags::DEFRAG),
        small(&veth.left).fanout(FanoutMode::Hash, 5),
    ];
    for other in others {
        let error = other.build().unwrap_err();
        assert!(matches!(error, Error::Fanout { group: Some(5), .. }), "{error:?}");
        assert!(error.to_string().contains("must all ask for the same"), "{error}");
    }
    small(&veth.right).fanout(FanoutMode::Hash, 5).build().unwrap();
}

#[ringtap_lab::test]
fn groups_of_the_kernels_choice_differ() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let open = || small(&veth.right).fanout_auto(FanoutMode::Hash).build().unwrap();
    let (one, other) = (open(), open());
    assert_ne!(one.fanout_group().unwrap(), other.fanout_group().unwrap());
    let joined = small(&veth.right).fanout(FanoutMode::Hash, one.fanout_group().unwrap());
    assert_eq!(joined.build().unwrap().fanout_group(), one.fanout_group());
}

#[ringtap_lab::test]
fn a_down_interface_can_be_opened_and_captures_once_it_is_up() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    veth.down();
    let mut capture = small(&veth.right).build().unwrap();
    assert!(capture.next_batch_timeout(Duration::from_millis(300)).unwrap().is_none());
    veth.up();
    Generator::new(&veth.left, &Traffic::default()).flood(5);
    read(&mut capture, 5);
    veth.down();
    match small(&veth.right).fanout(FanoutMode::Hash, 1).build() {
        Err(error) => assert!(error.to_string().contains("interface is down"), "{error}"),
        Ok(mut member) => {
            veth.up();
            Generator::new(&veth.left, &Traffic::default()).flood(5);
            read(&mut member, 5);
        }
    }
}

#[ringtap_lab::test]
fn down_and_up_again_goes_on_with_the_same_socket() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let mut generator = Generator::new(&veth.left, &traffic);
    let mut capture = small(&veth.right).build().unwrap();
    let mut tally = Tally::new(&traffic, 30);
    for _ in 0..3 {
        generator.flood(10);
        for batch in read(&mut capture, 10) {
            batch.iter().for_each(|packet| tally.record(packet.data()));
        }
        veth.down();
        assert!(capture.next_batch_timeout(Duration::from_millis(250)).unwrap().is_none());
        veth.up();
    }
    tally.assert_complete();
}

#[ringtap_lab::test]
fn down_and_up_again_goes_on_with_the_same_async_socket() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let mut generator = Generator::new(&veth.left, &traffic);
    executor::block_on(async {
        let mut capture = AsyncCapture::new(small(&veth.right).build().unwrap()).unwrap();
        for _ in 0..3 {
            generator.flood(10);
            let mut received = 0;
            while received < 10 {
                let batch = time::timeout(PATIENCE, capture.next_batch()).await;
                received += batch.expect("frames come").unwrap().unwrap().len();
            }
            veth.down();
            let quiet = time::timeout(Duration::from_millis(250), capture.next_batch()).await;
            assert!(quiet.is_err(), "a down interface is quiet, not an error: {quiet:?}");
            veth.up();
        }
    });
}

#[ringtap_lab::test]
fn a_removed_interface_delivers_its_last_packets_and_then_is_an_error() {
    for was_down in [false, true] {
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        let mut capture = small(&veth.right).build().unwrap();
        Generator::new(&veth.left, &Traffic::default()).flood(7);
        if was_down {
            veth.down();
        }
        veth.delete();
        let mut batches = capture.batches();
        let mut delivered = 0;
        let error = loop {
            match batches.next().expect("an error ends it") {
                Ok(batch) => delivered += batch.len(),
                Err(error) => break error,
            }
        };
        assert!(batches.next().is_none());
        assert_eq!(delivered, 7);
        assert!(matches!(&error, Error::InterfaceGone { name } if *name == veth.right), "{error}");
    }
}

#[ringtap_lab::test]
fn removal_ends_a_wait_that_is_under_way_blocking_and_async() {
    for was_down in [false, true] {
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        if was_down {
            veth.down();
        }
        let mut blocking = small(&veth.right).build().unwrap();
        let waiting = std::thread::spawn(move || blocking.next_batch_timeout(PATIENCE));
        let builder = small(&veth.right);
        let polling = std::thread::spawn(move || {
            executor::block_on(async {
                let mut capture = AsyncCapture::new(builder.build()?)?;
                let waited = time::timeout(PATIENCE, capture.next_batch()).await;
                assert!(capture.next_batch().await.unwrap().is_none(), "over");
                waited.expect("removal is noticed")
            })
        });
        std::thread::sleep(Duration::from_millis(150));
        veth.delete();
        for waited in [waiting.join().unwrap(), polling.join().unwrap()] {
            assert!(matches!(waited, Err(Error::InterfaceGone { .. })), "{waited:?}");
        }
    }
}

#[ringtap_lab::test]
fn removal_is_noticed_while_the_newest_batch_is_held_and_after() {
    for is_held in [true, false] {
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        let mut capture = small(&veth.right).build().unwrap();
        Generator::new(&veth.left, &Traffic::default()).flood(1);
        let held = read(&mut capture, 1);
        assert!(capture.next_batch_timeout(Duration::from_millis(50)).unwrap().is_none());
        let _held = is_held.then_some(held);
        let waiting = std::thread::spawn(move || capture.next_batch_timeout(PATIENCE));
        std::thread::sleep(Duration::from_millis(50));
        veth.delete();
        let waited = waiting.join().unwrap();
        assert!(matches!(waited, Err(Error::InterfaceGone { .. })), "{waited:?}");
    }
}

#[ringtap_lab::test]
fn even_a_wait_of_no_time_notices_removal() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = small(&veth.right).build().unwrap();
    veth.delete();
    let start = Instant::now();
    loop {
        match capture.next_batch_timeout(Duration::ZERO) {
            Ok(None) => assert!(start.elapsed() < PATIENCE, "it is never noticed"),
            Err(Error::InterfaceGone { .. }) => break,
            other => panic!("{other:?}"),
        }
    }
}

#[ringtap_lab::test]
fn shards_whose_interface_is_removed_end_with_that_error() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let shards =
        Shards::builder().capture(small(&veth.right)).shards(2).spawn(|mut shard| async move {
            while shard.capture.next_batch().await?.is_some() {}
            Ok(())
        });
    let shards = shards.unwrap();
    Generator::new(&veth.left, &Traffic { flows: 16, ..Traffic::default() }).flood(100);
    veth.delete();
    let report = shards.join_each().unwrap();
    assert_eq!(report.stats.total().delivered, 100);
    for (index, outcome) in report.outcomes.iter().enumerate() {
        // The first that notices stops the other, which then has nothing left to notice.
        if let Err(error) = outcome {
            assert!(error.to_string().starts_with(&format!("shard {index}: interface")), "{error}");
        }
    }
    assert!(report.outcomes.iter().any(Result::is_err));
}

#[ringtap_lab::test]
fn a_wait_on_a_down_interface_does_not_spin() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = small(&veth.right).build().unwrap();
    veth.down();
    let before = cpu_time();
    assert!(capture.next_batch_timeout(Duration::from_secs(1)).unwrap().is_none());
    // Ten looks a second cost microseconds; a spin would cost the whole second.
    assert!(cpu_time() - before < Duration::from_millis(300));
}

#[ringtap_lab::test]
fn holding_the_newest_batch_does_not_make_the_wait_spin() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = small(&veth.right).build().unwrap();
    Generator::new(&veth.left, &Traffic::default()).flood(1);
    let _held = capture.next_batch_timeout(PATIENCE).unwrap().unwrap();
    let before = cpu_time();
    assert!(capture.next_batch_timeout(Duration::from_secs(1)).unwrap().is_none());
    assert!(cpu_time() - before < Duration::from_millis(300));
}

/// What runs in a process of its own; as ordinary tests these do nothing.
mod child {
    use super::*;

    #[ringtap_lab::test]
    fn a_ring_in_little_address_space() {
        if process::value().is_none() {
            return;
        }
        let _net = ringtap_lab::Namespace::enter().unwrap();
        limits::set(libc::RLIMIT_AS, 512 << 20);
        let error = Capture::builder().interface("lo").block_count(1024).build().unwrap_err();
        let Error::RingTooLarge { bytes, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*bytes, 1 << 30);
        assert!(error.to_string().contains("1073741824 bytes"), "{error}");
        small("lo").build().expect("a smaller one fits");
    }

    #[ringtap_lab::test]
    fn a_capture_without_capabilities() {
        if process::value().is_none() {
            return;
        }
        let _net = ringtap_lab::Namespace::enter().unwrap();
        limits::keep_capabilities(0);
        let error = Capture::open("lo").unwrap_err();
        assert!(matches!(error, Error::Os { step: Step::OpenSocket, .. }), "{error:?}");
        assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
        assert!(error.to_string().contains("setcap cap_net_raw+ep"), "{error}");
    }
}

fn cpu_time() -> Duration {
    // SAFETY: a C struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is writable.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Duration::from_micros(micros(usage.ru_utime) + micros(usage.ru_stime))
}

#[ringtap_lab::test]
fn link_statistics_are_the_labs_witness() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    Generator::new(&veth.left, &Traffic::default()).flood(100);
    assert_eq!(link::stats(&veth.left).unwrap().sent, 100);
    assert_eq!(link::stats(&veth.right).unwrap().received, 100);
}
