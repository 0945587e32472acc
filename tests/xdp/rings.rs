//! AF_XDP at its rings: metadata before and behind packets, entries that are invalid, rings that are full.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::far_end::{FarEnd, PATIENCE};
use crate::setup::{FEW, assert_conserved, had, privileged, sender, socket};
use ringtap::packet::Timestamp;
use ringtap::xdp::{AsyncXdpSender, Attach, TxChecksum, XdpProgram, XdpReceiver, XdpSender};
use ringtap::{Capture, Error, executor, time};
use ringtap_lab::{Generator, Mark, Tally, Traffic, link, namespace, xdp, xsk};

/// A second mapping of a ring, which 5.10 refuses once a socket is bound.
fn ring_of(socket: BorrowedFd<'_>, which: xsk::Which, entries: u32) -> Option<xsk::Ring> {
    match xsk::Ring::of(socket, which, entries) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            ringtap_lab::skip("this kernel maps no ring of a bound socket");
            None
        }
        ring => Some(ring.unwrap()),
    }
}

#[ringtap_lab::test]
fn what_a_program_leaves_before_a_packet_comes_with_it() {
    const COUNT: u64 = 2_000;
    for attach in [Attach::Native, Attach::Generic] {
        let Some(net) = privileged() else { return };
        let veth = net.veth();
        let map = xdp::xskmap(1).unwrap();
        let made = xdp::number_before(map.as_fd()).unwrap();
        let program = XdpProgram::from_fds(&veth.right, attach, made, map).unwrap();
        let mut socket = socket(&veth.right).program(program).build().unwrap();
        let traffic = Traffic::default();
        let mut generator = Generator::new(&veth.left, &traffic);
        let mut seen = 0;
        while seen < COUNT {
            if generator.sent() == seen {
                generator.flood(50);
            }
            let batch = socket.next_batch_timeout(PATIENCE).unwrap().expect("packets");
            for (before, packet) in batch.iter_with_metadata(8) {
                let mark = Mark::find(packet.data()).expect("one of ours");
                assert_eq!(before, Some(mark.number.to_be_bytes().as_slice()), "{attach:?}");
                assert_eq!(mark.number, seen);
                seen += 1;
            }
            assert!(batch.iter_with_metadata(5_000).all(|(before, _)| before.is_none()));
            assert_eq!(batch.iter_with_metadata(0).count(), batch.len());
            let detached = batch.detach();
            assert!(detached.iter_with_metadata(8).all(|(before, _)| before.is_none()));
        }
        assert_conserved(&mut socket, 1024);
    }
}

#[ringtap_lab::test]
fn frames_are_told_when_they_were_sent_by_their_number() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { varied: false, ..Traffic::default() };
    for checksum in [TxChecksum::Off, TxChecksum::Software] {
        let far = FarEnd::new(&veth, Tally::new(&traffic, 300));
        let options = sender(&veth.left).tx_timestamps(true).tx_checksum(checksum);
        let Some(mut tx) = had(options.build_sender()) else { return };
        assert_eq!(tx.read_tx_timestamp(), None);
        let (mut next, mut last) = (0, Timestamp::default());
        for round in 0..3_u64 {
            for number in round * 100..(round + 1) * 100 {
                let frame = traffic.frame(number, 0);
                if number % 2 == 0 {
                    tx.send(&frame).unwrap();
                } else {
                    let mut slot = tx.reserve(frame.len()).unwrap();
                    slot.data_mut().copy_from_slice(&frame);
                    slot.send().unwrap();
                }
            }
            assert!(tx.drain(PATIENCE).unwrap());
            while let Some(stamp) = tx.read_tx_timestamp() {
                assert_eq!(stamp.frame, next);
                assert!(stamp.timestamp >= last, "in the order in which they were sent");
                (next, last) = (next + 1, stamp.timestamp);
            }
            assert_eq!(u64::from(next), (round + 1) * 100, "each frame, once it is sent");
        }
        // CLOCK_TAI is ahead of ours by the leap seconds, or not at all.
        let apart = last.as_nanos().abs_diff(Timestamp::now().as_nanos());
        assert!(Duration::from_nanos(apart) < Duration::from_secs(60), "{last:?}");
        assert_conserved(&mut tx, FEW);
        far.wait_until(300);
        far.finish().assert_complete();
    }
    // Of those that nobody reads, the newest are kept.
    let mut tx = sender(&veth.left).tx_timestamps(true).build_sender().unwrap();
    for number in 0..u64::from(FEW) + 50 {
        tx.send(&traffic.frame(number, 0)).unwrap();
        assert!(tx.drain(PATIENCE).unwrap());
    }
    let unread: Vec<u32> = std::iter::from_fn(|| tx.read_tx_timestamp()).map(|s| s.frame).collect();
    assert_eq!(unread, (50..FEW + 50).collect::<Vec<_>>());
    let mut without = sender(&veth.right).build_sender().unwrap();
    without.send(&traffic.frame(0, 0)).unwrap();
    assert!(without.drain(PATIENCE).unwrap() && without.read_tx_timestamp().is_none());
}

