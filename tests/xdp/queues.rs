//! AF_XDP on many queues and between interfaces: shards, bridges, steering.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::far_end::{FarEnd, PATIENCE};
use crate::setup::{privileged, socket};
use futures_util::StreamExt;
use ringtap::bridge::{BridgeDirection, XdpBridge};
use ringtap::error::Step;
use ringtap::filter::BpfInsn;
use ringtap::shard::{Cores, Queues};
use ringtap::xdp::{Attach, FlowRule, SymmetricRss, XdpProgram, XdpSender};
use ringtap::{BpfFilter, Capture, Error, Shards, XdpSocket};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Generator, Host, Tally, Traffic, Veth, limits, link, namespace, pcap};

/// A sender for each queue of the left end: TX queue N of one end is RX queue N of the other.
fn senders(veth: &Veth, queues: u32) -> Vec<XdpSender> {
    let open = |queue| socket(&veth.left).queue_id(queue).build_sender().unwrap();
    (0..queues).map(open).collect()
}

/// Frame N goes to queue N modulo their number.
fn send(senders: &mut [XdpSender], traffic: &Traffic, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let queue = number as usize % senders.len();
        senders[queue].send(&traffic.frame(number, 0)).unwrap();
    }
    senders.iter_mut().for_each(|sender| assert!(sender.drain(PATIENCE).unwrap()));
}

#[ringtap_lab::test]
fn a_shard_a_queue_receives_each_frame_once_and_in_order() {
    const COUNT: u64 = 40_000;
    let Some(net) = privileged() else { return };
    let veth = net.veth_with_queues(4);
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let tallies: Arc<Vec<Mutex<Tally>>> =
        Arc::new((0..4).map(|_| Mutex::new(Tally::new(&traffic, COUNT))).collect());
    let shared = Arc::clone(&tallies);
    let shards = Shards::xdp(socket(&veth.right))
        .cores(Cores::Unpinned)
        .spawn_receivers(move |mut shard| {
            let tallies = Arc::clone(&shared);
            async move {
                while let Some(batch) = shard.capture.next().await {
                    let mut tally = tallies[shard.index()].lock().unwrap();
                    batch?.iter().for_each(|packet| tally.record(packet.data()));
                }
                Ok(())
            }
        })
        .unwrap();
    assert_eq!(shards.len(), 4, "as many as there are queues");
    let mut senders = senders(&veth, 4);
    let start = Instant::now();
    for burst in 0..COUNT / 400 {
        send(&mut senders, &traffic, burst * 400..(burst + 1) * 400);
        while shards.stats().unwrap().total().delivered < (burst + 1) * 400 {
            assert!(start.elapsed() < 3 * PATIENCE, "{:?}", shards.stats());
            std::thread::yield_now();
        }
    }
    shards.stop();
    let stats = shards.join().unwrap();
    assert_eq!((stats.total().delivered, stats.total().drops), (COUNT, 0), "{stats:?}");
    let mut all = Tally::new(&traffic, COUNT);
    for (queue, tally) in tallies.iter().enumerate() {
        let tally = tally.lock().unwrap();
        assert_eq!(tally.flows(), [queue as u32], "a flow a queue");
        all.merge(&tally);
    }
    all.assert_complete();
    XdpProgram::redirect_all(&veth.right, Attach::Native).expect("the program went with them");
}

