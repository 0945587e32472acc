//! A sensor: shards → records → spool → sinks, from its start to its account.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid, User, fchown};
use ringtap::capture::NetNs;
use ringtap::shard::{AllShardStats, Shards};

use crate::account::Account;
use crate::config::{Config, UserName};
use crate::feed::{self, Meter};
use crate::harden;
use crate::http;
use crate::pipeline::{Pipeline, Prepared};
use crate::sink::{self, Courier, Outcome};

/// A sensor at work.
pub(crate) struct Sensor {
    name: String,
    pub(crate) shards: Shards,
    pub(crate) meters: Arc<Vec<Meter>>,
    pub(crate) pipeline: Pipeline,
    server: Option<http::Server>,
    is_ending: Arc<AtomicBool>,
}

impl Sensor {
    pub(crate) fn start(config: &Config) -> Outcome<Self> {
        config.check()?;
        let prepared = Prepared::new(config, index_of(config))?;
        if config.harden {
            harden_files(config)?;
        }
        let feed = feed::start(config, prepared.ledger())?;
        let feed::Feed { shards, meters, queues, is_ending } = feed;
        let listener = config.listen.map(http::listen).transpose()?;
        if let Some(user) = &config.user {
            become_user(user, config)?;
        }
        let server = listener.map(http::Server::start).transpose()?;
        let pipeline = prepared.start(config, queues, Arc::clone(&meters), None)?;
        if config.harden {
            harden::calls()?;
        }
        let name = config.sensor.clone();
        Ok(Self { name, shards, meters, pipeline, server, is_ending })
    }

    /// Totals of the shards now. To be asked for now and then: records of counts have them from here.
    pub(crate) fn look(&self) -> Outcome<AllShardStats> {
        let stats = self.shards.stats()?;
        note(&self.meters, &stats);
        if let Some(server) = &self.server {
            let delivers = |courier: &Courier| !courier.delivery.is_away.load(Ordering::Relaxed);
            let is_ready =
                !self.shards.is_finished() && self.pipeline.couriers.iter().any(delivers);
            server.publish(self.exposition(&stats), is_ready);
        }
        Ok(stats)
    }

    /// Whether some part of it has ended by itself: then all of it has to.
    pub(crate) fn has_ended(&self) -> bool {
        self.shards.is_finished() || self.pipeline.has_ended()
    }

    /// What `/metrics` says.
    fn exposition(&self, stats: &AllShardStats) -> String {
        use std::fmt::Write as _;

        use ringtap::metrics::Measured;
        let mut text = stats.to_prometheus(&[]);
        let mut add = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "{name}{{{labels}}} {value}");
            }
        };
        let of_shards = |read: fn(&Meter) -> u64| -> Vec<(String, u64)> {
            let each = (0..).zip(self.meters.iter());
            each.map(|(shard, meter): (usize, _)| (format!("shard=\"{shard}\""), read(meter)))
                .collect()
        };
        let about = format!("version=\"{}\",sensor=\"{}\"", env!("CARGO_PKG_VERSION"), self.name);
        add("ringtap_sensor_build_info", "gauge", "What it is, and who.", &[(about, 1)]);
        let bytes = of_shards(|meter| meter.bytes.load(Ordering::Relaxed));
        add("ringtap_sensor_bytes_total", "counter", "Bytes of packets, as on the wire.", &bytes);
        let away = self.pipeline.couriers.iter().map(|courier| {
            let is_away = courier.delivery.is_away.load(Ordering::Relaxed);
            (format!("sink=\"{}\"", courier.name), u64::from(!is_away))
        });
        let help = "Whether the sink took what it was given last.";
        add("ringtap_sensor_sink_up", "gauge", help, &away.collect::<Vec<_>>());
        let made = of_shards(|meter| meter.made.load(Ordering::Relaxed));
        add("ringtap_sensor_flows_total", "counter", "Flows that have ended.", &made);
        let overflowed = of_shards(|meter| meter.overflowed.load(Ordering::Relaxed));
        let help = "Flows for which a shard's queue had no room.";
        add("ringtap_sensor_overflowed_total", "counter", help, &overflowed);
        let active = of_shards(|meter| meter.active.load(Ordering::Relaxed));
        add("ringtap_sensor_active_flows", "gauge", "Flows that are tracked.", &active);
        let one =
            |value: &std::sync::atomic::AtomicU64| [(String::new(), value.load(Ordering::Relaxed))];
        add(
            "ringtap_sensor_spool_bytes",
            "gauge",
            "Bytes of the spool.",
            &one(&self.pipeline.level.bytes),
        );
        let help = "Flows for which the spool had no room.";
        add("ringtap_sensor_refused_total", "counter", help, &one(&self.pipeline.level.refused));
        let of_sinks = |read: fn(&sink::Delivery) -> u64| -> Vec<(String, u64)> {
            let label = |courier: &Courier| format!("sink=\"{}\"", courier.name);
            self.pipeline
                .couriers
                .iter()
                .map(|courier| (label(courier), read(&courier.delivery)))
                .collect()
        };
        let acknowledged = of_sinks(|delivery| delivery.acknowledged.load(Ordering::Relaxed));
        let help = "Records that the sink has acknowledged.";
        add("ringtap_sensor_acknowledged_total", "counter", help, &acknowledged);
        let failures = of_sinks(|delivery| delivery.failures.load(Ordering::Relaxed));
        add("ringtap_sensor_failures_total", "counter", "Deliveries that failed.", &failures);
        text
    }

    /// Stops the shards, has the sinks take what there is, and accounts for it.
    ///
    /// # Errors
    /// What failed first; all the rest is brought to its end nevertheless, and its account printed.
    pub(crate) fn finish(self) -> Outcome<Account> {
        let Self { shards, meters, pipeline, server, is_ending, .. } = self;
        if let Some(server) = &server {
            server.end();
        }
        is_ending.store(true, Ordering::Relaxed);
        shards.stop();
        let mut failed = Vec::new();
        match shards.join_each() {
            Ok(report) => {
                note(&meters, &report.stats);
                let errors = report.outcomes.into_iter().filter_map(Result::err);
                failed.extend(errors.map(Into::into));
            }
            Err(error) => failed.push(error.into()),
        }
        let (level, sinks) = pipeline.finish(|| false, &mut failed);
        let account = Account::new(&meters, &level, sinks);
        account.unless(failed)
    }
}