#[ringtap_lab::test]
fn frames_of_several_chunks_have_one_stamp_and_frames_sent_on_have_none() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    veth.set_mtu(9_000);
    let numbers = |socket: &mut XdpSender| {
        std::iter::from_fn(|| socket.read_tx_timestamp())
            .map(|stamp| stamp.frame)
            .collect::<Vec<_>>()
    };
    let small = Traffic::default().frame(0, 0);
    let opened = sender(&veth.left).tx_timestamps(true).multi_buffer(true).build_sender();
    let Some(mut tx) = had(opened) else { return };
    for _ in 0..5 {
        tx.send(&[[0xff; 4_000].as_slice(), &[1; 5_000]].concat()).unwrap();
        tx.send(&small).unwrap();
    }
    assert!(tx.drain(PATIENCE).unwrap());
    assert_eq!(numbers(&mut tx), (0..10).collect::<Vec<_>>());
    assert_conserved(&mut tx, FEW);
    veth.set_mtu(1_500);
    let mut echo = socket(&veth.right).tx_timestamps(true).build().unwrap();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    for _ in 0..3 {
        generator.flood(4);
        let mut count = 0;
        while count < 4 {
            let batch = echo.next_batch_timeout(PATIENCE).unwrap().expect("packets");
            count += batch.len();
            echo.send_batch(batch, |_| true).unwrap();
        }
        echo.send(&small).unwrap();
    }
    assert!(echo.drain(PATIENCE).unwrap());
    assert_eq!(numbers(echo.sender()), [4, 9, 14], "they count all the same");
    echo.next_batch();
    assert_conserved(&mut echo, 1024);
}

#[ringtap_lab::test]
fn there_is_no_metadata_before_packets_of_other_memory() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    veth.set_mtu(9_000);
    let mut capture =
        Capture::builder().interface(&veth.right).block_timeout_ms(2).build().unwrap();
    let Some(mut tx) = had(sender(&veth.left).multi_buffer(true).build_sender()) else { return };
    tx.send(&[0xff; 5_000]).unwrap();
    assert!(tx.drain(PATIENCE).unwrap());
    let batch = capture.next_batch_timeout(PATIENCE).unwrap().expect("a packet");
    assert!(batch.iter_with_metadata(8).all(|(before, _)| before.is_none()));
    let mut socket = socket(&veth.right).multi_buffer(true).build().unwrap();
    tx.send(&[0xff; 5_000]).unwrap();
    tx.send(&[0xff; 500]).unwrap();
    assert!(tx.drain(PATIENCE).unwrap());
    let mut lengths = Vec::new();
    while lengths.len() < 2 {
        let batch = socket.next_batch_timeout(PATIENCE).unwrap().expect("packets");
        for (before, packet) in batch.iter_with_metadata(8) {
            lengths.push((packet.len(), before.is_some()));
        }
    }
    assert_eq!(lengths, [(5_000, false), (500, true)]);
}

#[ringtap_lab::test]
fn an_async_sender_has_the_stamps_of_what_has_drained() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let Some(tx) = had(sender(&veth.left).tx_timestamps(true).build_sender()) else { return };
    executor::block_on(async {
        let mut tx = AsyncXdpSender::new(tx).unwrap();
        for number in 0..100 {
            tx.send(&Traffic::default().frame(number, 0)).await.unwrap();
        }
        tx.drain().await.unwrap();
        let frames: Vec<u32> =
            std::iter::from_fn(|| tx.read_tx_timestamp()).map(|stamp| stamp.frame).collect();
        assert_eq!(frames, (0..100).collect::<Vec<_>>());
    });
}

#[ringtap_lab::test]
fn invalid_entries_of_the_tx_ring_are_counted_and_the_others_are_sent() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { varied: false, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, 8));
    let mut tx = sender(&veth.left).build_sender().unwrap();
    let Some(ring) = ring_of(tx.as_fd(), xsk::Which::Tx, FEW) else { return };
    for number in 0..8 {
        tx.send(&traffic.frame(number, 0)).unwrap();
    }
    assert_eq!(ring.producer(), 8, "committed, and not kicked yet");
    ring.change(2, |entry| entry.addr = u64::from(FEW) * 4096); // behind the UMEM
    ring.change(4, |entry| entry.len = 5_000); // into the next frame
    ring.change(6, |entry| entry.options = 1 << 20); // no such option
    tx.flush().unwrap();
    far.wait_until(5);
    let chunks = tx.chunks();
    let stats = tx.stats().unwrap();
    assert_eq!((stats.tx_invalid, stats.committed), (3, 8), "{stats:?}");
    // Linux 6.18 hands them back by the names they had, one of which names no frame; others keep all three.
    assert!(stats.malformed <= 1, "{stats:?}");
    let lost = if stats.malformed == 1 { 1 } else { 3 };
    assert_eq!((chunks.total(), chunks.tx_kernel, chunks.tx_free), (FEW, lost, FEW - lost));
    for number in [2, 4, 6] {
        tx.send(&traffic.frame(number, 0)).unwrap(); // it goes on with what it has
    }
    tx.flush().unwrap();
    far.wait_until(8);
    assert_eq!(far.finish().received(), 8, "each once");
}

