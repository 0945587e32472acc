//! Async capture on the built-in executor: streams, cancellation, close, several sockets a thread.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringtap::capture::CaptureBuilder;
use ringtap::executor::{block_on, spawn_local};
use ringtap::fanout::FanoutMode;
use ringtap::reactor::{Coalesce, Reactor};
use ringtap::{AsyncCapture, Capture, Error, time};
use ringtap_lab::{Generator, Pace, Tally, Traffic, namespace};

const PATIENCE: Duration = Duration::from_secs(60);

/// Blocks for all that a test sends, however long the reader is kept from its core: each burst takes
/// one at least, since its time runs out.
fn ring(interface: &str) -> CaptureBuilder {
    Capture::builder()
        .interface(interface)
        .block_size(1 << 17)
        .block_count(256)
        .block_timeout_ms(5)
        .frame_size(2048)
}

fn open(interface: &str) -> AsyncCapture {
    AsyncCapture::new(ring(interface).build().unwrap()).unwrap()
}

/// Receives `count` packets, in however many batches.
async fn receive(capture: &mut AsyncCapture, count: usize) {
    let mut received = 0;
    while received < count {
        let batch = time::timeout(PATIENCE, capture.next_batch()).await.expect("frames come");
        received += batch.unwrap().unwrap().len();
    }
    assert_eq!(received, count);
}

/// Sends from a thread of its own, no faster than the test receives.
fn send(
    interface: &str,
    traffic: &Traffic,
    count: u64,
    pace: &Pace,
) -> std::thread::JoinHandle<()> {
    let (interface, traffic, pace) = (interface.to_owned(), traffic.clone(), pace.clone());
    std::thread::spawn(move || Generator::new(&interface, &traffic).in_step(count, &pace))
}

#[ringtap_lab::test]
fn a_stream_of_batches_is_every_frame_once_in_order() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 9, len: 300, ..Traffic::default() };
    let mut tally = Tally::new(&traffic, 30_000);
    block_on(async {
        let mut capture = open(&veth.right);
        let pace = Pace::default();
        let sender = send(&veth.left, &traffic, 30_000, &pace);
        while tally.received() < 30_000 {
            let batch = time::timeout(PATIENCE, capture.next()).await.expect("frames come");
            let batch = batch.unwrap().unwrap();
            batch.iter().for_each(|packet| tally.record(packet.data()));
            pace.count(batch.len());
        }
        sender.join().unwrap();
        assert_eq!(capture.stats().unwrap().delivered, 30_000);
    });
    tally.assert_complete();
}

#[ringtap_lab::test]
fn a_moderated_reactor_delivers_the_same_and_its_timers_are_not_late_nor_early() {
    let microseconds = Duration::from_micros;
    for coalesce in [
        Coalesce::Fixed(microseconds(200)),
        Coalesce::Adaptive { max: microseconds(200) },
        Coalesce::Fixed(Duration::from_nanos(500)),
        Coalesce::Fixed(Duration::from_secs(3600)), // bounded by timers alone
    ] {
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        let traffic = Traffic { flows: 9, ..Traffic::default() };
        let mut tally = Tally::new(&traffic, 20_000);
        let options = ringtap::reactor::ReactorOptions::new().coalesce(coalesce);
        ringtap::executor::Executor::new(options).unwrap().block_on(async {
            let frames = ring(&veth.right).layout(ringtap::capture::RingLayout::Frames);
            let mut capture = AsyncCapture::new(frames.build().unwrap()).unwrap();
            let ticking = spawn_local(async {
                let mut ticks = time::interval(Duration::from_millis(1));
                loop {
                    assert!(ticks.tick().await <= Instant::now());
                }
            });
            let pace = Pace::default();
            let sender = send(&veth.left, &traffic, 20_000, &pace);
            while tally.received() < 20_000 {
                let batch = time::timeout(PATIENCE, capture.next_batch()).await;
                let batch = batch.expect("frames come").unwrap().unwrap();
                batch.iter().for_each(|packet| tally.record(packet.data()));
                pace.count(batch.len());
            }
            sender.join().unwrap();
            drop(ticking);
        });
        tally.assert_complete();
    }
}

