//! How a packet's cost grows: with captures on a reactor, shards, live flows. And what nothing
//! costs.

use std::time::{Duration, Instant};

use ringtap::capture::CaptureBuilder;
use ringtap::executor::{self, Executor, spawn_local};
use ringtap::fanout::FanoutMode;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{EventMask, FlowConfig, FlowTable};
use ringtap::packet::Timestamp;
use ringtap::reactor::{Coalesce, ReactorOptions};
use ringtap::shard::Source;
use ringtap::time;
use ringtap::{AsyncCapture, Capture, Packet, Shards};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Traffic, Veth};

use crate::harness::{Kind, Outcome, Progress, Table, compare, cpu_time, pin};
use crate::receive::touch;

const TIME: Duration = Duration::from_millis(800);
const RETIRE_MS: u32 = 20;
/// Bytes of all rings of a way: it is captures that are compared, not memory.
const MEMORY: usize = 32 << 20;
const BLOCK: usize = 1 << 17;

/// A quarter of the blocks' timeout.
const SHARED: Coalesce = Coalesce::Fixed(Duration::from_millis(RETIRE_MS as u64 / 4));

const CAPTURES: &[(&str, Kind, (usize, Coalesce))] = &[
    ("1 capture", Kind::Ours, (1, Coalesce::Off)),
    ("4 captures", Kind::Ours, (4, Coalesce::Off)),
    ("16 captures", Kind::Ours, (16, Coalesce::Off)),
    ("64 captures", Kind::Ours, (64, Coalesce::Off)),
    ("1 capture, 5 ms", Kind::Ours, (1, SHARED)),
    ("16 captures, 5 ms", Kind::Ours, (16, SHARED)),
    ("64 captures, 5 ms", Kind::Ours, (64, SHARED)),
];

const SHARDS: &[(&str, Kind, usize)] = &[
    ("1 shard", Kind::Ours, 1),
    ("2 shards", Kind::Ours, 2),
    ("4 shards", Kind::Ours, 4),
    ("8 shards", Kind::Ours, 8),
];

/// In which order packets of flows come.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// One after another.
    Turn,
    Random,
    /// Few have most of them (Zipf's law).
    Zipf,
    /// In random order, and each tenth packet is of a new flow, in place of an old one.
    Churn,
}

const FLOWS: &[(&str, Kind, (u32, Order))] = &[
    ("64 flows", Kind::Ours, (64, Order::Turn)),
    ("64 flows, random", Kind::Ours, (64, Order::Random)),
    ("65,536 flows, random", Kind::Ours, (65_536, Order::Random)),
    ("65,536 flows, churn", Kind::Ours, (65_536, Order::Churn)),
    ("1,000,000 flows", Kind::Ours, (1_000_000, Order::Turn)),
    ("1,000,000 flows, random", Kind::Ours, (1_000_000, Order::Random)),
    ("1,000,000 flows, Zipf", Kind::Ours, (1_000_000, Order::Zipf)),
];

/// A flood that a fanout group hands out in turn to captures on one reactor.
pub(crate) fn captures(veth: &Veth, rounds: usize) -> Table {
    let columns = &["CPU ns/packet", "kpackets/s"];
    compare("Captures on one reactor", columns, CAPTURES, rounds, |(count, coalesce)| {
        flood(veth, |name, progress| {
            let group = ring(name, count).fanout_auto(FanoutMode::LoadBalance).build()?;
            let id = group.fanout_group().ok_or("it is of a group")?;
            let mut captures = vec![group];
            for _ in 1..count {
                captures.push(ring(name, count).fanout(FanoutMode::LoadBalance, id).build()?);
            }
            let executor = Executor::new(ReactorOptions::new().coalesce(coalesce))?;
            executor.block_on(async {
                let mut receiving = Vec::new();
                for capture in captures {
                    let (mut capture, progress) = (AsyncCapture::new(capture)?, progress.clone());
                    receiving.push(spawn_local(async move {
                        while let Ok(Some(batch)) = capture.next_batch().await {
                            progress.add(count_of(&batch));
                        }
                    }));
                }
                progress.opened();
                while !progress.is_over() {
                    time::sleep(Duration::from_millis(40)).await;
                }
                Ok(())
            })
        })
    })
}

/// A flood of 256 flows, over shards that share the cores there are.
pub(crate) fn shards(veth: &Veth, rounds: usize) -> Table {
    let columns = &["CPU ns/packet", "kpackets/s"];
    compare("Shards", columns, SHARDS, rounds, |count| {
        flood(veth, |name, progress| {
            let counted = progress.clone();
            let shards = Shards::builder()
                .interface(name)
                .capture(ring(name, count))
                .source(Source::Fanout(FanoutMode::Hash))
                .shards(count)
                .spawn(move |mut shard| {
                    let progress = counted.clone();
                    async move {
                        while let Some(batch) = shard.capture.next_batch().await? {
                            progress.add(count_of(&batch));
                        }
                        Ok(())
                    }
                })?;
            progress.opened();
            while !progress.is_over() {
                std::thread::sleep(Duration::from_millis(20));
            }
            shards.stop();
            shards.join()?;
            Ok(())
        })
    })
}

fn ring(name: &str, count: usize) -> CaptureBuilder {
    let ring = Capture::builder().interface(name).block_size(BLOCK).block_timeout_ms(RETIRE_MS);
    ring.block_count((MEMORY / BLOCK / count).max(2))
}

