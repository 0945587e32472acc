//! A minute of everything that may befall sockets, at random: links that go down and up, MTUs of both ends that change
//! together and apart, readers that stall, filters that are swapped, futures that are dropped, batches that are returned in
//! any order, sockets that are closed and opened. Then calm: each account must come out to the last packet.
//!
//! `RINGTAP_SOAK_SECONDS` (60 by default) and `RINGTAP_SOAK_SEED` make it longer, or the same again.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringtap::capture::{CaptureBuilder, RingLayout};
use ringtap::fanout::FanoutMode;
use ringtap::stats::CaptureStats;
use ringtap::{AsyncCapture, BpfFilter, Capture, Error, Injector, PacketBatch, executor, time};
use ringtap_lab::{Traffic, Veth, limits, link, namespace};

ringtap_lab::test_binary!();

/// How long the calm at the end lasts at most.
const PATIENCE: Duration = Duration::from_secs(20);
/// Frames of the calm.
const LAST: u64 = 20_000;

fn asked(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Numbers that look random and are the same for the same seed (xorshift).
struct Random(u64);

impl Random {
    fn of(seed: u64, stream: u64) -> Self {
        Self((seed ^ (stream + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least))
    }
}

/// What all threads know.
struct World {
    chaos: AtomicBool,
    over: AtomicBool,
    accounts: Mutex<Vec<Account>>,
    /// All sockets are open, beside it.
    open: Barrier,
}

/// What one reader has counted itself, and what its socket says.
#[derive(Debug)]
struct Account {
    name: &'static str,
    own: u64,
    stats: CaptureStats,
    note: String,
}

impl World {
    fn is_chaos(&self) -> bool {
        self.chaos.load(Relaxed)
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    fn account(&self, name: &'static str, own: u64, stats: CaptureStats, note: String) {
        self.accounts.lock().unwrap().push(Account { name, own, stats, note });
    }
}

fn ring(interface: &str) -> CaptureBuilder {
    let ring = Capture::builder().interface(interface).block_size(1 << 17).block_count(16);
    ring.frame_size(2048).block_timeout_ms(10)
}

fn filters() -> Vec<BpfFilter> {
    let texts = ["udp", "tcp", "ip and len > 100", "udp port 7", "ip6", "vlan"];
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Holds batches and returns them in any order; stalls; swaps filters.
fn reader(world: &World, name: &'static str, mut capture: Capture, seed: u64, swaps: bool) {
    let (mut random, mut own, mut held) = (Random::of(seed, name.len() as u64), 0, Vec::new());
    let (filters, mut swapped, mut stalls) = (filters(), 0, 0);
    let mut next = Instant::now();
    while !world.is_over() {
        if let Some(batch) = next_batch(&mut capture, Duration::from_millis(20)) {
            own += batch.iter().count() as u64;
            if world.is_chaos() && random.below(20) == 0 && held.len() < 12 {
                held.push(batch);
            }
        }
        if !world.is_chaos() {
            held.clear();
        }
        if !world.is_chaos() || Instant::now() < next {
            continue;
        }
        next += random.millis(300, 2_000);
        for _ in 0..random.below(held.len() as u64 + 1) {
            held.swap_remove(random.below(held.len() as u64) as usize);
        }
        if swaps {
            swapped += 1;
            match filters.get(random.below(8) as usize) {
                Some(filter) => capture.set_filter(filter).unwrap(),
                None => capture.clear_filter().unwrap(),
            }
        } else if random.below(4) == 0 {
            stalls += 1;
            std::thread::sleep(random.millis(50, 800));
        }
    }
    held.clear();
    while let Some(batch) = next_batch(&mut capture, Duration::from_millis(50)) {
        own += batch.iter().count() as u64;
    }
    let note = format!("{swapped} filters, {stalls} stalls");
    world.account(name, own, capture.stats().unwrap(), note);
}

fn next_batch(capture: &mut Capture, wait: Duration) -> Option<PacketBatch> {
    capture.next_batch_timeout(wait).unwrap()
}

/// Drops the future that waits, again and again.
fn canceller(world: &World, interface: &str, seed: u64) {
    let mut random = Random::of(seed, 77);
    executor::block_on(async {
        let mut capture = AsyncCapture::new(ring(interface).build().unwrap()).unwrap();
        world.open.wait();
        let (mut own, mut cancelled) = (0, 0);
        let mut quiet = 0;
        while quiet < 5 {
            let wait = if world.is_chaos() { random.below(3_000) } else { 50_000 };
            match time::timeout(Duration::from_micros(wait), capture.next_batch()).await {
                Ok(batch) => {
                    own += batch.unwrap().expect("it is not stopped").iter().count() as u64;
                    quiet = 0;
                }
                Err(_) => {
                    cancelled += 1;
                    quiet += u64::from(world.is_over());
                }
            }
        }
        let note = format!("{cancelled} futures dropped");
        world.account("async", own, capture.stats().unwrap(), note);
    });
}

/// A member of a fanout group that is closed and opened: what its sockets say in all, of those that were drained.
fn member(world: &World, interface: &str, group: u16, seed: u64) {
    let mut random = Random::of(seed, 991);
    let (mut opened, mut own, mut delivered) = (0, 0, 0);
    while !world.is_over() {
        let mut capture = match ring(interface).fanout(FanoutMode::Hash, group).build() {
            Ok(capture) => capture,
            // The interface is down: older kernels let nobody join then.
            Err(Error::Fanout { .. }) => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        opened += 1;
        let (stop, end) =
            (capture.stop_handle().unwrap(), Instant::now() + random.millis(200, 3_000));
        let mut count = 0;
        loop {
            if Instant::now() > end || world.is_over() {
                stop.stop();
            }
            match next_batch(&mut capture, Duration::from_millis(20)) {
                Some(batch) => count += batch.iter().count() as u64,
                None if stop.is_stopped() => break,
                None => {}
            }
        }
        let stats = capture.stats().unwrap();
        assert_eq!(stats.delivered + stats.drops, stats.packets, "drained: {stats:?}");
        (own, delivered) = (own + count, delivered + stats.delivered);
    }
    assert_eq!(own, delivered);
    println!("a member of the group was opened {opened} times and took {own} packets");
}

/// One thing that happens to the links.
fn befall(veth: &Veth, random: &mut Random) -> &'static str {
    let mtu = |random: &mut Random| 700 + random.below(2_000) as u32;
    match random.below(6) {
        0 => {
            link::set_up(&veth.right, false).unwrap();
            std::thread::sleep(random.millis(1, 100));
            link::set_up(&veth.right, true).unwrap();
            "far end down and up"
        }
        1 => {
            link::set_up(&veth.left, false).unwrap();
            std::thread::sleep(random.millis(1, 50));
            link::set_up(&veth.left, true).unwrap();
            "near end down and up"
        }
        2 => {
            veth.set_mtu(mtu(random));
            "both MTUs"
        }
        3 => {
            veth.set_mtu_of_right(mtu(random)); // frames that the far end drops
            "far MTU"
        }
        _ => "nothing",
    }
}

/// Sends bursts of frames of all lengths, while things befall the links: what happened.
fn sender(world: &World, veth: &Veth, seed: u64, end: Instant) -> Injector {
    let mut random = Random::of(seed, 3);
    let patience = Duration::from_millis(100);
    let builder = Injector::builder().interface(&veth.left).frame_size(4096).frame_count(1024);
    let mut injector = builder.give_up_after(patience).build().unwrap();
    world.open.wait();
    let mut frame = Traffic::default().frame(0, 0);
    let (mut next, mut events) = (Instant::now(), Vec::new());
    while Instant::now() < end {
        for _ in 0..1 + random.below(400) {
            let len = match random.below(20) {
                0 => 1_400,
                1..=3 => 600,
                _ => 60 + random.below(60) as usize,
            };
            frame.resize(len, 0x5a);
            match injector.send(&frame) {
                Ok(()) | Err(Error::LinkDown { .. } | Error::FrameLength { .. }) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        match injector.flush_timeout(Duration::from_millis(50)) {
            Ok(_) | Err(Error::LinkDown { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
        if Instant::now() > next {
            next = Instant::now() + random.millis(500, 3_000);
            events.push(befall(veth, &mut random));
        }
        std::thread::sleep(random.millis(0, 5));
    }
    println!("{} events, the last {:?}", events.len(), events.last());
    injector
}

/// A thread in the namespace of the one that starts it.
fn spawn(world: &Arc<World>, work: impl FnOnce(&World) + Send + 'static) -> JoinHandle<()> {
    let world = Arc::clone(world);
    std::thread::spawn(move || work(&world))
}

#[ringtap_lab::test]
fn each_account_comes_out_after_everything_that_can_happen() {
    let Some(net) = namespace() else { return };
    let seconds = asked("RINGTAP_SOAK_SECONDS", 60);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = asked("RINGTAP_SOAK_SEED", clock.as_nanos() as u64);
    println!("RINGTAP_SOAK_SEED={seed} RINGTAP_SOAK_SECONDS={seconds}");
    let veth = net.veth();
    let descriptors = limits::open_descriptors();
    let world = Arc::new(World {
        chaos: AtomicBool::new(true),
        over: AtomicBool::new(false),
        accounts: Mutex::default(),
        open: Barrier::new(2),
    });
    let open = |builder: CaptureBuilder| builder.build().unwrap();
    let whole = open(ring(&veth.right));
    let filtered = open(ring(&veth.right));
    let frames = open(ring(&veth.right).layout(RingLayout::Frames));
    let first = open(ring(&veth.right).fanout_auto(FanoutMode::Hash));
    let group = first.fanout_group().unwrap();
    let mut threads = Vec::new();
    for (name, capture, swaps) in [
        ("blocks", whole, false),
        ("filtered", filtered, true),
        ("in frames", frames, false),
        ("first member", first, false),
    ] {
        threads.push(spawn(&world, move |world| reader(world, name, capture, seed, swaps)));
    }
    let right = veth.right.clone();
    threads.push(spawn(&world, move |world| canceller(world, &right, seed)));
    let right = veth.right.clone();
    threads.push(spawn(&world, move |world| member(world, &right, group, seed)));

    let end = Instant::now() + Duration::from_secs(seconds);
    let mut injector = sender(&world, &veth, seed, end);
    world.chaos.store(false, Relaxed);
    veth.set_mtu(1_500);
    veth.up();
    assert!(injector.drain(PATIENCE).unwrap(), "seed {seed}: {:?}", injector.stats());
    // Calm: all of these arrive, at each reader that takes all.
    let before = link::stats(&veth.right).unwrap().received;
    let frame = Traffic::default().frame(0, 0);
    for number in 0..LAST {
        injector.send(&frame).unwrap();
        if number % 64 == 0 {
            injector.flush().unwrap();
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    assert!(injector.drain(PATIENCE).unwrap());
    let sent = injector.close(PATIENCE);
    let received = link::stats(&veth.right).unwrap().received;
    assert_eq!(received - before, LAST, "seed {seed}");
    std::thread::sleep(Duration::from_millis(500));
    world.over.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());

    let wire = link::stats(&veth.left).unwrap();
    println!("{sent:?}\n{wire:?}");
    // A frame that the driver drops stays in the ring, and counts there once for each attempt; what is left out counts as
    // rejected here.
    let handed_over = sent.committed - sent.rejected - sent.abandoned;
    assert!((wire.sent..=wire.sent + wire.dropped).contains(&handed_over), "seed {seed}");
    for Account { name, own, stats, note } in world.accounts.lock().unwrap().iter() {
        println!("{name}: {own} packets, {note}, {stats:?}");
        assert_eq!(*own, stats.delivered, "seed {seed}, {name}: {stats:?}");
        assert_eq!(stats.delivered + stats.drops, stats.packets, "seed {seed}, {name}: {stats:?}");
        assert_eq!(stats.malformed, 0, "seed {seed}, {name}");
        assert!(stats.packets >= LAST || *name == "first member" || *name == "filtered", "{name}");
    }
    assert_eq!(limits::open_descriptors(), descriptors, "seed {seed}: descriptors");
}
