//! Blocking capture: what is sent through a veth pair is what arrives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringtap::capture::{CaptureBuilder, CapturedPacket, RingLayout};
use ringtap::packet::{PacketDirection, VlanTag};
use ringtap::{Capture, PacketBatch, StopHandle};
use ringtap_lab::{Generator, Mark, Pace, Protocol, Tally, Traffic, namespace, pcap, skip};

/// Runs tests once with a ring of blocks and once with one of frames.
macro_rules! in_both_layouts {
    ($($name:ident)*) => {
        mod blocks {
            $(#[ringtap_lab::test]
            fn $name() {
                super::$name(ringtap::capture::RingLayout::Blocks);
            })*
        }
        mod frames {
            $(#[ringtap_lab::test]
            fn $name() {
                super::$name(ringtap::capture::RingLayout::Frames);
            })*
        }
    };
}

in_both_layouts! {
    every_frame_arrives_once_in_order_and_unchanged
    packets_one_by_one_may_be_kept_sent_away_and_outlive_their_capture
    a_stripped_tag_is_in_the_packet_and_not_in_its_bytes
    two_tags_are_told_apart_beside_the_bytes_and_in_them
    snap_len_cuts_and_says_so
    jumbo_frames_arrive_whole
    what_did_not_fit_the_ring_is_counted_exactly
    stopping_delivers_the_last_partial_block_and_ends_the_batches
    stopping_in_a_flood_that_outruns_the_reader_ends_it_all_the_same
    real_captures_replay_byte_for_byte_and_in_order
    on_loopback_each_packet_is_seen_twice_unless_outgoing_ones_are_ignored
}

/// Stops a capture when it goes, also by a panic: whoever waits for packets then waits no longer.
struct StopAtTheEnd(StopHandle);

