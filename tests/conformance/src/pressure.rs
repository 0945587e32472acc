//! What is seen under load, in silence, and at ends.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use ringtap::bridge::{BridgeAction, BridgeDirection};
use ringtap::fanout::FanoutMode;
use ringtap::reactor::Reactor;
use ringtap::{AsyncCapture, AsyncInjector, Bridge, Capture, Error, Injector, Packet, time};
use ringtap_lab::{Generator, Traffic, namespace};

use crate::behaviours::{PATIENCE, ring, run};
use crate::{Host, resources};

/// Polls a future so many times at most, with the reactor's turns between, and drops it.
async fn cut_short<F: Future>(future: F, polls: u32) {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await;
}

/// Ten thousand waits that are dropped at whatever point leave nothing behind, and the sockets work.
///
/// # Panics
/// Where that is not so.
pub fn cancels_anywhere_and_leaks_nothing<H: Host>() {
    let Some(net) = namespace() else { return };
    let (veth, other) = (net.veth(), net.veth());
    run::<H, _>(async {
        let options = ring(&veth.right).block_count(8).fanout_auto(FanoutMode::Hash);
        let mut capture = AsyncCapture::new(options.build().unwrap()).unwrap();
        let group = capture.get_ref().fanout_group().unwrap();
        let stop = capture.stop_handle().unwrap();
        let injector = Injector::builder().interface(&veth.left).frame_count(4).build().unwrap();
        let mut tx = AsyncInjector::new(injector).unwrap();
        let mut bridge = Bridge::open_pair(&other.left, &other.right).unwrap();
        let mut generator = Generator::new(&veth.left, &Traffic::default());
        let frame = Traffic::default().frame(0, 0);
        let mut held = None;
        for round in 0..10_000_u32 {
            if round == 200 {
                held = Some(held_now());
            }
            if round % 16 == 0 {
                generator.flood(1);
            }
            let polls = round / 8 % 3;
            match round % 8 {
                0 => cut_short(capture.next_batch(), polls).await,
                1 => cut_short(capture.readable(), polls).await,
                2 => cut_short(tx.send(&frame), polls).await,
                3 => cut_short(tx.flush(), polls).await,
                4 => cut_short(tx.drain(), polls).await,
                5 => cut_short(time::sleep(Duration::from_secs(100)), polls).await,
                6 if round % 64 == 6 => {
                    let forward = |_: &Packet<'_>, _: BridgeDirection| BridgeAction::Forward;
                    cut_short(bridge.run_async(forward), polls).await;
                }
                6 => cut_short(tx.reserve(60), polls).await,
                _ if round % 64 == 7 => {
                    // A member of the group that is closed, or not, and leaves it.
                    let member = ring(&veth.right).block_count(2).fanout(FanoutMode::Hash, group);
                    let member = AsyncCapture::new(member.build().unwrap()).unwrap();
                    cut_short(member.close(), polls).await;
                }
                _ => {
                    let timeout = time::timeout(Duration::from_micros(10), tx.drain());
                    cut_short(timeout, polls).await;
                }
            }
        }
        tx.drain().await.unwrap();
        time::sleep(Duration::from_millis(20)).await; // the kernel lets go of what was cancelled
        let (before, after) = (held.unwrap(), held_now());
        assert_eq!(after.0, before.0, "descriptors");
        assert_eq!(after.1, before.1, "packet sockets");
        assert!(after.2 < before.2 + (8 << 20), "memory: {before:?} → {after:?}");
        // And all of it works.
        while time::timeout(Duration::from_millis(30), capture.next_batch()).await.is_ok() {}
        generator.flood(5);
        let mut seen = 0;
        while seen < 5 {
            let batch = time::timeout(PATIENCE, capture.next_batch()).await.expect("frames");
            seen += batch.unwrap().expect("nobody stops it").len();
        }
        stop.stop();
        while capture.next_batch().await.unwrap().is_some() {}
    });
}

fn held_now() -> (usize, usize, u64) {
    (resources::descriptors(""), resources::packet_sockets(), resources::resident())
}

