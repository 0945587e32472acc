//! Where a sensor sends its records: a table of the TOML file, or a word of the command line.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de};

#[cfg(feature = "parquet")]
use super::YEAR;
#[cfg(feature = "kafka")]
use super::secret::Properties;
#[cfg(feature = "redis")]
use super::secret::SecretUrl;
use crate::record::Names;
use crate::sink::Outcome;

const MOST_LANES: u16 = 16;

/// Where records go.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum SinkConfig {
    Ndjson(NdjsonConfig),
    Ipfix(IpfixConfig),
    #[cfg(feature = "kafka")]
    Kafka(KafkaConfig),
    #[cfg(feature = "nats")]
    Nats(NatsConfig),
    #[cfg(feature = "redis")]
    Redis(RedisConfig),
    #[cfg(feature = "parquet")]
    Parquet(ParquetConfig),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NdjsonConfig {
    /// A file that is appended to; standard output, if none.
    pub(crate) path: Option<PathBuf>,
    #[serde(default)]
    pub(crate) names: Names,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IpfixConfig {
    /// A host, by name or address, and its port.
    #[serde(deserialize_with = "host_and_port")]
    pub(crate) to: String,
    #[serde(default)]
    pub(crate) transport: Transport,
    /// The observation domain of flows; 0 is that of counts.
    #[serde(default = "domain")]
    pub(crate) domain: u32,
    /// Whether a record has both directions of a flow (RFC 5103).
    #[serde(default)]
    pub(crate) biflow: bool,
    /// Seconds after which templates are sent again, over UDP.
    #[serde(default = "template_seconds")]
    pub(crate) template_seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    #[default]
    Udp,
    Tcp,
}

#[cfg(feature = "kafka")]
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KafkaConfig {
    /// Some of the brokers, each a host and its port.
    pub(crate) brokers: Vec<String>,
    /// Connections at the same time; a shard's records take one of them.
    #[serde(default = "lanes")]
    pub(crate) couriers: u16,
    #[serde(default = "subject")]
    pub(crate) topic: String,
    /// Records of a message, at most: each is a line, and all are of one shard.
    #[serde(default = "single")]
    pub(crate) records: usize,
    #[serde(default)]
    pub(crate) names: Names,
    /// Of librdkafka, such as `compression.type`.
    #[serde(default)]
    pub(crate) properties: Properties,
}

#[cfg(feature = "nats")]
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NatsConfig {
    pub(crate) servers: Vec<String>,
    #[serde(default = "stream")]
    pub(crate) stream: String,
    /// What subjects begin with; the sensor and the shard follow.
    #[serde(default = "subject")]
    pub(crate) subject: String,
    /// Of the stream, where it has to be made.
    #[serde(default = "one")]
    pub(crate) replicas: usize,
    #[serde(default = "duplicate_window")]
    pub(crate) duplicate_window_seconds: u64,
    /// Connections at the same time; a shard's records take one of them.
    #[serde(default = "lanes")]
    pub(crate) couriers: u16,
    /// Messages that wait for their acknowledgement.
    #[serde(default = "in_flight")]
    pub(crate) in_flight: usize,
    #[serde(default)]
    pub(crate) names: Names,
}

#[cfg(feature = "redis")]
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedisConfig {
    pub(crate) url: SecretUrl,
    #[serde(default = "stream")]
    pub(crate) prefix: String,
    /// Connections at the same time; a shard's records take one of them.
    #[serde(default = "lanes")]
    pub(crate) couriers: u16,
    /// About how many entries are kept; by default, all.
    pub(crate) most: Option<u64>,
    #[serde(default)]
    pub(crate) names: Names,
}

#[cfg(feature = "parquet")]
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParquetConfig {
    pub(crate) directory: PathBuf,
    /// The most records in a file …
    #[serde(default = "parquet_records")]
    pub(crate) records: usize,
    /// … and the most seconds that it covers.
    #[serde(default = "parquet_seconds")]
    pub(crate) seconds: u64,
}

fn domain() -> u32 {
    1
}
#[cfg(any(feature = "kafka", feature = "nats", feature = "redis"))]
fn lanes() -> u16 {
    1
}
fn template_seconds() -> u64 {
    30
}
#[cfg(any(feature = "nats", feature = "redis"))]
fn stream() -> String {
    "ringtap".to_owned()
}
#[cfg(any(feature = "kafka", feature = "nats"))]
fn subject() -> String {
    "ringtap.flows".to_owned()
}
#[cfg(feature = "kafka")]
fn single() -> usize {
    1
}
#[cfg(feature = "nats")]
fn one() -> usize {
    1
}
#[cfg(feature = "nats")]
fn duplicate_window() -> u64 {
    120
}
#[cfg(feature = "nats")]
fn in_flight() -> usize {
    1024
}
#[cfg(feature = "parquet")]
fn parquet_records() -> usize {
    100_000
}
#[cfg(feature = "parquet")]
fn parquet_seconds() -> u64 {
    60
}

impl SinkConfig {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Ndjson(_) => "ndjson",
            Self::Ipfix(_) => "ipfix",
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "kafka",
            #[cfg(feature = "nats")]
            Self::Nats(_) => "nats",
            #[cfg(feature = "redis")]
            Self::Redis(_) => "redis",
            #[cfg(feature = "parquet")]
            Self::Parquet(_) => "parquet",
        }
    }

    /// How many connections it has.
    pub(crate) fn lanes(&self) -> u16 {
        match self {
            // A collector tells exporters apart by domains, and counts what is missing of each.
            Self::Ndjson(_) | Self::Ipfix(_) => 1,
            #[cfg(feature = "kafka")]
            Self::Kafka(of) => of.couriers,
            #[cfg(feature = "nats")]
            Self::Nats(of) => of.couriers,
            #[cfg(feature = "redis")]
            Self::Redis(of) => of.couriers,
            #[cfg(feature = "parquet")]
            Self::Parquet(_) => 1,
        }
    }

    /// Sets how many connections it has.
    pub(crate) fn set_lanes(&mut self, count: u16) -> Outcome<()> {
        match self.lanes_mut() {
            Some(lanes) => *lanes = count,
            None => return Err(format!("{} has one courier", self.kind()).into()),
        }
        self.check()
    }

    fn lanes_mut(&mut self) -> Option<&mut u16> {
        match self {
            Self::Ndjson(_) | Self::Ipfix(_) => None,
            #[cfg(feature = "kafka")]
            Self::Kafka(of) => Some(&mut of.couriers),
            #[cfg(feature = "nats")]
            Self::Nats(of) => Some(&mut of.couriers),
            #[cfg(feature = "redis")]
            Self::Redis(of) => Some(&mut of.couriers),
            #[cfg(feature = "parquet")]
            Self::Parquet(_) => None,
        }
    }

    /// Where it delivers to, as it was given, with passwords: to tell sinks apart, not to be shown.
    pub(crate) fn destination(&self) -> String {
        match self {
            Self::Ndjson(of) => of.path.as_deref().unwrap_or(Path::new("-")).display().to_string(),
            Self::Ipfix(of) => format!("{} {:?} {}", of.to, of.transport, of.domain),
            #[cfg(feature = "kafka")]
            Self::Kafka(of) => format!("{} {}", of.brokers.join(","), of.topic),
            #[cfg(feature = "nats")]
            Self::Nats(of) => format!("{} {} {}", of.servers.join(","), of.stream, of.subject),
            #[cfg(feature = "redis")]
            Self::Redis(of) => format!("{} {}", of.url.reveal(), of.prefix),
            #[cfg(feature = "parquet")]
            Self::Parquet(of) => of.directory.display().to_string(),
        }
    }

    /// Makes the file or directory that it writes to, if there is one.
    pub(crate) fn make_place(&self) -> Outcome<Option<PathBuf>> {
        let (place, made) = match self {
            Self::Ndjson(NdjsonConfig { path: Some(path), .. }) if path.as_os_str() != "-" => {
                let mut options = std::fs::File::options();
                options.append(true).create(true).custom_flags(nix::libc::O_NOFOLLOW);
                (path, options.open(path).map(|_| path.clone()))
            }
            #[cfg(feature = "parquet")]
            Self::Parquet(of) => {
                let made = std::fs::create_dir_all(&of.directory);
                (&of.directory, made.and_then(|()| of.directory.canonicalize()))
            }
            _ => return Ok(None),
        };
        Ok(Some(made.map_err(|error| format!("{}: {error}", place.display()))?))
    }

    pub(super) fn check(&self) -> Outcome<()> {
        if !(1..=MOST_LANES).contains(&self.lanes()) {
            return Err(format!("couriers = {}: give 1 to {MOST_LANES}", self.lanes()).into());
        }
        match self {
            Self::Ipfix(of) if of.domain == 0 => {
                Err("domain = 0 is that of counts: give flows at least 1".into())
            }
            #[cfg(feature = "kafka")]
            Self::Kafka(of) if of.brokers.is_empty() || !is_topic(&of.topic) => Err(
                "kafka has at least one of its brokers, and a topic of letters, digits, ., - and _"
                    .into(),
            ),
            #[cfg(feature = "kafka")]
            Self::Kafka(of) if !(1..=256).contains(&of.records) => {
                Err(format!("records = {}: give a message 1 to 256", of.records).into())
            }
            #[cfg(feature = "nats")]
            Self::Nats(of) if !(1..=4096).contains(&of.in_flight) => {
                Err(format!("in_flight = {}: give 1 to 4096", of.in_flight).into())
            }
            #[cfg(feature = "parquet")]
            Self::Parquet(of) if of.records == 0 || of.seconds > YEAR => {
                Err("a Parquet file has at least a record, and those of at most a year".into())
            }
            _ => Ok(()),
        }
    }
}