fn count_of(batch: &ringtap::PacketBatch) -> u64 {
    std::hint::black_box(batch.iter().map(|packet| touch(packet.data())).sum::<u64>());
    batch.len() as u64
}

fn flood(
    veth: &Veth,
    receive: impl FnOnce(&str, &Progress) -> Outcome<()> + Send,
) -> Outcome<Vec<f64>> {
    let progress = Progress::default();
    let (name, for_receiver) = (veth.right.as_str(), progress.clone());
    std::thread::scope(|scope| {
        let receiving = scope.spawn(move || receive(name, &for_receiver));
        pin(0);
        while !progress.is_open() && !receiving.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        let (before, own) = (cpu_time(libc::RUSAGE_SELF), cpu_time(libc::RUSAGE_THREAD));
        let sender = Sender::open(&veth.left)?;
        let traffic = Traffic { flows: 256, ..Traffic::default() };
        let frames: Vec<_> =
            (0..256).map(|number| traffic.frame(number, 0)[..60].to_vec()).collect();
        let start = Instant::now();
        while start.elapsed() < TIME {
            sender.send_all(&frames)?;
        }
        let elapsed = start.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_millis(2 * u64::from(RETIRE_MS) + 20));
        let used = cpu_time(libc::RUSAGE_SELF) - before - (cpu_time(libc::RUSAGE_THREAD) - own);
        progress.stop();
        receiving.join().map_err(|_| "the receiver panicked")??;
        let packets = progress.packets() as f64;
        Ok(vec![used.as_nanos() as f64 / packets, packets / elapsed / 1e3])
    })
}

/// What a packet costs in a table, by the number of its flows and their order.
pub(crate) fn flows(rounds: usize) -> Table {
    const PACKETS: u32 = 1_000_000;
    compare("Live flows in a table", &["CPU ns/packet"], FLOWS, rounds, |(flows, order)| {
        pin(1);
        let mut config = FlowConfig::default();
        config.suppress_events = EventMask::all();
        config.max_flows = flows as usize + 1_000;
        let table = FlowTable::with_config_and_state(FiveTuple::bidirectional(), config, |_| ());
        let (mut table, mut events) = (table, std::collections::VecDeque::new());
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]);
        let builder = builder.ipv4([10, 0, 0, 1], [10, 9, 9, 9], 64).udp(7, 7);
        let mut frame = Vec::new();
        builder.write(&mut frame, &[0; 18])?;
        let mut dice = 1_u64;
        let mut number_of = |at: u32, order: Order| {
            // Knuth's, of MMIX.
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let uniform = (dice >> 11) as f64 / (1_u64 << 53) as f64;
            match order {
                Order::Turn => at % flows,
                Order::Churn if at.is_multiple_of(10) => flows + at,
                Order::Random | Order::Churn => (uniform * f64::from(flows)) as u32,
                // With an exponent of 1, from a uniform number.
                Order::Zipf => f64::from(flows).powf(uniform) as u32 - 1,
            }
        };
        let mut take = |number: u32, order: Order| {
            let flow = number_of(number, order);
            frame[26..30].copy_from_slice(&(0x0a00_0000 + flow).to_be_bytes());
            let time = Timestamp { secs: 1_700_000_000, nanos: number };
            table.packet(&Packet::from_bytes(&frame, time), &mut events);
        };
        (0..flows).for_each(|number| take(number, Order::Turn));
        let before = cpu_time(libc::RUSAGE_THREAD);
        (0..PACKETS).for_each(|number| take(number, order));
        let used = cpu_time(libc::RUSAGE_THREAD) - before;
        if table.len() < flows as usize {
            return Err(format!("{} flows of {flows}", table.len()).into());
        }
        Ok(vec![used.as_nanos() as f64 / f64::from(PACKETS)])
    })
}

/// A capture on an interface where nothing happens.
pub(crate) fn idle(veth: &Veth, rounds: usize) -> Table {
    const TIME: Duration = Duration::from_secs(2);
    let ways =
        &[("ringtap, default options", Kind::Ours, false), ("ringtap, AF_XDP", Kind::Ours, true)];
    compare("An idle capture", &["CPU %", "wake-ups/s"], ways, rounds.min(3), |is_xdp| {
        let name = veth.right.as_str();
        executor::block_on(async {
            let reactor = ringtap::reactor::Reactor::current()?;
            let wait = async |before: Duration, waked: u64| {
                let used = cpu_time(libc::RUSAGE_THREAD) - before;
                let share = 100.0 * used.as_secs_f64() / TIME.as_secs_f64();
                let wakeups = (reactor.stats().wakeups - waked) as f64 / TIME.as_secs_f64();
                Ok(vec![share, wakeups])
            };
            if is_xdp {
                let mut socket = ringtap::xdp::AsyncXdpSocket::open(name)?;
                let (before, waked) = (cpu_time(libc::RUSAGE_THREAD), reactor.stats().wakeups);
                let _ = time::timeout(TIME, socket.next_batch()).await;
                return wait(before, waked).await;
            }
            let mut capture = AsyncCapture::open(name)?;
            let (before, waked) = (cpu_time(libc::RUSAGE_THREAD), reactor.stats().wakeups);
            let _ = time::timeout(TIME, capture.next_batch()).await;
            wait(before, waked).await
        })
    })
}
