//! A card with several queues: where the packets of a flow come in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringtap::xdp::{Attach, FlowRule, SymmetricRss, XdpProgram};
use ringtap::{Injector, PacketBatch, Result, XdpSocket};

use crate::report::{PATIENCE, UNDER_WAY, is_unavailable, settle};

/// Flows, by their ports; each in both directions.
const FLOWS: u64 = 64;
const FIRST_PORT: u16 = 40_000;
const SERVICE: u16 = 9; // RFC 863: discard

/// What chooses a packet's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steered {
    /// The card's hash, as it is: one direction of a flow comes in on one queue.
    Hash,
    /// A symmetric one: both do.
    SymmetricHash,
    /// A rule, for one flow.
    Rule,
}

impl Steered {
    /// Tries it and prints what came of it; 1 if it failed.
    pub(crate) fn tell(self, card: &str, other: &str, count: u64) -> u32 {
        let what = match self {
            Self::Hash => "XDP receive, every queue",
            Self::SymmetricHash => "XDP receive, every queue, symmetric hash",
            Self::Rule => "XDP receive, every queue, a rule for a port",
        };
        let (has_failed, text) = match self.run(card, other, count) {
            Ok(None) => (false, "not available: one queue".to_owned()),
            Ok(Some(spread)) => (!spread.is_good(self, count), spread.to_string()),
            Err(error) if is_unavailable(&error) => (false, format!("not available: {error}")),
            Err(error) => (true, error.to_string()),
        };
        println!("@{what}: {}{text}", if has_failed { "FAILED " } else { "" });
        has_failed.into()
    }

    /// `None` on a card with one queue.
    fn run(self, card: &str, other: &str, count: u64) -> Result<Option<Spread>> {
        let queues = || ringtap::interface::interface_info(card).map(|info| info.rx_queues);
        if !matches!(queues()?, Some(2..)) {
            return Ok(None);
        }
        let program = XdpProgram::redirect_all(card, Attach::Auto)?;
        let queues = queues()?.unwrap_or(1); // some drivers have more with a program
        let last = queues - 1;
        let symmetric = self == Self::SymmetricHash;
        let _hash = symmetric.then(|| SymmetricRss::set(card)).transpose()?;
        let rule = FlowRule::udp().dst_port(FIRST_PORT).to_queue(last);
        let _rule = (self == Self::Rule).then(|| rule.install(card)).transpose()?;
        let socket = |queue| {
            let options = XdpSocket::builder().interface(card).promiscuous(true);
            options.queue_id(queue).program(program.clone()).build_receiver()
        };
        let mut sockets = (0..queues).map(socket).collect::<Result<Vec<_>>>()?;
        let mut injector = Injector::open(other)?;
        settle([card, other])?;
        let mut spread = Spread { received: vec![0; sockets.len()], flows: BTreeMap::new() };
        let (mut sent, mut arrived) = (0, Instant::now());
        while spread.total() < count && arrived.elapsed() < PATIENCE {
            while sent < count && sent < spread.total() + UNDER_WAY {
                injector.send(&self.frame(sent))?;
                sent += 1;
            }
            injector.flush()?;
            let before = spread.total();
            for (queue, socket) in sockets.iter_mut().enumerate() {
                while let Some(batch) = socket.next_batch() {
                    spread.count(queue, &batch);
                }
            }
            match spread.total() > before {
                true => arrived = Instant::now(),
                false => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(Some(spread))
    }

    /// A UDP datagram: of the rule's flow alone, or of all flows, in both directions by turns.
    fn frame(self, number: u64) -> Vec<u8> {
        let flow = if self == Self::Rule { 0 } else { number / 2 % FLOWS };
        let port = FIRST_PORT + flow as u16;
        let (mut hosts, mut ports) = ([[10, 0, 0, 1], [10, 0, 0, 2]], [SERVICE, port]);
        if self != Self::Rule && number % 2 == 1 {
            hosts.reverse();
            ports.reverse();
        }
        let mut frame = vec![0; 60];
        frame[..6].fill(0xff);
        frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 9, 8, 0]);
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
        frame[26..30].copy_from_slice(&hosts[0]);
        frame[30..34].copy_from_slice(&hosts[1]);
        let sum: u32 = frame[14..34]
            .chunks(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame[34..36].copy_from_slice(&ports[0].to_be_bytes());
        frame[36..38].copy_from_slice(&ports[1].to_be_bytes());
        frame[38..40].copy_from_slice(&26_u16.to_be_bytes()); // a checksum of 0: none
        frame
    }
}

/// What has arrived where.
struct Spread {
    /// By queue.
    received: Vec<u64>,
    /// By source and destination port: a bit for each queue.
    flows: BTreeMap<(u16, u16), u64>,
}

impl Spread {
    fn count(&mut self, queue: usize, batch: &PacketBatch) {
        for packet in batch {
            let data = packet.data();
            if data.len() < 42 || data[12..14] != [8, 0] || data[26..29] != [10, 0, 0] {
                continue; // the rest of the world may send too
            }
            let port = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
            *self.flows.entry((port(34), port(36))).or_default() |= 1 << (queue % 64);
            self.received[queue] += 1;
        }
    }

    fn total(&self) -> u64 {
        self.received.iter().sum()
    }

    /// Whether all arrived, and where they should.
    fn is_good(&self, way: Steered, count: u64) -> bool {
        let is_one = |queues: &u64| queues.count_ones() == 1;
        let is_together = |(ports, queues): (&(u16, u16), &u64)| {
            self.flows.get(&(ports.1, ports.0)).is_none_or(|back| back == queues)
        };
        self.total() == count
            && self.flows.values().all(is_one)
            && match way {
                Steered::Hash => true,
                Steered::SymmetricHash => self.flows.iter().all(is_together),
                Steered::Rule => self.received.last() == Some(&count),
            }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queues: Vec<String> = self.received.iter().map(u64::to_string).collect();
        let apart = self.flows.values().filter(|queues| queues.count_ones() > 1).count();
        write!(f, "{} received, by queue {}", self.total(), queues.join(" + "))?;
        if apart > 0 {
            write!(f, ", {apart} of {} flows on several", self.flows.len())?;
        }
        Ok(())
    }
}