impl Drop for StopAtTheEnd {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn packets_one_by_one_may_be_kept_sent_away_and_outlive_their_capture(layout: RingLayout) {
    const COUNT: u64 = 3_000;
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    // Many blocks: each timeout takes one, however long the reader is kept from its core.
    let ring = small(&veth.right).layout(layout).block_size(1 << 16).block_count(1024);
    let mut capture = ring.build().unwrap();
    let stop = StopAtTheEnd(capture.stop_handle().unwrap());
    let traffic = Traffic { flows: 3, ..Traffic::default() };
    let (pace, plan, left) = (Pace::default(), traffic.clone(), veth.left.clone());
    let counter = pace.clone();
    let sending = std::thread::spawn(move || {
        let _stop = stop;
        Generator::new(&left, &plan).in_step(COUNT, &pace);
    });
    let (to_reader, packets) = std::sync::mpsc::channel::<CapturedPacket>();
    let plan = traffic.clone();
    let reading = std::thread::spawn(move || {
        let mut tally = Tally::new(&plan, COUNT);
        for packet in packets {
            assert_eq!((packet.len(), packet.is_empty()), (packet.packet().data().len(), false));
            assert_eq!(packet.to_owned().data(), packet.data());
            tally.record(packet.data());
        }
        tally
    });
    let mut kept = None;
    for packet in capture.packets() {
        let packet = packet.unwrap();
        kept = Some(packet.clone()); // the last: a block that is held for long is in the kernel's way
        to_reader.send(packet).unwrap();
        counter.count(1);
    }
    sending.join().unwrap();
    drop(to_reader);
    reading.join().unwrap().assert_complete();
    assert_eq!(capture.stats().unwrap().drops, 0);
    drop(capture);
    let kept = kept.unwrap();
    assert_eq!(Mark::find(kept.data()).unwrap().number, COUNT - 1);
    assert!(!kept.batch().is_empty() && format!("{kept:?}").starts_with("CapturedPacket"));
}

/// A small ring: 16 blocks of 256 KiB, handed over after 5 ms; or 2048 frames.
fn small(interface: &str) -> CaptureBuilder {
    let ring = Capture::builder().interface(interface).block_size(1 << 18).block_count(16);
    ring.frame_size(2048).block_timeout_ms(5)
}

/// Reads until `count` frames were recorded, or nothing came for two seconds.
fn read(capture: &mut Capture, tally: &mut Tally, count: u64) {
    let mut last = Instant::now();
    while tally.received() < count && last.elapsed() < Duration::from_secs(2) {
        if let Some(batch) = capture.next_batch_timeout(Duration::from_millis(100)).unwrap() {
            for packet in &batch {
                tally.record(packet.data());
            }
            last = Instant::now();
        }
    }
}

/// Batches of `count` packets in all: how many batches depends on when the kernel's timer runs.
fn batches_of(capture: &mut Capture, count: usize) -> Vec<PacketBatch> {
    let mut batches = Vec::new();
    while batches.iter().map(PacketBatch::len).sum::<usize>() < count {
        let batch = capture.next_batch_timeout(Duration::from_secs(2)).unwrap();
        batches.push(batch.unwrap_or_else(|| panic!("{count} packets did not come")));
    }
    batches
}

fn every_frame_arrives_once_in_order_and_unchanged(layout: RingLayout) {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    for protocol in [Protocol::Udp, Protocol::Tcp, Protocol::Udp6] {
        for len in [66, 590, 1514] {
            let traffic = Traffic { len, flows: 10, protocol, ..Traffic::default() };
            let mut capture = small(&veth.right).layout(layout).block_count(64).build().unwrap();
            let mut tally = Tally::new(&traffic, 3_000);
            Generator::new(&veth.left, &traffic).flood(3_000);
            read(&mut capture, &mut tally, 3_000);
            tally.assert_complete();
            let stats = capture.stats().unwrap();
            assert_eq!((stats.packets, stats.delivered), (3_000, 3_000));
            assert_eq!((stats.drops, stats.pending(), stats.malformed), (0, 0, 0));
        }
    }
}

#[ringtap_lab::test]
fn a_packet_says_what_the_kernel_knows_of_it() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = small(&veth.right).build().unwrap();
    let traffic = Traffic::default();
    Generator::new(&veth.left, &traffic).flood(1);
    let batch = capture.next_batch_timeout(Duration::from_secs(2)).unwrap().unwrap();
    let packet = batch.iter().next().unwrap();
    assert_eq!(packet.len(), packet.original_len());
    assert_eq!(packet.direction(), Some(PacketDirection::OtherHost));
    assert_eq!(packet.ll_protocol(), Some(0x0800));
    assert_eq!(&*packet.source_ll_addr().unwrap(), &packet.data()[6..12]);
    let info = ringtap::interface::interface_info(&veth.right).unwrap();
    assert_eq!(packet.interface_index(), Some(info.index));
    assert_ne!(packet.rxhash(), None);
    let now = std::time::SystemTime::now();
    let age = now.duration_since(packet.timestamp().into()).unwrap();
    assert!(age < Duration::from_secs(60), "stamped by the system clock: {age:?} ago");
    assert_eq!(batch.seq_num(), 1);
    assert!(batch.timed_out());
    assert!(batch.ts_last() >= batch.ts_first());
}

fn a_stripped_tag_is_in_the_packet_and_not_in_its_bytes(layout: RingLayout) {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = small(&veth.right).layout(layout).build().unwrap();
    let traffic = Traffic { vlan: Some(100), ..Traffic::default() };
    Generator::new(&veth.left, &traffic).flood(1);
    let batch = capture.next_batch_timeout(Duration::from_secs(2)).unwrap().unwrap();
    let packet = batch.iter().next().unwrap();
    let tag = packet.vlan().expect("a tag");
    assert_eq!((tag.id(), tag.tpid), (100, 0x8100));
    let mut tally = Tally::new(&traffic, 1);
    tally.record(packet.data());
    tally.assert_complete();
}

