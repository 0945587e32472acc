//! Shards that make records: each in its own thread, with a queue that never holds it up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use futures_util::{FutureExt, StreamExt};
use hdrhistogram::Histogram;
use ringtap::capture::NetNs;
use ringtap::fanout::{FanoutFlags, FanoutMode};
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{EventMask, FlowConfig, FlowExt};
use ringtap::interface::LocalNames;
use ringtap::shard::{Cores, Shard, Source};
use ringtap::{BpfFilter, Capture, PacketBatch, Shards, time};

use crate::config::Config;
use crate::ledger::{Counter, Ledger};
use crate::record::{Body, Told};
use crate::sink::Outcome;
use crate::talk::{self, Pairs, Talk};

/// Records that are handed over together, and how many times that many a queue holds.
const CHUNK: usize = 256;
const QUEUE: usize = 256;
/// A shard that has ended waits so long for room in its queue, in all.
const PATIENCE: Duration = Duration::from_secs(5);
/// A shard looks up this often where nothing happens.
const TICK: Duration = Duration::from_millis(500);

/// What a shard tells of itself while it works.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) bytes: AtomicU64,
    pub(crate) made: AtomicU64,
    pub(crate) overflowed: AtomicU64,
    pub(crate) active: AtomicU64,
    /// Packets that are of no flow: not IP, or late for one that was closed.
    pub(crate) of_none: AtomicU64,
    /// Totals of the capture, put in by who watches.
    pub(crate) packets: AtomicU64,
    pub(crate) drops: AtomicU64,
    slow: Mutex<Slow>,
    /// Whether anybody asks who talks.
    is_watched: AtomicBool,
}

/// What is looked at now and then only.
#[derive(Debug)]
struct Slow {
    /// Microseconds from the kernel's stamp to us, since it was last asked for.
    latency: Histogram<u32>,
    /// The traffic of pairs of hosts since it was last taken.
    pairs: Pairs,
}

impl Meter {
    fn new() -> Outcome<Self> {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 2)?; // up to a minute
        let zero = || AtomicU64::new(0);
        Ok(Self {
            bytes: zero(),
            made: zero(),
            overflowed: zero(),
            active: zero(),
            of_none: zero(),
            packets: zero(),
            drops: zero(),
            slow: Mutex::new(Slow { latency, pairs: Pairs::new() }),
            is_watched: AtomicBool::new(false),
        })
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Latencies since the last time.
    pub(crate) fn take_latency(&self) -> Histogram<u32> {
        let mut slow = self.slow();
        let taken = slow.latency.clone();
        slow.latency.reset();
        taken
    }

    /// Takes the traffic of pairs of hosts since the last time, up to the shard's last look.
    pub(crate) fn take_pairs(&self) -> Pairs {
        self.is_watched.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.slow().pairs)
    }

    fn note(&self, batch: &PacketBatch) {
        let bytes: u64 = batch.iter().map(|packet| packet.original_len() as u64).sum();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = SystemTime::now();
        let age =
            |time: ringtap::packet::Timestamp| now.duration_since(time.into()).unwrap_or_default();
        let mut slow = self.slow();
        for time in [batch.ts_first(), batch.ts_last()] {
            slow.latency.saturating_record(age(time).as_micros() as u64);
        }
    }
}

/// Shards at work.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) shards: Shards,
    pub(crate) meters: Arc<Vec<Meter>>,
    pub(crate) queues: Vec<Receiver<Vec<Body>>>,
    /// To be set before they are stopped: what they have then may wait for room.
    pub(crate) is_ending: Arc<AtomicBool>,
}

/// How many shards a configuration asks for.
pub(crate) fn count_of(config: &Config) -> Outcome<u16> {
    match config.shards {
        Some(count) => Ok(count),
        None => Ok(std::thread::available_parallelism()?.get().try_into()?),
    }
}

/// Starts them. All sockets are open when it returns.
pub(crate) fn start(config: &Config, ledger: &Ledger) -> Outcome<Feed> {
    let count = count_of(config)?;
    let mut capture = Capture::builder()
        .interface(&config.interface)
        .block_timeout_ms(20)
        .promiscuous(true)
        .fanout_flags(FanoutFlags::DEFRAG);
    let netns = config.netns.as_ref().map(NetNs::path);
    if let Some(filter) = &config.filter {
        let names = LocalNames::of(&config.interface);
        let parse = || Ok(BpfFilter::parse_with(filter, &names)?);
        capture = capture.filter(match &netns {
            Some(netns) => netns.within(parse)?,
            None => parse()?,
        });
    }
    if let Some(netns) = netns {
        capture = capture.netns(netns);
    }
    let meters = (0..count).map(|_| Meter::new()).collect::<Outcome<Vec<_>>>()?;
    let meters = Arc::new(meters);
    let (senders, queues): (Vec<_>, Vec<_>) = (0..count).map(|_| bounded(QUEUE)).unzip();
    let tracker = tracker(config);
    let entries = (0..count).map(|shard| ledger.entry(shard)).collect::<Result<Vec<_>, _>>()?;
    let is_ending = Arc::new(AtomicBool::new(false));
    let (ledger, of_shards) = (ledger.clone(), Arc::clone(&meters));
    let ending = Arc::clone(&is_ending);
    let senders = Mutex::new(senders.into_iter().map(Some).collect::<Vec<_>>());
    let shards = Shards::builder()
        .capture(capture)
        .source(Source::Fanout(FanoutMode::Hash))
        .cores(Cores::All)
        .shards(count.into())
        .spawn(move |shard| {
            let index = shard.index();
            let mut senders = senders.lock().unwrap_or_else(PoisonError::into_inner);
            let queue = senders[index].take().expect("a shard starts once");
            let hand = Hand {
                shard: index as u16,
                queue,
                is_ending: Arc::clone(&ending),
                until: None,
                ledger: ledger.clone(),
                made: entries[index].made,
                overflowed: entries[index].overflowed,
                chunk: Vec::with_capacity(CHUNK),
            };
            work(shard, hand, Arc::clone(&of_shards), tracker.clone())
        })?;
    Ok(Feed { shards, meters, queues, is_ending })
}

