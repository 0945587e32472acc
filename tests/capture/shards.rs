//! Shards: every packet to exactly one of them, both directions of a flow to the same.

use std::collections::HashMap;
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringtap::capture::CaptureBuilder;
use ringtap::fanout::FanoutMode;
use ringtap::shard::{AllShardStats, BuiltIn, Cores, FailurePolicy, Shard, ShardsBuilder, Source};
use ringtap::{AsyncCapture, Capture, Error, Shards};
use ringtap_lab::{Generator, Pace, Tally, Traffic, Veth, frames, limits, namespace};

const PATIENCE: Duration = Duration::from_secs(60);

/// Blocks for all that a test sends, however long the reader is kept from its core.
fn ring() -> CaptureBuilder {
    Capture::builder().block_size(1 << 18).block_count(128).block_timeout_ms(10)
}

fn three_shards(interface: &str) -> ShardsBuilder<BuiltIn> {
    Shards::builder().interface(interface).capture(ring()).shards(3)
}

/// Sends all of `traffic` to three shards and returns what each saw.
fn run(mode: FanoutMode, traffic: &Traffic, count: u64) -> Option<(Vec<Tally>, AllShardStats)> {
    let net = namespace()?;
    let veth = net.veth();
    let shards = three_shards(&veth.right).source(Source::Fanout(mode));
    Some(run_on(&veth, shards, Rights::All, traffic, count))
}

/// What the thread may do that starts shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    All,
    None,
}

/// Sends all of `traffic` to three shards with these options, started with these rights, and returns what each saw.
fn run_on(
    veth: &Veth,
    options: ShardsBuilder<BuiltIn>,
    rights: Rights,
    traffic: &Traffic,
    count: u64,
) -> (Vec<Tally>, AllShardStats) {
    let tallies: Arc<Mutex<HashMap<usize, Tally>>> = Arc::default();
    let (sink, plan) = (Arc::clone(&tallies), traffic.clone());
    let pace = Pace::default();
    let counter = pace.clone();
    let work = move |mut shard: Shard| {
        let (sink, mut tally) = (Arc::clone(&sink), Tally::new(&plan, count));
        let counter = counter.clone();
        async move {
            while let Some(batch) = shard.capture.next().await {
                let batch = batch?;
                batch.iter().for_each(|packet| tally.record(packet.data()));
                counter.count(batch.len());
            }
            sink.lock().unwrap().insert(shard.index(), tally);
            Ok(())
        }
    };
    let start = move || {
        if rights == Rights::None {
            limits::keep_capabilities(0);
        }
        options.spawn(work).unwrap()
    };
    let shards = std::thread::spawn(start).join().unwrap();
    Generator::new(&veth.left, traffic).in_step(count, &pace);
    assert_eq!(veth.lost(), 0, "the tap saw all");
    shards.stop();
    let stats = shards.join().unwrap();
    let mut tallies = std::mem::take(&mut *tallies.lock().unwrap());
    ((0..3).map(|index| tallies.remove(&index).unwrap()).collect(), stats)
}

fn merged(tallies: &[Tally], traffic: &Traffic, count: u64) -> Tally {
    let mut all = Tally::new(traffic, count);
    tallies.iter().for_each(|tally| all.merge(tally));
    all
}

#[ringtap_lab::test]
fn two_hundred_thousand_frames_arrive_once_in_flow_order_both_directions_together() {
    let count = frames(200_000);
    let traffic = Traffic { len: 128, flows: 64, both_directions: true, ..Traffic::default() };
    let Some((tallies, stats)) = run(FanoutMode::Hash, &traffic, count) else { return };
    merged(&tallies, &traffic, count).assert_complete();
    let mut shard_of = HashMap::new();
    for (index, tally) in tallies.iter().enumerate() {
        for flow in tally.flows() {
            assert_eq!(shard_of.insert(flow, index), None, "flow {flow} is on two shards");
        }
    }
    assert_eq!(shard_of.len(), 64);
    assert!(tallies.iter().all(|tally| tally.received() > 0), "64 flows spread over 3 shards");
    let total = stats.total();
    assert_eq!((total.packets, total.delivered, total.drops), (count, count, 0));
    for shard in stats.shards() {
        assert_eq!(shard.capture.delivered, tallies[shard.spec.index].received());
        assert!(shard.reactor.wakeups > 0);
    }
}

