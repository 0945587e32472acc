//! Async transmission: backpressure, flushing in the background, and one system call a turn.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::far_end::{FarEnd, PATIENCE};
use futures_util::{SinkExt, StreamExt, stream};
use ringtap::capture::RingLayout;
use ringtap::executor::{block_on, spawn_local, yield_now};
use ringtap::inject::{InjectorBuilder, Pacer};
use ringtap::reactor::{IoUringFeatures, Reactor};
use ringtap::{AsyncCapture, AsyncInjector, Capture, Error, Injector, time};
use ringtap_lab::{Generator, Mark, Tally, Traffic, Veth, frames, limits, link, namespace};

fn injector(veth: &Veth) -> InjectorBuilder {
    Injector::builder().interface(&veth.left)
}

fn open(builder: InjectorBuilder) -> AsyncInjector {
    AsyncInjector::new(builder.build().unwrap()).unwrap()
}

#[ringtap_lab::test]
fn a_million_frames_arrive_once_in_order_unchanged_with_and_without_the_qdisc() {
    let count = frames(1_000_000);
    for bypass in [false, true] {
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        let traffic = Traffic { flows: 16, ..Traffic::default() };
        let far = FarEnd::new(&veth, Tally::new(&traffic, count));
        block_on(async {
            let mut injector = open(injector(&veth).qdisc_bypass(bypass));
            for number in 0..count {
                injector.send(&traffic.frame(number, 0)).await.unwrap();
                if number % 50_000 == 0 {
                    injector.flush().await.unwrap();
                    far.wait_until(number.saturating_sub(50_000));
                }
            }
            injector.drain().await.unwrap();
            let stats = injector.stats();
            assert_eq!((stats.committed, stats.rejected), (count, 0));
            assert!(stats.kicks < count / 10, "kicks are shared by many frames: {stats:?}");
        });
        far.wait_until(count);
        far.finish().assert_complete();
    }
}

#[ringtap_lab::test]
fn frames_go_although_nobody_awaits_anything_of_the_injector_any_more() {
    let Some(net) = namespace() else { return };
    limits::stay_on_this_core();
    let veth = net.veth();
    // A queue that is full after a few frames, so that one kick is not enough.
    link::limit_rate(&veth.left, 1_000_000, 2_000, 4_000).unwrap();
    let traffic = Traffic { len: 500, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, 200));
    block_on(async {
        let mut injector = open(injector(&veth));
        for number in 0..200 {
            injector.send(&traffic.frame(number, 0)).await.unwrap();
        }
        // Nothing is asked of the injector from here on; the executor only has to go on.
        let start = Instant::now();
        while far.count() < 200 {
            time::sleep(Duration::from_millis(5)).await;
            assert!(start.elapsed() < PATIENCE, "{:?}", injector.stats());
        }
        assert!(injector.stats().queue_full > 0, "{:?}", injector.stats());
        assert!(injector.stats().kicks < 2_000, "no spin: {:?}", injector.stats());
    });
    far.wait_until(200);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn a_buffer_of_a_few_frames_is_kept_at_while_everybody_sleeps() {
    let Some(net) = namespace() else { return };
    limits::stay_on_this_core();
    let veth = net.veth();
    link::limit_rate(&veth.left, 2_000_000, 4_000, 1 << 20).unwrap();
    let traffic = Traffic { len: 1000, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, 200));
    block_on(async {
        let mut injector = open(injector(&veth).sndbuf(8_000));
        for number in 0..200 {
            injector.send(&traffic.frame(number, 0)).await.unwrap();
        }
        // One long sleep, with nothing else to wake the reactor: 200,000 bytes take 0.1 s.
        time::sleep(Duration::from_secs(3)).await;
        assert_eq!(far.count(), 200, "{:?}", injector.stats());
    });
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn a_send_that_is_dropped_commits_nothing_and_backpressure_is_real() {
    let Some(net) = namespace() else { return };
    limits::stay_on_this_core();
    let veth = net.veth();
    link::limit_rate(&veth.left, 500_000, 2_000, 4_000).unwrap();
    let traffic = Traffic { len: 500, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, 100));
    block_on(async {
        let mut injector = open(injector(&veth).frame_count(4));
        let mut waited = 0;
        for number in 0..100 {
            let frame = traffic.frame(number, 0);
            loop {
                let polled = {
                    let mut send = pin!(injector.send(&frame));
                    send.as_mut().poll(&mut Context::from_waker(Waker::noop()))
                };
                match polled {
                    Poll::Ready(sent) => break sent.unwrap(),
                    Poll::Pending => {
                        waited += 1;
                        time::sleep(Duration::from_micros(200)).await;
                    }
                }
            }
        }
        assert!(waited > 0, "a ring of four frames was full at times");
        time::timeout(PATIENCE, injector.drain()).await.expect("in time").unwrap();
    });
    far.wait_until(100);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn a_reserved_slot_is_written_in_place_and_dropped_it_leaves_no_hole() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 3, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, 1_000));
    block_on(async {
        let mut injector = open(injector(&veth).frame_count(32));
        for number in 0..1_000 {
            let frame = traffic.frame(number, 0);
            if number % 3 == 0 {
                drop(injector.reserve(1500).await.unwrap());
            }
            let mut slot = injector.reserve(2_000).await.unwrap();
            slot.data_mut()[..frame.len()].copy_from_slice(&frame);
            slot.set_len(frame.len());
            slot.send().unwrap();
        }
        assert!(matches!(injector.reserve(5_000).await, Err(Error::FrameLength { .. })));
        let error = injector.send(&[0; 10]).await.unwrap_err();
        assert!(matches!(error, Error::FrameLength { len: 10, .. }), "{error:?}");
        injector.flush().await.unwrap();
    });
    far.wait_until(1_000);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn down_waits_up_goes_on_and_removed_is_an_error() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    block_on(async {
        let mut injector = open(injector(&veth));
        link::set_up(&veth.left, false).unwrap();
        for number in 0..20 {
            injector.send(&traffic.frame(number, 0)).await.unwrap();
        }
        let waited = time::timeout(Duration::from_millis(100), injector.flush()).await;
        assert!(waited.is_err(), "down is no error, but a wait: {waited:?}");
        assert!(injector.stats().kicks < 50, "and no spin: {:?}", injector.stats());
        veth.up();
        let far = FarEnd::new(&veth, Tally::new(&traffic, 20));
        time::timeout(PATIENCE, injector.flush()).await.expect("it goes on").unwrap();
        far.wait_until(20);
        far.finish().assert_complete();

        injector.send(&traffic.frame(20, 0)).await.unwrap();
        veth.delete();
        let error = time::timeout(PATIENCE, injector.flush()).await.expect("noticed").unwrap_err();
        assert!(matches!(error, Error::InterfaceGone { .. }), "{error:?}");
    });
}