fn two_tags_are_told_apart_beside_the_bytes_and_in_them(layout: RingLayout) {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let tags = [(0x88a8, 200), (0x8100, 0x6064)].map(|(tpid, tci)| VlanTag { tci, tpid });
    let mut frame = vec![0x5a; 200];
    frame.splice(12..14, tags.iter().flat_map(|tag| tag.to_bytes()).chain([0x88, 0xb5]));
    let sender = ringtap_lab::generator::Sender::open(&veth.left).unwrap();
    for reinsert in [false, true] {
        let options = small(&veth.right).layout(layout).vlan_reinsert(reinsert).snap_len(100);
        let mut capture = options.build().unwrap();
        sender.send_all(&[&frame]).unwrap();
        let batch = capture.next_batch_timeout(Duration::from_secs(2)).unwrap().unwrap();
        let packet = batch.iter().next().unwrap();
        assert_eq!((packet.vlan(), packet.inner_vlan()), (Some(tags[0]), Some(tags[1])));
        assert_eq!(packet.stripped_vlan().is_none(), reinsert);
        let stripped = [&frame[..12], &frame[16..]].concat();
        let bytes = if reinsert { &frame } else { &stripped };
        assert_eq!(packet.original_len(), bytes.len());
        assert_eq!(packet.data(), &bytes[..if reinsert { 104 } else { 100 }]);
        let copy = batch.detach();
        assert_eq!(copy.iter().next().unwrap().inner_vlan(), Some(tags[1]));
    }
}

fn snap_len_cuts_and_says_so(layout: RingLayout) {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = small(&veth.right).layout(layout).snap_len(96).build().unwrap();
    let traffic = Traffic { len: 1000, ..Traffic::default() };
    Generator::new(&veth.left, &traffic).flood(10);
    let batches = batches_of(&mut capture, 10);
    for (number, packet) in batches.iter().flatten().enumerate() {
        assert_eq!((packet.len(), packet.original_len()), (96, 1000));
        assert!(packet.is_truncated());
        let whole = traffic.arrives(number as u64, 0);
        assert_eq!(packet.data()[..46], whole[..46], "up to the send stamp");
    }
}

fn on_loopback_each_packet_is_seen_twice_unless_outgoing_ones_are_ignored(layout: RingLayout) {
    let Some(net) = namespace() else { return };
    net.loopback_up();
    for (ignore, seen) in [(false, 2), (true, 1)] {
        let mut capture = small("lo").layout(layout).ignore_outgoing(ignore).build().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"once", socket.local_addr().unwrap()).unwrap();
        let batches = batches_of(&mut capture, seen);
        assert!(batches.iter().flatten().all(|packet| packet.data().ends_with(b"once")));
        assert_eq!(capture.stats().unwrap().packets, seen as u64, "ignoring outgoing: {ignore}");
    }
}

fn jumbo_frames_arrive_whole(layout: RingLayout) {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    veth.set_mtu(9000);
    let traffic = Traffic { len: 9014, flows: 3, ..Traffic::default() };
    let mut capture = small(&veth.right).layout(layout).frame_size(1 << 14).build().unwrap();
    let mut tally = Tally::new(&traffic, 200);
    Generator::new(&veth.left, &traffic).flood(200);
    read(&mut capture, &mut tally, 200);
    tally.assert_complete();
}

#[ringtap_lab::test]
fn frames_are_handed_over_at_once_and_blocks_when_their_time_is_up() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let open = |layout| small(&veth.right).layout(layout).block_timeout_ms(60_000).build().unwrap();
    let (mut blocks, mut frames) = (open(RingLayout::Blocks), open(RingLayout::Frames));
    Generator::new(&veth.left, &Traffic::default()).flood(1);
    let batch = frames.next_batch_timeout(Duration::from_secs(20)).unwrap().expect("at once");
    assert_eq!((batch.len(), batch.timed_out()), (1, false));
    assert!(batch.ts_first() == batch.ts_last() && batch.iter().next().unwrap().rxhash().is_none());
    assert!(blocks.next_batch_timeout(Duration::from_millis(50)).unwrap().is_none());
    assert_eq!(blocks.stats().unwrap().pending(), 1);
}