#[ringtap_lab::test]
fn every_mode_delivers_each_frame_exactly_once() {
    const COUNT: u64 = 20_000;
    let traffic = Traffic { flows: 16, ..Traffic::default() };
    let by_length = [
        ringtap::filter::BpfInsn { code: 0x80, jt: 0, jf: 0, k: 0 }, // ld #len
        ringtap::filter::BpfInsn { code: 0x16, jt: 0, jf: 0, k: 0 }, // ret a
    ];
    for mode in [
        FanoutMode::Hash,
        FanoutMode::LoadBalance,
        FanoutMode::Cpu,
        FanoutMode::Rollover,
        FanoutMode::Random,
        FanoutMode::QueueMapping,
        FanoutMode::Cbpf(Arc::new(by_length)),
    ] {
        let Some((tallies, _)) = run(mode.clone(), &traffic, COUNT) else { return };
        let mut all = Tally::new(&traffic, COUNT);
        let mut received = Vec::new();
        for tally in &tallies {
            tally.assert_sound();
            received.push(tally.received());
            all.merge(tally);
        }
        all.assert_complete();
        match mode {
            FanoutMode::LoadBalance => assert!(received.iter().all(|&count| count >= 6_666)),
            FanoutMode::Cbpf(_) => {
                // The program sees the packet from its network header on: 14 bytes less.
                assert_eq!(received[(66 - 14) % 3], COUNT, "by length: {received:?}");
            }
            _ => {}
        }
    }
}

#[ringtap_lab::test]
fn shards_on_sockets_that_another_has_opened_need_no_right() {
    const COUNT: u64 = 20_000;
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 16, both_directions: true, ..Traffic::default() };
    let open = |count: usize| -> Vec<_> {
        let options = ring().interface(&veth.right);
        (0..count).map(|_| options.open_socket().unwrap()).collect()
    };
    let refused = || {
        limits::keep_capabilities(0);
        three_shards(&veth.right).spawn(|_| async { Ok(()) }).unwrap_err()
    };
    let refused = std::thread::scope(|scope| scope.spawn(refused).join().unwrap());
    assert!(matches!(refused, Error::Shard { .. }), "{refused}");
    let options = three_shards(&veth.right).sockets(open(3));
    let (tallies, _) = run_on(&veth, options, Rights::None, &traffic, COUNT);
    merged(&tallies, &traffic, COUNT).assert_complete();
    assert!(tallies.iter().all(|tally| tally.received() > 0));

    let spawn = |options: ShardsBuilder<BuiltIn>| {
        options.spawn(|_| async { Ok(()) }).map(|shards| drop(shards.join()))
    };
    let with = |count| three_shards(&veth.right).sockets(open(count));
    for count in [0, 2, 4] {
        assert!(matches!(spawn(with(count)).unwrap_err(), Error::ShardPlan(_)), "{count} sockets");
    }
    let two_captures = with(6).and_capture(ring().interface(&veth.left));
    spawn(two_captures).unwrap();
    let options = with(3);
    spawn(options.clone()).unwrap();
    assert!(spawn(options).unwrap_err().to_string().contains("has taken the sockets"));
    let datagrams = (0..3).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into());
    let error = spawn(three_shards(&veth.right).sockets(datagrams)).unwrap_err();
    assert!(matches!(error, Error::Unusable { .. }), "{error}");
}

#[ringtap_lab::test]
fn one_shard_that_fails_stops_all_and_is_named() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let shards = three_shards(&veth.right)
        .spawn(|mut shard| async move {
            if shard.index() == 1 {
                return Err(Error::other("deliberate"));
            }
            while let Some(batch) = shard.capture.next().await {
                batch?;
            }
            Ok(())
        })
        .unwrap();
    let error = shards.join().unwrap_err();
    assert!(matches!(error, Error::Shard { index: 1, .. }), "{error:?}");
    assert_eq!(error.to_string(), "shard 1: deliberate");
}

