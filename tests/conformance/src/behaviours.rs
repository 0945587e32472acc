//! What is seen when all goes well.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use ringtap::bridge::{BridgeAction, BridgeDirection};
use ringtap::capture::CaptureBuilder;
use ringtap::reactor::Reactor;
use ringtap::shard::Cores;
use ringtap::{
    AsyncCapture, AsyncInjector, Bridge, Capture, Error, Injector, Packet, Shards, time,
};
use ringtap_lab::{Generator, Pace, Tally, Traffic, namespace};

use crate::Host;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Blocks for all that a test sends, however long the reader is kept from its core.
pub(crate) fn ring(interface: &str) -> CaptureBuilder {
    let ring = Capture::builder().interface(interface).block_size(1 << 16).block_count(512);
    ring.frame_size(2048).block_timeout_ms(5).ignore_outgoing(true)
}

/// Runs a future on a host, to its end in time.
pub(crate) fn run<H: Host, F: Future>(future: F) -> F::Output {
    let host = H::default();
    let ended = host.run(None, async { time::timeout(2 * PATIENCE, future).await });
    ended.expect("the host runs").expect("it ends in time")
}

/// Every frame arrives once, unchanged and in order, in blocks and in frames.
///
/// # Panics
/// Where that is not so.
pub fn captures_every_frame_once_in_order<H: Host>() {
    const COUNT: u64 = 20_000;
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    for layout in [ringtap::capture::RingLayout::Blocks, ringtap::capture::RingLayout::Frames] {
        let traffic = Traffic { flows: 8, ..Traffic::default() };
        let (sender, plan) = (veth.left.clone(), traffic.clone());
        let pace = Pace::default();
        let counter = pace.clone();
        let tally = run::<H, _>(async {
            let mut capture =
                AsyncCapture::new(ring(&veth.right).layout(layout).build().unwrap()).unwrap();
            let stop = capture.stop_handle().unwrap();
            let sending = std::thread::spawn(move || {
                Generator::new(&sender, &plan).in_step(COUNT, &pace);
                stop.stop();
            });
            let mut tally = Tally::new(&traffic, COUNT);
            while let Some(batch) = capture.next().await {
                let batch = batch.unwrap();
                batch.iter().for_each(|packet| tally.record(packet.data()));
                counter.count(batch.len());
            }
            let stats = capture.stats().unwrap();
            assert_eq!((stats.delivered, stats.drops), (COUNT, 0), "{stats:?}");
            capture.close().await;
            sending.join().unwrap();
            tally
        });
        tally.assert_complete();
    }
}

/// A flood on one capture does not keep others of the thread from theirs.
///
/// # Panics
/// Where that is not so.
pub fn serves_several_captures_fairly<H: Host>() {
    let Some(net) = namespace() else { return };
    let (loud, quiet) = (net.veth(), net.veth());
    let is_over = Arc::new(AtomicU64::new(0));
    let (sender, over) = (loud.left.clone(), Arc::clone(&is_over));
    let flooding = std::thread::spawn(move || {
        let mut generator = Generator::new(&sender, &Traffic::default());
        while over.load(Ordering::Relaxed) == 0 {
            generator.flood(200);
        }
    });
    run::<H, _>(async {
        let mut flood = AsyncCapture::new(ring(&loud.right).build().unwrap()).unwrap();
        let mut trickle = AsyncCapture::new(ring(&quiet.right).build().unwrap()).unwrap();
        let taken = Rc::new(Cell::new(0_u64));
        let counter = Rc::clone(&taken);
        H::spawn(async move {
            while let Ok(Some(batch)) = flood.next_batch().await {
                counter.set(counter.get() + batch.len() as u64);
            }
        });
        let mut generator = Generator::new(&quiet.left, &Traffic::default());
        for _ in 0..50 {
            generator.flood(1);
            let batch = time::timeout(PATIENCE, trickle.next_batch()).await;
            assert_eq!(batch.expect("not starved").unwrap().expect("a batch").len(), 1);
        }
        while taken.get() == 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
        is_over.store(1, Ordering::Relaxed);
    });
    flooding.join().unwrap();
}

/// More frames than the ring holds are all sent, in order, through `send`, slots and `Sink`.
///
/// # Panics
/// Where that is not so.
pub fn injects_with_backpressure<H: Host>() {
    const COUNT: u64 = 6_000;
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    run::<H, _>(async {
        let mut capture = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
        let seen = Rc::new(RefCell::new(Tally::new(&traffic, COUNT)));
        let tally = Rc::clone(&seen);
        H::spawn(async move {
            while let Ok(Some(batch)) = capture.next_batch().await {
                let mut tally = tally.borrow_mut();
                batch.iter().for_each(|packet| tally.record(packet.data()));
            }
        });
        let injector = Injector::builder().interface(&veth.left).frame_count(64).build().unwrap();
        let mut tx = AsyncInjector::new(injector).unwrap();
        for number in 0..COUNT {
            let frame = traffic.frame(number, 0);
            match number % 3 {
                0 => tx.send(&frame).await.unwrap(),
                1 => {
                    let mut slot = tx.reserve(frame.len()).await.unwrap();
                    slot.data_mut().copy_from_slice(&frame);
                    slot.send().unwrap();
                }
                _ => SinkExt::feed(&mut tx, frame).await.unwrap(),
            }
        }
        tx.drain().await.unwrap();
        while seen.borrow().received() < COUNT {
            time::sleep(Duration::from_millis(1)).await;
        }
        seen.borrow().assert_complete();
    });
}

