//! Which hosts talk, and by what, since the last look, including flows that have ended meanwhile.

use std::collections::HashMap;
use std::net::IpAddr;

use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{FlowRecord, FlowTable, Orientation};
use serde::Serialize;

/// Bytes and packets.
type Amount = [u64; 2];

/// Traffic, by who talks and by what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    pairs: HashMap<[IpAddr; 2], Amount>,
    services: HashMap<Service, Amount>,
}

/// IANA's number of a protocol, and the port of who is talked to, if the protocol has ports.
type Service = (u8, u16);

/// Two who talk, or what they talk by.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Talker {
    pub(crate) ends: String,
    /// Since the look before.
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Order {
    #[default]
    Bytes,
    Packets,
}

impl Traffic {
    /// The pairs with the most traffic of those whose addresses have `wanted` in them, the most first.
    pub(crate) fn talkers(&self, count: usize, order: Order, wanted: &str) -> Vec<Talker> {
        let ends = |[a, b]: [IpAddr; 2]| format!("{a} - {b}");
        let is_wanted = |pair: [IpAddr; 2]| wanted.is_empty() || ends(pair).contains(wanted);
        let pairs = self.pairs.iter().filter(|(pair, _)| is_wanted(**pair));
        most(pairs, count, order, ends)
    }

    /// The services with the most bytes, the most first.
    pub(crate) fn services(&self, count: usize) -> Vec<Talker> {
        most(self.services.iter(), count, Order::Bytes, name)
    }

    pub(crate) fn add(&mut self, more: Self) {
        more.pairs.into_iter().for_each(|(pair, amount)| add(&mut self.pairs, pair, amount));
        let services = more.services.into_iter();
        services.for_each(|(service, amount)| add(&mut self.services, service, amount));
    }
}

/// Those with the most, by their names.
fn most<'a, K: Ord + Copy + 'a>(
    all: impl Iterator<Item = (&'a K, &'a Amount)>,
    count: usize,
    order: Order,
    name: impl Fn(K) -> String,
) -> Vec<Talker> {
    let by = match order {
        Order::Bytes => 0,
        Order::Packets => 1,
    };
    let mut all: Vec<_> = all.filter(|(_, amount)| amount[1] > 0).collect();
    all.sort_unstable_by(|a, b| b.1[by].cmp(&a.1[by]).then_with(|| a.0.cmp(b.0)));
    all.truncate(count);
    let talker = |(key, [bytes, packets]): (&K, &Amount)| Talker {
        ends: name(*key),
        bytes: *bytes,
        packets: *packets,
    };
    all.into_iter().map(talker).collect()
}

fn name((protocol, port): Service) -> String {
    let name = match protocol {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        33 => "DCCP",
        47 => "GRE",
        50 => "ESP",
        58 => "ICMPv6",
        132 => "SCTP",
        136 => "UDP-Lite",
        other => return format!("protocol {other}"),
    };
    if port == 0 { name.to_owned() } else { format!("{name} {port}") }
}

fn add<K: Eq + std::hash::Hash>(to: &mut HashMap<K, Amount>, key: K, [bytes, packets]: Amount) {
    let amount = to.entry(key).or_default();
    *amount = [amount[0] + bytes, amount[1] + packets];
}

/// What a shard knows of its flows from look to look.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    /// What was counted of flows that go on.
    counted: HashMap<FiveTupleKey, Amount>,
    traffic: Traffic,
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
        self.count(&record.key, record.initiator, all, before);
    }

    /// Counts what came of flows that go on, and returns all since the last time.
    pub(crate) fn take(&mut self, table: &FlowTable<FiveTuple>) -> Traffic {
        let mut counted = std::mem::take(&mut self.counted);
        for (key, entry) in table.flows() {
            let stats = &entry.stats;
            let all = [
                stats.bytes_initiator + stats.bytes_responder,
                stats.packets_initiator + stats.packets_responder,
            ];
            let before = counted.remove(key).unwrap_or_default();
            self.count(key, stats.initiator_orientation, all, before);
            self.counted.insert(*key, all);
        }
        std::mem::take(&mut self.traffic)
    }

    fn count(&mut self, key: &FiveTupleKey, initiator: Orientation, all: Amount, before: Amount) {
        let responder = match initiator {
            Orientation::Forward => key.b(),
            Orientation::Reverse => key.a(),
        };
        let mut pair = [key.a().ip(), key.b().ip()];
        pair.sort_unstable();
        let new = [all[0].saturating_sub(before[0]), all[1].saturating_sub(before[1])];
        add(&mut self.traffic.pairs, pair, new);
        let protocol = key.proto().as_u8();
        let has_ports = matches!(protocol, 6 | 17 | 33 | 132 | 136);
        let port = if has_ports { responder.port() } else { 0 };
        add(&mut self.traffic.services, (protocol, port), new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_added_up_and_the_most_comes_first() {
        let host = |last| IpAddr::from([10, 0, 0, last]);
        let mut traffic = Traffic {
            pairs: HashMap::from([([host(1), host(2)], [100, 2]), ([host(1), host(3)], [90, 1])]),
            services: HashMap::from([((6, 443), [150, 1]), ((1, 0), [40, 2])]),
        };
        let more = [([host(1), host(3)], [20, 1]), ([host(4), host(5)], [0, 0])];
        let services = HashMap::from([((6, 443), [20, 1]), ((94, 0), [1, 1])]);
        traffic.add(Traffic { pairs: more.into(), services });
        let told = |talkers: Vec<Talker>| {
            talkers.into_iter().map(|one| (one.ends, one.bytes)).collect::<Vec<_>>()
        };
        let named = |all: &[(&str, u64)]| {
            all.iter().map(|(ends, bytes)| ((*ends).to_owned(), *bytes)).collect::<Vec<_>>()
        };
        let all = named(&[("10.0.0.1 - 10.0.0.3", 110), ("10.0.0.1 - 10.0.0.2", 100)]);
        assert_eq!(told(traffic.talkers(8, Order::Bytes, "")), all);
        let by_packets = told(traffic.talkers(8, Order::Packets, ""));
        assert_eq!(by_packets, [all[1].clone(), all[0].clone()], "as many: by address");
        assert_eq!(told(traffic.talkers(1, Order::Bytes, "")), all[..1]);
        assert_eq!(told(traffic.talkers(8, Order::Bytes, "0.2")), all[1..]);
        let services = named(&[("TCP 443", 170), ("ICMP", 40), ("protocol 94", 1)]);
        assert_eq!(told(traffic.services(8)), services);
    }
}