#[ringtap_lab::test]
fn one_shard_that_panics_leaves_its_packets_to_the_others_if_they_go_on() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let shards = three_shards(&veth.right)
        .on_failure(FailurePolicy::Continue)
        .spawn(|mut shard| async move {
            assert!(shard.index() != 2, "deliberate panic");
            while let Some(batch) = shard.capture.next().await {
                batch?;
            }
            Ok(())
        })
        .unwrap();
    let traffic = Traffic { flows: 64, ..Traffic::default() };
    let mut generator = Generator::new(&veth.left, &traffic);
    let seen_by_survivors = || {
        let stats = shards.stats().unwrap();
        stats.shards()[..2].iter().map(|shard| shard.capture.packets).sum::<u64>()
    };
    // Until the third has left the group, its share of the 64 flows is missing.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let before = seen_by_survivors();
        generator.flood(64);
        if seen_by_survivors() - before == 64 {
            break;
        }
        assert!(Instant::now() < deadline, "the failed shard stayed in the group");
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = seen_by_survivors();
    generator.flood(5_000);
    assert_eq!(seen_by_survivors() - before, 5_000);
    shards.stop();
    let report = shards.join_each().unwrap();
    let survivors: u64 =
        report.stats.shards()[..2].iter().map(|shard| shard.capture.delivered).sum();
    assert_eq!(survivors, before + 5_000, "they read all they saw");
    assert!(report.outcomes[..2].iter().all(Result::is_ok));
    let Err(Error::ShardPanicked { index: 2, message }) = &report.outcomes[2] else {
        panic!("{report:?}");
    };
    assert!(message.contains("deliberate"), "{message}");
}

#[ringtap_lab::test]
fn shards_keep_their_place_in_the_group_when_the_link_goes_down_and_up() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let always_three = [ringtap::filter::BpfInsn { code: 0x06, jt: 0, jf: 0, k: 3 }]; // ret #3
    let shards = Shards::builder()
        .capture(ring().block_size(1 << 16).interface(&veth.right))
        .source(Source::Fanout(FanoutMode::Cbpf(Arc::new(always_three))))
        .shards(6)
        .spawn(|mut shard| async move {
            while shard.capture.next_batch().await?.is_some() {}
            Ok(())
        })
        .unwrap();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    for round in 1..=5 {
        generator.flood(100);
        let stats = shards.stats().unwrap();
        assert_eq!(stats.shards()[3].capture.packets, round * 100, "{:?}", stats.total());
        veth.down();
        veth.up();
    }
    shards.stop();
    shards.join().unwrap();
}

#[ringtap_lab::test]
fn a_shard_that_ends_without_draining_leaves_what_came_before_the_stop_as_pending() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let (go_on, start) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let may_end = Arc::clone(&go_on);
    let shards = three_shards(&veth.right)
        .spawn(move |shard| {
            let may_end = Arc::clone(&may_end);
            async move {
                let stop = shard.stop_handle();
                let is_last = shard.index() == 0; // the others are over before
                let may_end = || !is_last || may_end.load(Ordering::Relaxed);
                while !stop.is_stopped() || !may_end() && start.elapsed() < PATIENCE {
                    ringtap::time::sleep(Duration::from_millis(1)).await;
                }
                Ok(())
            }
        })
        .unwrap();
    let mut generator = Generator::new(&veth.left, &Traffic { flows: 64, ..Traffic::default() });
    generator.flood(1_000);
    let taken_in = |stats: &AllShardStats| -> u64 {
        stats.shards()[1..].iter().map(|shard| shard.capture.packets).sum()
    };
    let mut before = 0;
    while before == 0 {
        assert!(start.elapsed() < PATIENCE, "they have some of the flows");
        before = taken_in(&shards.stats().unwrap());
    }
    shards.stop();
    loop {
        generator.flood(64); // one of each flow
        let now = taken_in(&shards.stats().unwrap());
        if now == before {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "shards that have ended take in nothing: {now}");
        before = now;
    }
    generator.flood(1_000);
    go_on.store(true, Ordering::Relaxed);
    let report = shards.join_each().unwrap();
    assert!(report.outcomes.iter().all(Result::is_ok));
    assert_eq!(taken_in(&report.stats), before, "shards that have ended take in nothing");
    assert_eq!(report.stats.total().delivered, 0);
}

