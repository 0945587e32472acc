//! Filters on live sockets: exactly the frames that the machine of ours accepts, and changed under a flood.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringtap::capture::{CaptureBuilder, RingLayout};
use ringtap::filter::{Ancillary, BpfInsn};
use ringtap::packet::VlanTag;
use ringtap::shard::Cores;
use ringtap::{AsyncCapture, BpfFilter, Capture, Error, Injector, Shards, executor};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Generator, Mark, Protocol, Traffic, bpf, namespace, pcap, skip};

const PATIENCE: Duration = Duration::from_secs(60);

fn capture(interface: &str) -> CaptureBuilder {
    let ring = Capture::builder().interface(interface).block_size(1 << 18).block_count(32);
    ring.block_timeout_ms(2).ignore_outgoing(true).frame_size(2048)
}

fn filter(text: &str) -> BpfFilter {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// What the kernel makes of a frame: the tag goes out of it.
fn received(frame: &[u8]) -> (Vec<u8>, Ancillary) {
    let mut known = Ancillary::default();
    let mut bytes = frame.to_vec();
    if let [0x81, 0x00] | [0x88, 0xa8] = frame[12..14] {
        let tpid = u16::from_be_bytes([frame[12], frame[13]]);
        known.vlan = Some(VlanTag { tci: u16::from_be_bytes([frame[14], frame[15]]), tpid });
        bytes.drain(12..16);
    }
    (bytes, known)
}

#[ringtap_lab::test]
fn a_live_socket_takes_exactly_the_frames_that_our_machine_accepts() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    veth.set_mtu(65_535);
    let mut frames = Vec::new();
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let whole = pcap::ethernet_frames(&path)
            .into_iter()
            .filter(|frame| (60..1_500).contains(&frame.len()));
        frames.extend(whole.take(25));
    }
    let mut tagged: Vec<Vec<u8>> = frames.iter().step_by(5).cloned().collect();
    for (number, frame) in tagged.iter_mut().enumerate() {
        frame.splice(12..12, [0x81, 0x00, (number % 4) as u8, 100]);
    }
    frames.extend(tagged);
    assert!(frames.len() > 700, "{}", frames.len());
    let expressions = [
        "",
        "ip",
        "ip6",
        "tcp",
        "udp port 53",
        "not port 53",
        "tcp[tcpflags] & tcp-syn != 0",
        "vlan",
        "vlan 100",
        "vlan and ip",
        "vlan 100 and tcp port 80",
        "not vlan",
        "icmp or icmp6",
        "ether multicast",
        "greater 500",
        "host 192.168.0.1 or net 10.0.0.0/8",
        "ip6 proto 17",
        "vlan and vlan",
        "portrange 1000-60000",
        "ip[8] < 64 and udp",
    ];
    let raw = Sender::open(&veth.left).unwrap();
    let mut taken = 0;
    for expression in expressions {
        for layout in [RingLayout::Blocks, RingLayout::Frames] {
            let filter = filter(expression);
            let mut capture =
                capture(&veth.right).layout(layout).filter(filter.clone()).build().unwrap();
            let stop = capture.stop_handle().unwrap();
            for frames in frames.chunks(50) {
                raw.send_all(frames).unwrap();
            }
            stop.stop();
            let mut got = Vec::new();
            for batch in capture.batches() {
                for packet in &batch.unwrap() {
                    assert!(packet.matches(&filter), "{expression}");
                    got.push((packet.data().to_vec(), packet.stripped_vlan()));
                }
            }
            let expected: Vec<_> = frames
                .iter()
                .map(|frame| received(frame))
                .filter(|(bytes, known)| filter.matches_with(bytes, known))
                .map(|(bytes, known)| (bytes, known.vlan))
                .collect();
            assert_eq!(got.len(), expected.len(), "{expression} {layout:?}");
            assert!(got == expected, "{expression} {layout:?}: others than these");
            taken += got.len();
        }
    }
    println!("{taken} frames taken by {} filters in both layouts", expressions.len());
}

