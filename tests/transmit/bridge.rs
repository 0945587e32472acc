//! The bridge: two hosts behind it, and frames that are compared behind it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::far_end::{FarEnd, PATIENCE};
use ringtap::bridge::{
    BridgeAction, BridgeBuilder, BridgeDirection, BridgeFilter, BridgeFrame, BridgeStatsHandle,
};
use ringtap::shard::Cores;
use ringtap::{Bridge, Error, Packet, Shards, StopHandle, executor, time};
use ringtap_lab::host::Host;
use ringtap_lab::{Generator, Namespace, Pace, Tally, Traffic, Veth, limits, link, namespace};

const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

fn forward(_: &Packet<'_>, _: BridgeDirection) -> BridgeAction {
    BridgeAction::Forward
}

/// A bridge at work in a thread.
struct Working {
    stop: StopHandle,
    stats: BridgeStatsHandle,
    thread: JoinHandle<(Bridge, ringtap::Result<()>)>,
}

impl Working {
    fn new(mut bridge: Bridge, filter: impl BridgeFilter + Send + 'static) -> Self {
        let (stop, stats) = (bridge.stop_handle(), bridge.stats_handle());
        let thread = std::thread::spawn(move || {
            let ended = bridge.run_with(filter); // which is `run_with_async` on the built-in executor
            (bridge, ended)
        });
        Self { stop, stats, thread }
    }

    fn stats(&self) -> ringtap::bridge::BridgeStats {
        self.stats.stats().unwrap()
    }

