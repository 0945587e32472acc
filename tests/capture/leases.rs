//! Batches are owned: held together, returned in any order, from any thread, after the capture.

use std::collections::VecDeque;
use std::time::Duration;

use ringtap::capture::CaptureBuilder;
use ringtap::{Capture, PacketBatch};
use ringtap_lab::{Generator, Tally, Traffic, frames, namespace};

fn ring(interface: &str, blocks: usize) -> CaptureBuilder {
    Capture::builder()
        .interface(interface)
        .block_size(1 << 14)
        .block_count(blocks)
        .block_timeout_ms(2)
}

fn record(tally: &mut Tally, batch: &PacketBatch) {
    for packet in batch {
        tally.record(packet.data());
    }
}

fn next(capture: &mut Capture) -> Option<PacketBatch> {
    capture.next_batch_timeout(Duration::from_secs(3)).unwrap()
}

#[ringtap_lab::test]
fn batches_held_together_and_returned_in_any_order_lose_and_repeat_nothing() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { len: 200, flows: 5, ..Traffic::default() };
    let count = frames(100_000);
    let mut capture = ring(&veth.right, 8).build().unwrap();
    let mut tally = Tally::new(&traffic, count);
    let left = veth.left.clone();
    let plan = traffic.clone();
    let sender = std::thread::spawn(move || {
        Generator::new(&left, &plan).bursts(count, 256, Duration::from_micros(200));
    });
    let mut held = VecDeque::new();
    let mut random = 12345_u32;
    while let Some(batch) = next(&mut capture) {
        record(&mut tally, &batch);
        held.push_back(batch);
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Three at least, seven at most, and out of the middle.
        while held.len() > 3 + (random >> 29) as usize % 5 {
            let which = (random >> 16) as usize % held.len();
            let batch = held.remove(which).unwrap();
            check_frames(&traffic, &batch);
        }
    }
    sender.join().unwrap();
    tally.assert_sound();
    drop(held);
    let stats = capture.stats().unwrap();
    assert_eq!(stats.packets, count - veth.lost());
    assert_eq!(stats.delivered + stats.drops, stats.packets, "{stats:?}");
    assert_eq!(stats.delivered, tally.received());
}

/// A batch that was held for long still says what was sent.
fn check_frames(traffic: &Traffic, batch: &PacketBatch) {
    for packet in batch {
        let mark = ringtap_lab::Mark::find(packet.data()).expect("a frame of ours");
        assert_eq!(packet.data(), traffic.arrives(mark.number, mark.stamp));
    }
}

#[ringtap_lab::test]
fn waiting_with_every_block_held_ends_when_one_comes_back() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { len: 1000, ..Traffic::default() };
    let mut capture = ring(&veth.right, 3).build().unwrap();
    let mut generator = Generator::new(&veth.left, &traffic);
    generator.flood(200);
    let mut held: Vec<_> = std::iter::from_fn(|| next(&mut capture)).take(3).collect();
    assert_eq!(held.len(), 3, "the ring was filled");
    assert!(capture.next_batch().is_none(), "nothing is lent twice");
    let before = capture.stats().unwrap();
    assert!(before.drops > 0);
    for batch in &held {
        check_frames(&traffic, batch);
    }
    held.remove(1);
    held.remove(0);
    generator.flood(10);
    let batch = next(&mut capture).expect("two blocks are free again");
    check_frames(&traffic, &batch);
    check_frames(&traffic, &held[0]);
}

#[ringtap_lab::test]
fn a_batch_goes_to_another_thread_and_outlives_its_capture() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { len: 300, ..Traffic::default() };
    let mut capture = ring(&veth.right, 90).build().unwrap();
    let mut generator = Generator::new(&veth.left, &traffic);
    let mut tally = Tally::new(&traffic, 90);
    let mut batches = Vec::new();
    for total in [30, 60, 90] {
        generator.flood(30);
        while batches.iter().map(PacketBatch::len).sum::<usize>() < total {
            batches.push(next(&mut capture).unwrap());
        }
    }
    let stats = capture.stats_handle();
    let (lend, lent) = std::sync::mpsc::channel::<PacketBatch>();
    let (checked, is_checked) = std::sync::mpsc::channel();
    let plan = traffic.clone();
    let reader = std::thread::spawn(move || {
        for batch in lent {
            check_frames(&plan, &batch);
            checked.send(batch).unwrap();
        }
    });
    drop(capture);
    assert_eq!(stats.stats().unwrap().delivered, 90);
    for batch in batches {
        lend.send(batch).unwrap();
        record(&mut tally, &is_checked.recv().unwrap());
    }
    drop(lend);
    reader.join().unwrap();
    tally.assert_complete();
}