#[ringtap_lab::test]
fn timers_near_and_far_end_while_packets_never_stop() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let (over, left) = (Arc::new(AtomicBool::new(false)), veth.left.clone());
    let ended = Arc::clone(&over);
    let sending = std::thread::spawn(move || {
        let mut generator = Generator::new(&left, &Traffic::default());
        while !ended.load(Ordering::Relaxed) {
            generator.flood(20);
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    let start = Instant::now();
    block_on(async {
        let frames = ring(&veth.right).layout(ringtap::capture::RingLayout::Frames);
        let mut capture = AsyncCapture::new(frames.build().unwrap()).unwrap();
        let timers = [1, 3, 80, 40].map(|millis| {
            spawn_local(async move {
                time::sleep(Duration::from_millis(millis)).await;
                assert!(start.elapsed() >= Duration::from_millis(millis));
            })
        });
        let mut packets = 0;
        while packets == 0 || timers.iter().any(|timer| !timer.is_finished()) {
            assert!(start.elapsed() < PATIENCE, "a timer is lost");
            packets += capture.next_batch().await.unwrap().unwrap().len();
            // One that is always taken back, and would end a sleep for nothing.
            let _ = time::timeout(Duration::from_millis(15), std::future::ready(())).await;
        }
    });
    over.store(true, Ordering::Relaxed);
    sending.join().unwrap();
}

#[ringtap_lab::test]
fn a_wait_dropped_at_every_poll_loses_nothing() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 3, ..Traffic::default() };
    let mut tally = Tally::new(&traffic, 5_000);
    block_on(async {
        let mut capture = open(&veth.right);
        let pace = Pace::default();
        let sender = send(&veth.left, &traffic, 5_000, &pace);
        let mut dropped = 0;
        while tally.received() < 5_000 {
            // Polled once with the task's waker, and dropped if it was not ready.
            let polled =
                std::future::poll_fn(|cx| Poll::Ready(pin!(capture.next_batch()).poll(cx)));
            match polled.await {
                Poll::Ready(batch) => {
                    let batch = batch.unwrap().unwrap();
                    batch.iter().for_each(|packet| tally.record(packet.data()));
                    pace.count(batch.len());
                }
                Poll::Pending => {
                    dropped += 1;
                    let readable = time::timeout(PATIENCE, capture.readable()).await;
                    readable.expect("frames come").unwrap();
                }
            }
        }
        assert!(dropped > 0, "some waits were dropped");
        sender.join().unwrap();
    });
    tally.assert_complete();
}

#[ringtap_lab::test]
fn readable_takes_nothing() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    block_on(async {
        let mut capture = open(&veth.right);
        Generator::new(&veth.left, &Traffic::default()).flood(3);
        for _ in 0..3 {
            capture.readable().await.unwrap();
        }
        assert_eq!(capture.stats().unwrap().delivered, 0);
        receive(&mut capture, 3).await;
    });
}

#[ringtap_lab::test]
fn readable_waits_until_there_is_a_batch() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    block_on(async {
        let mut capture = open(&veth.right);
        let mut generator = Generator::new(&veth.left, &Traffic::default());
        generator.flood(1);
        receive(&mut capture, 1).await;
        for _ in 0..2 {
            // Neither a stale readiness nor a link that is down is a batch.
            let waited = time::timeout(Duration::from_millis(250), capture.readable()).await;
            assert!(waited.is_err());
            veth.down();
        }
        veth.up();
        generator.flood(1);
        time::timeout(PATIENCE, capture.readable()).await.expect("a batch").unwrap();
        receive(&mut capture, 1).await;
    });
}