#[ringtap_lab::test]
fn a_frame_that_is_too_small_for_a_packet_cuts_it_and_says_so() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let ring = small(&veth.right).layout(RingLayout::Frames).frame_size(256);
    let mut capture = ring.build().unwrap();
    Generator::new(&veth.left, &Traffic { len: 1000, ..Traffic::default() }).flood(3);
    for batch in batches_of(&mut capture, 3) {
        for packet in &batch {
            assert_eq!(packet.original_len(), 1000);
            assert!(packet.is_truncated() && (180..256).contains(&packet.len()));
        }
    }
}

#[ringtap_lab::test]
fn a_packet_larger_than_a_block_is_cut_and_counted() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    veth.set_mtu(9000);
    let traffic = Traffic { len: 9014, ..Traffic::default() };
    let mut capture = small(&veth.right).block_size(4096).block_count(64).build().unwrap();
    Generator::new(&veth.left, &traffic).flood(5);
    let mut seen = 0;
    while seen < 5 {
        let batch = capture.next_batch_timeout(Duration::from_secs(2)).unwrap().expect("a batch");
        for packet in &batch {
            assert_eq!(packet.original_len(), 9014);
            assert!(packet.is_truncated() && packet.len() < 4096 && packet.len() > 3000);
            seen += 1;
        }
    }
    let stats = capture.stats().unwrap();
    assert_eq!((stats.packets, stats.delivered, stats.drops), (5, 5, 0));
}

fn what_did_not_fit_the_ring_is_counted_exactly(layout: RingLayout) {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 8, ..Traffic::default() };
    let mut capture =
        small(&veth.right).layout(layout).block_size(1 << 14).block_count(4).build().unwrap();
    let reader = capture.stats_handle();
    let stop = capture.stop_handle().unwrap();
    Generator::new(&veth.left, &traffic).flood(10_000);
    assert_eq!(veth.lost(), 0, "all 10,000 reached the tap");
    let early = reader.stats().unwrap();
    assert_eq!(early.packets, 10_000);
    assert!(early.drops > 0, "nobody was reading: {early:?}");
    assert_eq!(early.freezes > 0, layout == RingLayout::Blocks, "only blocks freeze");
    stop.stop();
    let mut tally = Tally::new(&traffic, 10_000);
    for batch in capture.batches() {
        for packet in &batch.unwrap() {
            tally.record(packet.data());
        }
    }
    tally.assert_sound();
    let stats = capture.stats().unwrap();
    assert_eq!(stats.delivered, tally.received());
    assert_eq!(stats.delivered + stats.drops, 10_000);
    assert_eq!(stats, reader.stats().unwrap(), "reading reset nothing");
    drop(capture);
    assert_eq!(reader.stats().unwrap(), stats, "the last totals outlive the capture");
}

fn stopping_delivers_the_last_partial_block_and_ends_the_batches(layout: RingLayout) {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    // A timeout so long that the frames sit in an open block when the capture is stopped.
    let mut capture = small(&veth.right).layout(layout).block_timeout_ms(200).build().unwrap();
    Generator::new(&veth.left, &traffic).flood(100);
    let stop = capture.stop_handle().unwrap();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        stop.stop();
    });
    let mut tally = Tally::new(&traffic, 100);
    for batch in capture.batches() {
        for packet in &batch.unwrap() {
            tally.record(packet.data());
        }
    }
    stopper.join().unwrap();
    tally.assert_complete();
    assert!(capture.is_ended());
    Generator::new(&veth.left, &traffic).flood(10);
    assert!(capture.next_batch_timeout(Duration::ZERO).unwrap().is_none());
    assert_eq!(capture.stats().unwrap().packets, 100, "nothing gets in any more");
}

