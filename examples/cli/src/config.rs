//! What a sensor is to do: a TOML file, or flags.

mod secret;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de};

#[cfg(feature = "kafka")]
pub(crate) use self::secret::Properties;
#[cfg(feature = "redis")]
pub(crate) use self::secret::SecretUrl;
use crate::record::Names;
use crate::sink::Outcome;

/// A sensor's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Who it is: part of what makes a record one of a kind.
    #[serde(deserialize_with = "name")]
    pub(crate) sensor: String,
    /// One or several, or `any`.
    #[serde(rename = "interface", deserialize_with = "one_or_several", default)]
    pub(crate) interfaces: Vec<String>,
    /// Capture files, or directories of them, that are read instead.
    #[serde(default)]
    pub(crate) read: Vec<PathBuf>,
    /// How packets are captured.
    #[serde(default)]
    pub(crate) capture: CaptureKind,
    /// A file that stands for the network namespace of the interface; this one's, if none.
    pub(crate) netns: Option<PathBuf>,
    /// A filter, in the language of tcpdump.
    pub(crate) filter: Option<String>,
    /// The number of shards; by default, one per core.
    pub(crate) shards: Option<u16>,
    /// Flows that each shard's table has room for.
    #[serde(default = "max_flows")]
    pub(crate) max_flows: usize,
    /// Seconds after which a flow without packets ends, whatever its protocol.
    pub(crate) idle_seconds: Option<u64>,
    /// Seconds after which a flow that goes on is told of, again and again; never, if 0.
    #[serde(default = "active_seconds")]
    pub(crate) active_seconds: u64,
    /// Whether records say what applications said: DNS, HTTP, and the hellos of TLS and QUIC.
    #[serde(default)]
    pub(crate) applications: bool,
    pub(crate) spool: PathBuf,
    #[serde(default = "spool_mib", deserialize_with = "mib")]
    pub(crate) spool_mib: u64,
    /// Seconds between records of counts.
    #[serde(default = "counts_seconds")]
    pub(crate) counts_seconds: u64,
    /// Seconds that sinks have, at the end, to take what is left.
    #[serde(default = "drain_seconds")]
    pub(crate) drain_seconds: u64,
    /// Where `/metrics` and `/ready` are served.
    pub(crate) listen: Option<SocketAddr>,
    /// The user, by name or number, that it becomes once its sockets are open.
    pub(crate) user: Option<UserName>,
    /// Whether it gives up what it does not need: writing elsewhere than where it has to, and calls such as `execve`.
    #[serde(default)]
    pub(crate) harden: bool,
    #[serde(default, rename = "sink")]
    pub(crate) sinks: Vec<SinkConfig>,
}

/// How packets are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CaptureKind {
    /// From a fanout group: the network stack has them as well.
    #[default]
    AfPacket,
    /// Before the network stack, which does not see them: a shard for each queue of one interface.
    AfXdp,
}

