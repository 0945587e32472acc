//! Options and questions that are neither traffic nor faults.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringtap::capture::{CaptureBuilder, RingLayout, RingProfile, TimestampSource};
use ringtap::error::{ProgramFault, Step};
use ringtap::fanout::{FanoutFlags, FanoutMode};
use ringtap::interface::interface_info;
use ringtap::packet::Clock;
use ringtap::{Capture, Error};
use ringtap_lab::{Generator, Traffic, bpf, namespace};

fn small(interface: &str) -> CaptureBuilder {
    Capture::builder().interface(interface).block_size(1 << 16).block_count(64).block_timeout_ms(5)
}

#[ringtap_lab::test]
fn an_interface_is_described_as_it_is() {
    let Some(net) = namespace() else { return };
    let veth = net.veth_with_queues(4);
    veth.set_mtu(4000);
    let info = interface_info(&veth.right).unwrap();
    assert_eq!(info.index, ringtap_lab::link::index(&veth.right).unwrap());
    assert_eq!((info.name.as_str(), info.mtu), (veth.right.as_str(), 4000));
    assert_eq!(info.driver.as_deref(), Some("veth"));
    assert_eq!(info.speed_mbps, Some(10_000));
    assert_eq!((info.rx_queues, info.tx_queues), (Some(4), Some(4)));
    assert!(info.is_up() && info.has_carrier() && !info.is_loopback());
    veth.down();
    let info = interface_info(&veth.right).unwrap();
    assert!(!info.is_up() && !info.has_carrier());
    let loopback = interface_info("lo").unwrap();
    assert!(loopback.is_loopback() && loopback.index == 1);
}

#[ringtap_lab::test]
fn profiles_open_with_the_sizes_they_name() {
    let Some(_net) = namespace() else { return };
    for (profile, mib) in
        [(RingProfile::LowMemory, 16), (RingProfile::Default, 32), (RingProfile::JumboFrames, 256)]
    {
        let capture = Capture::builder().interface("lo").profile(profile).build().unwrap();
        assert_eq!(capture.ring_len(), mib << 20, "{profile:?}");
    }
    let smaller = Capture::builder().profile(RingProfile::LowMemory).block_count(2);
    assert_eq!(smaller.interface("lo").build().unwrap().ring_len(), 2 << 20);
}

#[ringtap_lab::test]
fn hardware_stamps_without_a_hardware_clock_are_an_error() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let refused = small(&veth.right).timestamp_source(TimestampSource::RawHardware).build();
    let error = refused.unwrap_err();
    assert!(matches!(&error, Error::NoHardwareClock { name, .. } if *name == veth.right));
    assert!(error.to_string().contains("TimestampSource::Software"), "{error}");
    let software = small(&veth.right).timestamp_source(TimestampSource::Software);
    let mut capture = software.build().unwrap();
    Generator::new(&veth.left, &Traffic::default()).flood(1);
    let batch = capture.next_batch_timeout(Duration::from_secs(2)).unwrap().unwrap();
    let packet = batch.iter().next().unwrap();
    assert_eq!(packet.clock(), Clock::Software);
    assert!(packet.timestamp().secs > 1_600_000_000);
}

#[ringtap_lab::test]
fn the_hash_is_there_if_it_was_asked_for() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    for fill in [true, false] {
        let mut capture = small(&veth.right).fill_rxhash(fill).build().unwrap();
        Generator::new(&veth.left, &Traffic::default()).flood(1);
        let batch = capture.next_batch_timeout(Duration::from_secs(2)).unwrap().unwrap();
        let hash = batch.iter().next().unwrap().rxhash();
        assert_eq!(hash.is_some(), fill);
        assert_ne!(hash, Some(0));
    }
}

#[ringtap_lab::test]
fn promiscuous_mode_lasts_as_long_as_the_capture() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let count = || ringtap_lab::link::promiscuity(&veth.right).unwrap();
    let capture = small(&veth.right).promiscuous(true).build().unwrap();
    assert_eq!(count(), 1);
    drop(capture);
    assert_eq!(count(), 0);
}

