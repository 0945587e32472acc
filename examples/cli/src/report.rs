//! A run as a page to hand to a colleague: what came, what was dropped, how late it was, who talked, and what became of it.

mod chart;
mod page;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringtap::packet::Timestamp;

use crate::feed::Meter;
use crate::sink::Outcome;
use crate::talk::{Order, Talker, Traffic};
use crate::watch::{self, Look, ShardLook};

/// The talkers and services of a report.
const LISTED: usize = 20;
/// Of each look, those that are counted.
const KEPT: usize = 100;
/// As many as a report remembers; beyond it, those with the least traffic so far are forgotten.
const REMEMBERED: usize = 10_000;

/// What a report is made of.
pub(crate) struct Report {
    title: String,
    interface: String,
    filter: Option<String>,
    began: Timestamp,
    start: Instant,
    samples: Vec<Sample>,
    shards: Vec<ShardLook>,
    /// Bytes and packets of pairs of hosts, as far as they were among those with the most at some look.
    talkers: HashMap<String, [u64; 2]>,
    /// Bytes and packets of services.
    services: HashMap<String, [u64; 2]>,
    flows: [u64; 2],
}

/// What was seen since the sample before.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    packets_per_second: f64,
    bits_per_second: f64,
    drops_per_second: f64,
    packets: u64,
    drops: u64,
}

impl Report {
    pub(crate) fn new(title: &str, interface: &str, filter: Option<&str>) -> Self {
        Self {
            title: title.to_owned(),
            interface: interface.to_owned(),
            filter: filter.map(str::to_owned),
            began: Timestamp::now(),
            start: Instant::now(),
            samples: Vec::new(),
            shards: Vec::new(),
            talkers: HashMap::new(),
            services: HashMap::new(),
            flows: [0; 2],
        }
    }

    /// Fails if a report cannot have this name. Better now than at its end.
    pub(crate) fn check(path: &Path) -> Outcome<()> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("html") => Ok(()),
            _ => Err(format!("{}: a report ends with .html", path.display()).into()),
        }
    }

    pub(crate) fn add(&mut self, look: &Look) {
        let sum = |read: fn(&ShardLook) -> f64| look.shards.iter().map(read).sum::<f64>();
        let count = |read: fn(&ShardLook) -> u64| look.shards.iter().map(read).sum::<u64>();
        let at = self.start.elapsed();
        let drops = count(|shard| shard.drops);
        let (before, drops_before) =
            self.samples.last().map_or((Duration::ZERO, 0), |last| (last.at, last.drops));
        let seconds = (at - before).as_secs_f64().max(1e-3);
        self.samples.push(Sample {
            at,
            packets_per_second: sum(|shard| shard.packets_per_second),
            bits_per_second: 1e6 * sum(|shard| shard.mbit_per_second),
            drops_per_second: drops.saturating_sub(drops_before) as f64 / seconds,
            packets: count(|shard| shard.packets),
            drops,
        });
        self.shards = look.shards.clone();
        self.flows = [look.flows_active, look.flows_ended];
        self.add_traffic(&look.traffic);
    }

    /// Adds what there was after the last look, once all shards have ended.
    pub(crate) fn add_rest(&mut self, meters: &[Meter]) {
        self.flows = watch::flows(meters);
        self.add_traffic(&watch::traffic(meters));
    }

    fn add_traffic(&mut self, traffic: &Traffic) {
        for (all, some) in [
            (&mut self.talkers, traffic.talkers(KEPT, Order::Bytes, "")),
            (&mut self.services, traffic.services(KEPT)),
        ] {
            for Talker { ends, bytes, packets } in some {
                let all = all.entry(ends).or_default();
                *all = [all[0] + bytes, all[1] + packets];
            }
            forget_the_least(all);
        }
    }

    /// Writes it, with an account of the run, if there is one.
    pub(crate) fn write(
        &self,
        path: &Path,
        latency: &Histogram<u32>,
        account: Option<&str>,
    ) -> Outcome<()> {
        Self::check(path)?;
        let text = page::page(self, latency, account)?;
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// Those with the most bytes, the most first.
    fn most(all: &HashMap<String, [u64; 2]>) -> Vec<(&str, [u64; 2])> {
        let mut all: Vec<_> = all.iter().map(|(ends, amount)| (ends.as_str(), *amount)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        all.truncate(LISTED);
        all
    }
}

/// Keeps those with the most bytes where there are too many.
fn forget_the_least(all: &mut HashMap<String, [u64; 2]>) {
    if all.len() > REMEMBERED {
        let mut kept: Vec<_> = all.drain().collect();
        kept.sort_unstable_by_key(|(_, [bytes, _])| Reverse(*bytes));
        kept.truncate(REMEMBERED / 2);
        all.extend(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_has_the_most() {
        let of = |count: usize| (0..count).map(|at| (at.to_string(), [at as u64 / 2, 1]));
        let mut all: HashMap<_, _> = of(REMEMBERED).collect();
        forget_the_least(&mut all);
        assert_eq!(all.len(), REMEMBERED);
        all.extend(of(REMEMBERED + 1));
        forget_the_least(&mut all);
        assert_eq!(all.len(), REMEMBERED / 2);
        assert!(all.contains_key(&REMEMBERED.to_string()) && !all.contains_key("0"));
    }
}
