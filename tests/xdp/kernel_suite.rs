//! What the kernel's own suite for AF_XDP tests (tools/testing/selftests/bpf/xskxceiver.c), in the driver and in
//! the stack. The tests that write to the rings themselves are in `rings.rs`.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::far_end::{FarEnd, PATIENCE};
use crate::setup::{Counted, FEW, assert_conserved, had, privileged, receive_all, sender, socket};
use ringtap::error::GeometryError;
use ringtap::xdp::{
    Attach, CopyMode, HugePages, TxChecksum, XdpProgram, XdpReceiver, XdpSocketBuilder,
};
use ringtap::{Capture, Error};
use ringtap_lab::{Generator, Protocol, Tally, Traffic, Veth, bpf, link, namespace, xdp};

const BOTH: [Attach; 2] = [Attach::Native, Attach::Generic];

fn backwards(veth: &Veth) -> Veth {
    Veth { left: veth.right.clone(), right: veth.left.clone() }
}

fn receive(options: XdpSocketBuilder, veth: &Veth, traffic: &Traffic, count: u64) -> XdpReceiver {
    let mut socket = options.build_receiver().unwrap();
    let mut tally = Tally::new(traffic, count);
    let mut generator = Generator::new(&veth.left, traffic);
    receive_all(&mut socket, &mut generator, &mut tally, count);
    tally.assert_complete();
    socket
}

#[ringtap_lab::test]
fn frames_of_2048_bytes_and_any_headroom_hold_packets_and_one_alone_arrives() {
    for attach in BOTH {
        for (frame_size, headroom) in
            [(2048, 0), (4096, 0), (2048, 128), (4096, 3072), (2048, 1024)]
        {
            let Some(net) = privileged() else { return };
            let veth = net.veth();
            let options = socket(&veth.right).attach(attach);
            let options = options.frame_size(frame_size).headroom(headroom);
            for count in [1, 5_000] {
                let len = 1514.min(frame_size as usize - 256 - headroom as usize - 320);
                let traffic = Traffic { len, ..Traffic::default() };
                let mut socket = receive(options.clone(), &veth, &traffic, count);
                assert_conserved(&mut socket, 1024);
            }
        }
    }
}

#[ringtap_lab::test]
fn a_wait_on_a_quiet_queue_ends_in_time_and_one_on_a_busy_one_at_once() {
    for attach in BOTH {
        let Some(net) = privileged() else { return };
        let veth = net.veth();
        let mut socket = socket(&veth.right).attach(attach).build().unwrap();
        assert!(socket.next_batch_timeout(Duration::from_millis(30)).unwrap().is_none());
        assert!(socket.next_batch_timeout(Duration::ZERO).unwrap().is_none());
        Generator::new(&veth.left, &Traffic::default()).flood(10);
        let start = Instant::now();
        let mut seen = 0;
        while seen < 10 {
            seen += socket.next_batch_timeout(10 * PATIENCE).unwrap().expect("frames").len();
        }
        assert!(start.elapsed() < PATIENCE, "it did not wait for its time to be up");
    }
}

#[ringtap_lab::test]
fn a_full_ring_has_no_room_until_it_is_kicked() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let far = FarEnd::new(&veth, Tally::new(&traffic, 64));
    let mut tx = sender(&veth.left).frame_count(64).build_sender().unwrap();
    for number in 0..64 {
        let frame = traffic.frame(number, 0);
        let mut slot = tx.reserve(frame.len()).expect("there is room");
        slot.data_mut().copy_from_slice(&frame);
        slot.send().unwrap();
    }
    assert!(tx.reserve(60).is_none());
    assert_eq!(tx.chunks().tx_kernel, 64);
    tx.flush().unwrap();
    assert!(tx.drain(PATIENCE).unwrap());
    assert!(tx.reserve(60).is_some());
    assert!(tx.reserve(4097).is_none(), "longer than a frame");
    far.wait_until(64);
    far.finish().assert_complete();
    assert_conserved(&mut tx, 64);
}