#[cfg(feature = "flow")]
#[ringtap_lab::test]
fn a_shard_a_queue_tracks_the_flows_of_its_queue() {
    use ringtap::flow::FlowEvent;
    use ringtap::flow::extract::FiveTuple;
    const COUNT: u64 = 4_000;
    let Some(net) = privileged() else { return };
    let veth = net.veth_with_queues(4);
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let ended: Arc<Mutex<Vec<(usize, u64)>>> = Arc::default();
    let of_shards = Arc::clone(&ended);
    let shards = Shards::xdp(socket(&veth.right))
        .cores(Cores::Unpinned)
        .flow(FiveTuple::bidirectional())
        .spawn(move |mut shard| {
            let ended = Arc::clone(&of_shards);
            async move {
                while let Some(event) = shard.flows.next().await {
                    if let FlowEvent::Ended { stats, .. } = event? {
                        ended.lock().unwrap().push((shard.index(), stats.packets_initiator));
                    }
                }
                Ok(())
            }
        })
        .unwrap();
    let mut senders = senders(&veth, 4);
    let start = Instant::now();
    for burst in 0..COUNT / 400 {
        send(&mut senders, &traffic, burst * 400..(burst + 1) * 400);
        while shards.stats().unwrap().total().delivered < (burst + 1) * 400 {
            assert!(start.elapsed() < 3 * PATIENCE, "{:?}", shards.stats());
            std::thread::yield_now();
        }
    }
    let snapshots = shards.flows(10);
    assert_eq!((snapshots.active(), snapshots.shards().len()), (4, 4));
    shards.stop();
    shards.join().unwrap();
    let mut ended = ended.lock().unwrap().clone();
    ended.sort_unstable();
    assert_eq!(ended, [(0, 1000), (1, 1000), (2, 1000), (3, 1000)]);
}

#[ringtap_lab::test]
fn queues_can_be_named_and_those_that_are_not_there_are() {
    let Some(net) = privileged() else { return };
    let veth = net.veth_with_queues(2);
    let start = |queues, name: &str| {
        Shards::xdp(XdpSocket::builder().frame_count(64))
            .interface(name)
            .queues(queues)
            .cores(Cores::Unpinned)
            .spawn(|mut shard| async move {
                while shard.capture.next().await.is_some() {}
                Ok(())
            })
    };
    for (queues, count) in [(Queues::One(1), 1), (Queues::Range(0..2), 2), (Queues::Auto, 2)] {
        let shards = start(queues, &veth.right).unwrap();
        assert_eq!(shards.len(), count);
    }
    let error = start(Queues::Range(1..1), &veth.right).unwrap_err();
    assert!(matches!(error, Error::ShardPlan(_)), "{error:?}");
    for queues in [Queues::One(2), Queues::Range(1..9)] {
        let error = start(queues, &veth.right).unwrap_err();
        assert!(matches!(error, Error::NoSuchQueue { count: 2, .. }), "{error:?}");
    }
    let error = start(Queues::Auto, "nowhere0").unwrap_err();
    assert!(matches!(error, Error::NoSuchInterface { .. }), "{error:?}");
    // A queue that is taken: the start fails as a whole.
    let busy = socket(&veth.right).queue_id(1).build_sender().unwrap();
    let error = start(Queues::Auto, &veth.right).unwrap_err();
    assert!(matches!(&error, Error::Shard { index: 1, .. }), "{error:?}");
    drop(busy);
    start(Queues::Auto, &veth.right).unwrap();
}

#[ringtap_lab::test]
fn queues_are_counted_where_the_driver_does_not_say() {
    let Some(_net) = privileged() else { return };
    if let Err(error) = link::add_ifb("four", 4) {
        return ringtap_lab::skip(&format!("no intermediate functional block: {error}"));
    }
    assert_eq!(ringtap::interface::interface_info("four").unwrap().rx_queues, Some(4));
    let start = |queues| {
        let socket = XdpSocket::builder().frame_count(64).attach(Attach::Generic);
        Shards::xdp(socket).interface("four").queues(queues).cores(Cores::Unpinned).spawn(
            |mut shard| async move {
                while shard.capture.next().await.is_some() {}
                Ok(())
            },
        )
    };
    assert_eq!(start(Queues::Auto).unwrap().len(), 4);
    let error = start(Queues::One(4)).unwrap_err();
    assert!(matches!(error, Error::NoSuchQueue { count: 4, .. }), "{error:?}");
}

