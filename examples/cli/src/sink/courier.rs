//! A thread that brings a sink what is in the spool, however often the sink goes away.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Held, Outcome, Sink};
use crate::record::Record;
use crate::say::note;
use crate::spool::Reader;

/// The shortest and the longest wait for a sink that is away.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// The most records that are read for a sink at once, however many its lanes ask for.
const MOST: usize = 131_072;

/// What became of deliveries; read by others while they go on.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    /// Records that the sink has acknowledged, or had already when it was reached, of this run.
    pub(crate) acknowledged: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) is_away: AtomicBool,
}

/// A courier at work.
#[derive(Debug)]
pub(crate) struct Courier {
    pub(crate) name: String,
    pub(crate) delivery: Arc<Delivery>,
    hurry: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<bool>>,
}

impl Courier {
    /// Starts one, with as many lanes as there are sinks: the records of a shard go through one of them, in order. It ends when the
    /// spool is closed and all was delivered.
    pub(crate) fn start(
        name: String,
        sinks: Vec<Box<dyn Sink>>,
        reader: Reader,
    ) -> io::Result<Self> {
        let (delivery, hurry) = (Arc::new(Delivery::default()), Arc::new(AtomicBool::new(false)));
        let lane = |sink| Lane {
            sink,
            held: None,
            sent: HashMap::new(),
            numbered: reader.all_numbered().to_vec(),
        };
        let round = Round {
            lanes: sinks.into_iter().map(lane).collect(),
            reader,
            shared: Shared {
                name: name.clone(),
                delivery: Arc::clone(&delivery),
                hurry: Arc::clone(&hurry),
            },
        };
        let thread = thread::Builder::new().name(format!("sink {name}")).spawn(|| round.run())?;
        Ok(Self { name, delivery, hurry, thread })
    }

    /// Whether it has ended by itself: it cannot read the spool, or all was delivered.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Asks it to leave what is left in the spool.
    pub(crate) fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// Whether all was delivered. Waits for what it is at until a time; a sink that hangs beyond it is left to hang.
    pub(crate) fn finish(self, until: Instant) -> io::Result<bool> {
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(10));
        }
        let panicked = |_| io::Error::other(format!("the sink {} panicked", self.name));
        self.thread.join().map_err(panicked)?
    }
}

struct Round {
    lanes: Vec<Lane>,
    reader: Reader,
    shared: Shared,
}

/// A way to the receiver.
struct Lane {
    sink: Box<dyn Sink>,
    /// What the receiver has, by shard; `None` while it is not reached.
    held: Option<HashMap<u16, Held>>,
    /// The number behind the last that was ever sent, by shard.
    sent: HashMap<u16, u64>,
    /// How many records of each shard there had been at the start.
    numbered: Vec<u64>,
}

/// What others are shared, and tell.
struct Shared {
    name: String,
    delivery: Arc<Delivery>,
    hurry: Arc<AtomicBool>,
}

impl Round {
    fn run(mut self) -> io::Result<bool> {
        let (most, patience) =
            self.lanes.first().map_or((1, Duration::ZERO), |lane| lane.sink.appetite());
        let most = (most * self.lanes.len()).min(MOST);
        loop {
            let batch = self.reader.next_batch(most, patience)?;
            let Some(mut batch) = batch else {
                if self.reader.is_done() {
                    return Ok(true);
                }
                if self.shared.hurry.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                continue;
            };
            let Self { lanes, reader, shared } = &mut self;
            let acknowledged = |count: usize| {
                shared.delivery.acknowledged.fetch_add(count as u64, Ordering::Relaxed);
            };
            let is_delivered = match &mut lanes[..] {
                [lane] => {
                    let mut done = 0;
                    lane.bring(&batch.records, shared, |count| {
                        done += count;
                        acknowledged(count);
                        reader.acknowledge(&batch, done)
                    })?
                }
                lanes => {
                    let records = std::mem::take(&mut batch.records);
                    let count = records.len();
                    let is_delivered = bring_by_lanes(lanes, records, shared)?;
                    if is_delivered {
                        acknowledged(count);
                        reader.acknowledge_all(&batch)?;
                    }
                    is_delivered
                }
            };
            if !is_delivered {
                return Ok(false);
            }
        }
    }
}

