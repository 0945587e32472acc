//! AF_XDP on many queues and between interfaces: shards, bridges, steering.
#![cfg(feature = "af-xdp")]

mod common;
#[path = "common/xdp.rs"]
mod setup;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{FarEnd, PATIENCE};
use futures_util::StreamExt;
use ringtap::{
    Attach, BridgeDirection, Cores, Error, FlowRule, Queues, Shards, Step, SymmetricRss, XdpBridge,
    XdpMode, XdpProgram, XdpSocket,
};
use ringtap_lab::{Generator, Host, Tally, Traffic, Veth, link, namespace};
use setup::{privileged, socket};

ringtap_lab::test_binary!();

/// A sender for each queue of the left end: TX queue N of one end is RX queue N of the other.
fn senders(veth: &Veth, queues: u32) -> Vec<XdpSocket> {
    let open = |queue| socket(&veth.left).mode(XdpMode::Tx).queue_id(queue).build().unwrap();
    (0..queues).map(open).collect()
}

/// Frame N goes to queue N modulo their number.
fn send(senders: &mut [XdpSocket], traffic: &Traffic, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let queue = number as usize % senders.len();
        senders[queue].send(&traffic.frame(number, 0)).unwrap();
    }
    senders.iter_mut().for_each(|sender| assert!(sender.drained(PATIENCE).unwrap()));
}

#[test]
fn a_shard_a_queue_receives_each_frame_once_and_in_order() {
    const COUNT: u64 = 40_000;
    let Some(net) = privileged() else { return };
    let veth = net.veth_with_queues(4);
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let tallies: Arc<Vec<Mutex<Tally>>> =
        Arc::new((0..4).map(|_| Mutex::new(Tally::new(&traffic, COUNT))).collect());
    let shared = Arc::clone(&tallies);
    let shards = Shards::builder()
        .interface(&veth.right)
        .cores(Cores::Unpinned)
        .xdp(Queues::Auto, XdpSocket::builder().frame_count(1024).mode(XdpMode::Rx))
        .spawn(move |mut shard| {
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

#[test]
fn queues_can_be_named_and_those_that_are_not_there_are() {
    let Some(net) = privileged() else { return };
    let veth = net.veth_with_queues(2);
    let start = |queues, name: &str| {
        Shards::builder()
            .interface(name)
            .cores(Cores::Unpinned)
            .xdp(queues, XdpSocket::builder().frame_count(64))
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
    let busy = socket(&veth.right).mode(XdpMode::Tx).queue_id(1).build().unwrap();
    let error = start(Queues::Auto, &veth.right).unwrap_err();
    assert!(matches!(&error, Error::Shard { index: 1, .. }), "{error:?}");
    drop(busy);
    start(Queues::Auto, &veth.right).unwrap();
}

/// Sends `count` frames into the left end of each pair, and compares what comes out at the other's.
fn bridge_both_ways(bridge: XdpBridge, (a, b): (&Veth, &Veth), count: u64) {
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let (stop, handles) = (bridge.stop_handle(), bridge.stats_handles());
    let running = std::thread::spawn(move || bridge.run(|_, _| true));
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
        assert_eq!((stats.drops(), stats.refused), (0, 0), "{stats:?}");
    }
}

#[test]
fn a_bridge_forwards_both_ways_with_one_umem_and_with_two() {
    let Some(net) = privileged() else { return };
    let (a, b) = (net.veth(), net.veth());
    let shared = XdpBridge::open_pair(&a.right, &b.right).unwrap();
    bridge_both_ways(shared, (&a, &b), 20_000);
    let open = |veth: &Veth| socket(&veth.right).build().unwrap();
    bridge_both_ways(XdpBridge::new(open(&a), open(&b)).unwrap(), (&a, &b), 5_000);
    let error = XdpBridge::new(open(&a), socket(&b.right).mode(XdpMode::Rx).build().unwrap());
    assert!(matches!(error, Err(Error::NotSending)), "{error:?}");
}

#[test]
fn a_bridges_filter_drops_and_changes_frames_and_a_removed_side_ends_it() {
    let Some(net) = privileged() else { return };
    let (a, b) = (net.veth(), net.veth());
    let bridge = XdpBridge::open_pair(&a.right, &b.right).unwrap();
    let running = std::thread::spawn(move || {
        bridge.run(|frame, direction| {
            assert_eq!(direction, BridgeDirection::AtoB);
            frame[0] = 0xee;
            frame[35] & 1 == 0 // the source port: flow 0 of two
        })
    });
    let mut far = socket(&b.left).mode(XdpMode::Rx).build().unwrap();
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

#[test]
fn a_bridge_drops_what_a_dead_side_does_not_take_goes_on_when_it_is_back_and_stops_at_once() {
    for is_shared in [true, false] {
        let Some(net) = privileged() else { return };
        let (a, b) = (net.veth(), net.veth());
        let open = |veth: &Veth| socket(&veth.right).frame_count(128).build().unwrap();
        let bridge = match is_shared {
            true => {
                let first = socket(&a.right).frame_count(128).umem_shares(2).build().unwrap();
                let second = socket(&b.right).frame_count(128).shared_umem(&first).build().unwrap();
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
        let seen = |from: ringtap::XdpStats| from.delivered + from.drops();
        for burst in 1..=40 {
            generator.flood(25);
            while seen(from.stats().unwrap()) < 25 * burst {
                assert!(start.elapsed() < PATIENCE, "{:?} {:?}", from.stats(), to.stats());
                std::thread::yield_now();
            }
        }
        link::set_up(&b.right, true).unwrap();
        b.up();
        let mut far = socket(&b.left).mode(XdpMode::Rx).build().unwrap();
        while far.next_batch_timeout(Duration::from_millis(20)).unwrap().is_none() {
            assert!(start.elapsed() < 2 * PATIENCE, "{:?} {:?}", from.stats(), to.stats());
            generator.flood(1);
        }
        link::set_up(&b.right, false).unwrap();
        generator.flood(200);
        stop.stop();
        running.join().unwrap().unwrap();
        let (from, to) = (from.stats().unwrap(), to.stats().unwrap());
        assert_eq!(from.delivered, to.committed + to.refused, "{from:?} {to:?}");
    }
}

#[test]
fn two_hosts_talk_tcp_through_a_bridge() {
    const BYTES: usize = 4 << 20;
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
    let Some(net) = privileged() else { return };
    let (a, b) = (net.veth(), net.veth());
    let client = Host::new(&a.left, Ipv4Addr::new(10, 9, 0, 1));
    let server = Host::new(&b.left, SERVER);
    client.finish_checksums();
    server.finish_checksums();
    let bridge = XdpBridge::open_pair(&a.right, &b.right).unwrap();
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

#[test]
fn a_driver_that_cannot_steer_says_so() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let error = SymmetricRss::set(&veth.right).unwrap_err();
    assert!(matches!(error, Error::Os { step: Step::SetHashKey, .. }), "{error:?}");
    assert!(error.to_string().contains("this driver cannot"), "{error}");
    let error = FlowRule::tcp().dst_port(443).to_queue(3).install(&veth.right).unwrap_err();
    assert!(matches!(error, Error::Os { step: Step::InsertRule, .. }), "{error:?}");
    assert!(error.to_string().contains("this driver cannot"), "{error}");
    let error = FlowRule::udp().install("nowhere0").unwrap_err();
    assert!(matches!(error, Error::NoSuchInterface { .. }), "{error:?}");
}