#[ringtap_lab::test]
fn both_ends_send_and_receive_at_the_same_time_again_and_again() {
    for attach in BOTH {
        let Some(net) = privileged() else { return };
        let veth = net.veth();
        let traffic = Traffic::default();
        for _ in 0..5 {
            let open = |name: &str| socket(name).attach(attach).build().unwrap();
            let mut ends = [open(&veth.left), open(&veth.right)];
            let mut tallies = [Tally::new(&traffic, 2_000), Tally::new(&traffic, 2_000)];
            for burst in 0..20 {
                for end in &mut ends {
                    for number in burst * 100..(burst + 1) * 100 {
                        end.send(&traffic.frame(number, 0)).unwrap();
                    }
                    end.flush().unwrap();
                }
                for (end, tally) in ends.iter_mut().zip(&mut tallies) {
                    while tally.received() < (burst + 1) * 100 {
                        let batch = end.next_batch_timeout(PATIENCE).unwrap().expect("frames");
                        batch.iter().for_each(|packet| tally.record(packet.data()));
                    }
                }
            }
            tallies.iter().for_each(Tally::assert_complete);
            for end in &mut ends {
                assert!(end.drain(PATIENCE).unwrap());
                assert_conserved(end, 1024);
            }
        }
    }
}

#[ringtap_lab::test]
fn a_program_from_elsewhere_drops_half_and_its_map_serves_later_sockets() {
    const COUNT: u64 = 1_000;
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let map = xdp::xskmap(4).unwrap();
    let made = xdp::drop_odd_ports(map.as_fd()).unwrap();
    let foreign = map.try_clone().unwrap();
    let program = XdpProgram::from_fds(&veth.right, Attach::Native, made, map).unwrap();
    // Flow N comes from port 10000 + N.
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let mut generator = Generator::new(&veth.left, &traffic);
    let mut check = |program: XdpProgram| {
        let mut socket = socket(&veth.right).program(program).build().unwrap();
        let mut tally = Tally::new(&traffic, 2 * COUNT);
        let until = generator.sent() + COUNT;
        while generator.sent() < until {
            generator.flood(100);
            while let Some(batch) = socket.next_batch() {
                batch.iter().for_each(|packet| tally.record(packet.data()));
            }
        }
        while let Some(batch) = socket.next_batch_timeout(Duration::from_millis(50)).unwrap() {
            batch.iter().for_each(|packet| tally.record(packet.data()));
        }
        tally.assert_sound();
        assert_eq!((tally.received(), tally.flows()), (COUNT / 2, vec![0, 2]));
        assert_conserved(&mut socket, 1024);
    };
    check(program.clone());
    // Attached elsewhere, as far as this one knows.
    check(XdpProgram::from_map(&veth.right, false, foreign).unwrap());
    drop(program);
    XdpProgram::redirect_all(&veth.right, Attach::Native).expect("it went with its last holder");
}

#[ringtap_lab::test]
fn a_program_that_was_attached_elsewhere_is_named_and_can_be_used() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let map = xdp::xskmap(1).unwrap();
    let made = xdp::drop_odd_ports(map.as_fd()).unwrap();
    let _link = xdp::attach(made.as_fd(), &veth.right).unwrap();
    let error = socket(&veth.right).build().unwrap_err();
    assert!(matches!(error, Error::ProgramAttached { id: Some(_), .. }), "{error:?}");
    assert!(error.to_string().contains("from_map"), "{error}");
    let program = XdpProgram::from_map(&veth.right, false, map).unwrap();
    let traffic = Traffic { flows: 1, ..Traffic::default() };
    let options = socket(&veth.right).program(program);
    let mut socket = receive(options, &veth, &traffic, 500);
    assert_conserved(&mut socket, 1024);
}

