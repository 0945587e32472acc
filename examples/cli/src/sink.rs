//! Where records go: engines that exist, behind one small trait.

mod courier;
mod ipfix;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
mod ndjson;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "redis")]
mod redis;

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

pub(crate) use self::courier::{Courier, Delivery};
#[cfg(feature = "kafka")]
pub(crate) use self::kafka::told as told_by_kafka;
use crate::config::SinkConfig;
use crate::record::Record;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a receiver has of a shard's records; nothing where it cannot tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// All before this one,
    pub(crate) next: u64,
    /// and these.
    pub(crate) more: BTreeSet<u64>,
}

impl Held {
    /// All before one.
    pub(crate) fn before(next: u64) -> Self {
        Self { next, more: BTreeSet::new() }
    }

    /// Behind the last.
    fn end(&self) -> u64 {
        self.more.last().map_or(self.next, |last| self.next.max(last + 1))
    }

    fn has(&self, sequence: u64) -> bool {
        sequence < self.next || self.more.contains(&sequence)
    }
}

/// Something that takes records.
pub(crate) trait Sink: Send {
    /// Reaches the receiver.
    fn open(&mut self) -> Outcome<()>;

    /// Asks it what it has of a shard, where `first` is the first record that it did not acknowledge: what it has is not
    /// delivered again. That record may have been sent before, if `is_in_doubt`.
    fn held(&mut self, first: &Record, is_in_doubt: bool) -> Outcome<Held>;

    /// Delivers records in order: how many of the first the receiver has for good. The others are delivered again.
    ///
    /// The sink is opened anew after an error, and where those are not all.
    fn deliver(&mut self, records: &[Record]) -> Outcome<usize>;

    /// The most records of a delivery, and how long they may be waited for.
    fn appetite(&self) -> (usize, Duration) {
        (2048, Duration::from_millis(20))
    }
}

/// Makes the sinks of a configuration, one for each of its lanes, for a sensor on the interface with this index. Reaches for nobody
/// yet.
pub(crate) fn make(
    config: &SinkConfig,
    sensor: &str,
    interface: u32,
) -> Outcome<Vec<Box<dyn Sink>>> {
    (0..config.lanes()).map(|lane| make_one(config, sensor, interface, lane)).collect()
}

fn make_one(
    config: &SinkConfig,
    sensor: &str,
    interface: u32,
    lane: u16,
) -> Outcome<Box<dyn Sink>> {
    #[cfg(not(feature = "kafka"))]
    let _ = lane;
    let sensor = sensor.to_owned();
    Ok(match config {
        SinkConfig::Ndjson(config) => Box::new(ndjson::Ndjson::new(config, sensor)),
        SinkConfig::Ipfix(config) => Box::new(ipfix::Ipfix::new(config, interface)),
        #[cfg(feature = "kafka")]
        SinkConfig::Kafka(config) => Box::new(kafka::Kafka::new(config, sensor, lane)?),
        #[cfg(feature = "nats")]
        SinkConfig::Nats(config) => Box::new(nats::Nats::new(config, sensor)?),
        #[cfg(feature = "redis")]
        SinkConfig::Redis(config) => Box::new(redis::Redis::new(config, sensor)?),
        #[cfg(feature = "parquet")]
        SinkConfig::Parquet(config) => Box::new(parquet::Parquet::new(config, sensor)?),
    })
}