#[ringtap_lab::test]
fn several_captures_on_one_thread_all_progress_side_by_side() {
    let Some(net) = namespace() else { return };
    let pairs = [(); 3].map(|()| (net.veth(), Pace::default()));
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    block_on(async {
        let mut stats = Vec::new();
        let tasks: Vec<_> = pairs
            .iter()
            .map(|(veth, pace)| {
                let (mut capture, pace) = (open(&veth.right), pace.clone());
                let mut tally = Tally::new(&traffic, 20_000);
                stats.push(capture.stats_handle());
                spawn_local(async move {
                    while tally.received() < 20_000 {
                        let batch = capture.next_batch().await.unwrap().unwrap();
                        batch.iter().for_each(|packet| tally.record(packet.data()));
                        pace.count(batch.len());
                    }
                    tally
                })
            })
            .collect();
        let mut ticks = time::interval(Duration::from_millis(1));
        let ticking = spawn_local(async move {
            let mut seen = 0_u64;
            loop {
                ticks.tick().await;
                seen += 1;
                if seen == 20 {
                    return seen;
                }
            }
        });
        let sending = pairs.iter().map(|(veth, pace)| send(&veth.left, &traffic, 20_000, pace));
        let senders: Vec<_> = sending.collect();
        for ((task, (veth, _)), stats) in tasks.into_iter().zip(&pairs).zip(&stats) {
            match time::timeout(PATIENCE, task).await {
                Ok(tally) => tally.unwrap().assert_complete(),
                Err(_) => panic!("stuck: {:?}, lost before: {}", stats.stats(), veth.lost()),
            }
        }
        assert_eq!(ticking.await.unwrap(), 20);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[ringtap_lab::test]
fn closing_leaves_the_fanout_group_and_so_does_the_end_of_the_executor() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 64, ..Traffic::default() };
    let mut generator = Generator::new(&veth.left, &traffic);
    let member = || ring(&veth.right).fanout(FanoutMode::Hash, 3).build().unwrap();
    let witness = member();
    let mut all_go_to_the_witness = || {
        let before = witness.stats().unwrap().packets;
        generator.flood(64);
        witness.stats().unwrap().packets - before == 64
    };
    block_on(async {
        let mut capture = AsyncCapture::new(member()).unwrap();
        let waited = time::timeout(Duration::from_millis(5), capture.next_batch()).await;
        assert!(waited.is_err(), "the poll is armed");
        assert!(!all_go_to_the_witness(), "two share the packets");
        capture.close().await;
        assert!(all_go_to_the_witness(), "closed means gone from the group");

        let mut capture = AsyncCapture::new(member()).unwrap();
        let _ = time::timeout(Duration::from_millis(5), capture.next_batch()).await;
        drop(capture);
        time::sleep(Duration::from_millis(5)).await;
        assert!(all_go_to_the_witness(), "dropped means gone after a turn");
    });
    // A close that is dropped before it is ready closes all the same.
    block_on(async {
        let mut capture = AsyncCapture::new(member()).unwrap();
        let _ = time::timeout(Duration::from_millis(5), capture.next_batch()).await;
        assert!(!all_go_to_the_witness());
        {
            let mut close = pin!(capture.close());
            assert!(close.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        time::sleep(Duration::from_millis(5)).await;
        assert!(all_go_to_the_witness());
    });
    // The reactor ends with a poll in flight, and a task that owns its socket.
    block_on(async {
        let mut capture = AsyncCapture::new(member()).unwrap();
        spawn_local(async move {
            let _ = capture.next_batch().await;
        })
        .detach();
        time::sleep(Duration::from_millis(5)).await;
        assert!(!all_go_to_the_witness());
    });
    assert!(all_go_to_the_witness(), "the end of the executor lets go of its sockets");
    drop(witness);
    // The id is free: another mode may have it.
    ring(&veth.right).fanout(FanoutMode::LoadBalance, 3).build().unwrap();
}

#[ringtap_lab::test]
fn a_socket_taken_back_works_elsewhere() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    let capture = block_on(async {
        let mut capture = open(&veth.right);
        generator.flood(1);
        receive(&mut capture, 1).await;
        capture.into_inner()
    });
    generator.flood(1);
    let capture = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            block_on(async {
                let mut capture = AsyncCapture::new(capture).unwrap();
                receive(&mut capture, 1).await;
                capture.into_inner()
            })
        });
        thread.join().unwrap()
    });
    assert_eq!(capture.stats().unwrap().delivered, 2);
}

