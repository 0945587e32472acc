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

use serde::Deserialize;

use crate::config::SinkConfig;
use crate::proof::{Tells, Told};
use crate::record::Counts;
use crate::sink::Outcome;

/// Reads all records of a place. Returns how many things are there that are no records.
pub(crate) fn read(place: &SinkConfig, see: &mut dyn FnMut(Told)) -> Outcome<u64> {
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

/// A record as JSON has it, as far as it is needed.
#[derive(Deserialize)]
struct Line {
    sensor: String,
    shard: u16,
    sequence: u64,
    kind: String,
    #[serde(default)]
    start_ns: u64,
    #[serde(default)]
    end_ns: u64,
    #[serde(flatten)]
    counts: Option<Counts>,
}

/// Reads a record; `None` if it is none.
fn of_json(text: &[u8]) -> Option<Told> {
    let line: Line = serde_json::from_slice(text).ok()?;
    let body = match (line.kind.as_str(), line.counts) {
        ("flow", _) => Tells::Flow { start: line.start_ns, end: line.end_ns },
        ("counts", Some(counts)) => Tells::Counts(counts),
        _ => return None,
    };
    Some(Told { sensor: line.sensor, shard: line.shard, sequence: line.sequence, body })
}

/// Shows a record, or counts what is none.
fn see_json(text: &[u8], strangers: &mut u64, see: &mut dyn FnMut(Told)) {
    match of_json(text) {
        Some(told) => see(told),
        None => *strangers += 1,
    }
}
