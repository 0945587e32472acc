//! Transmission, proven at the far end: every committed frame arrives once, in order, unchanged, or is
//! counted.

use std::time::Duration;

use crate::far_end::{FarEnd, PATIENCE};
use ringtap::error::GeometryError;
use ringtap::inject::InjectorBuilder;
use ringtap::packet::{Offload, Segments};
use ringtap::{Error, Injector};
use ringtap_lab::{Host, Tally, Traffic, Veth, frames, limits, link, namespace};

fn injector(veth: &Veth) -> InjectorBuilder {
    Injector::builder().interface(&veth.left)
}

#[ringtap_lab::test]
fn a_million_frames_arrive_once_in_order_unchanged_with_and_without_the_qdisc() {
    let count = frames(1_000_000);
    for bypass in [false, true] {
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        let traffic = Traffic { flows: 16, ..Traffic::default() };
        let far = FarEnd::new(&veth, Tally::new(&traffic, count));
        let mut injector = injector(&veth).qdisc_bypass(bypass).build().unwrap();
        for number in 0..count {
            injector.send(&traffic.frame(number, 0)).unwrap();
            if number % 50_000 == 0 {
                injector.flush().unwrap();
                far.wait_until(number.saturating_sub(50_000));
            }
        }
        assert!(injector.drain(PATIENCE).unwrap());
        assert_eq!(
            (injector.pending(), injector.stats().committed, injector.rejected()),
            (0, count, 0)
        );
        assert_eq!(injector.available_slots(), injector.frame_count());
        far.wait_until(count);
        far.finish().assert_complete();
    }
}

#[ringtap_lab::test]
fn random_sizes_dropped_slots_kicks_and_yields_lose_and_repeat_nothing() {
    let count = frames(1_000_000);
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    // Lengths by number: the far end rebuilds each frame from its number.
    let traffic = Traffic { flows: 7, varied: true, len: 1514, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, count));
    let mut injector = injector(&veth).frame_count(61).build().unwrap();
    let mut random = 0x1234_5678_u32;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random
    };
    let mut number = 0;
    while number < count {
        let frame = traffic.frame(number, 0);
        match next() % 16 {
            0 => _ = injector.allocate(next() as usize % 2100),
            1 => injector.flush().unwrap(),
            2 => assert!(injector.drain(PATIENCE).unwrap()),
            3 => std::thread::yield_now(),
            4..10 => {
                injector.send(&frame).unwrap();
                number += 1;
            }
            _ => match injector.allocate(injector.frame_capacity()) {
                Some(mut slot) => {
                    slot.data_mut()[..frame.len()].copy_from_slice(&frame);
                    slot.set_len(frame.len());
                    slot.send().unwrap();
                    number += 1;
                }
                None => injector.flush().unwrap(),
            },
        }
        if number % 10_000 == 0 {
            injector.flush().unwrap();
            far.wait_until(number.saturating_sub(10_000));
        }
    }
    assert!(injector.drain(PATIENCE).unwrap());
    far.wait_until(count);
    assert_eq!(injector.rejected(), 0);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn frames_that_cannot_be_sent_are_refused_before_they_enter_the_ring() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut injector = injector(&veth).build().unwrap();
    assert_eq!((injector.max_frame_len(), injector.frame_capacity()), (1514, 2048 - 32));
    for len in [0, 1, 13, 1515, 2016, 2017, 100_000] {
        let error = injector.send(&vec![0; len]).unwrap_err();
        assert!(
            matches!(error, Error::FrameLength { len: named, least: 14, most: 1514 } if named == len),
            "{error:?}"
        );
    }
    assert!(injector.allocate(2017).is_none());
    let short = injector.allocate(13).unwrap().send();
    assert!(matches!(short, Err(Error::FrameLength { len: 13, .. })));
    let long = injector.allocate(1515).unwrap().send();
    assert!(matches!(long, Err(Error::FrameLength { len: 1515, .. })));
    assert_eq!((injector.stats().committed, injector.pending()), (0, 0));
    injector.send(&[0xff; 14]).unwrap();
    injector.send(&[0xff; 1514]).unwrap();
    injector.flush().unwrap();
    assert_eq!(link::stats(&veth.right).unwrap().received, 2);
    veth.set_mtu(1900);
    injector.send(&[0xff; 1914]).expect("a raised MTU is noticed");
}