/// Has each lane bring the records of its shards, at the same time. Returns whether all were delivered.
fn bring_by_lanes(lanes: &mut [Lane], records: Vec<Record>, shared: &Shared) -> io::Result<bool> {
    let mut parts = vec![Vec::new(); lanes.len()];
    for record in records {
        parts[usize::from(record.shard) % lanes.len()].push(record);
    }
    thread::scope(|scope| {
        let all: Vec<_> = lanes
            .iter_mut()
            .zip(parts)
            .map(|(lane, part)| scope.spawn(move || lane.bring(&part, shared, |_| Ok(()))))
            .collect();
        let mut is_delivered = true;
        for one in all {
            let panicked = |_| Err(io::Error::other(format!("the sink {} panicked", shared.name)));
            is_delivered &= one.join().unwrap_or_else(panicked)?;
        }
        Ok(is_delivered)
    })
}

impl Lane {
    /// Delivers records until all were; false where they are to be left. Says each time how many more there are.
    fn bring(
        &mut self,
        records: &[Record],
        shared: &Shared,
        mut acknowledge: impl FnMut(usize) -> io::Result<()>,
    ) -> io::Result<bool> {
        let (mut done, mut wait) = (0, FIRST);
        while done < records.len() {
            if shared.hurry.load(Ordering::Relaxed) {
                return Ok(false);
            }
            // As much as a sink asks for, also where one shard has all that was read for several lanes.
            let end = records.len().min(done + self.sink.appetite().0);
            match self.deliver(&records[done..end]) {
                Ok(count) => {
                    done += count;
                    acknowledge(count)?;
                    if count > 0 {
                        wait = FIRST;
                        shared.note(false, None);
                        continue;
                    }
                    shared.note(true, Some("it acknowledged nothing".into()));
                }
                Err(error) => shared.note(true, Some(error)),
            }
            self.held = None;
            thread::sleep(wait);
            wait = (2 * wait).min(LONGEST);
        }
        Ok(true)
    }

    /// How many of the first records the receiver has now.
    fn deliver(&mut self, records: &[Record]) -> Outcome<usize> {
        let held = match &mut self.held {
            Some(held) => held,
            None => {
                self.sink.open()?;
                self.held.insert(HashMap::new())
            }
        };
        for record in records {
            if let Entry::Vacant(unknown) = held.entry(record.shard) {
                let sent = self.sent.get(&record.shard).copied().unwrap_or(0);
                // Before this start all may have been sent.
                let numbered = self.numbered.get(usize::from(record.shard));
                let most = sent.max(numbered.copied().unwrap_or(0));
                let known = self.sink.held(record, record.sequence < most)?;
                if known.end() > most {
                    let (has, shard) = (known.end(), record.shard);
                    return Err(format!(
                        "it has {has} records of shard {shard}, of which {most} can be this spool's; \
                         give the sensor another name, or its old spool"
                    )
                    .into());
                }
                unknown.insert(known);
            }
        }
        let is_new = |record: &Record| !held[&record.shard].has(record.sequence);
        let known = records.iter().position(is_new).unwrap_or(records.len());
        if known > 0 {
            return Ok(known);
        }
        let new = records.iter().position(|record| !is_new(record)).unwrap_or(records.len());
        for record in &records[..new] {
            self.sent.insert(record.shard, record.sequence + 1);
        }
        let count = self.sink.deliver(&records[..new])?;
        if count < new {
            self.held = None; // it may have some of the others
        }
        Ok(count)
    }
}

impl Shared {
    /// Tells of a sink that goes away or comes back, once.
    fn note(&self, is_away: bool, error: Option<Box<dyn std::error::Error + Send + Sync>>) {
        if is_away {
            self.delivery.failures.fetch_add(1, Ordering::Relaxed);
        }
        if self.delivery.is_away.swap(is_away, Ordering::Relaxed) != is_away {
            match error {
                Some(error) => {
                    note!("sink {}: {error}; records wait in the spool", self.name);
                }
                None => {
                    note!("sink {}: there again", self.name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