/// A bridge forwards both ways beside other tasks.
///
/// # Panics
/// Where that is not so.
pub fn bridges_both_directions<H: Host>() {
    const COUNT: u64 = 2_000;
    let Some(net) = namespace() else { return };
    let (near, far) = (net.veth(), net.veth());
    let traffic = Traffic::default();
    run::<H, _>(async {
        let mut bridge = Bridge::open_pair(&near.right, &far.left).unwrap();
        let (stop, stats) = (bridge.stop_handle(), bridge.stats_handle());
        let ended = Rc::new(Cell::new(false));
        let has_ended = Rc::clone(&ended);
        H::spawn(async move {
            let forward = |_: &Packet<'_>, _: BridgeDirection| BridgeAction::Forward;
            bridge.run_async(forward).await.unwrap();
            has_ended.set(true);
        });
        let open = |end: &str| AsyncCapture::new(ring(end).build().unwrap()).unwrap();
        let mut ends = [open(&far.right), open(&near.left)];
        let mut senders = [&near.left, &far.right].map(|end| Generator::new(end, &traffic));
        let mut tallies = [0, 1].map(|_| Tally::new(&traffic, COUNT));
        while tallies.iter().any(|tally| tally.received() < COUNT) {
            for ((end, tally), sender) in ends.iter_mut().zip(&mut tallies).zip(&mut senders) {
                if sender.sent() < COUNT && sender.sent() < tally.received() + 200 {
                    sender.flood(100);
                }
                let waited = time::timeout(Duration::from_millis(20), end.next_batch()).await;
                if let Ok(batch) = waited {
                    let batch = batch.unwrap().expect("nobody stops it");
                    batch.iter().for_each(|packet| tally.record(packet.data()));
                }
            }
        }
        tallies.iter().for_each(Tally::assert_complete);
        let stats = stats.stats().unwrap();
        assert_eq!((stats.a_to_b.forwarded, stats.b_to_a.forwarded), (COUNT, COUNT), "{stats:?}");
        stop.stop();
        while !ended.get() {
            time::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// Sleeps, timeouts and intervals end in the order of their times, and not before.
///
/// # Panics
/// Where that is not so.
pub fn keeps_time<H: Host>() {
    run::<H, _>(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let start = Instant::now();
        // Far enough apart for a host that is slow to begin with the last one.
        for ms in [400_u64, 100, 300, 200] {
            let order = Rc::clone(&order);
            H::spawn(async move {
                time::sleep(Duration::from_millis(ms)).await;
                assert!(start.elapsed() >= Duration::from_millis(ms));
                order.borrow_mut().push(ms);
            });
        }
        let mut ticks = time::interval(Duration::from_millis(5));
        let mut last = start;
        for _ in 0..12 {
            let tick = ticks.tick().await;
            assert!(tick > last && tick <= Instant::now());
            last = tick;
        }
        while order.borrow().len() < 4 {
            time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(*order.borrow(), [100, 200, 300, 400]);
        let never = time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
        assert!(never.is_err());
    });
}

/// A second reactor on a thread is refused, and the first goes on.
///
/// # Panics
/// Where that is not so.
pub fn attaches_once<H: Host>() {
    run::<H, _>(async {
        let backend = Reactor::current().unwrap().backend().unwrap();
        if let Some(error) = H::attach_again() {
            assert!(matches!(error, Error::AlreadyAttached), "{error:?}");
        }
        time::sleep(Duration::from_millis(1)).await;
        assert_eq!(Reactor::current().unwrap().backend().unwrap(), backend);
    });
    assert!(Reactor::current().is_err(), "it ends with its host");
    assert!(matches!(
        Injector::open("nowhere0"),
        Err(Error::NoSuchInterface { .. } | Error::Os { .. })
    ));
}

/// Shards share the frames among them, and stopping drains them.
///
/// # Panics
/// Where that is not so.
pub fn runs_shards_that_stop_and_drain<H: Host>() {
    const COUNT: u64 = 10_000;
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 32, both_directions: true, ..Traffic::default() };
    let pace = Pace::default();
    let counter = pace.clone();
    let seen = Arc::new(std::sync::Mutex::new(Tally::new(&traffic, COUNT)));
    let (all, plan) = (Arc::clone(&seen), traffic.clone());
    let shards = Shards::builder()
        .capture(ring(&veth.right))
        .cores(Cores::Unpinned)
        .shards(2)
        .runtime(H::default())
        .spawn(move |mut shard| {
            let (all, mut tally) = (Arc::clone(&all), Tally::new(&plan, COUNT));
            let counter = counter.clone();
            async move {
                while let Some(batch) = shard.capture.next().await {
                    let batch = batch?;
                    batch.iter().for_each(|packet| tally.record(packet.data()));
                    counter.count(batch.len());
                }
                all.lock().unwrap().merge(&tally);
                Ok(())
            }
        })
        .unwrap();
    Generator::new(&veth.left, &traffic).in_step(COUNT, &pace);
    shards.stop();
    let total = shards.join().unwrap().total();
    assert_eq!((total.packets, total.delivered, total.drops), (COUNT, COUNT, 0), "{total:?}");
    seen.lock().unwrap().assert_complete();
}

/// A shard that panics is named with its message, and the others stop.
///
/// # Panics
/// Where that is not so.
pub fn names_a_shard_that_panics<H: Host>() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let shards = Shards::builder()
        .capture(ring(&veth.right))
        .cores(Cores::Unpinned)
        .shards(2)
        .runtime(H::default())
        .spawn(|mut shard| async move {
            assert!(shard.index() != 1, "deliberate panic");
            while shard.capture.next_batch().await?.is_some() {}
            Ok(())
        })
        .unwrap();
    let report = shards.join_each().unwrap();
    assert!(report.outcomes[0].is_ok(), "{report:?}");
    let Err(Error::ShardPanicked { index: 1, .. }) = report.outcomes[1] else {
        panic!("{report:?}");
    };
}