#[ringtap_lab::test]
fn a_tag_may_exceed_the_mtu_and_arrives() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { len: 1514, vlan: Some(7), ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, 10));
    let mut injector = injector(&veth).build().unwrap();
    for number in 0..10 {
        injector.send(&traffic.frame(number, 0)).unwrap();
    }
    injector.flush().unwrap();
    far.wait_until(10);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn a_full_ring_gives_no_slot_and_a_dropped_slot_leaves_no_hole() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let far = FarEnd::new(&veth, Tally::new(&traffic, 5));
    let mut injector = injector(&veth).frame_count(4).build().unwrap();
    let count = injector.frame_count() as u64;
    let _ = injector.allocate(100).unwrap();
    for number in 0..count {
        let frame = traffic.frame(number, 0);
        let mut slot = injector.allocate(frame.len()).unwrap();
        slot.data_mut().copy_from_slice(&frame);
        slot.send().unwrap();
    }
    assert!(injector.allocate(60).is_none());
    assert_eq!((injector.available_slots(), injector.pending() as u64), (0, count));
    injector.send(&traffic.frame(count, 0)).unwrap(); // kicks and waits
    injector.flush().unwrap();
    far.wait_until(count + 1);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn an_mtu_lowered_while_frames_wait_refuses_those_and_sends_the_others() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut injector = injector(&veth).build().unwrap();
    let short = Traffic { len: 100, ..Traffic::default() };
    let long = Traffic { len: 1400, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&short, 60));
    for number in 0..60 {
        injector.send(&short.frame(number, 0)).unwrap();
        if number % 3 == 1 {
            injector.send(&long.frame(number, 0)).unwrap();
        }
    }
    veth.set_mtu(600);
    injector.flush().unwrap();
    assert_eq!((injector.rejected(), injector.stats().committed, injector.pending()), (20, 80, 0));
    assert_eq!(injector.max_frame_len(), 614, "learnt");
    far.wait_until(60);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn frames_wait_while_the_link_is_down_and_go_when_it_is_up() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let mut injector = injector(&veth).build().unwrap();
    link::set_up(&veth.left, false).unwrap();
    for number in 0..20 {
        injector.send(&traffic.frame(number, 0)).unwrap();
    }
    let error = injector.flush().unwrap_err();
    assert!(matches!(&error, Error::LinkDown { name } if *name == veth.left), "{error}");
    assert!(injector.drain(Duration::ZERO).is_ok_and(|drained| !drained));
    assert_eq!(injector.pending(), 20);
    veth.up();
    let far = FarEnd::new(&veth, Tally::new(&traffic, 20));
    injector.flush().unwrap();
    far.wait_until(20);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn a_removed_interface_is_an_error() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut injector = injector(&veth).build().unwrap();
    injector.send(&[0xff; 60]).unwrap();
    veth.delete();
    let error = injector.flush().unwrap_err();
    assert!(matches!(&error, Error::InterfaceGone { name } if *name == veth.left), "{error:?}");
}

#[ringtap_lab::test]
fn a_queue_that_is_full_is_waited_out_and_loses_nothing() {
    let Some(net) = namespace() else { return };
    limits::stay_on_this_core();
    let veth = net.veth();
    // 8 Mbit/s, a queue of 4,000 bytes: a handful of frames.
    link::limit_rate(&veth.left, 1_000_000, 2_000, 4_000).unwrap();
    let traffic = Traffic { len: 500, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, 300));
    let mut injector = injector(&veth).build().unwrap();
    for number in 0..300 {
        injector.send(&traffic.frame(number, 0)).unwrap();
    }
    injector.flush().unwrap();
    assert!(injector.stats().queue_full > 0, "the queue was full: {:?}", injector.stats());
    assert!(injector.drain(PATIENCE).unwrap());
    far.wait_until(300);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn a_send_buffer_of_a_few_frames_makes_the_kernel_take_parts_and_loses_nothing() {
    let Some(net) = namespace() else { return };
    limits::stay_on_this_core();
    let veth = net.veth();
    link::limit_rate(&veth.left, 2_000_000, 4_000, 1 << 20).unwrap();
    let traffic = Traffic { len: 1000, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, 500));
    let mut injector = injector(&veth).sndbuf(8_000).build().unwrap();
    for number in 0..500 {
        injector.send(&traffic.frame(number, 0)).unwrap();
    }
    assert!(injector.drain(PATIENCE).unwrap());
    assert!(injector.stats().buffer_full > 0, "it was full: {:?}", injector.stats());
    far.wait_until(500);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn the_kernel_says_when_it_sent_each_frame() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut injector = injector(&veth).tx_timestamps(true).build().unwrap();
    assert_eq!(injector.read_tx_timestamp().unwrap(), None);
    for _ in 0..5 {
        injector.send(&[0xff; 60]).unwrap();
    }
    assert!(injector.drain(PATIENCE).unwrap());
    for frame in 0..5 {
        let stamp = injector.read_tx_timestamp().unwrap().expect("sent, so stamped");
        assert_eq!(stamp.frame, frame);
        assert!(stamp.timestamp.secs > 1_600_000_000);
    }
    assert_eq!(injector.read_tx_timestamp().unwrap(), None);
}

