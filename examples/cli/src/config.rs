//! What a sensor is to do: a TOML file, or flags.

mod secret;
mod sink;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de};

#[cfg(feature = "kafka")]
pub(crate) use self::sink::KafkaConfig;
#[cfg(feature = "nats")]
pub(crate) use self::sink::NatsConfig;
#[cfg(feature = "parquet")]
pub(crate) use self::sink::ParquetConfig;
#[cfg(feature = "redis")]
pub(crate) use self::sink::RedisConfig;
pub(crate) use self::sink::{IpfixConfig, NdjsonConfig, SinkConfig, Transport};
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
    /// From packet sockets that another process has opened and passed on (sd_listen_fds(3)): a shard for each.
    Passed,
}

/// A user, as somebody names him.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum UserName {
    Number(u32),
    Name(String),
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
        if self.capture == CaptureKind::Passed && self.netns.is_some() {
            return Err("sockets that are passed have their namespace: leave netns out".into());
        }
        if self.capture == CaptureKind::AfXdp && !is_alone {
            return Err(
                "af-xdp has the queues of one interface, in the sensor's own namespace".into()
            );
        }
        Ok(())
    }
}

const YEAR: u64 = 366 * 86_400;
/// `PACKET_FANOUT_MAX` of kernels before 5.10; nobody has more cores for it.
const MOST_SHARDS: u16 = 256;
const NAMES: &str = "a sensor's name has letters, digits, - and _ only";
const ROOMS: &str = "a spool has at least 1 MiB, and less than 16 TiB";

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
}