#[ringtap_lab::test]
fn a_program_that_was_attached_elsewhere_is_used_through_its_pinned_map() {
    let Some(net) = privileged() else { return };
    let directory = ringtap_lab::Directory::new();
    directory.mount("bpf", "").unwrap();
    let veth = net.veth();
    let map = xdp::xskmap(1).unwrap();
    let made = xdp::drop_odd_ports(map.as_fd()).unwrap();
    let _link = xdp::attach(made.as_fd(), &veth.right).unwrap();
    let [of_map, of_program] = ["map", "program"].map(|name| directory.path().join(name));
    bpf::pin(map.as_fd(), &of_map).unwrap();
    bpf::pin(made.as_fd(), &of_program).unwrap();
    drop(map);
    let program = XdpProgram::from_pinned(&veth.right, false, &of_map).unwrap();
    let traffic = Traffic { flows: 1, ..Traffic::default() };
    receive(socket(&veth.right).program(program), &veth, &traffic, 100);
    for (path, why) in [(of_program, "no map of AF_XDP"), (directory.path().join("x"), "pinned")] {
        let error = XdpProgram::from_pinned(&veth.right, false, &path).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[ringtap_lab::test]
fn two_queues_share_a_umem_and_frames_go_out_where_they_came_in() {
    const COUNT: u64 = 20_000;
    let Some(net) = privileged() else { return };
    let veth = net.veth_with_queues(2);
    let program = XdpProgram::redirect_all(&veth.right, Attach::Native).unwrap();
    let options = socket(&veth.right).program(program).frame_count(256);
    let mut first = options.clone().umem_shares(2).build().unwrap();
    let second = options.clone().queue_id(1).shared_umem(&first.umem());
    let mut second = second.build().unwrap();
    let traffic = Traffic { flows: 2, ..Traffic::default() };
    let far = FarEnd::new(&backwards(&veth), Tally::new(&traffic, COUNT));
    let mut sender = socket(&veth.left).build_sender().unwrap();
    let mut number = 0;
    while number < COUNT {
        first.chunks(); // what has come back is received into again
        for _ in 0..100 {
            sender.send(&traffic.frame(number, 0)).unwrap();
            number += 1;
        }
        sender.flush().unwrap();
        let mut passed = 0;
        while passed < 100 {
            // In by the one queue, out by the other, and every third time by the same.
            let batch = first.next_batch_timeout(PATIENCE).unwrap().expect("frames");
            let through = if number % 300 == 0 { &mut first } else { &mut second };
            passed += through.send_batch(batch, |_| true).unwrap();
            through.flush().unwrap();
        }
        far.wait_until(number);
    }
    far.finish().assert_complete();
    for socket in [&mut first, &mut second] {
        assert!(socket.drain(PATIENCE).unwrap());
        let stats = socket.stats().unwrap();
        assert_eq!((stats.not_forwarded, stats.rx_invalid, stats.tx_invalid), (0, 0, 0));
    }
    assert_eq!(second.stats().unwrap().delivered, 0);
    assert_conserved(&mut second, 256);
    assert_conserved(&mut first, 256);
}

#[ringtap_lab::test]
fn what_is_sent_on_can_be_changed_left_out_and_come_from_elsewhere() {
    let Some(net) = privileged() else { return };
    let (veth, other) = (net.veth(), net.veth());
    let mut receiver = socket(&veth.right).build().unwrap();
    let mut sender = socket(&other.left).build_sender().unwrap();
    let traffic = Traffic { flows: 2, varied: false, ..Traffic::default() };
    let mut far = socket(&other.right).build_receiver().unwrap();
    Generator::new(&veth.left, &traffic).flood(40);
    let mut passed = 0;
    while let Some(batch) = receiver.next_batch_timeout(Duration::from_millis(50)).unwrap() {
        let batch = if passed == 0 { batch } else { batch.detach() };
        // Another UMEM, or none: copied. Every second frame, its first byte changed.
        let mut number = 0;
        passed += sender
            .send_batch(batch, |frame| {
                frame[0] = 0xee;
                number += 1;
                number % 2 == 0
            })
            .unwrap();
        sender.flush().unwrap();
    }
    assert_eq!(passed, 20);
    let mut seen = 0;
    while let Some(batch) = far.next_batch_timeout(Duration::from_millis(50)).unwrap() {
        for packet in &batch {
            assert_eq!((packet.data()[0], packet.len()), (0xee, traffic.frame_len()));
            seen += 1;
        }
    }
    assert_eq!(seen, 20);
    assert!(sender.drain(PATIENCE).unwrap());
    let all: [&mut dyn Counted; 3] = [&mut receiver, &mut sender, &mut far];
    for socket in all {
        assert_conserved(socket, 1024);
    }
}

#[ringtap_lab::test]
fn packets_of_9000_bytes_take_several_frames_both_ways() {
    const COUNT: u64 = 2_000;
    for (attach, frame_size) in [(Attach::Native, 4096), (Attach::Native, 2048)] {
        let Some(net) = privileged() else { return };
        let veth = net.veth();
        veth.set_mtu(9000);
        let open =
            |name: &str| socket(name).frame_size(frame_size).multi_buffer(true).attach(attach);
        let traffic = Traffic { flows: 4, len: 9014, ..Traffic::default() };
        let Some(mut receiver) = had(open(&veth.right).build()) else { return };
        let mut sender = open(&veth.left).build_sender().unwrap();
        let back = FarEnd::new(&backwards(&veth), Tally::new(&traffic, COUNT));
        let mut tally = Tally::new(&traffic, COUNT);
        let mut longest = 0;
        while tally.received() < COUNT {
            let first = tally.received();
            (first..first + 20).for_each(|number| {
                sender.send(&traffic.frame(number, 0)).unwrap();
            });
            sender.flush().unwrap();
            while tally.received() < first + 20 {
                let batch = receiver.next_batch_timeout(PATIENCE).unwrap().expect("frames");
                for packet in &batch {
                    tally.record(packet.data());
                    longest = longest.max(packet.len());
                }
                receiver.send_batch(batch, |_| true).unwrap();
                receiver.flush().unwrap();
            }
            back.wait_until(tally.received());
        }
        tally.assert_complete();
        back.finish().assert_complete();
        assert!(longest > 2 * frame_size as usize, "{longest}");
        assert!(receiver.drain(PATIENCE).unwrap() && sender.drain(PATIENCE).unwrap());
        let both: [&mut dyn Counted; 2] = [&mut receiver, &mut sender];
        for socket in both {
            assert_conserved(socket, 1024);
        }
    }
}

#[ringtap_lab::test]
fn a_packet_beyond_a_frame_is_dropped_and_counted_without_multi_buffer() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    veth.set_mtu(5000);
    let options = socket(&veth.right).attach(Attach::Generic);
    let mut socket = options.build().unwrap();
    Generator::new(&veth.left, &Traffic { len: 5000, varied: false, ..Traffic::default() })
        .flood(3);
    Generator::new(&veth.left, &Traffic::default()).flood(1);
    let batch = socket.next_batch_timeout(PATIENCE).unwrap().expect("the short one");
    assert_eq!(batch.len(), 1);
    drop(batch);
    assert_eq!(socket.stats().unwrap().rx_dropped, 3);
    assert_conserved(&mut socket, 1024);
}

#[ringtap_lab::test]
fn a_checksum_is_computed_for_frames_that_ask_for_it() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let options = sender(&veth.left);
    let traffic = Traffic { protocol: Protocol::Udp, varied: false, ..Traffic::default() };
    let mut far = Capture::builder().interface(&veth.right).block_timeout_ms(2).build().unwrap();
    let tx = options.clone().tx_checksum(TxChecksum::Software).build_sender();
    let Some(mut tx) = had(tx) else { return };
    for number in 0..10 {
        let mut frame = traffic.frame(number, 0);
        frame[40..42].copy_from_slice(&[0, 0]);
        let partial = checksum(&frame[..34], 17 + (frame.len() as u32 - 34));
        frame[40..42].copy_from_slice(&partial.to_be_bytes());
        let mut slot = tx.reserve(frame.len()).unwrap();
        slot.data_mut().copy_from_slice(&frame);
        slot.set_checksum(34, 6);
        slot.send().unwrap();
    }
    assert!(tx.drain(PATIENCE).unwrap());
    let mut seen = 0;
    while seen < 10 {
        let batch = far.next_batch_timeout(PATIENCE).unwrap().expect("frames");
        for packet in &batch {
            assert_eq!(checksum(packet.data(), 17 + (packet.len() as u32 - 34)), 0xffff);
            seen += 1;
        }
    }
    for (start, offset) in [(2000, 0), (59, 0), (34, 25), (u16::MAX, u16::MAX)] {
        let mut slot = tx.reserve(60).unwrap();
        slot.set_checksum(start, offset);
        assert!(matches!(slot.send(), Err(Error::ChecksumOutside { len: 60, .. })));
    }
    assert_conserved(&mut tx, FEW);
    drop(tx);
    let mut without = options.build_sender().unwrap();
    let mut slot = without.reserve(60).unwrap();
    slot.set_checksum(34, 6);
    assert!(matches!(slot.send(), Err(Error::OffloadsDisabled)));
    assert_conserved(&mut without, FEW);
}