#[ringtap_lab::test]
fn a_socket_that_cannot_be_bound_spends_no_share_and_says_what_was_found_out() {
    let Some(net) = privileged() else { return };
    let veth = net.veth_with_queues(2);
    let traffic = Traffic::default();
    let first = socket(&veth.right).frame_count(64).umem_shares(2).build().unwrap();
    let program = first.program().unwrap().clone();
    let second = |queue| {
        let second = socket(&veth.right).frame_count(64).shared_umem(&first.umem());
        second.program(program.clone()).queue_id(queue)
    };
    for _ in 0..3 {
        let error = second(7).build().unwrap_err();
        assert!(matches!(error, Error::NoSuchQueue { queue: 7, count: 2, .. }), "{error:?}");
    }
    let mut second = second(1).build().unwrap();
    let chunks = second.chunks();
    assert_eq!((chunks.total(), chunks.rx_kernel, chunks.tx_free), (64, 32, 32), "{chunks:?}");
    let mut senders = senders(&veth, 2);
    for number in 0..100 {
        senders[1].send(&traffic.frame(number, 0)).unwrap();
        senders[1].flush().unwrap();
        let batch = second.next_batch_timeout(PATIENCE).unwrap().expect("a frame");
        assert_eq!(batch.iter().next().unwrap().data(), traffic.arrives(number, 0));
    }
    let zero_copy = socket(&veth.left).queue_id(0).copy_mode(ringtap::xdp::CopyMode::ZeroCopy);
    drop(senders);
    let error = zero_copy.build().unwrap_err();
    let Error::Os { step, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(step, Step::BindQueue | Step::BindZeroCopy), "{error:?}");
    assert!(error.to_string().contains("CopyMode::Auto"), "{error}");
}

/// Sends `count` frames into the left end of each pair, and compares what comes out at the other's.
fn bridge_both_ways(bridge: XdpBridge, (a, b): (&Veth, &Veth), count: u64) {
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let (stop, handles) = (bridge.stop_handle(), bridge.stats_handles());
    // A sender that moves to another core is overtaken by itself on veth.
    limits::stay_on_this_core();
    let running = std::thread::spawn(move || {
        limits::stay_on_this_core();
        bridge.run(|_, _| true)
    });
    let inward = |veth: &Veth| Veth { left: veth.right.clone(), right: veth.left.clone() };
    let far_a = FarEnd::new(&inward(a), Tally::new(&traffic, count));
    let far_b = FarEnd::new(&inward(b), Tally::new(&traffic, count));
    let mut from_a = Generator::new(&a.left, &traffic);
    let mut from_b = Generator::new(&b.left, &traffic);
    while from_a.sent() < count {
        from_a.flood(100);
        from_b.flood(100);
        far_b.wait_until(from_a.sent());
        far_a.wait_until(from_b.sent());
    }
    stop.stop();
    running.join().unwrap().unwrap();
    far_a.finish().assert_complete();
    far_b.finish().assert_complete();
    for handle in handles {
        let stats = handle.stats().unwrap();
        assert_eq!((stats.delivered, stats.committed), (count, count), "{stats:?}");
        assert_eq!((stats.drops(), stats.not_forwarded), (0, 0), "{stats:?}");
    }
}

#[ringtap_lab::test]
fn a_bridge_forwards_both_ways_with_one_umem_and_with_two() {
    let Some(net) = privileged() else { return };
    let (a, b) = (net.veth(), net.veth());
    let refused = XdpBridge::open_pair(&a.right, &b.right).unwrap_err();
    assert!(matches!(&refused, Error::TagsStripped { by: Some(by), .. } if *by == a.left));
    assert!(refused.to_string().contains(&format!("ethtool -K {} txvlan off", a.left)));
    assert!(ringtap::interface::interface_info(&a.right).unwrap().strips_tags);
    [&a, &b].into_iter().for_each(Veth::write_tags);
    assert!(!ringtap::interface::interface_info(&a.right).unwrap().strips_tags);
    let shared = XdpBridge::open_pair(&a.right, &b.right).unwrap();
    bridge_both_ways(shared, (&a, &b), 20_000);
    let open = |veth: &Veth| socket(&veth.right).build().unwrap();
    bridge_both_ways(XdpBridge::new(open(&a), open(&b)).unwrap(), (&a, &b), 5_000);
}

