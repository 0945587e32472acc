//! A sensor on what was captured before: files in, the same records out, as fast as they can be read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::stream::{self, LocalBoxStream};
use futures_util::{FutureExt, StreamExt};
use ringtap::pcap::PcapSource;
use ringtap::record::Archive;
use ringtap::{BpfFilter, PacketBatch, executor};

use crate::account::Account;
use crate::config::Config;
use crate::feed::Reading;
use crate::pipeline::Prepared;
use crate::sink::Outcome;

type Batches = LocalBoxStream<'static, ringtap::Result<PacketBatch>>;

/// How long a reader that is to end is waited for: one that reads a pipe may hear nothing more.
const PATIENCE: Duration = Duration::from_secs(1);

/// Brings records of all files to the sinks. Returns the account, and whether all was read: where it is to end before that, what was
/// read is brought to its end like a sensor's.
pub(crate) fn run(config: &Config, has_ended: impl Fn() -> bool) -> Outcome<(Account, bool)> {
    config.check()?;
    let filter = config.filter.as_deref().map(str::parse).transpose()?;
    config.read.iter().try_for_each(|place| check(place))?;
    let prepared = Prepared::new(config, 0)?;
    let (reading, queues) = Reading::new(config, prepared.ledger())?;
    let meters = reading.meters();
    let gives_up = Arc::new(AtomicBool::new(false));
    let pipeline =
        prepared.start(config, queues, Arc::clone(&meters), Some(Arc::clone(&gives_up)))?;
    let (is_enough, places) = (Arc::clone(&gives_up), config.read.clone());
    let reader = thread::Builder::new().name("reader".to_owned()).spawn(move || {
        let is_wanted = move |_: &_| std::future::ready(!is_enough.load(Ordering::Relaxed));
        let batches = batches(&places, filter)?.take_while(is_wanted).boxed_local();
        Outcome::Ok(executor::block_on(reading.run(batches))?)
    })?;
    let mut failed = Vec::new();
    while !reader.is_finished() && !pipeline.has_ended() && !has_ended() {
        thread::sleep(Duration::from_millis(10));
    }
    let is_whole = reader.is_finished();
    if !is_whole {
        gives_up.store(true, Ordering::Relaxed);
        let until = Instant::now() + PATIENCE;
        while !reader.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
    }
    // One that hears nothing is left to itself.
    if reader.is_finished() {
        match reader.join() {
            Ok(read) => failed.extend(read.err()),
            Err(_) => failed.push("the reader panicked".into()),
        }
    }
    let is_patient = || {
        let is_over = has_ended();
        gives_up.fetch_or(is_over, Ordering::Relaxed);
        !gives_up.load(Ordering::Relaxed)
    };
    let (level, sinks) = pipeline.finish(is_patient, &mut failed);
    let account = Account::new(&meters, &level, sinks);
    account.unless(failed).map(|account| (account, is_whole))
}

/// Refuses what cannot be read before anything is written.
fn check(place: &Path) -> Outcome<()> {
    let of = |error: std::io::Error| format!("{}: {error}", place.display());
    if place.to_str() == Some("-") {
        return Ok(());
    }
    if !std::fs::metadata(place).map_err(of)?.is_dir() {
        std::fs::File::open(place).map_err(of)?;
    } else if files_of(place)?.is_empty() {
        return Err(format!("{}: there is no capture file in it", place.display()).into());
    }
    Ok(())
}

/// The packets of all files, one after another, so that flows go on from one to the next; of a directory, those of a recording in
/// the order of time, or of all its capture files in the order of their names.
fn batches(places: &[PathBuf], filter: Option<BpfFilter>) -> Outcome<Batches> {
    let mut all: Vec<Batches> = Vec::new();
    for place in places {
        if !place.is_dir() {
            all.push(of_file(place, filter.as_ref())?);
            continue;
        }
        let archive = Archive::open(place)?;
        if archive.series().next().is_some() {
            let query = archive.query();
            all.push(match &filter {
                Some(filter) => query.filter(filter.clone()).batches().boxed_local(),
                None => query.batches().boxed_local(),
            });
            continue;
        }
        let filter = filter.clone();
        // Each is opened when it is its turn.
        let each = stream::iter(files_of(place)?).flat_map(move |file| {
            of_file(&file, filter.as_ref()).unwrap_or_else(|error| {
                std::future::ready(Err(ringtap::Error::Other(error))).into_stream().boxed_local()
            })
        });
        all.push(each.boxed_local());
    }
    Ok(stream::iter(all).flatten().boxed_local())
}

fn of_file(file: &Path, filter: Option<&BpfFilter>) -> Outcome<Batches> {
    let source = match file.to_str() {
        Some("-") => PcapSource::from_reader(std::io::stdin())?,
        _ => PcapSource::open(file)?,
    };
    Ok(match filter {
        Some(filter) => source.filter(filter.clone()).boxed_local(),
        None => source.boxed_local(),
    })
}

fn files_of(directory: &Path) -> Outcome<Vec<PathBuf>> {
    const KINDS: [&str; 7] =
        [".pcap", ".pcapng", ".cap", ".pcap.gz", ".pcapng.gz", ".pcap.lz4", ".pcapng.lz4"];
    let mut files = Vec::new();
    let of = |error: std::io::Error| format!("{}: {error}", directory.display());
    for entry in std::fs::read_dir(directory).map_err(of)? {
        let path = entry.map_err(of)?.path();
        if path.to_str().is_some_and(|name| KINDS.iter().any(|kind| name.ends_with(kind))) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