/// A host that ends with everything still waiting ends all the same, and the sockets are gone.
///
/// # Panics
/// Where that is not so.
pub fn detaches_with_ops_in_flight<H: Host>() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let kept = run::<H, _>(async {
        let mut tx = AsyncInjector::open(&veth.left).unwrap();
        let mut first = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
        let mut second = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
        H::spawn(async move {
            let _ = first.next_batch().await;
        });
        H::spawn(time::sleep(Duration::from_secs(1000)));
        tx.send(&Traffic::default().frame(0, 0)).await.unwrap();
        tx.flush().await.unwrap();
        assert_eq!(second.next_batch().await.unwrap().expect("a batch").len(), 1);
        second
    });
    // A wait that was never submitted, and one that has its time, are not begun any more.
    run::<H, _>(async {
        let mut capture = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
        cut_short(capture.next_batch(), 1).await;
        let mut fresh = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
        let polled = futures_util::FutureExt::now_or_never(fresh.next_batch());
        assert!(polled.is_none());
        H::spawn(async move {
            let _ = (capture.next_batch().await, fresh.next_batch().await);
        });
    });
    // One that outlives its reactor can be had back, and read without.
    let mut capture = kept.into_inner();
    Generator::new(&veth.left, &Traffic::default()).flood(1);
    assert_eq!(capture.next_batch_timeout(PATIENCE).unwrap().expect("a batch").len(), 1);
    drop(capture);
    let start = Instant::now();
    while resources::packet_sockets() > 0 {
        assert!(start.elapsed() < PATIENCE, "sockets stay open");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What handling a packet costs in a flood.
const WORK: Duration = Duration::from_micros(5);

/// How many packets may be handled while the host connects to itself and echoes once, in the middle of 100 times: a thread of
/// the host's that has no core meanwhile says nothing. It looks at its I/O after some 40 of them, and needs several looks.
const BETWEEN: u64 = 2_000;

/// The host's own I/O goes on in a flood, and the flood beside it, also where the ring is large, and slowly emptied.
///
/// # Panics
/// Where that is not so.
pub fn leaves_the_host_its_own_io_in_a_flood<H: Host>() {
    let Some(net) = namespace() else { return };
    net.loopback_up();
    let veth = net.veth();
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, sender) = (Arc::clone(&is_over), veth.left.clone());
    let flooding = std::thread::spawn(move || {
        let mut generator = Generator::new(&sender, &Traffic::default());
        while !over.load(Ordering::Relaxed) {
            generator.flood(100);
        }
    });
    run::<H, _>(async {
        let taken = Rc::new(Cell::new(0_u64));
        let counter = Rc::clone(&taken);
        let capture = Capture::builder().interface(&veth.right).build().unwrap();
        let mut capture = AsyncCapture::new(capture).unwrap();
        H::spawn(async move {
            let work = |_: Packet<'_>| {
                counter.set(counter.get() + 1);
                let since = Instant::now();
                while since.elapsed() < WORK {}
            };
            match capture.for_each_packet(work).await {
                // A host may poll what is left once more at its end.
                Ok(()) | Err(Error::ReactorGone) => {}
                Err(error) => panic!("{error}"),
            }
        });
        let mut between = Vec::new();
        for _ in 0..100 {
            let before = taken.get();
            H::own_io(1).await;
            between.push(taken.get() - before);
            while taken.get() == before {
                time::sleep(Duration::from_millis(1)).await;
            }
        }
        between.sort_unstable();
        let median = between[between.len() / 2];
        assert!(
            median <= BETWEEN,
            "{median} packets were handled while the host did its I/O once: {between:?}"
        );
    });
    is_over.store(true, Ordering::Relaxed);
    flooding.join().unwrap();
}

/// A stop from another thread ends a wait.
///
/// # Panics
/// Where that is not so.
pub fn wakes_from_another_thread<H: Host>() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    run::<H, _>(async {
        for round in 0..50 {
            let mut capture =
                AsyncCapture::new(ring(&veth.right).block_count(2).build().unwrap()).unwrap();
            let stop = capture.stop_handle().unwrap();
            let stopping = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(100 * (round % 5)));
                stop.stop();
            });
            assert!(capture.next_batch().await.unwrap().is_none());
            stopping.join().unwrap();
            capture.close().await;
        }
    });
}

/// Nothing happens where nothing happens.
///
/// # Panics
/// Where that is not so.
pub fn idles_without_turning<H: Host>() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    run::<H, _>(async {
        let mut capture = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
        let mut tx = AsyncInjector::open(&veth.left).unwrap();
        tx.send(&Traffic::default().frame(0, 0)).await.unwrap();
        tx.drain().await.unwrap();
        assert_eq!(capture.next_batch().await.unwrap().expect("a batch").len(), 1);
        let reactor = Reactor::current().unwrap();
        let before = reactor.stats();
        let waited = time::timeout(Duration::from_secs(1), capture.next_batch()).await;
        assert!(waited.is_err());
        let turns = reactor.stats().delta_since(&before);
        assert!(turns.turns < 40 && turns.enters < 40, "{turns:?}");
    });
}