    fn finish(self) -> Bridge {
        self.stop.stop();
        let (bridge, ended) = self.thread.join().unwrap();
        ended.unwrap();
        for lane in [bridge.stats().unwrap().a_to_b, bridge.stats().unwrap().b_to_a] {
            let dropped =
                lane.filtered + lane.too_large + lane.rejected + lane.ring_full + lane.stale;
            assert_eq!(
                lane.received + lane.segmented,
                lane.forwarded + dropped,
                "every packet is counted once: {lane:?}"
            );
        }
        bridge
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Two hosts, each on a cable to an interface of this namespace: `right0` and `right1`.
fn hosts(net: &Namespace) -> ([Host; 2], [Veth; 2]) {
    let cables = [net.veth(), net.veth()];
    let hosts = [Host::new(&cables[0].left, A), Host::new(&cables[1].left, B)];
    (hosts, cables)
}

fn between(a: &str, b: &str) -> BridgeBuilder {
    Bridge::builder().interface_a(a).interface_b(b)
}

/// Bytes that differ from place to place.
fn pattern(at: usize) -> Vec<u8> {
    (at..at + (1 << 16)).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect()
}

/// Sends `chunks` of 64 KiB through a connection, and checks them there.
fn send_tcp(from: &Host, to: &Host, address: Ipv4Addr, chunks: usize) {
    let (ready, listening) = std::sync::mpsc::channel();
    let server = to.run(move || {
        let listener = TcpListener::bind((address, 5001)).unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut chunk = vec![0; 1 << 16];
        for number in 0..chunks {
            stream.read_exact(&mut chunk).unwrap();
            assert!(chunk == pattern(number << 16), "chunk {number} was changed");
        }
        assert_eq!(stream.read(&mut chunk).unwrap(), 0, "and nothing more");
    });
    listening.recv().unwrap();
    let client = from.run(move || {
        let mut stream = TcpStream::connect((address, 5001)).unwrap();
        for number in 0..chunks {
            stream.write_all(&pattern(number << 16)).unwrap();
        }
    });
    client.join().unwrap();
    server.join().unwrap();
}

#[ringtap_lab::test]
fn two_hosts_move_50_mb_of_tcp_each_way_and_nothing_goes_in_circles() {
    let Some(net) = namespace() else { return };
    let (hosts, cables) = hosts(&net);
    for cable in &cables {
        link::set_up(&cable.right, true).unwrap();
    }
    let bridge = Bridge::open_pair(&cables[0].right, &cables[1].right).unwrap();
    let working = Working::new(bridge, forward);
    send_tcp(&hosts[0], &hosts[1], B, 800);
    send_tcp(&hosts[1], &hosts[0], A, 800);
    let stats = working.finish().stats().unwrap();
    for (lane, cable) in [(stats.a_to_b, &cables[1]), (stats.b_to_a, &cables[0])] {
        assert_eq!((lane.filtered, lane.too_large, lane.ring_full), (0, 0, 0), "{lane:?}");
        // What went out on the far cable is what came in on the near one, once.
        assert_eq!(link::stats(&cable.right).unwrap().sent, lane.forwarded, "{lane:?}");
        assert!(lane.forwarded < 100_000, "{lane:?}");
    }
}

#[ringtap_lab::test]
fn what_the_far_side_cannot_split_is_split_by_the_kernel_or_counted_and_holds_up_nothing() {
    let Some(net) = namespace() else { return };
    for bypass in [false, true] {
        let (hosts, cables) = hosts(&net);
        link::limit_segments(&cables[1].right, 16_000).unwrap();
        let builder = between(&cables[0].right, &cables[1].right).qdisc_bypass(bypass);
        let working = Working::new(builder.build().unwrap(), forward);
        // Past the queueing discipline larger ones are lost, and TCP sends smaller ones in the end.
        send_tcp(&hosts[0], &hosts[1], B, if bypass { 4 } else { 80 });
        let stats = working.finish().stats().unwrap();
        assert_eq!(stats.a_to_b.rejected > 0, bypass, "{stats:?}");
    }
}

#[ringtap_lab::test]
fn hosts_talk_at_low_latency_where_they_split_their_segments_themselves() {
    let Some(net) = namespace() else { return };
    let (hosts, cables) = hosts(&net);
    for (host, cable) in hosts.iter().zip(&cables) {
        let end = cable.left.clone();
        // The checksum is still left to the card.
        host.run(move || link::limit_segments(&end, 1_500).unwrap()).join().unwrap();
    }
    let low = ringtap::capture::RingProfile::LowLatency;
    let builder = between(&cables[0].right, &cables[1].right).profile(low);
    let working = Working::new(builder.build().unwrap(), forward);
    send_tcp(&hosts[0], &hosts[1], B, 40);
    let stats = working.finish().stats().unwrap();
    assert!(stats.a_to_b.forwarded > 40, "a chunk has more than one segment: {stats:?}");
    assert_eq!((stats.a_to_b.too_large, stats.a_to_b.rejected), (0, 0), "{stats:?}");
}

#[ringtap_lab::test]
fn what_the_kernel_cannot_be_told_to_split_is_split_here() {
    const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 10, 0, 1), Ipv4Addr::new(10, 10, 0, 2)];
    let Some(net) = namespace() else { return };
    // A tunnel: the offload is true of the inner packet.
    let (hosts, cables) = hosts(&net);
    for (host, (remote, address)) in hosts.iter().zip([(B, INNER[0]), (A, INNER[1])]) {
        if let Err(error) = host.tunnel_to(remote, address) {
            return ringtap_lab::skip(&format!("no VXLAN: {error}"));
        }
    }
    send_until_segmented(&hosts, &cables, INNER[1]);

    // Frames longer than their IP header can say (BIG TCP).
    let (hosts, cables) = self::hosts(&net);
    let end = cables[0].left.clone();
    let limited = hosts[0].run(move || link::limit_segments(&end, 180_000)).join().unwrap();
    if let Err(error) = limited {
        return ringtap_lab::skip(&format!("no BIG TCP: {error}"));
    }
    send_until_segmented(&hosts, &cables, B);
}

/// Sends 5 MB, again until the bridge has had to segment: how much TCP puts into a frame is a matter of speed.
fn send_until_segmented(hosts: &[Host; 2], cables: &[Veth; 2], address: Ipv4Addr) {
    let begun = Instant::now();
    loop {
        let bridge = between(&cables[0].right, &cables[1].right).build().unwrap();
        let working = Working::new(bridge, forward);
        send_tcp(&hosts[0], &hosts[1], address, 80);
        let stats = working.finish().stats().unwrap();
        assert_eq!((stats.a_to_b.too_large, stats.a_to_b.rejected), (0, 0), "{stats:?}");
        if stats.a_to_b.segmented > 0 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing to segment: {stats:?}");
    }
}