fn tracker(config: &Config) -> FlowConfig {
    let mut tracker = FlowConfig::default().with_event_filter(EventMask::PACKET);
    tracker.infer_tcp_initiator = true;
    tracker.max_flows = config.max_flows;
    tracker.active_timeout =
        (config.active_seconds > 0).then(|| Duration::from_secs(config.active_seconds));
    if let Some(seconds) = config.idle_seconds {
        let idle = Duration::from_secs(seconds);
        (tracker.idle_timeout_tcp, tracker.idle_timeout_udp) = (idle, idle);
        tracker.idle_timeout_other = idle;
    }
    tracker
}

/// A shard's work, until the shards are stopped: what it has then ends as idle, and is handed over.
async fn work(
    shard: Shard,
    mut hand: Hand,
    meters: Arc<Vec<Meter>>,
    tracker: FlowConfig,
) -> ringtap::Result<()> {
    let (index, of_batches) = (shard.index(), Arc::clone(&meters));
    let batches = shard.capture.inspect(move |batch| {
        if let Ok(batch) = batch {
            of_batches[index].note(batch);
        }
    });
    let flows = batches.flow_stream(FiveTuple::bidirectional()).with_config(tracker);
    let (mut records, meter) = (flows.into_records(), &meters[index]);
    let (mut looked, mut told, mut talk) = (Instant::now(), Told::default(), Talk::default());
    loop {
        let next = match records.next().now_or_never() {
            Some(next) => next,
            None => {
                hand.over(meter)?; // before it waits
                if looked.elapsed() >= TICK {
                    looked = Instant::now();
                    look(meter, records.table(), &mut talk);
                }
                match time::timeout(TICK, records.next()).await {
                    Ok(next) => next,
                    Err(time::Elapsed) => continue,
                }
            }
        };
        let Some(record) = next else { break };
        let record = record?;
        if meter.is_watched.load(Ordering::Relaxed) {
            talk.end(&record);
        }
        hand.chunk.extend(told.since(&record).map(Body::Flow));
        if hand.chunk.len() == CHUNK {
            hand.over(meter)?;
        }
    }
    hand.over(meter)?;
    look(meter, records.table(), &mut talk);
    Ok(())
}

fn look(meter: &Meter, table: &ringtap::flow::FlowTable<FiveTuple>, talk: &mut Talk) {
    let of_none = table.stats().packets_unmatched + table.late_packets();
    meter.of_none.store(of_none, Ordering::Relaxed);
    meter.active.store(table.len() as u64, Ordering::Relaxed);
    if meter.is_watched.load(Ordering::Relaxed) {
        let pairs = talk.take(table);
        talk::add(&mut meter.slow().pairs, pairs);
    }
}

/// Hands records over to the spool's thread.
struct Hand {
    shard: u16,
    queue: Sender<Vec<Body>>,
    is_ending: Arc<AtomicBool>,
    /// How long it waits for room then.
    until: Option<Instant>,
    ledger: Ledger,
    made: u64,
    overflowed: u64,
    chunk: Vec<Body>,
}

impl Hand {
    /// Never waits while packets come: what there is no room for is counted and gone.
    fn over(&mut self, meter: &Meter) -> ringtap::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        let count = chunk.len() as u64;
        self.made += count;
        meter.made.fetch_add(count, Ordering::Relaxed);
        self.ledger.set(self.shard, Counter::Made, self.made).map_err(ringtap::Error::other)?;
        let is_taken = match self.queue.try_send(chunk) {
            Ok(()) => true,
            Err(TrySendError::Full(chunk)) if self.is_ending.load(Ordering::Relaxed) => {
                let until = *self.until.get_or_insert_with(|| Instant::now() + PATIENCE);
                self.queue.send_deadline(chunk, until).is_ok()
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        };
        if !is_taken {
            self.overflowed += count;
            meter.overflowed.fetch_add(count, Ordering::Relaxed);
            let noted = self.ledger.set(self.shard, Counter::Overflowed, self.overflowed);
            noted.map_err(ringtap::Error::other)?;
        }
        Ok(())
    }
}