#[ringtap_lab::test]
fn packets_for_which_the_rx_ring_has_no_entry_are_counted_as_such() {
    const FRAMES: u32 = 64;
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let options = socket(&veth.right).frame_count(FRAMES);
    let mut socket = options.build_receiver().unwrap();
    let Some(ring) = ring_of(socket.as_fd(), xsk::Which::Rx, FRAMES) else { return };
    let traffic = Traffic { varied: false, ..Traffic::default() };
    let mut generator = Generator::new(&veth.left, &traffic);
    let receive = |socket: &mut XdpReceiver, count: u64, generator: &mut Generator| {
        let before = socket.stats().unwrap().delivered;
        generator.flood(count);
        while socket.stats().unwrap().delivered < before + count {
            socket.next_batch_timeout(PATIENCE).unwrap().expect("packets");
        }
    };
    receive(&mut socket, u64::from(FRAMES), &mut generator);
    assert!(socket.next_batch().is_none(), "all frames are the kernel's again");
    let at = ring.producer();
    assert_eq!(at, FRAMES);
    ring.set_consumer(at - FRAMES); // as if nothing had been read
    generator.flood(10);
    let stats = socket.stats().unwrap();
    assert_eq!((stats.rx_ring_full, stats.rx_dropped, stats.drops()), (10, 0, 10), "{stats:?}");
    assert_eq!(veth.lost(), 10, "the interface counts them too");
    ring.set_consumer(at);
    receive(&mut socket, u64::from(FRAMES), &mut generator);
    assert_eq!(socket.stats().unwrap().rx_ring_full, 10);
    assert_conserved(&mut socket, FRAMES);
}

#[ringtap_lab::test]
fn a_wait_on_full_rings_ends_at_once_for_what_is_there_and_never_for_what_is_not() {
    const FRAMES: u32 = 64;
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let traffic = Traffic { varied: false, ..Traffic::default() };
    // Receiving: more than there are frames for, and nobody has read.
    let options = socket(&veth.right).frame_count(FRAMES);
    let mut full = options.build_receiver().unwrap();
    let mut generator = Generator::new(&veth.left, &traffic);
    generator.flood(100);
    let stats = full.stats().unwrap();
    assert_eq!(stats.drops(), 100 - u64::from(FRAMES), "{stats:?}");
    let mut tally = Tally::new(&traffic, FRAMES.into());
    while tally.received() < FRAMES.into() {
        let batch = full.next_batch_timeout(PATIENCE).unwrap().expect("what the ring holds");
        batch.iter().for_each(|packet| tally.record(packet.data()));
    }
    tally.assert_complete();
    assert!(full.next_batch_timeout(Duration::from_millis(5)).unwrap().is_none());
    assert_conserved(&mut full, FRAMES);
    drop(full);
    // Sending: the ring is full, and nothing leaves it while the link is down.
    let tx = sender(&veth.left).build_sender().unwrap();
    link::set_up(&veth.left, false).unwrap();
    executor::block_on(async {
        let mut tx = AsyncXdpSender::new(tx).unwrap();
        for number in 0..FEW.into() {
            tx.send(&traffic.frame(number, 0)).await.unwrap();
        }
        let wait = time::timeout(Duration::from_millis(50), tx.send(&traffic.frame(0, 0))).await;
        assert!(wait.is_err(), "no room, and none comes");
        veth.up();
        let far = FarEnd::new(&veth, Tally::new(&traffic, u64::from(FEW) + 1));
        tx.send(&traffic.frame(FEW.into(), 0)).await.unwrap();
        tx.drain().await.unwrap();
        far.wait_until(u64::from(FEW) + 1);
        far.finish().assert_complete();
    });
    let mut tx = sender(&veth.left).build_sender().unwrap();
    link::set_up(&veth.left, false).unwrap();
    for number in 0..FEW.into() {
        tx.send(&traffic.frame(number, 0)).unwrap();
    }
    let refused = tx.send(&traffic.frame(0, 0));
    assert!(matches!(refused, Err(Error::LinkDown { .. })), "{refused:?}");
}