#[ringtap_lab::test]
fn tags_that_are_still_in_the_bytes_are_found_there() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { vlan: Some(100), ..Traffic::default() };
    let mut old = traffic.frame(0, 0);
    old[12..14].copy_from_slice(&[0x91, 0]); // a kind that the kernel leaves where it is
    for (expression, meant) in
        [("vlan 100 and udp", true), ("vlan 101", false), ("not vlan", false)]
    {
        let filter = filter(expression);
        let options = |name: &str| capture(name).filter(filter.clone());
        let mut captures = [
            options(&veth.left).ignore_outgoing(false).build().unwrap(),
            options(&veth.right).build().unwrap(),
            options(&veth.right).vlan_reinsert(true).build().unwrap(),
        ];
        let mut injector = Injector::open(&veth.left).unwrap();
        injector.send(&traffic.frame(0, 0)).unwrap();
        injector.send(&old).unwrap();
        injector.drain(PATIENCE).unwrap();
        for capture in &mut captures {
            capture.stop_handle().unwrap().stop();
            let mut count = 0;
            for batch in capture.batches() {
                for packet in &batch.unwrap() {
                    assert_eq!(packet.vlan().unwrap().id(), 100);
                    assert!(packet.matches(&filter), "{expression}");
                    count += 1;
                }
            }
            assert_eq!(count, if meant { 2 } else { 0 }, "{expression} {capture:?}");
        }
    }
}

#[ringtap_lab::test]
fn a_filter_changed_under_a_flood_leaves_no_packet_outside_of_both_and_counts_all() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    // Flow N comes from port 10000 + N.
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let both =
        [filter("src port 10000 or src port 10001"), filter("src port 10001 or src port 10002")];
    let mut capture = capture(&veth.right).filter(both[0].clone()).build().unwrap();
    let (handle, stop) = (capture.filter_handle(), capture.stop_handle().unwrap());
    let is_over = Arc::new(AtomicBool::new(false));
    let flooding = std::thread::spawn({
        let (left, is_over) = (veth.left.clone(), Arc::clone(&is_over));
        move || {
            let mut generator = Generator::new(&left, &traffic);
            while !is_over.load(Ordering::Relaxed) {
                generator.flood(1024);
            }
            generator.sent()
        }
    });
    let swapping = std::thread::spawn(move || {
        for swap in 0..500 {
            handle.set(&both[swap % 2]).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        is_over.store(true, Ordering::Relaxed);
        let sent = flooding.join().unwrap();
        stop.stop();
        sent
    });
    let mut seen: [u64; 4] = [0; 4];
    for batch in capture.batches() {
        for packet in &batch.unwrap() {
            let mark = Mark::find(packet.data()).expect("only ours");
            seen[(mark.number % 4) as usize] += 1;
        }
    }
    let sent = swapping.join().unwrap();
    let stats = capture.stats().unwrap();
    assert!(seen[0] > 0 && seen[2] > 0, "{seen:?}");
    assert_eq!(seen[3], 0, "neither filter takes it");
    // Both take it: whatever was swapped, it came or was dropped by the ring.
    assert!(seen[1] + stats.drops >= sent / 4, "{seen:?} of {sent}: {stats:?}");
    assert_eq!(stats.packets, stats.delivered + stats.drops, "{stats:?}");
    assert_eq!(stats.delivered, seen.iter().sum::<u64>());
}

#[ringtap_lab::test]
fn a_filter_is_cleared_cut_locked_and_not_opened_by_a_change() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { varied: false, ..Traffic::default() };
    let mut generator = Generator::new(&veth.left, &traffic);
    let mut cut = capture(&veth.right).filter(filter("udp")).snap_len(40).build().unwrap();
    generator.flood(1);
    let batch = cut.next_batch_timeout(PATIENCE).unwrap().expect("a frame");
    let packet = batch.iter().next().unwrap();
    assert_eq!((packet.len(), packet.original_len()), (40, traffic.frame_len()));
    cut.set_filter(&filter("tcp")).unwrap();
    generator.flood(1);
    cut.clear_filter().unwrap();
    generator.flood(1);
    let batch = cut.next_batch_timeout(PATIENCE).unwrap().expect("the second");
    assert_eq!(Mark::find(&traffic.frame(2, 0)).unwrap().number, 2);
    assert_eq!((batch.len(), batch.iter().next().unwrap().len()), (1, 40));
    assert_eq!(cut.stats().unwrap().packets, 2, "what was filtered is not counted");
    cut.lock_filter().unwrap();
    let error = cut.set_filter(&filter("udp")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    // Stopped, its intake is closed: a change must not open it.
    let mut closed = capture(&veth.right).build().unwrap();
    let stop = closed.stop_handle().unwrap();
    stop.stop();
    assert_eq!(closed.batches().count(), 0);
    closed.set_filter(&filter("udp")).unwrap();
    generator.flood(10);
    assert_eq!(closed.stats().unwrap().packets, 0);
    let stop = cut.stop_handle().unwrap();
    stop.stop();
    assert!(cut.batches().all(|batch| batch.is_ok()), "a locked one ends too");
}