#[ringtap_lab::test]
fn a_runtime_that_cannot_start_is_an_error() {
    #[derive(Clone)]
    struct Broken;
    impl ringtap::shard::Runtime for Broken {
        fn run<F: Future>(&self, _: Option<usize>, _: F) -> ringtap::Result<F::Output> {
            Err(Error::other("no runtime today"))
        }
    }
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let started = three_shards(&veth.right).runtime(Broken).spawn(|_| async { Ok(()) });
    assert!(started.unwrap_err().to_string().ends_with("no runtime today"));
}

#[ringtap_lab::test]
fn a_mode_of_the_capture_is_kept_and_a_source_wins() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let outside = Capture::builder()
        .interface(&veth.right)
        .block_size(1 << 16)
        .fanout(FanoutMode::LoadBalance, 77)
        .build()
        .unwrap();
    let capture = ring().fanout(FanoutMode::LoadBalance, 77);
    let builder = Shards::builder().interface(&veth.right).capture(capture).shards(2);
    let work = |mut shard: Shard| async move {
        while shard.capture.next_batch().await?.is_some() {}
        Ok(())
    };
    let shards = builder.clone().spawn(work).unwrap();
    Generator::new(&veth.left, &Traffic::default()).flood(300);
    assert_eq!(outside.stats().unwrap().packets, 100, "a third for each member");
    shards.stop();
    shards.join().unwrap();
    let error = builder.source(Source::Fanout(FanoutMode::Hash)).spawn(work).unwrap_err();
    assert!(error.to_string().contains("fanout group 77"), "{error}");
}

#[ringtap_lab::test]
fn a_shard_that_cannot_start_ends_the_others_with_its_reason() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let error = three_shards("nowhere0").spawn(|_| async { Ok(()) }).unwrap_err();
    assert!(matches!(error, Error::NoSuchInterface { .. }), "no shard's own: {error:?}");
    let error = Shards::builder().spawn(|_| async { Ok(()) }).unwrap_err();
    assert!(error.to_string().contains("no interface was named"), "{error}");
    let error =
        three_shards(&veth.right).cores(Cores::List(vec![9999])).spawn(|_| async { Ok(()) });
    assert!(matches!(error, Err(Error::ShardPlan(_))));
}

#[ringtap_lab::test]
fn dropping_the_handle_ends_the_threads() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let ended = Arc::new(());
    let witness = Arc::clone(&ended);
    let shards = three_shards(&veth.right)
        .spawn(move |mut shard| {
            let witness = Arc::clone(&witness);
            async move {
                while let Some(batch) = shard.capture.next().await {
                    batch?;
                }
                drop(witness);
                Ok(())
            }
        })
        .unwrap();
    drop(shards);
    assert_eq!(Arc::strong_count(&ended), 1, "nobody holds it any more");
}

/// The mode of a socket's fanout group (`PACKET_FANOUT`, packet(7)).
fn fanout_mode(socket: &impl AsFd) -> u32 {
    let (mut value, mut len) = (0_u32, size_of::<u32>() as libc::socklen_t);
    let at = (&raw mut value).cast();
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_FANOUT);
    // SAFETY: the socket is open, and the value is as long as `len` says.
    let done =
        unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), level, option, at, &raw mut len) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    value >> 16 & 0xff
}

#[ringtap_lab::test]
fn the_other_captures_of_a_shard_are_spread_like_the_first() {
    let Some(net) = namespace() else { return };
    let (first, second) = (net.veth(), net.veth());
    let ring =
        |veth: &Veth| Capture::builder().interface(&veth.right).block_size(1 << 16).block_count(8);
    let modes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&modes);
    let capture = ring(&first).fanout_auto(FanoutMode::Cpu);
    let shards = Shards::builder().capture(capture).and_capture(ring(&second)).shards(2);
    let shards = shards.cores(Cores::Unpinned).spawn(move |shard| {
        let mode = |capture: &AsyncCapture| fanout_mode(capture.get_ref());
        let both = [mode(&shard.capture), mode(&shard.others[0])];
        seen.lock().unwrap().push(both);
        async { Ok(()) }
    });
    shards.unwrap().join().unwrap();
    assert_eq!(*modes.lock().unwrap(), [[libc::PACKET_FANOUT_CPU; 2]; 2]);
}