/// The one's complement sum of an IPv4/UDP frame from its addresses on, and what else there is.
fn checksum(frame: &[u8], rest: u32) -> u16 {
    let words = frame[26..]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum = rest + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[ringtap_lab::test]
fn memory_options_do_what_they_say_or_say_that_they_cannot() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let options = || sender(&veth.left);
    let is_possible = match options().huge_pages(HugePages::Require).build_sender() {
        Ok(socket) => socket.has_huge_pages(),
        Err(error) => {
            assert!(error.to_string().contains("vm.nr_hugepages"), "{error}");
            false
        }
    };
    let tried = options().huge_pages(HugePages::Try).build_sender().unwrap();
    assert_eq!(tried.has_huge_pages(), is_possible);
    drop(tried);
    let mut here = options().numa_node(0).build_sender().unwrap();
    here.send(&[0xff; 60]).unwrap();
    assert!(here.drain(PATIENCE).unwrap());
    drop(here);
    for node in [999, 5000] {
        let error = options().numa_node(node).build_sender().unwrap_err();
        assert!(error.to_string().contains("NUMA node"), "{error}");
    }
}

#[ringtap_lab::test]
fn an_interface_is_promiscuous_as_long_as_the_socket_lives() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let socket = sender(&veth.left).promiscuous(true).build_sender().unwrap();
    assert_eq!(link::promiscuity(&veth.left).unwrap(), 1);
    drop(socket);
    assert_eq!(link::promiscuity(&veth.left).unwrap(), 0);
}