#[ringtap_lab::test]
fn an_mtu_lowered_while_frames_wait_refuses_those_and_sends_the_others() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let short = Traffic { len: 100, ..Traffic::default() };
    let long = Traffic { len: 1400, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&short, 60));
    block_on(async {
        let mut injector = open(injector(&veth));
        for number in 0..60 {
            // No turn of the reactor lies between these.
            injector.send(&short.frame(number, 0)).await.unwrap();
            if number % 3 == 1 {
                injector.send(&long.frame(number, 0)).await.unwrap();
            }
        }
        veth.set_mtu(600);
        injector.flush().await.unwrap();
        let stats = injector.stats();
        assert_eq!((stats.rejected, stats.committed), (20, 80));
    });
    far.wait_until(60);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn a_sink_and_a_paced_stream_deliver_all() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, 3_000));
    block_on(async {
        let mut injector = open(injector(&veth).frame_count(64));
        let frames = |range: std::ops::Range<u64>| {
            stream::iter(range.map(|number| traffic.frame(number, 0)))
        };
        injector.send_all(&mut frames(0..2_000).map(Ok)).await.unwrap();
        let start = Instant::now();
        let pacer = Pacer::packets_per_second(5_000, 10);
        let sent = injector.send_stream(frames(2_000..3_000), Some(pacer)).await.unwrap();
        assert_eq!(sent, 1_000);
        assert!(start.elapsed() >= Duration::from_millis(190), "no faster than its pace");
        SinkExt::<Vec<u8>>::close(&mut injector).await.unwrap();
    });
    far.wait_until(3_000);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn timestamps_are_awaited() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    block_on(async {
        let mut injector = open(injector(&veth).tx_timestamps(true));
        for frame in 0..3 {
            injector.send(&[0xff; 60]).await.unwrap();
            let stamp = time::timeout(PATIENCE, injector.tx_timestamp()).await.expect("stamped");
            assert_eq!(stamp.unwrap().frame, frame);
        }
    });
}

