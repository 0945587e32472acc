//! Records read back from where sinks have brought them.

#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
mod ndjson;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "redis")]
mod redis;

use crate::config::SinkConfig;
use crate::proof::{Evidence, Tells};
use crate::record::Which;
use crate::sink::Outcome;

/// Reads all records of a place. Returns how many things are there that are no records.
pub(crate) fn read(place: &SinkConfig, see: &mut dyn FnMut(Evidence)) -> Outcome<u64> {
    match place {
        SinkConfig::Ndjson(config) => ndjson::read(config, see),
        SinkConfig::Ipfix(_) => Err("a collector of IPFIX keeps no numbers of records".into()),
        #[cfg(feature = "kafka")]
        SinkConfig::Kafka(config) => kafka::read(config, see),
        #[cfg(feature = "nats")]
        SinkConfig::Nats(config) => nats::read(config, see),
        #[cfg(feature = "redis")]
        SinkConfig::Redis(config) => redis::read(config, see),
        #[cfg(feature = "parquet")]
        SinkConfig::Parquet(config) => parquet::read(config, see),
    }
}

/// Reads a record; `None` if it is none.
fn of_json(text: &[u8]) -> Option<Evidence> {
    let Which { sensor, shard, sequence, kind, start_ns, end_ns, counts } = Which::read(text)?;
    let body = match (kind.as_str(), counts) {
        ("flow", _) => Tells::Flow { start: start_ns, end: end_ns },
        ("counts", Some(counts)) => Tells::Counts(counts),
        _ => return None,
    };
    Some(Evidence { sensor, shard, sequence, body })
}

/// Shows a record, or counts what is none.
fn see_json(text: &[u8], strangers: &mut u64, see: &mut dyn FnMut(Evidence)) {
    match of_json(text) {
        Some(told) => see(told),
        None => *strangers += 1,
    }
}