#[ringtap_lab::test]
fn a_bridges_filter_drops_and_changes_frames_and_a_removed_side_ends_it() {
    let Some(net) = privileged() else { return };
    let (a, b) = (net.veth(), net.veth());
    [&a, &b].into_iter().for_each(Veth::write_tags);
    let bridge = XdpBridge::open_pair(&a.right, &b.right).unwrap();
    let running = std::thread::spawn(move || {
        bridge.run(|frame, direction| {
            assert_eq!(direction, BridgeDirection::AtoB);
            frame[0] = 0xee;
            frame[35] & 1 == 0 // the source port: flow 0 of two
        })
    });
    let mut far = socket(&b.left).build_receiver().unwrap();
    let traffic = Traffic { flows: 2, varied: false, ..Traffic::default() };
    Generator::new(&a.left, &traffic).flood(40);
    let mut seen = 0;
    while let Some(batch) = far.next_batch_timeout(Duration::from_millis(100)).unwrap() {
        for packet in &batch {
            assert_eq!((packet.data()[0], packet.data()[35] & 1), (0xee, 0));
            seen += 1;
        }
    }
    assert_eq!(seen, 20);
    b.delete();
    let error = running.join().unwrap().unwrap_err();
    assert!(matches!(&error, Error::InterfaceGone { name } if *name == b.right), "{error:?}");
}

#[ringtap_lab::test]
fn a_bridge_drops_what_a_dead_side_does_not_take_goes_on_when_it_is_back_and_stops_at_once() {
    for is_shared in [true, false] {
        let Some(net) = privileged() else { return };
        let (a, b) = (net.veth(), net.veth());
        [&a, &b].into_iter().for_each(Veth::write_tags);
        let open = |veth: &Veth| socket(&veth.right).frame_count(128).build().unwrap();
        let bridge = match is_shared {
            true => {
                let first = socket(&a.right).frame_count(128).umem_shares(2).build().unwrap();
                let second =
                    socket(&b.right).frame_count(128).shared_umem(&first.umem()).build().unwrap();
                XdpBridge::new(first, second).unwrap()
            }
            false => XdpBridge::new(open(&a), open(&b)).unwrap(),
        };
        let (stop, [from, to]) = (bridge.stop_handle(), bridge.stats_handles());
        let running = std::thread::spawn(move || bridge.run(|_, _| true));
        let traffic = Traffic::default();
        let mut generator = Generator::new(&a.left, &traffic);
        link::set_up(&b.right, false).unwrap();
        let start = Instant::now();
        let seen = |from: ringtap::stats::XdpStats| from.delivered + from.drops();
        for burst in 1..=40 {
            generator.flood(25);
            while seen(from.stats().unwrap()) < 25 * burst {
                assert!(start.elapsed() < PATIENCE, "{:?} {:?}", from.stats(), to.stats());
                std::thread::yield_now();
            }
        }
        link::set_up(&b.right, true).unwrap();
        b.up();
        let mut far = socket(&b.left).build_receiver().unwrap();
        while far.next_batch_timeout(Duration::from_millis(20)).unwrap().is_none() {
            assert!(start.elapsed() < 2 * PATIENCE, "{:?} {:?}", from.stats(), to.stats());
            generator.flood(1);
        }
        link::set_up(&b.right, false).unwrap();
        generator.flood(200);
        stop.stop();
        running.join().unwrap().unwrap();
        let (from, to) = (from.stats().unwrap(), to.stats().unwrap());
        assert_eq!(from.delivered, to.committed + to.not_forwarded, "{from:?} {to:?}");
    }
}