fn stopping_in_a_flood_that_outruns_the_reader_ends_it_all_the_same(layout: RingLayout) {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = small(&veth.right).layout(layout).build().unwrap();
    let stop = capture.stop_handle().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let (left, over) = (veth.left.clone(), Arc::clone(&is_over));
    let sender = std::thread::spawn(move || {
        let mut generator = Generator::new(&left, &Traffic::default());
        while !over.load(Ordering::Relaxed) {
            generator.flood(1_000);
        }
        generator.sent()
    });
    let mut packets = 0;
    let mut batches = 0;
    for batch in capture.batches() {
        packets += batch.unwrap().iter().count() as u64;
        batches += 1;
        if batches == 5 {
            stop.stop();
        }
        // Slower than the sender: the ring is never found empty. What it held at the stop is all
        // that may still come.
        std::thread::sleep(Duration::from_millis(20));
        assert!(batches <= 5 + 2 * 16, "packets went on coming in after the stop");
    }
    let stats = capture.stats().unwrap();
    assert_eq!((stats.delivered, stats.pending()), (packets, 0));
    assert!(stats.packets > 0);
    is_over.store(true, Ordering::Relaxed);
    assert!(sender.join().unwrap() > stats.packets, "the flood went on after the end");
}

fn real_captures_replay_byte_for_byte_and_in_order(layout: RingLayout) {
    let Some(directory) = pcap::directory() else {
        skip("shared/pcaps is not beside the repository");
        return;
    };
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    veth.set_mtu(65_535);
    let (mut files, mut frames_in_all, mut tags) = (0, 0, 0);
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // Conformance files of the pcap formats test readers, not captures.
        if path.to_string_lossy().contains("-format-") {
            continue;
        }
        // What a packet socket sends: at least an Ethernet header, at most the MTU.
        let mut frames = pcap::ethernet_frames(&path);
        frames.retain(|frame| (14..=65_549).contains(&frame.len()));
        if frames.is_empty() || frames.len() >= 5_000 {
            continue;
        }
        // Frames that hold the longest of them.
        let ring = small(&veth.right).layout(layout).block_size(1 << 17).frame_size(1 << 17);
        let ring = ring.block_count(64);
        let mut capture = ring.clone().build().unwrap();
        tags += replay(&veth.left, &frames, &mut capture, &path);
        drop(capture);
        let mut whole = ring.vlan_reinsert(true).build().unwrap();
        assert_eq!(replay(&veth.left, &frames, &mut whole, &path), 0, "no tag beside its frame");
        files += 1;
        frames_in_all += frames.len();
    }
    assert!(tags > 100, "{tags} tags were stripped");
    println!("{frames_in_all} frames of {files} files");
    assert!(files >= 73 && frames_in_all >= 9_623, "{frames_in_all} frames of {files} files");
}

/// How many came with their tag beside them.
fn replay(left: &str, frames: &[Vec<u8>], capture: &mut Capture, path: &std::path::Path) -> usize {
    let mut tags = 0;
    let sender = ringtap_lab::generator::Sender::open(left).unwrap();
    let mut expected = frames.iter();
    for burst in frames.chunks(32) {
        sender.send_all(burst).unwrap();
        let mut left = burst.len();
        while left > 0 {
            let batch = capture
                .next_batch_timeout(Duration::from_secs(2))
                .unwrap()
                .unwrap_or_else(|| panic!("{left} frames of {} did not come", path.display()));
            for packet in &batch {
                let mut bytes = packet.data().to_vec();
                if let Some(tag) = packet.stripped_vlan() {
                    bytes.splice(12..12, tag.to_bytes());
                    tags += 1;
                }
                assert_eq!(Some(&bytes), expected.next(), "{}", path.display());
                left -= 1;
            }
        }
    }
    tags
}