#[ringtap_lab::test]
fn an_echo_makes_one_system_call_a_turn() {
    const ROUNDS: u64 = 200;
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let echo = {
        let right = veth.right.clone();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            block_on(async {
                let ring = Capture::builder().interface(&right).layout(RingLayout::Frames);
                let ring = ring.block_size(1 << 16).block_count(4).ignore_outgoing(true);
                let mut capture = AsyncCapture::new(ring.build().unwrap()).unwrap();
                let mut injector = AsyncInjector::new(Injector::open(&right).unwrap()).unwrap();
                ready.send(()).unwrap();
                let reactor = Reactor::current().unwrap();
                let (mut before, mut echoed) = ((reactor.stats(), Instant::now()), 0);
                while echoed < ROUNDS + 10 {
                    let batch = capture.next_batch().await.unwrap().unwrap();
                    for packet in &batch {
                        injector.send(packet.data()).await.unwrap();
                        echoed += 1;
                    }
                    if echoed == 10 {
                        before = (reactor.stats(), Instant::now()); // polls are armed by now
                    }
                }
                let during = (reactor.stats().delta_since(&before.0), before.1.elapsed());
                injector.flush().await.unwrap();
                (during, injector.stats(), reactor.io_uring_features())
            })
        });
        is_ready.recv().unwrap();
        thread
    };
    // One frame at a time: the next one only when the answer is back.
    let traffic = Traffic::default();
    let ring = Capture::builder().interface(&veth.left).layout(RingLayout::Frames);
    let ring = ring.block_size(1 << 16).block_count(4).ignore_outgoing(true);
    let mut answers = ring.build().unwrap();
    let mut generator = Generator::new(&veth.left, &traffic);
    for number in 0..ROUNDS + 10 {
        generator.flood(1);
        let batch = answers.next_batch_timeout(PATIENCE).unwrap().expect("an answer");
        let packet = batch.iter().next().unwrap();
        assert_eq!(Mark::find(packet.data()).unwrap().number, number);
    }
    let ((during, elapsed), stats, features) = echo.join().unwrap();
    assert_eq!(stats.rejected, 0);
    // Receive, answer, wait: the answer's kick and the wait are one enter. A kick that is not silent ends the wait.
    let enters = if features.contains(IoUringFeatures::SILENT_KICKS) { 1 } else { 2 };
    // A port looks after a silent kick when 2 ms are over, which the far end's answer takes on a slow machine.
    let looks = u64::try_from(elapsed.as_millis() / 2).unwrap();
    let most = enters * ROUNDS + ROUNDS / 10 + looks;
    assert!(during.enters <= most, "{during:?} in {elapsed:?} with {features:?}");
}

#[ringtap_lab::test]
fn kick_now_does_not_wait_for_the_turn() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    block_on(async {
        let mut injector = open(injector(&veth));
        injector.send(&[0xff; 60]).await.unwrap();
        assert_eq!(link::stats(&veth.right).unwrap().received, 0, "no turn yet");
        injector.kick_now().unwrap();
        assert_eq!(link::stats(&veth.right).unwrap().received, 1);
    });
}

#[ringtap_lab::test]
fn an_injector_taken_back_keeps_what_was_committed() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut taken = block_on(async {
        let mut injector = open(injector(&veth));
        injector.send(&[0xff; 60]).await.unwrap();
        injector.into_inner()
    });
    taken.flush().unwrap();
    assert_eq!(link::stats(&veth.right).unwrap().received, 1);
}

#[ringtap_lab::test]
fn several_tasks_send_and_receive_side_by_side() {
    let Some(net) = namespace() else { return };
    let pairs = [net.veth(), net.veth()];
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let far: Vec<_> =
        pairs.iter().map(|veth| FarEnd::new(veth, Tally::new(&traffic, 20_000))).collect();
    block_on(async {
        let tasks: Vec<_> = pairs
            .iter()
            .map(|veth| {
                let mut injector = open(injector(veth));
                let traffic = traffic.clone();
                spawn_local(async move {
                    for number in 0..20_000 {
                        injector.send(&traffic.frame(number, 0)).await.unwrap();
                        if number % 100 == 0 {
                            yield_now().await;
                        }
                    }
                    injector.drain().await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            time::timeout(PATIENCE, task).await.expect("both progress").unwrap();
        }
    });
    for far in far {
        far.wait_until(20_000);
        far.finish().assert_complete();
    }
}

#[ringtap_lab::test]
fn a_frame_that_the_far_end_drops_blocks_others_only_briefly_and_close_counts_the_rest() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    veth.set_mtu_of_right(700);
    let long = Traffic { len: 1400, ..Traffic::default() }.frame(0, 0);
    let traffic = Traffic::default();
    let far = FarEnd::new(&veth, Tally::new(&traffic, 100));
    block_on(async {
        let mut tx = open(injector(&veth).give_up_after(Duration::from_millis(200)));
        tx.send(&long).await.unwrap();
        for number in 0..100 {
            tx.send(&traffic.frame(number, 0)).await.unwrap();
        }
        time::timeout(PATIENCE, tx.flush()).await.expect("it ends").unwrap();
        let stats = tx.close(PATIENCE).await;
        assert_eq!((stats.committed, stats.rejected, stats.abandoned), (101, 1, 0));
        veth.down();
        let mut tx = open(injector(&veth));
        link::set_up(&veth.left, false).unwrap();
        tx.send(&traffic.frame(100, 0)).await.unwrap();
        assert_eq!(tx.close(Duration::from_millis(20)).await.abandoned, 1);
    });
    far.wait_until(100);
    far.finish().assert_complete();
}