#[ringtap_lab::test]
fn an_injector_receives_nothing_and_bad_options_are_typed_errors() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    assert!(matches!(Injector::builder().build(), Err(Error::InterfaceMissing)));
    assert!(matches!(Injector::open("nowhere0"), Err(Error::NoSuchInterface { .. })));
    let error = injector(&veth).frame_size(100).build().unwrap_err();
    assert!(matches!(error, Error::Geometry(GeometryError::FrameNotAligned { .. })));
    let error = injector(&veth).frame_count(0).build().unwrap_err();
    assert!(matches!(error, Error::Geometry(GeometryError::Zero("frame_count"))));
    let odd = injector(&veth).frame_size(1360).frame_count(10).build().unwrap();
    assert_eq!((odd.frame_capacity(), odd.frame_count()), (1328, 12));
}

/// Adds up 16-bit words, as IP checksums do.
fn sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// A datagram to `to`, its UDP checksum left to whoever sends it.
fn unfinished_datagram(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 8, 0]);
    let total = (20 + len).to_be_bytes();
    frame.extend_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&[from, to].concat());
    let header_sum = (!sum(&frame[14..34])).to_be_bytes();
    frame[24..26].copy_from_slice(&header_sum);
    let pseudo = [&from[..], &to, &[0, 17], &len.to_be_bytes()].concat();
    for half in [7000, 7001, len, sum(&pseudo)] {
        frame.extend_from_slice(&half.to_be_bytes());
    }
    frame.extend_from_slice(payload);
    frame
}

#[ringtap_lab::test]
fn a_frame_sent_with_its_offload_arrives_finished_and_split() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let host = Host::new(&veth.right, [10, 9, 0, 2].into());
    link::wait_for_carrier(&veth.left);
    let (ready, listening) = std::sync::mpsc::channel();
    let received = host.run(move || {
        let socket = std::net::UdpSocket::bind("10.9.0.2:7001").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        ready.send(()).unwrap();
        (0..5)
            .map(|_| {
                let mut bytes = [0; 4000];
                let len = socket.recv(&mut bytes).unwrap();
                bytes[..len].to_vec()
            })
            .collect::<Vec<_>>()
    });
    listening.recv().unwrap();
    let payload: Vec<u8> = (0..4500_u32).map(|at| (at / 7) as u8).collect();
    let frame = unfinished_datagram([10, 9, 0, 1], [10, 9, 0, 2], &payload);
    let offload = Offload::checksum(34, 6).split(Segments::Udp, 1000);
    let plain = injector(&veth).frame_size(8192);
    let mut refusing = plain.clone().build().unwrap();
    let mut slot = refusing.allocate(frame.len()).unwrap();
    slot.set_offload(offload);
    assert!(matches!(slot.send(), Err(Error::OffloadsDisabled)));

    let mut injector = plain.offloads(true).build().unwrap();
    assert!(matches!(injector.send(&frame), Err(Error::FrameLength { .. })), "not to be split");
    let mut slot = injector.allocate(frame.len()).unwrap();
    slot.data_mut().copy_from_slice(&frame);
    slot.set_offload(Offload::checksum(34, 6).split(Segments::Udp, 2000));
    assert!(matches!(slot.send(), Err(Error::FrameLength { len: 2042, .. })), "in such segments");
    let mut slot = injector.allocate(frame.len()).unwrap();
    slot.data_mut().copy_from_slice(&frame);
    slot.set_offload(offload);
    slot.send().unwrap();
    injector.flush().unwrap();
    if injector.rejected() > 0 {
        return ringtap_lab::skip(
            "this kernel takes no UDP segments of a packet socket (6.2 does)",
        );
    }
    let datagrams = received.join().unwrap();
    assert_eq!(datagrams, payload.chunks(1000).collect::<Vec<_>>());
}