#[ringtap_lab::test]
fn buffer_and_busy_poll_options_are_taken_or_refused_with_their_names() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    small(&veth.right).rcvbuf(1 << 20).build().unwrap();
    let polling = small(&veth.right).busy_poll_us(50).prefer_busy_poll(true).busy_poll_budget(64);
    match polling.build() {
        Ok(_) => assert!(bpf::is_privileged(), "needs CAP_NET_ADMIN of the machine"),
        Err(Error::Os { step: Step::SetOption(name), source, .. }) => {
            assert!(name.contains("BUSY_POLL"), "{name}: {source}");
            match source.raw_os_error() {
                Some(libc::ENOPROTOOPT) => ringtap_lab::skip("before Linux 5.11: one option less"),
                _ => assert!(!bpf::is_privileged(), "{source}"),
            }
        }
        Err(error) => panic!("{error}"),
    }
}

#[ringtap_lab::test]
fn flags_of_a_group_do_what_they_say() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let comes_in = |count| Generator::new(&veth.left, &Traffic::default()).flood(count);
    let goes_out = |count| Generator::new(&veth.right, &Traffic::default()).flood(count);
    let own = |builder: CaptureBuilder| {
        let capture = builder.build().unwrap();
        goes_out(10);
        comes_in(3);
        (capture.stats().unwrap().packets, capture)
    };
    let group = |flags| small(&veth.right).fanout(FanoutMode::Hash, 4).fanout_flags(flags);
    // Without a loopback to try it on a filter does it, with one the kernel, if it can.
    for has_loopback in [false, true] {
        if has_loopback {
            net.loopback_up();
        }
        assert_eq!(own(group(FanoutFlags::empty())).0, 13);
        assert_eq!(own(group(FanoutFlags::IGNORE_OUTGOING)).0, 3);
        let ignoring = || group(FanoutFlags::empty()).ignore_outgoing(true);
        assert_eq!(own(ignoring()).0, 3);
        assert_eq!(own(ignoring().snap_len(20)).0, 3);
        let (received, capture) = own(ignoring().filter("udp".parse().unwrap()));
        assert_eq!(received, 3);
        capture.set_filter(&"tcp".parse().unwrap()).unwrap();
        comes_in(2);
        assert_eq!(capture.stats().unwrap().packets, 3, "none of them is TCP");
        capture.clear_filter().unwrap();
        goes_out(10);
        comes_in(2);
        assert_eq!(capture.stats().unwrap().packets, 5);
    }
    let (_, unique) = own(group(FanoutFlags::UNIQUE_ID));
    assert!(unique.fanout_group().is_some());
    small(&veth.right).fanout(FanoutMode::Hash, unique.fanout_group().unwrap()).build().unwrap();
    // One flow, and a first member that nobody reads: the second gets what does not fit.
    // Far from the ids that the kernel chooses.
    let rollover = || small(&veth.right).block_count(8).fanout(FanoutMode::Hash, 50_000);
    let member = || rollover().fanout_flags(FanoutFlags::ROLLOVER);
    let members = [member().build().unwrap(), member().build().unwrap()];
    comes_in(5_000);
    let packets = members.each_ref().map(|member| member.stats().unwrap());
    assert!(packets.iter().all(|stats| stats.packets > 500), "{packets:?}");
}

#[ringtap_lab::test]
fn a_program_of_no_instructions_is_refused_before_the_kernel_is_asked() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mode = FanoutMode::Cbpf(Arc::new([]));
    let error = small(&veth.right).fanout(mode, 9).build().unwrap_err();
    assert!(matches!(error, Error::Program(ProgramFault::Length { instructions: 0 })), "{error:?}");
}

#[ringtap_lab::test]
fn a_loaded_program_steers_a_fanout_group() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let Some(program) = bpf::socket_filter_returning(1) else { return };
    let mode = FanoutMode::Ebpf(Arc::new(program));
    let first = small(&veth.right).fanout(mode.clone(), 9).build().unwrap();
    let second = small(&veth.right).fanout(mode, 9).build().unwrap();
    Generator::new(&veth.left, &Traffic { flows: 16, ..Traffic::default() }).flood(100);
    assert_eq!(first.stats().unwrap().packets, 0);
    assert_eq!(second.stats().unwrap().packets, 100, "member 1, as the program says");
}