impl std::str::FromStr for SinkConfig {
    type Err = String;

    /// `ndjson:PATH`, `ipfix:HOST:PORT`, `ipfix+tcp:HOST:PORT`, `kafka:HOST:PORT,…`, `nats:HOST:PORT,…`,
    /// `redis://HOST:PORT`, `parquet:DIRECTORY`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, place) = text.split_once(':').unwrap_or((text, ""));
        let quoted = toml::Value::String(place.to_owned()).to_string();
        let rest = match kind {
            "ndjson" if place.is_empty() => String::new(),
            "ndjson" => format!("path = {quoted}"),
            "ipfix" => format!("to = {quoted}"),
            "ipfix+tcp" => format!("to = {quoted}\ntransport = \"tcp\""),
            "kafka" | "nats" => {
                let key = if kind == "kafka" { "brokers" } else { "servers" };
                let servers: Vec<toml::Value> = place.split(',').map(toml::Value::from).collect();
                format!("{key} = {}", toml::Value::Array(servers))
            }
            "redis" => format!("url = {}", toml::Value::String(text.to_owned())),
            "parquet" => format!("directory = {quoted}"),
            _ => String::new(),
        };
        let kind = kind.trim_end_matches("+tcp");
        toml::from_str(&format!("kind = {}\n{rest}", toml::Value::String(kind.to_owned())))
            .map_err(|error| format!("{}; write ndjson:PATH, ipfix:HOST:PORT, ipfix+tcp:HOST:PORT, kafka:HOST:PORT,HOST:PORT, nats:HOST:PORT,HOST:PORT, redis://HOST:PORT or parquet:DIRECTORY", error.message()))
    }
}

/// Whether Kafka takes it for a topic.
#[cfg(feature = "kafka")]
fn is_topic(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=249).contains(&text.len()) && text.bytes().all(plain) && text != "." && text != ".."
}

fn host_and_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_sound = text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && !is_bare_v6 && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if is_sound {
        return Ok(text);
    }
    Err(de::Error::custom(
        "a collector is HOST:PORT, such as collector.example:4739 or [2001:db8::1]:4739",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_are_told_in_a_word() {
        for text in ["ndjson:-", "ndjson", "ipfix:127.0.0.1:2055", "ipfix+tcp:[::1]:4739"] {
            text.parse::<SinkConfig>().unwrap();
        }
        for text in ["ipfix:here", "carrier-pigeon:7"] {
            let error = text.parse::<SinkConfig>().unwrap_err();
            assert!(error.contains("write ndjson:PATH"), "{error}");
        }
    }
}