#[ringtap_lab::test]
fn streams_and_shards_change_theirs_while_they_run() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 2, protocol: Protocol::Udp, ..Traffic::default() };
    let mut generator = Generator::new(&veth.left, &traffic);
    executor::block_on(async {
        let mut capture = AsyncCapture::new(capture(&veth.right).build().unwrap()).unwrap();
        capture.set_filter(&filter("src port 10001")).unwrap();
        generator.flood(10);
        let mut seen = 0;
        while seen < 5 {
            seen += capture.next().await.unwrap().unwrap().len();
        }
        assert_eq!(capture.stats().unwrap().packets, 5);
        capture.clear_filter().unwrap();
    });
    let shards = Shards::builder()
        .capture(capture(&veth.right))
        .cores(Cores::Unpinned)
        .shards(2)
        .spawn(|mut shard| async move {
            while let Some(batch) = shard.capture.next().await {
                batch?;
            }
            Ok(())
        })
        .unwrap();
    let packets = || shards.stats().unwrap().total().packets;
    shards.set_filter(&filter("src port 10000")).unwrap();
    generator.flood(100);
    let start = Instant::now();
    while packets() < 50 {
        assert!(start.elapsed() < PATIENCE, "{:?}", shards.stats());
        std::thread::yield_now();
    }
    shards.clear_filter().unwrap();
    generator.flood(100);
    while packets() < 150 {
        assert!(start.elapsed() < PATIENCE, "{:?}", shards.stats());
        std::thread::yield_now();
    }
    shards.stop();
    assert_eq!(shards.join().unwrap().total().packets, 150);
}

#[ringtap_lab::test]
fn a_loaded_program_filters_too() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = capture(&veth.right).build().unwrap();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    let Some(none) = bpf::socket_filter_returning(0) else { return };
    capture.attach_ebpf_filter(none).unwrap();
    generator.flood(5);
    let Some(some) = bpf::socket_filter_returning(50) else { return };
    capture.attach_ebpf_filter(some).unwrap();
    generator.flood(1);
    let batch = capture.next_batch_timeout(PATIENCE).unwrap().expect("a frame");
    assert_eq!((batch.len(), batch.iter().next().unwrap().len()), (1, 50));
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(capture.attach_ebpf_filter(file.into()), Err(Error::Os { .. })));
}

#[ringtap_lab::test]
fn what_the_kernel_takes_we_take_and_the_other_way_round() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let capture = capture(&veth.right).build().unwrap();
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut roll = |sides: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % sides
    };
    let mut kinds = HashSet::new();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..40_000 {
        let len = 1 + roll(6);
        let mut program: Vec<BpfInsn> = (0..len)
            .map(|_| {
                let codes = if roll(10) == 0 { 0x200 } else { 0xb8 };
                let (code, jt, jf) = (roll(codes) as u16, roll(5) as u8, roll(5) as u8);
                let k = match roll(5) {
                    0 => 0,
                    1 => roll(40) as u32,
                    2 => 0xffff_f000 + roll(80) as u32,
                    _ => roll(20) as u32,
                };
                BpfInsn { code, jt, jf, k }
            })
            .collect();
        if roll(4) != 0 {
            program.push(BpfInsn { code: 6, jt: 0, jf: 0, k: roll(100) as u32 });
        }
        let ours = BpfFilter::new(program.clone());
        let theirs = bpf::attach_classic(
            &capture,
            &program.iter().map(|insn| (insn.code, insn.jt, insn.jf, insn.k)).collect::<Vec<_>>(),
        );
        match &ours {
            Ok(filter) => {
                taken += 1;
                filter.matches(&[0x45; 64]);
            }
            Err(error) => {
                refused += 1;
                kinds.insert(
                    error.to_string().split_whitespace().skip(4).take(3).collect::<String>(),
                );
            }
        }
        assert_eq!(ours.is_ok(), theirs, "{program:?}: {ours:?}");
    }
    assert!(taken > 1_000 && refused > 1_000 && kinds.len() > 5, "{taken} {refused} {kinds:?}");
}