#[ringtap_lab::test]
fn busy_polling_is_accepted_and_receives() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let options = socket(&veth.right);
    let options = options.busy_poll_us(20).prefer_busy_poll(true).busy_poll_budget(64);
    let Some(_) = had(options.clone().build()) else { return };
    let mut socket = receive(options, &veth, &Traffic::default(), 2_000);
    assert_conserved(&mut socket, 1024);
}

/// Waits until the kernel has let go of closed sockets, and all frames are back.
fn come_home(receiver: &mut XdpReceiver) {
    let start = Instant::now();
    while receiver.chunks().rx_leased > 0 {
        assert!(start.elapsed() < PATIENCE, "{:?}", receiver.chunks());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[ringtap_lab::test]
fn sockets_that_end_in_another_thread_beside_one_that_receives_give_no_frame_to_two() {
    const ENDS: u64 = 60;
    let Some(net) = privileged() else { return };
    let (veth, other) = (net.veth(), net.veth());
    let frames = 64;
    let options = socket(&veth.right).frame_count(frames);
    let mut receiver = options.umem_shares(ENDS as u32 + 1).build_receiver().unwrap();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    let far = Capture::builder().interface(&other.right).ignore_outgoing(true).build().unwrap();
    for _ in 0..ENDS {
        let sender = socket(&other.left).frame_count(frames);
        let mut sender = sender.shared_umem(&receiver.umem()).build_sender().unwrap();
        generator.flood(48);
        let mut sent_on = 0;
        while sent_on < 48 {
            let batch = receiver.next_batch_timeout(PATIENCE).unwrap().expect("frames");
            sent_on += sender.send_batch(batch, |_| true).unwrap();
        }
        let ending = std::thread::spawn(move || drop(sender)); // which kicks
        come_home(&mut receiver);
        ending.join().unwrap();
        assert_eq!(receiver.chunks().total(), frames);
    }
    assert_conserved(&mut receiver, frames);
    assert_eq!(far.stats().unwrap().packets, 48 * ENDS, "all were sent, none twice");
}

#[ringtap_lab::test]
fn the_frames_of_a_socket_that_goes_come_home_to_the_one_that_received_them() {
    let Some(net) = privileged() else { return };
    let (veth, other) = (net.veth(), net.veth());
    let options = || socket(&veth.right).frame_count(128);
    let mut receiver = options().umem_shares(2).build_receiver().unwrap();
    let sender = socket(&other.left).frame_count(128).shared_umem(&receiver.umem());
    let (zero_copy, again) = (sender.clone().copy_mode(CopyMode::ZeroCopy), sender.clone());
    assert!(zero_copy.build_sender().unwrap_err().to_string().contains("zero-copy"));
    let mut sender = sender.build_sender().unwrap();
    link::set_up(&other.left, false).unwrap();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    generator.flood(64);
    let mut sent_on = 0;
    while sent_on < 64 {
        let batch = receiver.next_batch_timeout(PATIENCE).unwrap().expect("frames");
        sent_on += sender.send_batch(batch, |_| true).unwrap();
    }
    assert_eq!(receiver.chunks().rx_leased, 64, "under way");
    drop(sender);
    come_home(&mut receiver);
    assert!(matches!(again.build_sender(), Err(Error::Geometry(GeometryError::NoShareLeft))));
    let late = socket(&other.left).shared_umem(&receiver.umem());
    drop(receiver);
    assert!(matches!(late.build_sender(), Err(Error::Geometry(GeometryError::NoSharedSocket))));
}

#[ringtap_lab::test]
fn a_filter_that_panics_takes_no_frame_with_it() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let mut socket = socket(&veth.right).build().unwrap();
    Generator::new(&veth.left, &Traffic::default()).flood(5);
    let batch = socket.next_batch_timeout(PATIENCE).unwrap().expect("frames");
    let sending = std::panic::AssertUnwindSafe(|| socket.send_batch(batch, |_| panic!("no")));
    std::panic::catch_unwind(sending).unwrap_err();
    while let Some(rest) = socket.next_batch_timeout(Duration::from_millis(20)).unwrap() {
        drop(rest);
    }
    assert_conserved(&mut socket, 1024);
}

#[ringtap_lab::test]
fn a_dropped_half_lets_the_queues_packets_pass_or_the_other_half_go_on() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let mut generator = Generator::new(&veth.left, &traffic);
    let (receiver, sender) = socket(&veth.right).build().unwrap().into_split();
    drop(receiver);
    let far = FarEnd::new(&veth, Tally::new(&traffic, 20));
    generator.flood(20);
    far.wait_until(20); // the stack's, as without the socket
    far.finish().assert_complete();
    drop(sender);
    let (mut receiver, sender) = socket(&veth.right).build().unwrap().into_split();
    drop(sender);
    generator.flood(1);
    assert_eq!(receiver.next_batch_timeout(PATIENCE).unwrap().expect("a frame").len(), 1);
}

#[ringtap_lab::test]
fn a_renamed_interface_and_another_namespace_are_no_end() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let mut socket = socket(&veth.right).build_receiver().unwrap();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    match link::rename(&veth.right, "renamed0") {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            return ringtap_lab::skip("this kernel renames no interface that is up");
        }
        renamed => renamed.unwrap(),
    }
    assert!(socket.next_batch_timeout(Duration::from_millis(600)).unwrap().is_none());
    generator.flood(1);
    let elsewhere = std::thread::spawn(move || {
        let _net = namespace().unwrap();
        let first = socket.next_batch_timeout(PATIENCE).unwrap().expect("a frame").len();
        (first, socket.next_batch_timeout(Duration::from_millis(600)).unwrap().is_none())
    });
    assert_eq!(elsewhere.join().unwrap(), (1, true));
}