#[ringtap_lab::test]
fn two_hosts_talk_tcp_through_a_bridge() {
    const BYTES: usize = 4 << 20;
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
    let Some(net) = privileged() else { return };
    let (a, b) = (net.veth(), net.veth());
    let client = Host::new(&a.left, Ipv4Addr::new(10, 9, 0, 1));
    let server = Host::new(&b.left, SERVER);
    client.finish_checksums();
    server.finish_checksums();
    // Whether the hosts' ends leave tags to a card cannot be asked from here; there are none.
    let error = XdpBridge::open_pair(&a.right, &b.right).unwrap_err();
    assert!(matches!(error, Error::TagsStripped { by: None, .. }), "{error}");
    let bridge = XdpBridge::open_pair_without_vlans(&a.right, &b.right).unwrap();
    let stop = bridge.stop_handle();
    let running = std::thread::spawn(move || bridge.run(|_, _| true));
    let (listening, listens) = std::sync::mpsc::channel();
    let answering = server.run(move || {
        let listener = TcpListener::bind((SERVER, 80)).unwrap();
        listening.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = vec![0; BYTES];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    listens.recv().unwrap();
    let sent: Vec<u8> =
        (0..BYTES as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    let expected = sent.clone();
    let asking = client.run(move || {
        let mut stream = TcpStream::connect((SERVER, 80)).unwrap();
        stream.write_all(&sent).unwrap();
        let mut back = vec![0; BYTES];
        stream.read_exact(&mut back).unwrap();
        back
    });
    assert!(asking.join().unwrap() == expected, "every byte came back");
    answering.join().unwrap();
    stop.stop();
    running.join().unwrap().unwrap();
}

#[ringtap_lab::test]
fn a_filtered_program_redirects_what_the_filter_accepts_and_the_rest_passes() {
    let Some(directory) = pcap::directory() else {
        return ringtap_lab::skip("no captures beside the repository");
    };
    let mut frames = Vec::new();
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let some = pcap::ethernet_frames(&path).into_iter();
        frames.extend(some.filter(|frame| (60..1_500).contains(&frame.len())).take(20));
    }
    let expressions = [
        "",
        "tcp",
        "udp port 53",
        "not ip",
        "ip6 or vlan",
        "tcp[tcpflags] & tcp-syn != 0",
        "host 192.168.0.1 or portrange 400-500",
        "ip[2:2] - ((ip[0] & 0xf) << 2) > 100 or arp",
        "greater 300 and not port 80",
        "ether[100:4] & 0xff = 7 or tcp[(ip[8] & 0x1f)] / ip[9] = 3",
        "ip[0:4] % len < 100 and -ip[8] != 3",
        "ip[8] + len > 100 + ip[9]",
    ];
    for attach in [Attach::Native, Attach::Generic] {
        for expression in expressions {
            let Some(net) = privileged() else { return };
            let veth = net.veth();
            let filter: BpfFilter = expression.parse().unwrap();
            if expression.contains("vlan") {
                let error = XdpProgram::filtered(&veth.right, attach, &filter).unwrap_err();
                assert!(matches!(error, Error::TagsStripped { .. }), "{error}");
            }
            veth.write_tags();
            let program = XdpProgram::filtered(&veth.right, attach, &filter).unwrap();
            let options = socket(&veth.right).program(program);
            let mut receiver = options.build_receiver().unwrap();
            let mut passed = Capture::builder().interface(&veth.right).block_timeout_ms(2);
            passed = passed.block_size(1 << 18).block_count(32);
            let mut passed = passed.build().unwrap();
            let stop = passed.stop_handle().unwrap();
            let sender = Sender::open(&veth.left).unwrap();
            let mut redirected = Vec::new();
            for frames in frames.chunks(50) {
                sender.send_all(frames).unwrap();
                while let Some(batch) = receiver.next_batch() {
                    redirected.extend(batch.iter().map(|packet| packet.data().to_vec()));
                }
            }
            // The others come to the stack, also where they are no longer seen as they are sent.
            let began = Instant::now();
            while (redirected.len() as u64 + passed.stats().unwrap().packets) < frames.len() as u64
            {
                assert!(began.elapsed() < PATIENCE, "{expression} {attach:?}");
                if let Some(batch) = receiver.next_batch_timeout(Duration::from_millis(5)).unwrap()
                {
                    redirected.extend(batch.iter().map(|packet| packet.data().to_vec()));
                }
            }
            stop.stop();
            let passed = passed.batches().map(|batch| batch.unwrap().len()).sum::<usize>();
            let accepted: Vec<_> = frames.iter().filter(|frame| filter.matches(frame)).collect();
            assert_eq!(redirected.len(), accepted.len(), "{expression} {attach:?}");
            assert!(redirected.iter().eq(accepted), "{expression} {attach:?}");
            assert_eq!(redirected.len() + passed, frames.len(), "{expression} {attach:?}");
        }
    }
}

#[ringtap_lab::test]
fn the_verifier_takes_every_filter() {
    let Some(net) = privileged() else { return };
    let Some(directory) = pcap::directory() else {
        return ringtap_lab::skip("no captures beside the repository");
    };
    let table = std::fs::read_to_string(directory.join("BPF_ORACLE.tsv")).unwrap();
    let expressions: BTreeSet<_> =
        table.lines().skip(1).filter_map(|line| line.split('\t').nth(2)).collect();
    let veth = net.veth();
    veth.write_tags();
    let mut count = 0;
    for filter in expressions.iter().filter_map(|text| text.parse::<BpfFilter>().ok()) {
        let program = XdpProgram::filtered(&veth.right, Attach::Native, &filter);
        assert!(program.is_ok(), "{filter}\n{program:?}");
        count += 1;
    }
    assert!(count > 80, "{count} expressions");
    // What no socket knows, what is far out, and instructions that nothing leads to.
    let of = |insns: &[(u16, u8, u8, u32)]| {
        let insn = |&(code, jt, jf, k)| BpfInsn { code, jt, jf, k };
        let filter = BpfFilter::new(insns.iter().map(insn).collect::<Vec<_>>()).unwrap();
        XdpProgram::filtered(&veth.right, Attach::Native, &filter)
    };
    for code in [0x28, 0x48, 0xb1] {
        let error = of(&[(code, 0, 0, 0xffff_f000), (0x06, 0, 0, 0)]).unwrap_err();
        assert!(error.to_string().contains("only a socket knows"), "{error}");
    }
    let inbound = XdpProgram::filtered(&veth.right, Attach::Native, &"inbound".parse().unwrap());
    assert!(matches!(inbound, Err(Error::Filter(_))), "{inbound:?}");
    of(&[(0x20, 0, 0, 1 << 20), (0x16, 0, 0, 0)]).unwrap();
    of(&[(0x05, 0, 0, 1), (0x30, 0, 0, 3), (0x06, 0, 0, 1), (0x06, 0, 0, 0)]).unwrap();
}

#[ringtap_lab::test]
fn a_driver_that_cannot_steer_says_so() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let error = SymmetricRss::set(&veth.right).unwrap_err();
    assert!(matches!(error, Error::Os { step: Step::SetHashKey, .. }), "{error:?}");
    assert!(error.to_string().contains("this driver cannot"), "{error}");
    let error = FlowRule::tcp().dst_port(443).to_queue(3).install(&veth.right).unwrap_err();
    assert!(matches!(error, Error::Os { step: Step::InsertRule, .. }), "{error:?}");
    assert!(error.to_string().contains("this driver has no such rules"), "{error}");
    let error = FlowRule::udp().install("nowhere0").unwrap_err();
    assert!(matches!(error, Error::NoSuchInterface { .. }), "{error:?}");
}

#[ringtap_lab::test]
fn a_queue_is_not_named_twice_and_an_error_that_all_share_names_no_shard() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    for queue in [0, 1] {
        let queue = Shards::xdp(socket(&veth.right).queue_id(queue));
        let error = queue.spawn(|_| async { Ok(()) }).unwrap_err();
        assert!(error.to_string().contains("queue_id"), "{error}");
    }

    let nowhere = Shards::builder().interface("nowhere0").cores(Cores::Unpinned).shards(2);
    let error = nowhere.spawn(|_| async { Ok(()) }).unwrap_err();
    assert!(matches!(&error, Error::NoSuchInterface { name } if name == "nowhere0"), "{error}");
}
