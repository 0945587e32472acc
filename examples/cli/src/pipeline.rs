//! From the shards' queues through the spool to the sinks.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::account::SinkAccount;
use crate::config::{Config, SinkConfig};
use crate::feed::Meter;
use crate::ledger::Ledger;
use crate::record::Body;
use crate::sink::{self, Courier, Outcome, Sink};
use crate::spool::{Reader, Spool};
use crate::spooler::{Level, Spooler};

/// A spool and sinks that nothing is brought to yet.
pub(crate) struct Prepared {
    spool: Spool,
    sinks: Vec<Ready>,
}

/// A sink's name, its lanes, and its place in the spool.
type Ready = (String, Vec<Box<dyn Sink>>, Reader);

impl Prepared {
    /// Opens the spool as it is, and makes the sinks of a sensor on the interface with this index.
    pub(crate) fn new(config: &Config, interface: u32) -> Outcome<Self> {
        let opened = Spool::open_as_it_is(&config.spool, config.spool_mib << 20);
        let spool = opened.map_err(|error| named_spool(config, error))?;
        let sinks = named(&config.sinks)
            .map(|(name, of)| {
                let lanes = sink::make(of, &config.sensor, interface)?;
                let reader = spool.reader(&cursor(of))?;
                Ok((name, lanes, reader))
            })
            .collect::<Outcome<Vec<_>>>()?;
        Ok(Self { spool, sinks })
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        self.spool.ledger()
    }

    /// Starts what brings records from queues to the sinks. `gives_up` says, where the spool is waited for while it is full, when
    /// that is no use any more.
    pub(crate) fn start(
        self,
        config: &Config,
        queues: Vec<Receiver<Vec<Body>>>,
        meters: Arc<Vec<Meter>>,
        gives_up: Option<Arc<AtomicBool>>,
    ) -> Outcome<Pipeline> {
        let Self { mut spool, sinks } = self;
        // All that could be refused has been granted.
        spool.grow(queues.len() as u16).map_err(|error| named_spool(config, error))?;
        let couriers = sinks
            .into_iter()
            .map(|(name, lanes, reader)| Courier::start(name, lanes, reader))
            .collect::<io::Result<Vec<_>>>()?;
        let (level, (end, ended)) = (Arc::new(Level::default()), bounded(0));
        let spooler = Spooler {
            spool,
            queues,
            meters,
            level: Arc::clone(&level),
            interval: Duration::from_secs(config.counts_seconds.max(1)),
            end: ended,
            gives_up: gives_up.clone(),
        };
        let drain = Duration::from_secs(config.drain_seconds);
        Ok(Pipeline { couriers, level, spooler: spooler.start()?, end, drain, gives_up })
    }
}

/// What brings records to the sinks.
pub(crate) struct Pipeline {
    pub(crate) couriers: Vec<Courier>,
    pub(crate) level: Arc<Level>,
    spooler: JoinHandle<io::Result<()>>,
    end: Sender<()>,
    drain: Duration,
    gives_up: Option<Arc<AtomicBool>>,
}

impl Pipeline {
    /// Whether some part of it has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.spooler.is_finished() || self.couriers.iter().any(Courier::is_finished)
    }

    /// Has the sinks take what there is, once the queues are closed and the meters have their last totals. They have `drain_seconds`
    /// for it once nobody is `patient` any more. What fails is added to `failed`.
    pub(crate) fn finish(
        self,
        is_patient: impl Fn() -> bool,
        failed: &mut Vec<Box<dyn Error + Send + Sync>>,
    ) -> (Arc<Level>, Vec<SinkAccount>) {
        let Self { couriers, level, spooler, end, drain, gives_up } = self;
        drop(end);
        // A courier that has ended before the spool has failed: what it has not taken makes no room any more.
        let has_failed = || couriers.iter().any(Courier::is_finished) && !spooler.is_finished();
        while is_patient() && !has_failed() && !couriers.iter().all(Courier::is_finished) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(gives_up) = gives_up {
            gives_up.store(true, Ordering::Relaxed);
        }
        if let Err(error) = spooled(spooler) {
            failed.push(format!("the spool: {error}").into());
        }
        (level, drained(couriers, drain, failed))
    }
}

fn named_spool(config: &Config, error: io::Error) -> String {
    format!("the spool {}: {error}", config.spool.display())
}

/// Waits for the spool's thread, unless the disk hangs.
fn spooled(spooler: JoinHandle<io::Result<()>>) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !spooler.is_finished() {
        if Instant::now() >= deadline {
            return Err(io::Error::other("its disk hangs"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    spooler.join().map_err(|_| io::Error::other("its thread panicked"))?
}

/// Gives sinks so long to take what is left, and a moment more for what they are at.
fn drained(
    couriers: Vec<Courier>,
    drain: Duration,
    failed: &mut Vec<Box<dyn Error + Send + Sync>>,
) -> Vec<SinkAccount> {
    let deadline = Instant::now() + drain;
    while Instant::now() < deadline && !couriers.iter().all(Courier::is_finished) {
        std::thread::sleep(Duration::from_millis(10));
    }
    couriers.iter().for_each(Courier::hurry);
    let until = Instant::now() + Duration::from_secs(2);
    let each = couriers.into_iter().map(|courier| {
        let (name, delivery) = (courier.name.clone(), Arc::clone(&courier.delivery));
        let has_all = courier.finish(until).unwrap_or_else(|error| {
            failed.push(format!("the sink {name}: {error}").into());
            false
        });
        let acknowledged = delivery.acknowledged.load(Ordering::Relaxed);
        SinkAccount { name, acknowledged, has_all }
    });
    each.collect()
}

/// Sinks by names for who reads: the second of a kind is `KIND-2`.
fn named(sinks: &[SinkConfig]) -> impl Iterator<Item = (String, &SinkConfig)> {
    sinks.iter().enumerate().map(|(at, of)| {
        let kind = of.kind();
        let twins = sinks[..at].iter().filter(|other| other.kind() == kind).count();
        let name = if twins == 0 { kind.to_owned() } else { format!("{kind}-{}", twins + 1) };
        (name, of)
    })
}

/// Where a sink's place in the spool is kept: by where it delivers to, so that others may come and go.
fn cursor(sink: &SinkConfig) -> String {
    format!("{}-{:08x}", sink.kind(), crc32fast::hash(sink.destination().as_bytes()))
}