/// Gives up writing elsewhere than into the spool and where sinks write.
fn harden_files(config: &Config) -> Outcome<()> {
    let mut written = vec![config.spool.clone()];
    for sink in &config.sinks {
        written.extend(sink.make_place()?);
    }
    if !harden::files(&written)? {
        crate::say::note!("this kernel has no Landlock: harden does not restrict files");
    }
    Ok(())
}

/// The index of the interface; 0 for several, and for one that is not there, which opening it tells.
fn index_of(config: &Config) -> u32 {
    let [interface] = &config.interfaces[..] else { return 0 };
    let ask = || {
        let index = nix::net::if_::if_nametoindex(interface.as_str());
        Ok::<_, ringtap::Error>(index.unwrap_or(0))
    };
    match &config.netns {
        Some(path) => NetNs::path(path).within(ask).unwrap_or(0),
        None => ask().unwrap_or(0),
    }
}

fn note(meters: &[Meter], stats: &AllShardStats) {
    for (meter, shard) in meters.iter().zip(stats.shards()) {
        meter.packets.store(shard.capture.delivered, Ordering::Relaxed);
        meter.drops.store(shard.capture.drops, Ordering::Relaxed);
    }
}

/// Gives up all privileges, for good; what is open stays open. Where it writes becomes that user's.
fn become_user(user: &UserName, config: &Config) -> Outcome<()> {
    let (uid, gid) = match user {
        UserName::Number(number) => (Uid::from_raw(*number), Gid::from_raw(*number)),
        UserName::Name(name) => {
            let known = User::from_name(name)?;
            let known = known.ok_or_else(|| format!("user = {name:?}: there is no such user"))?;
            (known.uid, known.gid)
        }
    };
    let remedy = |error: io::Error| {
        format!("becoming user {uid}: {error}; leave `user` out, or start as root")
    };
    // Where it is, if what was configured is a link to it; below that no link is followed.
    let spool = config.spool.canonicalize().map_err(remedy)?;
    give_directory(&spool, uid, gid).map_err(remedy)?;
    for sink in &config.sinks {
        if let Some(place) = sink.make_place()? {
            give_place(&place, uid, gid).map_err(remedy)?;
        }
    }
    nix::unistd::setgroups(&[gid]).map_err(|error| remedy(error.into()))?;
    nix::unistd::setgid(gid).map_err(|error| remedy(error.into()))?;
    nix::unistd::setuid(uid).map_err(|error| remedy(error.into()))?;
    Ok(())
}

/// Gives a directory and its files to a user. Each is opened, looked at and given by its descriptor: the directory may have been
/// that user's before, and may change meanwhile. A file with another name elsewhere, and a link, are left as they are.
fn give_directory(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directory = Dir::open(path, flags, Mode::empty())?;
    let names: Vec<_> = directory.iter().collect::<Result<_, _>>()?;
    for entry in names {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        match openat(&directory, entry.file_name(), flags, Mode::empty()) {
            Ok(file) => give_file(&file, uid, gid)?,
            Err(Errno::ELOOP | Errno::ENXIO) => {} // a link, or a socket
            Err(error) => return Err(error.into()),
        }
    }
    fchown(&directory, Some(uid), Some(gid))?;
    Ok(())
}

/// Gives a file or directory that a sink writes to.
fn give_place(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let place = open(path, flags, Mode::empty())?;
    match fstat(&place)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
        true => Ok(fchown(&place, Some(uid), Some(gid))?),
        false => give_file(&place, uid, gid),
    }
}

fn give_file(file: &OwnedFd, uid: Uid, gid: Gid) -> io::Result<()> {
    let is = fstat(file)?;
    let is_file = is.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    if is_file && is.st_nlink == 1 {
        fchown(file, Some(uid), Some(gid))?;
    }
    Ok(())
}