#[ringtap_lab::test]
fn a_dropped_capture_leaves_its_fanout_group_although_batches_are_held() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 64, len: 100, ..Traffic::default() };
    let mut generator = Generator::new(&veth.left, &traffic);
    let member =
        || ring(&veth.right, 64).fanout(ringtap::fanout::FanoutMode::Hash, 7).build().unwrap();
    let (mut first, mut second) = (member(), member());
    generator.flood(64);
    let held = next(&mut first).expect("some of its share");
    assert!(next(&mut second).is_some(), "some of the other share");
    drop(first);
    let before = second.stats().unwrap().packets;
    generator.flood(64);
    assert_eq!(second.stats().unwrap().packets - before, 64, "the group has one member");
    check_frames(&traffic, &held);
}

#[ringtap_lab::test]
fn a_detached_batch_keeps_its_packets_while_the_ring_goes_round() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { len: 700, ..Traffic::default() };
    // Ten packets fill ten blocks at most, where every block's time is up before the next packet.
    let mut capture = ring(&veth.right, 12).build().unwrap();
    let mut generator = Generator::new(&veth.left, &traffic);
    generator.flood(10);
    let mut kept = Vec::new();
    while kept.iter().map(PacketBatch::len).sum::<usize>() < 10 {
        kept.push(next(&mut capture).unwrap().detach());
    }
    let owned: Vec<_> = kept.iter().flatten().map(|packet| packet.to_owned()).collect();
    for _ in 0..40 {
        generator.flood(10);
        let batch = next(&mut capture).expect("blocks come back");
        check_frames(&traffic, &batch);
    }
    let mut tally = Tally::new(&traffic, 10);
    kept.iter().for_each(|batch| record(&mut tally, batch));
    tally.assert_complete();
    for (packet, copy) in kept.iter().flatten().zip(&owned) {
        assert_eq!(packet.data(), copy.data());
        assert_eq!(packet.timestamp(), copy.as_packet().timestamp());
    }
}

#[ringtap_lab::test]
fn packets_without_a_lifetime_stay_where_they_are_until_the_last_is_dropped() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { len: 200, flows: 5, ..Traffic::default() };
    let mut capture = ring(&veth.right, 12).build().unwrap();
    let mut generator = Generator::new(&veth.left, &traffic);
    generator.flood(10);
    let mut kept = Vec::new();
    while kept.len() < 10 {
        let packets = next(&mut capture).expect("they come").into_packets();
        kept.extend(packets.map(bytes::Bytes::from_owner));
    }
    let then: Vec<_> = kept.iter().map(|bytes| (bytes.as_ptr() as usize, bytes.to_vec())).collect();
    // The kernel fills the other blocks many times over.
    let others = std::thread::spawn(move || {
        for number in 1..=100 {
            generator.flood(100);
            if number % 10 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let mut later = 0;
    while let Some(batch) = next(&mut capture) {
        later += batch.into_packets().filter(|packet| packet.len() == 200).count();
    }
    others.join().unwrap();
    let moved = std::thread::spawn(move || {
        let now = kept.iter().map(|bytes| (bytes.as_ptr() as usize, bytes.to_vec()));
        assert!(now.eq(then));
        kept
    });
    let kept = moved.join().unwrap();
    let stats = capture.stats().unwrap();
    assert!(stats.packets > later as u64 && later > 100, "{later} {stats:?}");
    // Its block is the kernel's again.
    drop(capture);
    assert_eq!(kept.len(), 10, "they outlive the capture, too");
}
