//! The pairs of hosts with the most traffic since the last look, including flows that have ended meanwhile.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{FlowRecord, FlowTable};
use serde::Serialize;

/// Bytes and packets.
type Amount = [u64; 2];

/// The traffic of pairs of hosts.
pub(crate) type Pairs = HashMap<[IpAddr; 2], Amount>;

/// Two who talk.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Talker {
    pub(crate) ends: String,
    /// Since the look before.
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

/// Those of `pairs` with the most bytes, the most first.
pub(crate) fn most(pairs: Pairs, count: usize) -> Vec<Talker> {
    let mut all: Vec<_> = pairs.into_iter().filter(|(_, amount)| amount[1] > 0).collect();
    let most_first = |(pair, [bytes, _]): &([IpAddr; 2], Amount)| (Reverse(*bytes), *pair);
    all.sort_unstable_by_key(most_first);
    all.truncate(count);
    let talker = |([a, b], [bytes, packets]): ([IpAddr; 2], Amount)| Talker {
        ends: format!("{a} - {b}"),
        bytes,
        packets,
    };
    all.into_iter().map(talker).collect()
}

/// Adds the traffic of some pairs to that of others.
pub(crate) fn add(to: &mut Pairs, more: Pairs) {
    for (pair, amount) in more {
        add_one(to, pair, amount);
    }
}

fn add_one(to: &mut Pairs, pair: [IpAddr; 2], [bytes, packets]: Amount) {
    let amount = to.entry(pair).or_default();
    *amount = [amount[0] + bytes, amount[1] + packets];
}

/// What a shard knows of its flows from look to look.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    /// What was counted of flows that go on.
    counted: HashMap<FiveTupleKey, Amount>,
    pairs: Pairs,
}

impl Talk {
    /// Counts a flow that has ended.
    pub(crate) fn end(&mut self, record: &FlowRecord<FiveTupleKey>) {
        if record.reason.is_none() {
            return; // it goes on: the next look counts it
        }
        let before = self.counted.remove(&record.key).unwrap_or_default();
        let all = [
            record.sent.bytes + record.received.bytes,
            record.sent.packets + record.received.packets,
        ];
        self.count(&record.key, all, before);
    }

    /// Counts what came of flows that go on, and returns all since the last time.
    pub(crate) fn take(&mut self, table: &FlowTable<FiveTuple>) -> Pairs {
        let mut counted = std::mem::take(&mut self.counted);
        for (key, entry) in table.flows() {
            let stats = &entry.stats;
            let all = [
                stats.bytes_initiator + stats.bytes_responder,
                stats.packets_initiator + stats.packets_responder,
            ];
            let before = counted.remove(key).unwrap_or_default();
            self.count(key, all, before);
            self.counted.insert(*key, all);
        }
        std::mem::take(&mut self.pairs)
    }

    fn count(&mut self, key: &FiveTupleKey, all: Amount, before: Amount) {
        let mut pair = [key.a().ip(), key.b().ip()];
        pair.sort_unstable();
        let new = [all[0].saturating_sub(before[0]), all[1].saturating_sub(before[1])];
        add_one(&mut self.pairs, pair, new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_added_up_and_the_most_bytes_come_first() {
        let host = |last| IpAddr::from([10, 0, 0, last]);
        let mut pairs =
            Pairs::from([([host(1), host(2)], [100, 2]), ([host(1), host(3)], [90, 1])]);
        add(&mut pairs, Pairs::from([([host(1), host(3)], [20, 1]), ([host(4), host(5)], [0, 0])]));
        let told: Vec<_> =
            most(pairs.clone(), 8).into_iter().map(|one| (one.ends, one.bytes)).collect();
        let expected = [("10.0.0.1 - 10.0.0.3", 110), ("10.0.0.1 - 10.0.0.2", 100)];
        assert_eq!(told, expected.map(|(ends, bytes)| (ends.to_owned(), bytes)));
        assert_eq!(most(pairs, 1).len(), 1);
    }
}
