//! What shards do, second by second: for a terminal, for scripts, and for a report.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hdrhistogram::Histogram;
use ringtap::shard::AllShardStats;
use serde::Serialize;

use crate::feed::Meter;
use crate::talk::{Order, Talker, Traffic};

/// Talkers that are shown.
pub(crate) const SHOWN: usize = 8;

/// One look.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Look {
    pub(crate) shards: Vec<ShardLook>,
    pub(crate) flows_active: u64,
    pub(crate) flows_ended: u64,
    pub(crate) talkers: Vec<Talker>,
    /// Of all.
    #[serde(skip)]
    pub(crate) traffic: Traffic,
}

/// A shard, since the look before.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ShardLook {
    pub(crate) shard: usize,
    pub(crate) core: Option<usize>,
    pub(crate) packets_per_second: f64,
    pub(crate) mbit_per_second: f64,
    /// Since the start.
    pub(crate) packets: u64,
    pub(crate) drops: u64,
    pub(crate) wakeups: u64,
    pub(crate) latency_p50_us: u64,
    pub(crate) latency_p99_us: u64,
}

/// Looks at shards again and again.
pub(crate) struct Watch {
    before: Option<(Instant, AllShardStats, Vec<u64>)>,
    /// All latencies so far.
    pub(crate) latency: Histogram<u32>,
    /// Whether who talks is of interest: it costs the shards a look at all flows, twice a second.
    asks_who: bool,
}

impl Watch {
    pub(crate) fn new(asks_who: bool) -> Self {
        let latency =
            Histogram::new_with_bounds(1, 60_000_000, 2).expect("bounds that are known to do");
        Self { before: None, latency, asks_who }
    }

    pub(crate) fn look(&mut self, stats: &AllShardStats, meters: &[Meter]) -> Look {
        let now = Instant::now();
        let bytes: Vec<u64> =
            meters.iter().map(|meter| meter.bytes.load(Ordering::Relaxed)).collect();
        let shards = stats.shards().iter().zip(meters).enumerate().map(|(at, (shard, meter))| {
            let latency = meter.take_latency();
            let _ = self.latency.add(&latency); // of the same bounds
            let mut look = ShardLook {
                shard: at,
                core: shard.spec.core,
                packets_per_second: 0.0,
                mbit_per_second: 0.0,
                packets: shard.capture.packets,
                drops: shard.capture.drops,
                wakeups: shard.reactor.wakeups,
                latency_p50_us: latency.value_at_quantile(0.5),
                latency_p99_us: latency.value_at_quantile(0.99),
            };
            if let Some((when, before, bytes_before)) = &self.before {
                let seconds = now.duration_since(*when).as_secs_f64().max(1e-3);
                let delta = shard.capture.delta_since(&before.shards()[at].capture);
                look.packets_per_second = delta.packets as f64 / seconds;
                look.mbit_per_second = (bytes[at] - bytes_before[at]) as f64 * 8e-6 / seconds;
                look.wakeups -= before.shards()[at].reactor.wakeups;
            }
            look
        });
        let shards = shards.collect();
        let traffic = if self.asks_who { traffic(meters) } else { Traffic::default() };
        let talkers = traffic.talkers(SHOWN, Order::Bytes, "");
        let [flows_active, flows_ended] = flows(meters);
        self.before = Some((now, stats.clone(), bytes));
        Look { shards, flows_active, flows_ended, talkers, traffic }
    }
}

/// Takes who has talked by what since that was last taken.
pub(crate) fn traffic(meters: &[Meter]) -> Traffic {
    let mut traffic = Traffic::default();
    meters.iter().for_each(|meter| traffic.add(meter.take_traffic()));
    traffic
}

/// How many flows go on, and how many have ended.
pub(crate) fn flows(meters: &[Meter]) -> [u64; 2] {
    let sum = |read: fn(&Meter) -> u64| meters.iter().map(read).sum();
    [
        sum(|meter| meter.active.load(Ordering::Relaxed)),
        sum(|meter| meter.made.load(Ordering::Relaxed)),
    ]
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "shard core        pps   Mbit/s    packets  drops wakes  p50 µs  p99 µs")?;
        for look in &self.shards {
            let core = look.core.map_or("-".to_owned(), |core| core.to_string());
            writeln!(
                f,
                "{:>5} {core:>4} {:>10.0} {:>8.1} {:>10} {:>6} {:>5} {:>7} {:>7}",
                look.shard,
                look.packets_per_second,
                look.mbit_per_second,
                look.packets,
                look.drops,
                look.wakeups,
                look.latency_p50_us,
                look.latency_p99_us
            )?;
        }
        writeln!(f, "{} flows tracked, {} ended", self.flows_active, self.flows_ended)?;
        for Talker { ends, bytes, packets } in &self.talkers {
            writeln!(f, "{bytes:>12} bytes {packets:>8} packets {ends}")?;
        }
        Ok(())
    }
}