#[ringtap_lab::test]
fn a_socket_whose_reactor_has_ended_says_so() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = block_on(async { open(&veth.right) });
    let error = block_on(capture.next_batch()).unwrap_err();
    assert!(matches!(error, Error::ReactorGone), "{error:?}");
    let capture = capture.into_inner();
    let error = AsyncCapture::new(capture).unwrap_err();
    assert!(matches!(error, Error::NoReactor), "{error:?}");
    assert!(error.to_string().contains("block_on"));
}

#[ringtap_lab::test]
fn stopping_from_another_thread_drains_and_ends_the_stream() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let mut tally = Tally::new(&traffic, 1_000);
    block_on(async {
        let mut capture =
            AsyncCapture::new(ring(&veth.right).block_timeout_ms(100).build().unwrap()).unwrap();
        let stop = capture.stop_handle().unwrap();
        Generator::new(&veth.left, &traffic).flood(1_000);
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            stop.stop();
        });
        let drained = time::timeout(PATIENCE, async {
            while let Some(batch) = capture.next().await {
                batch.unwrap().iter().for_each(|packet| tally.record(packet.data()));
            }
        });
        drained.await.expect("it ends");
        stopper.join().unwrap();
        assert_eq!(capture.stats().unwrap().pending(), 0);
    });
    tally.assert_complete();
}

#[ringtap_lab::test]
fn the_op_slab_is_bounded_and_full_is_an_error() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let options = ringtap::reactor::ReactorOptions::new().max_ops(2);
    ringtap::executor::Executor::new(options).unwrap().block_on(async {
        let kept = [open(&veth.right), open(&veth.right)];
        let third = ring(&veth.right).build().unwrap();
        let error = AsyncCapture::new(third).unwrap_err();
        assert!(matches!(error, Error::TooManyOps { limit: 2 }), "{error:?}");
        drop(kept);
        drop(open(&veth.right));
    });
}

#[ringtap_lab::test]
fn sockets_made_waited_on_and_dropped_ten_thousand_times_leave_no_op_and_no_descriptor() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut capture = Some(ring(&veth.right).build().unwrap());
    block_on(async {
        let mut before = 0;
        for round in 0..10_000 {
            let mut registered = AsyncCapture::new(capture.take().unwrap()).unwrap();
            {
                let mut wait = pin!(registered.next_batch());
                let _ = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                if round % 3 == 0 {
                    Reactor::current().unwrap().turn();
                }
            }
            capture = Some(registered.into_inner());
            if round % 3 == 1 {
                Reactor::current().unwrap().turn();
            }
            if round == 100 {
                before = descriptors();
            }
        }
        // 256 op slots for ten thousand registrations: each was given back.
        assert!(descriptors() <= before + 200, "other tests' descriptors aside");
    });
}

#[ringtap_lab::test]
fn an_idle_executor_makes_no_system_calls_but_one() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    block_on(async {
        let mut capture = open(&veth.right);
        let _ = time::timeout(Duration::from_millis(10), capture.next_batch()).await;
        let reactor = Reactor::current().unwrap();
        let before = reactor.stats();
        let _ = time::timeout(Duration::from_millis(500), capture.next_batch()).await;
        let during = reactor.stats().delta_since(&before);
        assert!(during.enters <= 3, "one park for half a second: {during:?}");
    });
}

#[ringtap_lab::test]
fn a_forked_child_cannot_use_its_parents_reactor_and_does_not_harm_it() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    block_on(async {
        let mut capture = open(&veth.right);
        let _ = time::timeout(Duration::from_millis(5), capture.next_batch()).await;
        // SAFETY: the child touches only what a child may, and leaves by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            Reactor::current().unwrap().turn();
            let mut wait = pin!(capture.next_batch());
            let polled = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let is_forked = matches!(polled, Poll::Ready(Err(Error::Forked)));
            // SAFETY: ends the child without running its parent's destructors.
            unsafe { libc::_exit(if is_forked { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: our own child.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0, "the child was refused");
        Generator::new(&veth.left, &Traffic::default()).flood(4);
        receive(&mut capture, 4).await;
    });
}