#[ringtap_lab::test]
fn a_slow_far_side_makes_its_direction_wait_and_loses_nothing() {
    const COUNT: u64 = 1_200;
    let Some(net) = namespace() else { return };
    limits::stay_on_this_core();
    let (near, far, builder) = through(&net);
    // 5 MB a second, 20 kB at once, and room for 60 frames.
    link::limit_rate(&far.left, 5_000_000, 20_000, 60 * 1_000).unwrap();
    let builder = builder.injector_b(|tx| tx.frame_count(64));
    let working = Working::new(builder.build().unwrap(), forward);
    let traffic = Traffic { len: 1_000, ..Traffic::default() };
    let end = FarEnd::new(&far, Tally::new(&traffic, COUNT));
    let mut generator = Generator::new(&near.left, &traffic);
    // The ring is full again and again, with more than the lane's patience between.
    for round in 1..=4 {
        generator.flood(COUNT / 4);
        end.wait_until(round * COUNT / 4);
        std::thread::sleep(Duration::from_millis(30));
    }
    let stats = working.finish().stats().unwrap();
    assert_eq!((stats.a_to_b.forwarded, stats.a_to_b.ring_full), (COUNT, 0), "{stats:?}");
    end.finish().assert_complete();
}

#[ringtap_lab::test]
fn a_filter_drops_what_it_says_and_nothing_else() {
    const ROUNDS: u16 = 500;
    let Some(net) = namespace() else { return };
    let (hosts, cables) = hosts(&net);
    let is_dns = |packet: &Packet<'_>| {
        let data = packet.data();
        data.get(23) == Some(&17) && data.get(36..38) == Some(&53_u16.to_be_bytes())
    };
    let bridge = Bridge::open_pair(&cables[0].right, &cables[1].right).unwrap();
    let working = Working::new(bridge, move |packet: &Packet<'_>, _| {
        if is_dns(packet) { BridgeAction::Drop } else { BridgeAction::Forward }
    });
    let answering = hosts[1].run(|| {
        let ports = [53, 54].map(|port| UdpSocket::bind((B, port)).unwrap());
        ports[0].set_nonblocking(true).unwrap();
        ports[1].set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = [0; 64];
        for _ in 0..ROUNDS {
            let (len, from) = ports[1].recv_from(&mut bytes).unwrap();
            ports[1].send_to(&bytes[..len], from).unwrap();
        }
        assert!(ports[0].recv_from(&mut bytes).is_err(), "nothing came to port 53");
    });
    let asking = hosts[0].run(|| {
        let socket = UdpSocket::bind((A, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut bytes = [0; 64];
        for round in 0..ROUNDS {
            socket.send_to(&[1; 20], (B, 53)).unwrap();
            loop {
                // Once more where the server was not there yet.
                socket.send_to(&round.to_be_bytes(), (B, 54)).unwrap();
                if socket.recv_from(&mut bytes).is_ok() {
                    break;
                }
                socket.send_to(&[1; 20], (B, 53)).unwrap();
            }
            assert_eq!(bytes[..2], round.to_be_bytes(), "the answer to this question");
        }
    });
    asking.join().unwrap();
    answering.join().unwrap();
    let stats = working.finish().stats().unwrap();
    assert!(stats.a_to_b.filtered >= ROUNDS.into(), "{stats:?}");
    assert_eq!(stats.b_to_a.filtered, 0, "{stats:?}");
    // One question in two is dropped; the others, and ARP, pass.
    let passed = stats.a_to_b.forwarded;
    assert!(passed >= stats.a_to_b.filtered && passed < stats.a_to_b.filtered + 20, "{stats:?}");
}

/// The bridge's sides are `right0` and `left1`; frames go in at `left0` and come out at `right1`.
fn through(net: &Namespace) -> (Veth, Veth, BridgeBuilder) {
    let (near, far) = (net.veth(), net.veth());
    let builder = between(&near.right, &far.left);
    (near, far, builder)
}

#[ringtap_lab::test]
fn tagged_frames_keep_their_tag_in_both_layouts() {
    const COUNT: u64 = 2_000;
    let Some(net) = namespace() else { return };
    for profile in [None, Some(ringtap::capture::RingProfile::LowLatency)] {
        let (near, far, mut builder) = through(&net);
        if let Some(profile) = profile {
            builder = builder.profile(profile);
        }
        let working = Working::new(builder.build().unwrap(), forward);
        let traffic = Traffic { len: 300, vlan: Some(77), ..Traffic::default() };
        let pace = Pace::default();
        // Many blocks: each timeout takes one, however long the reader is kept from its core.
        let ring = ringtap::Capture::builder().interface(&far.right).block_timeout_ms(5);
        let mut capture = ring.block_size(1 << 16).block_count(512).build().unwrap();
        let (stop, seen) = (capture.stop_handle().unwrap(), capture.stats_handle());
        let (counter, plan) = (pace.clone(), traffic.clone());
        let reader = std::thread::spawn(move || {
            let mut tally = Tally::new(&plan, COUNT);
            for batch in capture.batches() {
                for packet in &batch.unwrap() {
                    assert_eq!(packet.vlan().map(|tag| (tag.id(), tag.tpid)), Some((77, 0x8100)));
                    tally.record(packet.data());
                    counter.count(1);
                }
            }
            tally
        });
        Generator::new(&near.left, &traffic).in_step(COUNT, &pace);
        let all = Instant::now() + PATIENCE;
        while pace.received() < COUNT {
            let stats = (working.stats(), seen.stats(), link::stats(&far.right));
            assert!(
                Instant::now() < all,
                "{} of {COUNT} tagged frames: {stats:?}",
                pace.received()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.stop();
        reader.join().unwrap().assert_complete();
        working.finish();
    }
}

/// Sends `count` frames as fast as they come out, with no more under way than a ring holds.
fn flood_through(mut generator: Generator, end: &FarEnd, count: u64) {
    while generator.sent() < count {
        generator.flood(250);
        end.wait_until(generator.sent().saturating_sub(250));
    }
    end.wait_until(count);
}

#[ringtap_lab::test]
fn a_flood_in_both_directions_comes_through_once_in_order_and_neither_starves() {
    const COUNT: u64 = 30_000;
    let Some(net) = namespace() else { return };
    let (near, far, builder) = through(&net);
    let working = Working::new(builder.build().unwrap(), forward);
    let back = Veth { left: far.right.clone(), right: near.left.clone() };
    let traffic = Traffic { len: 200, ..Traffic::default() };
    let ends = [&far, &back].map(|veth| FarEnd::new(veth, Tally::new(&traffic, COUNT)));
    std::thread::scope(|scope| {
        for (end, from) in ends.iter().zip([&near.left, &far.right]) {
            let generator = Generator::new(from, &traffic);
            scope.spawn(move || flood_through(generator, end, COUNT));
        }
    });
    for end in ends {
        end.finish().assert_complete();
    }
    let stats = working.finish().stats().unwrap();
    assert_eq!((stats.a_to_b.forwarded, stats.b_to_a.forwarded), (COUNT, COUNT), "{stats:?}");
}

#[ringtap_lab::test]
fn it_outlives_a_side_that_is_down_for_a_while() {
    let Some(net) = namespace() else { return };
    let (near, far, builder) = through(&net);
    let working = Working::new(builder.build().unwrap(), forward);
    let traffic = Traffic::default();
    let mut generator = Generator::new(&near.left, &traffic);
    let end = FarEnd::new(&far, Tally::new(&traffic, 10_000));
    generator.flood(100);
    end.wait_until(100);
    link::set_up(&far.left, false).unwrap();
    // They are dropped and counted: an old one must not leave when the side is up again.
    let before = working.stats().a_to_b.forwarded;
    let first_old = generator.sent();
    for _ in 0..20 {
        generator.flood(50);
        std::thread::sleep(Duration::from_millis(5));
    }
    let first_new = generator.sent();
    wait_until("frames that were not kept", || {
        let lane = working.stats().a_to_b;
        lane.stale + lane.ring_full >= 1000 && lane.forwarded == before
    });
    far.up();
    wait_until("the bridge goes on", || {
        let before = end.count();
        generator.flood(1);
        std::thread::sleep(Duration::from_millis(10));
        end.count() > before
    });
    near.down();
    near.up();
    let before = end.count();
    wait_until("and after the near side was down", || {
        generator.flood(1);
        end.count() > before
    });
    let stats = working.finish().stats().unwrap();
    assert_eq!(stats.a_to_b.too_large, 0, "{stats:?}");
    let tally = end.finish();
    let old = (first_old..first_new).filter(|&number| tally.has(number)).count();
    assert_eq!(old, 0, "frames from while it was down");
}

#[ringtap_lab::test]
fn two_names_of_one_interface_and_links_of_two_kinds_are_no_bridge() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let long = "a-name-that-is-longer-than-fifteen-bytes";
    link::add_name(&veth.left, long).unwrap();
    let error = Bridge::open_pair(&veth.left, long).unwrap_err();
    assert!(matches!(error, Error::SameInterface { .. }), "{error}");
    let info = ringtap::interface::interface_info(long).unwrap();
    assert_eq!(info.index, link::index(&veth.left).unwrap());
    let none =
        ringtap::interface::interface_info("another-name-that-is-longer-than-fifteen").unwrap_err();
    assert!(matches!(none, Error::NoSuchInterface { .. }), "{none}");
    Bridge::open_pair(long, &veth.right).unwrap();
    let tun = match ringtap_lab::Tun::new() {
        Ok(tun) => tun,
        Err(error) => return ringtap_lab::skip_for_ordinary_users(&format!("no tun: {error}")),
    };
    let error = Bridge::open_pair(&tun.name, &veth.left).unwrap_err();
    assert!(matches!(error, Error::DifferentLinks { .. }), "{error}");
}

#[ringtap_lab::test]
fn it_follows_the_far_sides_mtu() {
    let Some(net) = namespace() else { return };
    let (near, far, builder) = through(&net);
    let working = Working::new(builder.build().unwrap(), forward);
    let traffic = Traffic { len: 1400, ..Traffic::default() };
    let mut generator = Generator::new(&near.left, &traffic);
    let forwarded = || working.stats().a_to_b.forwarded;
    let too_large = || working.stats().a_to_b.too_large;
    generator.flood(10);
    wait_until("frames pass", || forwarded() == 10);
    far.set_mtu(1000);
    std::thread::sleep(Duration::from_millis(150)); // it learns within 100 ms
    generator.flood(10);
    wait_until("they are too large now", || too_large() == 10);
    far.set_mtu(1500);
    std::thread::sleep(Duration::from_millis(150));
    generator.flood(10);
    wait_until("and not any more", || forwarded() == 20);
    working.finish();
}

#[ringtap_lab::test]
fn a_rewritten_frame_arrives_as_it_was_rewritten() {
    let Some(net) = namespace() else { return };
    let (near, far, builder) = through(&net);
    let decide = |_: &Packet<'_>, _: BridgeDirection| BridgeAction::Rewrite;
    let rewrite = |frame: &mut BridgeFrame<'_>, direction: BridgeDirection| {
        assert_eq!(direction, BridgeDirection::AtoB);
        let len = frame.len();
        frame[..6].fill(0xee);
        frame.set_len(len + 2);
        frame[len..].copy_from_slice(b"ok");
    };
    let working = Working::new(builder.build().unwrap(), (decide, rewrite));
    let mut capture =
        ringtap::Capture::builder().interface(&far.right).block_timeout_ms(5).build().unwrap();
    let traffic = Traffic::default();
    Generator::new(&near.left, &traffic).flood(1);
    let batch = capture.next_batch_timeout(PATIENCE).unwrap().expect("a frame");
    let packet = batch.iter().next().unwrap();
    let stamp = ringtap_lab::Mark::find(packet.data()).unwrap().stamp;
    let mut expected = traffic.frame(0, stamp);
    expected[..6].fill(0xee);
    expected.extend_from_slice(b"ok");
    assert_eq!(packet.data(), expected);
    working.finish();
}

#[ringtap_lab::test]
fn a_run_that_was_dropped_goes_on_where_it_was() {
    const COUNT: u64 = 800; // fewer than the ring has slots
    let Some(net) = namespace() else { return };
    let (near, far, builder) = through(&net);
    let mut bridge = builder.build().unwrap();
    let traffic = Traffic::default();
    let end = FarEnd::new(&far, Tally::new(&traffic, COUNT));
    let mut generator = Generator::new(&near.left, &traffic);
    let outside = bridge.run_async(forward);
    let refused = futures_util::future::FutureExt::now_or_never(outside);
    assert!(matches!(refused, Some(Err(Error::NoReactor))), "no reactor here: {refused:?}");
    executor::block_on(async {
        for _ in 0..COUNT / 40 {
            generator.flood(40);
            let run = time::timeout(Duration::from_micros(50), bridge.run_async(forward));
            assert!(run.await.is_err(), "it does not end by itself");
        }
    });
    let working = Working::new(bridge, forward);
    end.wait_until(COUNT);
    let stats = working.finish().stats().unwrap();
    end.finish().assert_complete();
    assert_eq!((stats.a_to_b.received, stats.a_to_b.forwarded), (COUNT, COUNT), "{stats:?}");
}

#[ringtap_lab::test]
fn a_removed_interface_ends_it_with_its_name() {
    let Some(net) = namespace() else { return };
    let (near, far, builder) = through(&net);
    let working = Working::new(builder.build().unwrap(), forward);
    let gone = far.left.clone();
    far.delete();
    let (bridge, ended) = working.thread.join().unwrap();
    match ended {
        Err(Error::InterfaceGone { name }) => assert_eq!(name, gone),
        other => panic!("{other:?}"),
    }
    assert_eq!(bridge.into_inner().rx_b.interface(), gone);
    let missing = between("nowhere0", "nowhere1").build();
    assert!(matches!(missing, Err(Error::NoSuchInterface { .. })), "{missing:?}");
    let twice = Bridge::open_pair(&near.right, &near.right);
    assert!(matches!(twice, Err(Error::SameInterface { .. })), "{twice:?}");
    let unnamed = Bridge::builder().build();
    assert!(matches!(unnamed, Err(Error::InterfaceMissing)), "{unnamed:?}");
}

#[ringtap_lab::test]
fn one_bridge_a_shard_forwards_each_frame_once_and_in_flow_order() {
    const COUNT: u64 = 20_000;
    let Some(net) = namespace() else { return };
    let (near, far, options) = through(&net);
    let [a, b] = options.captures();
    let traffic = Traffic { flows: 32, both_directions: true, ..Traffic::default() };
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let sink = Arc::clone(&seen);
    let shards = Shards::builder()
        .capture(a)
        .and_capture(b)
        .cores(Cores::Unpinned)
        .shards(2)
        .spawn(move |mut shard| {
            let (options, sink) = (options.clone(), Arc::clone(&sink));
            async move {
                let b = shard.others.remove(0).into_inner();
                let mut bridge = options.build_with(shard.capture.into_inner(), b)?;
                bridge.run_async(forward).await?;
                sink.lock().unwrap().push(bridge.stats()?.a_to_b.forwarded);
                Ok(())
            }
        })
        .unwrap();
    let end = FarEnd::new(&far, Tally::new(&traffic, COUNT));
    flood_through(Generator::new(&near.left, &traffic), &end, COUNT);
    shards.stop();
    let stats = shards.join().unwrap();
    end.finish().assert_complete();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().sum::<u64>(), COUNT);
    assert!(seen.iter().all(|&count| count > 0), "32 flows spread over 2 bridges: {seen:?}");
    assert_eq!(stats.total().delivered, COUNT, "nothing is seen on its way out");
}
