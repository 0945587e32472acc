//! AF_XDP on a reactor: the same futures, streams and sinks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::far_end::{FarEnd, PATIENCE};
use crate::setup::{assert_conserved, privileged, sender, socket};
use futures_util::{SinkExt, StreamExt};
use ringtap::reactor::Reactor;
use ringtap::xdp::{AsyncXdpReceiver, AsyncXdpSender, AsyncXdpSocket};
use ringtap::{PacketBatch, executor, time};
use ringtap_lab::{Generator, Tally, Traffic, Veth, frames, namespace};

#[ringtap_lab::test]
fn batches_come_back_from_another_thread_and_a_stop_ends_the_stream() {
    let count = frames(50_000);
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let mut generator = Generator::new(&veth.left, &traffic);
    let returned = Arc::new(AtomicU64::new(0));
    let (lend, batches) = std::sync::mpsc::channel::<PacketBatch>();
    let (plan, back) = (traffic.clone(), Arc::clone(&returned));
    let reading = std::thread::spawn(move || {
        let mut tally = Tally::new(&plan, count);
        for batch in batches {
            batch.iter().for_each(|packet| tally.record(packet.data()));
            drop(batch);
            back.store(tally.received(), Ordering::Release);
        }
        tally
    });
    let tally = executor::block_on(async {
        let socket = socket(&veth.right).build_receiver().unwrap();
        let mut socket = AsyncXdpReceiver::new(socket).unwrap();
        let mut taken = 0;
        while taken < count {
            let sent = generator.sent();
            if sent < count && sent < returned.load(Ordering::Acquire) + 500 {
                generator.flood(100);
            }
            if taken == generator.sent() {
                std::thread::yield_now(); // the reader's turn
                continue;
            }
            let batch = socket.next().await.expect("nobody stops it").unwrap();
            taken += batch.len() as u64;
            lend.send(batch).unwrap();
        }
        drop(lend);
        let tally = reading.join().unwrap();
        assert_eq!(socket.stats().unwrap().fill_ring_empty, 0);
        let stop = socket.stop_handle().unwrap();
        let stopping = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            stop.stop();
        });
        assert!(socket.next().await.is_none());
        stopping.join().unwrap();
        generator.flood(10); // they pass to the stack
        assert!(socket.next().await.is_none());
        let stats = socket.stats().unwrap();
        assert_eq!((stats.delivered, stats.malformed), (count, 0));
        tally
    });
    tally.assert_complete();
}