#[ringtap_lab::test]
fn a_loaded_program_is_changed_for_another_in_a_running_group() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let programs = (bpf::socket_filter_returning(1), bpf::socket_filter_returning(0));
    let (Some(one), Some(zero)) = programs else { return };
    let mode = FanoutMode::Ebpf(Arc::new(one));
    let first = small(&veth.right).fanout(mode.clone(), 9).build().unwrap();
    let second = small(&veth.right).fanout(mode, 9).build().unwrap();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    let came = |count: u64| {
        let began = Instant::now();
        loop {
            let packets = [&first, &second].map(|capture| capture.stats().unwrap().packets);
            if packets[0] + packets[1] >= count || began.elapsed() > Duration::from_secs(10) {
                return packets;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    generator.flood(10);
    assert_eq!(came(10), [0, 10]);
    second.attach_fanout_ebpf(&zero).unwrap();
    generator.flood(20);
    assert_eq!(came(30), [20, 10]);
    let alone = small(&veth.right).build().unwrap();
    assert!(matches!(alone.attach_fanout_ebpf(&zero), Err(Error::Os { .. })));
}

#[ringtap_lab::test]
fn a_filter_splits_a_fanout_group_in_two() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let filter = "udp src port 10000 or 10001".parse().unwrap();
    let mode = FanoutMode::by_filter(&filter).unwrap();
    let first = small(&veth.right).fanout(mode.clone(), 9).build().unwrap();
    let mut second = small(&veth.right).fanout(mode.clone(), 9).build().unwrap();
    let third = small(&veth.right).fanout(mode, 9).build().unwrap();
    Generator::new(&veth.left, &Traffic { flows: 5, ..Traffic::default() }).flood(50);
    let batch = second.next_batch_timeout(Duration::from_secs(2)).unwrap().unwrap();
    assert!(batch.iter().all(|packet| packet.matches(&filter)));
    let packets = [first, second, third].map(|capture| capture.stats().unwrap().packets);
    assert_eq!(packets, [30, 20, 0]);
    for text in ["vlan 5", "ether host 02:00:00:00:00:01"] {
        let error = FanoutMode::by_filter(&text.parse().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Filter(_)), "{error}");
    }
}

#[ringtap_lab::test]
fn a_descriptor_that_is_no_program_is_refused_with_its_step() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let file: OwnedFd = File::open("/dev/null").unwrap().into();
    let error = small(&veth.right).fanout(FanoutMode::Ebpf(Arc::new(file)), 9).build().unwrap_err();
    assert!(matches!(error, Error::Os { step: Step::SetOption(_), .. }), "{error:?}");
    assert!(error.to_string().contains("PACKET_FANOUT_DATA"), "{error}");
}

#[ringtap_lab::test]
fn frames_of_low_latency_hold_what_the_interface_hands_over() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    veth.set_mtu(9_000);
    let low = || {
        let builder = Capture::builder().interface(&veth.right).profile(RingProfile::LowLatency);
        builder.ignore_outgoing(true)
    };
    let mut whole = low().build().unwrap();
    let mut small = low().frame_size(2048).build().unwrap();
    let traffic = Traffic { len: 9_000, ..Traffic::default() };
    Generator::new(&veth.left, &traffic).flood(1);
    let next = |capture: &mut Capture| {
        let batch = capture.next_batch_timeout(Duration::from_secs(5)).unwrap().expect("a frame");
        let packet = batch.iter().next().unwrap();
        (packet.len(), packet.is_truncated())
    };
    assert_eq!(next(&mut whole), (9_000, false));
    assert!(next(&mut small).1, "as it was asked for");
}

#[ringtap_lab::test]
fn a_reader_that_never_waits_notices_the_end() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    for layout in [RingLayout::Blocks, RingLayout::Frames] {
        let mut capture = small(&veth.right).layout(layout).build().unwrap();
        Generator::new(&veth.left, &Traffic::default()).flood(3);
        capture.stop_handle().unwrap().stop();
        let (start, mut packets) = (Instant::now(), 0);
        while !capture.is_ended() {
            packets += capture.next_batch().map_or(0, |batch| batch.len());
            assert!(start.elapsed() < Duration::from_secs(60), "it goes on for ever");
        }
        assert_eq!(packets, 3, "{layout:?}");
    }
}
