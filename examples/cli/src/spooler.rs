//! The thread between the shards' queues and the spool.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select};

use crate::feed::Meter;
use crate::ledger::Counter;
use crate::record::{Body, Counts};
use crate::spool::Spool;

/// How often it is looked whether what waits is given up.
const LOOK: Duration = Duration::from_millis(100);

/// What is in the spool, for who watches.
#[derive(Debug, Default)]
pub(crate) struct Level {
    pub(crate) bytes: AtomicU64,
    /// Records of this run.
    pub(crate) records: AtomicU64,
    /// Flows of this run that there was no room for.
    pub(crate) refused: AtomicU64,
}

pub(crate) struct Spooler {
    pub(crate) spool: Spool,
    pub(crate) queues: Vec<Receiver<Vec<Body>>>,
    pub(crate) meters: Arc<Vec<Meter>>,
    pub(crate) level: Arc<Level>,
    pub(crate) interval: Duration,
    /// Whether a spool that is full is waited for, and when that is no use any more; by default it is not.
    pub(crate) gives_up: Option<Arc<AtomicBool>>,
    /// Nothing is sent in it: closed when the meters have the shards' last totals.
    pub(crate) end: Receiver<()>,
}

impl Spooler {
    /// Runs until all queues are closed and empty, and the end has come; then closes the spool.
    pub(crate) fn start(self) -> io::Result<JoinHandle<io::Result<()>>> {
        thread::Builder::new().name("spool".to_owned()).spawn(|| self.run())
    }

    fn run(mut self) -> io::Result<()> {
        let mut open: Vec<usize> = (0..self.queues.len()).collect();
        let mut due = Instant::now() + self.interval;
        while !open.is_empty() {
            let mut select = Select::new();
            for &shard in &open {
                select.recv(&self.queues[shard]);
            }
            let has_given_up =
                self.gives_up.as_ref().map(|gives_up| gives_up.load(Ordering::Relaxed));
            let until = match has_given_up {
                None => due,
                Some(_) => due.min(Instant::now() + LOOK),
            };
            let came = select.select_deadline(until).ok().map(|ready| {
                let at = ready.index();
                (at, ready.recv(&self.queues[open[at]]))
            });
            match came {
                Some((at, Ok(chunk))) => self.append(open[at], &chunk)?,
                Some((at, Err(_))) => drop(open.swap_remove(at)), // the shard has ended
                // Whoever reads a pipe may never end.
                None if has_given_up == Some(true) => break,
                None => {}
            }
            if Instant::now() >= due {
                self.count()?;
                due = Instant::now() + self.interval;
            }
        }
        let _closed = self.end.recv();
        self.count()?;
        self.spool.close();
        Ok(())
    }

    fn append(&mut self, shard: usize, bodies: &[Body]) -> io::Result<()> {
        let number = shard as u16;
        let count = bodies.len() as u64;
        let is_worth_it = |gives_up: &Arc<AtomicBool>| !gives_up.load(Ordering::Relaxed);
        let mut is_taken = self.spool.append(number, bodies)?;
        while !is_taken && self.gives_up.as_ref().is_some_and(is_worth_it) {
            thread::sleep(Duration::from_millis(5));
            is_taken = self.spool.append(number, bodies)?;
        }
        if is_taken {
            self.level.records.fetch_add(count, Ordering::Relaxed);
        } else {
            let flows = bodies.iter().filter(|body| matches!(body, Body::Flow(_))).count() as u64;
            let refused = self.spool.ledger().entry(number)?.refused + flows;
            self.spool.ledger().set(number, Counter::Refused, refused)?;
            self.level.refused.fetch_add(flows, Ordering::Relaxed);
        }
        self.level.bytes.store(self.spool.bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// A record of each shard's counts.
    fn count(&mut self) -> io::Result<()> {
        for shard in 0..self.spool.shards() {
            let entry = self.spool.ledger().entry(shard)?;
            // Shards of an earlier start have none.
            let meter = self.meters.get(usize::from(shard));
            let of = |read: fn(&Meter) -> &AtomicU64| {
                meter.map_or(0, |meter| read(meter).load(Ordering::Relaxed))
            };
            let counts = Counts {
                flows: self.spool.totals(shard).flows,
                overflowed: entry.overflowed,
                refused: entry.refused,
                lost: entry.lost,
                packets: of(|meter| &meter.packets),
                drops: of(|meter| &meter.drops),
            };
            self.append(shard.into(), &[Body::Counts(counts)])?;
        }
        Ok(())
    }
}