#[ringtap_lab::test]
fn sending_waits_for_room_and_every_frame_arrives() {
    let count = frames(100_000);
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 8, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, count));
    executor::block_on(async {
        let socket = sender(&veth.left).frame_count(64).build_sender().unwrap();
        let mut tx = AsyncXdpSender::new(socket).unwrap();
        for number in 0..count {
            let frame = traffic.frame(number, 0);
            match number % 3 {
                0 => tx.send(&frame).await.unwrap(),
                1 => SinkExt::<Vec<u8>>::feed(&mut tx, frame).await.unwrap(),
                _ => {
                    drop(tx.reserve(1000).await.unwrap()); // leaves no hole
                    let mut slot = tx.reserve(frame.len()).await.unwrap();
                    slot.data_mut().copy_from_slice(&frame);
                    slot.send().unwrap();
                }
            }
            if number % 50_000 == 0 {
                tx.flush().await.unwrap();
                far.wait_until(number.saturating_sub(50_000));
            }
        }
        tx.drain().await.unwrap();
        let stats = tx.stats().unwrap();
        assert_eq!((stats.committed, stats.not_forwarded), (count, 0));
    });
    far.wait_until(count);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn an_echo_sends_on_what_it_received_without_a_copy_in_one_enter_a_turn() {
    const COUNT: u64 = 20_000;
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let mut generator = Generator::new(&veth.left, &traffic);
    let back = Veth { left: veth.right.clone(), right: veth.left.clone() };
    let far = FarEnd::new(&back, Tally::new(&traffic, COUNT));
    executor::block_on(async {
        let socket = socket(&veth.right).rx_tx_frames(1000, 24).build().unwrap();
        let mut echo = AsyncXdpSocket::new(socket).unwrap();
        let (mut answered, mut turns) = (0, 0);
        let before = Reactor::current().unwrap().stats();
        while answered < COUNT {
            if answered == generator.sent() {
                far.wait_until(answered); // what it has is seen
                generator.flood(50);
            }
            let batch = echo.next_batch().await.unwrap().expect("frames");
            turns += 1;
            answered += echo.send_batch(batch, |_| true).await.unwrap();
            echo.flush().await.unwrap();
        }
        let enters = Reactor::current().unwrap().stats().delta_since(&before).enters;
        assert!(enters <= 2 * turns + COUNT / 50, "{enters} for {turns} batches");
        echo.drain().await.unwrap();
        let stats = echo.stats().unwrap();
        assert_eq!((stats.delivered, stats.committed, stats.not_forwarded), (COUNT, COUNT, 0));
    });
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn halves_serve_two_tasks_and_a_dropped_wait_takes_nothing() {
    const COUNT: u64 = 5_000;
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let answers = Traffic { flows: 3, ..Traffic::default() };
    let back = Veth { left: veth.right.clone(), right: veth.left.clone() };
    let far = FarEnd::new(&back, Tally::new(&answers, COUNT));
    let mut generator = Generator::new(&veth.left, &traffic);
    let tally = executor::block_on(async {
        let socket = AsyncXdpSocket::new(socket(&veth.right).build().unwrap()).unwrap();
        let (mut receiver, mut sender) = socket.into_split();
        let sending = executor::spawn_local(async move {
            for number in 0..COUNT {
                sender.send(&answers.frame(number, 0)).await.unwrap();
                if number % 100 == 0 {
                    sender.flush().await.unwrap();
                    time::sleep(Duration::from_micros(100)).await;
                }
            }
            sender.drain().await.unwrap();
        });
        let mut tally = Tally::new(&traffic, COUNT);
        while tally.received() < COUNT {
            if generator.sent() == tally.received() {
                generator.flood(50);
            }
            let wait = time::timeout(Duration::from_micros(50), receiver.next_batch()).await;
            let Ok(batch) = wait else { continue };
            let batch = batch.unwrap().expect("nobody stops it");
            batch.iter().for_each(|packet| tally.record(packet.data()));
        }
        sending.await.unwrap();
        tally
    });
    tally.assert_complete();
    far.wait_until(COUNT);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn a_socket_taken_off_a_reactor_can_be_used_again() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    for _ in 0..3 {
        executor::block_on(async {
            let mut socket = AsyncXdpSocket::new(socket(&veth.right).build().unwrap()).unwrap();
            generator.flood(1);
            assert_eq!(socket.next_batch().await.unwrap().expect("a frame").len(), 1);
        });
        // Its queue is free at once, or nearly.
        let mut again = socket(&veth.right).build().unwrap();
        generator.flood(1);
        assert_eq!(again.next_batch_timeout(PATIENCE).unwrap().expect("a frame").len(), 1);
        assert_conserved(&mut again, 1024);
    }
}

#[ringtap_lab::test]
fn a_queue_is_opened_again_in_the_task_that_has_closed_it() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    executor::block_on(async {
        for _ in 0..20 {
            let mut socket = AsyncXdpSocket::open(&veth.right).unwrap();
            generator.flood(1);
            assert_eq!(socket.next_batch().await.unwrap().expect("a frame").len(), 1);
            let stats = socket.close(PATIENCE).await.unwrap();
            assert_eq!((stats.delivered, stats.abandoned), (1, 0));
        }
    });
}

#[ringtap_lab::test]
fn batches_of_a_receiver_end_with_a_stop_and_stay_ended() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let mut receiver = socket(&veth.right).build_receiver().unwrap();
    let stop = receiver.stop_handle().unwrap();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    generator.flood(5);
    assert!(receiver.next_batch_timeout(Duration::ZERO).unwrap().is_some() && !receiver.is_ended());
    generator.flood(5);
    stop.stop();
    let packets: usize = receiver.batches().map(|batch| batch.unwrap().len()).sum();
    assert!((1..=10).contains(&packets) && receiver.is_ended(), "{packets}");
    generator.flood(5); // they pass to the stack
    assert!(receiver.batches().next().is_none() && receiver.is_ended());
}