/// A user, as somebody names him.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum UserName {
    Number(u32),
    Name(String),
}

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
    /// Messages that wait for their acknowledgement.
    /// Connections at the same time; a shard's records take one of them.
    #[serde(default = "lanes")]
    pub(crate) couriers: u16,
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
fn max_flows() -> usize {
    100_000
}
fn spool_mib() -> u64 {
    1024
}
fn active_seconds() -> u64 {
    60
}
fn counts_seconds() -> u64 {
    10
}
fn drain_seconds() -> u64 {
    10
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

impl Config {
    /// A configuration of flags: the rest is as in a file that does not mention it.
    pub(crate) fn new(sensor: &str, spool: &Path) -> Outcome<Self> {
        let value = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let spool = spool.to_str().ok_or("the spool's path is not UTF-8")?;
        let text = format!("sensor = {}\nspool = {}\nsink = []", value(sensor), value(spool));
        Ok(toml::from_str(&text).map_err(|error| error.message().to_owned())?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// With the line, and what to do about it.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("{}: {error}; a file to begin with is sensor.toml", path.display())
        })?;
        let config: Self = toml::from_str(&text).map_err(|error| {
            let hint = "sensor.toml beside the sources has every key, explained";
            // Not the error's own text, which shows the line: there may be a password in it.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            format!("{}, line {line}: {}; {hint}", path.display(), error.message())
        })?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Outcome<()> {
        if self.sinks.is_empty() {
            return Err("no sink: add a [[sink]] to the file, or --sink KIND:WHERE".into());
        }
        if self.shards == Some(0) {
            return Err("shards = 0: give at least one, or leave it out for one a core".into());
        }
        if !is_name(&self.sensor) {
            return Err(format!("sensor = {:?}: {NAMES}", self.sensor).into());
        }
        if !is_room(self.spool_mib) {
            return Err(format!("spool_mib = {}: {ROOMS}", self.spool_mib).into());
        }
        if self.shards.is_some_and(|shards| shards > MOST_SHARDS) {
            return Err(
                format!("more than {MOST_SHARDS} shards: a fanout group has no more").into()
            );
        }
        if self.max_flows == 0 {
            return Err("max_flows = 0: give at least one".into());
        }
        let idle = self.idle_seconds.unwrap_or(1);
        for (key, seconds, least) in [
            ("idle_seconds", idle, 1),
            ("active_seconds", self.active_seconds, 0),
            ("counts_seconds", self.counts_seconds, 1),
            ("drain_seconds", self.drain_seconds, 0),
        ] {
            if !(least..=YEAR).contains(&seconds) {
                return Err(format!("{key} = {seconds}: give {least} to {YEAR}, a year").into());
            }
        }
        self.check_interfaces()?;
        let mut places = HashSet::new();
        for sink in &self.sinks {
            sink.check()?;
            if !places.insert((sink.kind(), sink.destination())) {
                let twice = format!("two sinks {} for one place", sink.kind());
                return Err(format!("{twice}: leave one out").into());
            }
        }
        Ok(())
    }
}

impl Config {
    fn check_interfaces(&self) -> Outcome<()> {
        let interfaces = &self.interfaces;
        match (interfaces.is_empty(), self.read.is_empty()) {
            (true, true) => return Err("no interface: name one, or a file to read".into()),
            (false, false) => {
                return Err("an interface, and files to read: give one of both".into());
            }
            (true, false) if self.listen.is_some() || self.user.is_some() || self.harden => {
                let which = "listen, user and harden are for interfaces";
                return Err(format!("{which}: leave them out for files").into());
            }
            (true, false) => return Ok(()),
            (false, true) => {}
        }
        let twice = (1..interfaces.len()).find(|at| interfaces[..*at].contains(&interfaces[*at]));
        if let Some(at) = twice {
            return Err(format!("interface {} is named twice", interfaces[at]).into());
        }
        if interfaces.len() > 1 && interfaces.iter().any(|name| name == "any") {
            return Err("interface any has the others in it: name it alone".into());
        }
        let is_alone = interfaces.len() == 1 && interfaces[0] != "any" && self.netns.is_none();
        if self.capture == CaptureKind::AfXdp && !is_alone {
            return Err(
                "af-xdp has the queues of one interface, in the sensor's own namespace".into()
            );
        }
        Ok(())
    }
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
}

impl SinkConfig {
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

    fn check(&self) -> Outcome<()> {
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

const MOST_LANES: u16 = 16;
const YEAR: u64 = 366 * 86_400;
/// `PACKET_FANOUT_MAX` of kernels before 5.10; nobody has more cores for it.
const MOST_SHARDS: u16 = 256;
const NAMES: &str = "a sensor's name has letters, digits, - and _ only";
const ROOMS: &str = "a spool has at least 1 MiB, and less than 16 TiB";

/// Whether Kafka takes it for a topic.
#[cfg(feature = "kafka")]
fn is_topic(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=249).contains(&text.len()) && text.bytes().all(plain) && text != "." && text != ".."
}

/// Whether it may be a part of subjects, keys and file names.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if is_name(&name) { Ok(name) } else { Err(de::Error::custom(NAMES)) }
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an interface, or a list of interfaces")]
    enum Names {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::One(name) => vec![name],
        Names::Several(names) => names,
    })
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

fn is_room(mib: u64) -> bool {
    (1..1 << 24).contains(&mib)
}

fn mib<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let mib = u64::deserialize(deserializer)?;
    if is_room(mib) { Ok(mib) } else { Err(de::Error::custom(ROOMS)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_with_every_key_is_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/sensor.toml");
        let config = Config::read(Path::new(path)).unwrap();
        assert!(config.sinks.len() >= 2);
        config.check().unwrap();
    }

    #[test]
    fn a_fault_has_its_line_and_a_remedy() {
        let directory = ringtap_lab::Directory::new();
        let path = directory.path().join("c.toml");
        let right = "sensor = \"a\"\ninterface = \"eth0\"\nspool = \"/tmp/s\"\n";
        for (wrong, line, says) in [
            ("sink = []\nspool_mib = 0", "line 5", "at least 1 MiB"),
            ("sink = []\nfiltr = 3", "line 5", "unknown field `filtr`"),
            ("[[sink]]\nkind = \"ndjson\"\npth = \"x\"", "line 4", "unknown field `pth`"),
        ] {
            std::fs::write(&path, format!("{right}{wrong}")).unwrap();
            let error = Config::read(&path).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(says), "{error}");
            assert!(error.contains("sensor.toml"), "{error}");
        }
        std::fs::write(&path, right.replace("\"a\"", "\"a.b\"") + "sink = []").unwrap();
        assert!(Config::read(&path).unwrap_err().to_string().contains("line 1"));
        let mut none = Config::new("a", Path::new("/tmp/s")).unwrap();
        none.interfaces = vec!["eth0".to_owned()];
        let none = none.check().unwrap_err();
        assert!(none.to_string().contains("--sink"));
    }

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