#[ringtap_lab::test]
fn a_frame_that_is_not_what_its_offload_says_is_counted_and_holds_up_nothing() {
    let Some(net) = namespace() else { return };
    for bypass in [false, true] {
        let veth = net.veth();
        let traffic = Traffic::default();
        let far = FarEnd::new(&veth, Tally::new(&traffic, 20));
        let options = injector(&veth).frame_size(8192).offloads(true).qdisc_bypass(bypass);
        let mut injector = options.build().unwrap();
        let frame = unfinished_datagram([10, 9, 0, 1], [10, 9, 0, 2], &[7; 3000]);
        for number in 0..20 {
            injector.send(&traffic.frame(number, 0)).unwrap();
            if number == 9 {
                let mut slot = injector.allocate(frame.len()).unwrap();
                slot.data_mut().copy_from_slice(&frame);
                slot.set_offload(Offload::checksum(34, 16).split(Segments::TcpV4, 1000));
                slot.send().unwrap();
            }
        }
        assert!(injector.drain(PATIENCE).unwrap());
        assert_eq!((injector.rejected(), injector.pending()), (1, 0));
        far.wait_until(20);
        far.finish().assert_complete();
    }
}

/// Has the far end drop frames over 714 bytes, and makes a longer one.
fn narrow(veth: &Veth) -> Vec<u8> {
    veth.set_mtu_of_right(700);
    Traffic { len: 1400, ..Traffic::default() }.frame(0, 0)
}

#[ringtap_lab::test]
fn a_frame_that_the_far_end_drops_is_given_up_and_those_behind_it_arrive() {
    for bypass in [false, true] {
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        let long = narrow(&veth);
        let traffic = Traffic::default();
        let far = FarEnd::new(&veth, Tally::new(&traffic, 100));
        let patience = Duration::from_millis(200);
        let builder = injector(&veth).qdisc_bypass(bypass).give_up_after(patience);
        let mut injector = builder.build().unwrap();
        let mut number = 0;
        // Several, so that what was learned of the first is of use.
        for _ in 0..5 {
            injector.send(&long).unwrap();
            for _ in 0..20 {
                injector.send(&traffic.frame(number, 0)).unwrap();
                number += 1;
            }
        }
        let in_time = injector.flush_timeout(Duration::ZERO).unwrap();
        assert!(!in_time || bypass, "the first one is in the way");
        injector.flush().unwrap();
        far.wait_until(100);
        far.finish().assert_complete();
        let stats = injector.close(PATIENCE);
        // The driver may take and drop it where no queue says so.
        assert!(matches!(stats.rejected, 0 | 5), "{stats:?}");
        assert_eq!((stats.committed, stats.abandoned), (105, 0));
    }
}

#[ringtap_lab::test]
fn a_slow_queue_is_waited_for_and_what_is_left_behind_it_is_counted() {
    let Some(net) = namespace() else { return };
    limits::stay_on_this_core();
    let veth = net.veth();
    link::limit_rate(&veth.left, 10_000, 2_000, 3_000).unwrap();
    let traffic = Traffic { len: 500, ..Traffic::default() };
    let mut sender = injector(&veth).build().unwrap();
    let handle = sender.stats_handle();
    for number in 0..100 {
        sender.send(&traffic.frame(number, 0)).unwrap();
    }
    drop(sender);
    let stats = handle.stats();
    assert_eq!((stats.committed, stats.rejected), (100, 0));
    assert!((50..100).contains(&stats.abandoned), "{stats:?}");

    // All of ours are in the queue, which takes longer than a frame may be in the way of others.
    let far = FarEnd::new(&veth, Tally::new(&traffic, 100));
    // The first one's are out of the queue.
    let sent = || link::stats(&veth.left).unwrap().sent;
    let mut before = sent();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = sent();
        if now == before {
            break;
        }
        before = now;
    }
    let patience = Duration::from_millis(30);
    let mut sender = injector(&veth).give_up_after(patience).build().unwrap();
    for number in 0..40 {
        sender.send(&traffic.frame(number, 0)).unwrap();
    }
    let stats = sender.close(PATIENCE);
    assert_eq!((stats.committed, stats.rejected, stats.abandoned), (40, 0, 0), "{stats:?}");
    drop(far);
}

#[ringtap_lab::test]
fn slots_are_as_long_as_the_interfaces_frames() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    veth.set_mtu(9_000);
    let traffic = Traffic { len: 9_014, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, 3));
    let mut injector = Injector::open(&veth.left).unwrap();
    assert_eq!(injector.max_frame_len(), 9_014);
    for number in 0..3 {
        injector.send(&traffic.frame(number, 0)).unwrap();
    }
    assert!(injector.drain(PATIENCE).unwrap());
    far.wait_until(3);
    far.finish().assert_complete();
    let offloading = Injector::builder().interface(&veth.left).offloads(true).build().unwrap();
    assert!(offloading.frame_capacity() >= 65_535 + 14, "for what is to be split");
}
