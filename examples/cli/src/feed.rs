//! Shards that make records: each in its own thread, with a queue that never holds it up.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use hdrhistogram::Histogram;
use ringtap::capture::{CaptureBuilder, NetNs};
use ringtap::fanout::{FanoutFlags, FanoutMode};
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{EventMask, FlowConfig};
use ringtap::interface::{LocalNames, interface_info};
use ringtap::shard::{self, Cores, Source};
use ringtap::xdp::{Attach, XdpProgram};
use ringtap::{BpfFilter, Capture, PacketBatch, Shards, XdpSocket, time};

use crate::config::{CaptureKind, Config};
use crate::ledger::{Counter, Ledger};
use crate::passed;
use crate::record::{Body, Flow, Told};
use crate::sink::Outcome;
use crate::talk::{Talk, Traffic};
use crate::tracked::Tracked;

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
    /// The traffic since it was last taken.
    traffic: Traffic,
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
            slow: Mutex::new(Slow { latency, traffic: Traffic::default() }),
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

    /// Takes who talks by what since the last time, up to the shard's last look.
    pub(crate) fn take_traffic(&self) -> Traffic {
        self.is_watched.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.slow().traffic)
    }

    /// Counts a batch of a file, whose packets are of any time.
    fn note_read(&self, batch: &PacketBatch) {
        self.note_bytes(batch);
        self.packets.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }

    fn note_bytes(&self, batch: &PacketBatch) {
        let bytes: u64 = batch.iter().map(|packet| packet.original_len() as u64).sum();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn note(&self, batch: &PacketBatch) {
        self.note_bytes(batch);
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
    pub(crate) queues: Queues,
    /// To be set before they are stopped: what they have then may wait for room.
    pub(crate) is_ending: Arc<AtomicBool>,
}

/// How many shards a configuration asks for.
fn count_of(config: &Config, passed: &[OwnedFd]) -> Outcome<u16> {
    match (config.shards, config.capture) {
        (Some(count), _) => Ok(count),
        (None, CaptureKind::AfPacket) => {
            Ok(std::thread::available_parallelism()?.get().try_into()?)
        }
        (None, CaptureKind::AfXdp) => {
            let interface = &config.interfaces[0];
            let queues = interface_info(interface)?.rx_queues.filter(|count| *count > 0);
            let unknown =
                || format!("{interface}: nobody says how many queues it has; give --shards");
            Ok(queues.ok_or_else(unknown)?.try_into()?)
        }
        (None, CaptureKind::Passed) => Ok((passed.len() / config.interfaces.len()).try_into()?),
    }
}

/// Starts them. All sockets are open when it returns.
pub(crate) fn start(config: &Config, ledger: &Ledger) -> Outcome<Feed> {
    let passed = match config.capture {
        CaptureKind::Passed => passed::sockets()?,
        _ => Vec::new(),
    };
    let count = count_of(config, &passed)?;
    let (crew, queues) = Crew::new(config, count, ledger, false)?;
    let (meters, is_ending) = (Arc::clone(&crew.meters), Arc::clone(&crew.is_ending));
    let shards = match config.capture {
        CaptureKind::AfPacket | CaptureKind::Passed => on_interfaces(config, passed, count, crew)?,
        CaptureKind::AfXdp => on_queues(config, count, crew)?,
    };
    Ok(Feed { shards, meters, queues, is_ending })
}

/// What shards take with them, each its own hand.
struct Crew {
    hands: Mutex<Vec<Option<Hand>>>,
    meters: Arc<Vec<Meter>>,
    tracker: Tracker,
    is_ending: Arc<AtomicBool>,
}

/// How flows are tracked.
#[derive(Debug, Clone)]
struct Tracker {
    flows: FlowConfig,
    /// The number of shards that listen to applications, if they do.
    listening: Option<usize>,
}

/// Of each shard.
type Queues = Vec<Receiver<Vec<Body>>>;

impl Crew {
    /// Makes a hand and a queue for each of `count` shards. A hand whose queue is full waits for room if `waits`.
    fn new(config: &Config, count: u16, ledger: &Ledger, waits: bool) -> Outcome<(Self, Queues)> {
        let meters = (0..count).map(|_| Meter::new()).collect::<Outcome<Vec<_>>>()?;
        let (senders, queues): (Vec<_>, Vec<_>) = (0..count).map(|_| bounded(QUEUE)).unzip();
        let entries = (0..count).map(|shard| ledger.entry(shard)).collect::<Result<Vec<_>, _>>()?;
        let is_ending = Arc::new(AtomicBool::new(false));
        let hands = senders.into_iter().zip(entries).zip(0..).map(|((queue, entry), shard)| {
            let hand = Hand {
                shard,
                queue,
                is_ending: Arc::clone(&is_ending),
                until: None,
                waits,
                ledger: ledger.clone(),
                made: entry.made,
                overflowed: entry.overflowed,
                chunk: Vec::with_capacity(CHUNK),
            };
            Some(hand)
        });
        let (hands, tracker) = (Mutex::new(hands.collect()), tracker(config, count.into()));
        Ok((Self { hands, meters: Arc::new(meters), tracker, is_ending }, queues))
    }

    fn hand(&self, shard: usize) -> Hand {
        let mut hands = self.hands.lock().unwrap_or_else(PoisonError::into_inner);
        hands[shard].take().expect("a shard starts once")
    }
}

/// Starts shards each of which has its share of the packets of all interfaces.
fn on_interfaces(config: &Config, passed: Vec<OwnedFd>, count: u16, crew: Crew) -> Outcome<Shards> {
    let netns = config.netns.as_ref().map(NetNs::path);
    let capture = |interface: &String| -> Outcome<CaptureBuilder> {
        let mut capture = Capture::builder()
            .interface(interface)
            .block_timeout_ms(20)
            .promiscuous(true)
            .fanout_flags(FanoutFlags::DEFRAG);
        if let Some(filter) = &config.filter {
            let names = LocalNames::of(interface);
            let parse = || Ok(BpfFilter::parse_with(filter, &names)?);
            capture = capture.filter(match &netns {
                Some(netns) => netns.within(parse)?,
                None => parse()?,
            });
        }
        Ok(match &netns {
            Some(netns) => capture.netns(netns.clone()),
            None => capture,
        })
    };
    let mut captures = config.interfaces.iter().map(capture);
    let first = captures.next().ok_or("no interface")??;
    let mut shards = Shards::builder()
        .capture(first)
        .source(Source::Fanout(FanoutMode::Hash))
        .cores(Cores::All)
        .shards(count.into());
    for capture in captures {
        shards = shards.and_capture(capture?);
    }
    if config.capture == CaptureKind::Passed {
        shards = shards.sockets(passed);
    }
    Ok(shards.spawn(move |shard| {
        let (index, hand) = (shard.index(), crew.hand(shard.index()));
        let (meters, tracker) = (Arc::clone(&crew.meters), crew.tracker.clone());
        let captures = stream::select_all(std::iter::once(shard.capture).chain(shard.others));
        work(index, noted(captures, index, Arc::clone(&meters)), hand, meters, tracker)
    })?)
}

/// Starts shards on the first queues of one interface.
fn on_queues(config: &Config, count: u16, crew: Crew) -> Outcome<Shards> {
    let interface = &config.interfaces[0];
    let mut socket = XdpSocket::builder().interface(interface);
    if let Some(filter) = &config.filter {
        let filter = BpfFilter::parse_with(filter, &LocalNames::of(interface))?;
        socket = socket.program(XdpProgram::filtered(interface, Attach::Auto, &filter)?);
    }
    let shards = Shards::xdp(socket).queues(shard::Queues::Range(0..count.into()));
    Ok(shards.spawn_receivers(move |shard| {
        let (index, hand) = (shard.index(), crew.hand(shard.index()));
        let (meters, tracker) = (Arc::clone(&crew.meters), crew.tracker.clone());
        work(index, noted(shard.capture, index, Arc::clone(&meters)), hand, meters, tracker)
    })?)
}

/// Batches that a shard's meter sees.
fn noted(
    batches: impl Stream<Item = ringtap::Result<PacketBatch>> + Unpin,
    index: usize,
    meters: Arc<Vec<Meter>>,
) -> impl Stream<Item = ringtap::Result<PacketBatch>> + Unpin {
    batches.inspect(move |batch| {
        if let Ok(batch) = batch {
            meters[index].note(batch);
        }
    })
}

/// What makes records of batches that are there already, such as those of files.
pub(crate) struct Reading(Crew);

impl Reading {
    pub(crate) fn new(config: &Config, ledger: &Ledger) -> Outcome<(Self, Queues)> {
        let (crew, queues) = Crew::new(config, 1, ledger, true)?;
        Ok((Self(crew), queues))
    }

    pub(crate) fn meters(&self) -> Arc<Vec<Meter>> {
        Arc::clone(&self.0.meters)
    }

    /// Makes records of all of them, and waits where the spool has no room.
    pub(crate) async fn run(
        self,
        batches: impl Stream<Item = ringtap::Result<PacketBatch>> + Unpin,
    ) -> ringtap::Result<()> {
        let Self(crew) = self;
        let (hand, meters) = (crew.hand(0), Arc::clone(&crew.meters));
        let of_batches = Arc::clone(&meters);
        let batches = batches.inspect(move |batch| {
            if let Ok(batch) = batch {
                of_batches[0].note_read(batch);
            }
        });
        work(0, batches, hand, meters, crew.tracker.clone()).await
    }
}

fn tracker(config: &Config, shards: usize) -> Tracker {
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
    Tracker { flows: tracker, listening: config.applications.then_some(shards) }
}

/// A shard's work, until the shards are stopped: what it has then ends as idle, and is handed over.
async fn work(
    index: usize,
    batches: impl Stream<Item = ringtap::Result<PacketBatch>> + Unpin,
    mut hand: Hand,
    meters: Arc<Vec<Meter>>,
    tracker: Tracker,
) -> ringtap::Result<()> {
    let mut flows = Tracked::new(batches, tracker.flows, tracker.listening);
    let meter = &meters[index];
    let (mut looked, mut told, mut talk) = (Instant::now(), Told::default(), Talk::default());
    loop {
        let next = match flows.next().now_or_never() {
            Some(next) => next,
            None => {
                hand.over(meter)?; // before it waits
                if looked.elapsed() >= TICK {
                    looked = Instant::now();
                    look(meter, flows.table(), &mut talk);
                }
                match time::timeout(TICK, flows.next()).await {
                    Ok(next) => next,
                    Err(time::Elapsed) => continue,
                }
            }
        };
        let Some(next) = next else { break };
        let (record, app) = next?;
        if meter.is_watched.load(Ordering::Relaxed) {
            talk.end(&record);
        }
        hand.chunk.extend(told.since(&record).map(|flow| Body::Flow(Flow { app, ..flow })));
        if hand.chunk.len() == CHUNK {
            hand.over(meter)?;
        }
    }
    hand.over(meter)?;
    look(meter, flows.table(), &mut talk);
    Ok(())
}

fn look(meter: &Meter, table: &ringtap::flow::FlowTable<FiveTuple>, talk: &mut Talk) {
    let of_none = table.stats().packets_unmatched + table.late_packets();
    meter.of_none.store(of_none, Ordering::Relaxed);
    meter.active.store(table.len() as u64, Ordering::Relaxed);
    if meter.is_watched.load(Ordering::Relaxed) {
        let traffic = talk.take(table);
        meter.slow().traffic.add(traffic);
    }
}

/// Hands records over to the spool's thread.
struct Hand {
    shard: u16,
    queue: Sender<Vec<Body>>,
    is_ending: Arc<AtomicBool>,
    /// How long it waits for room then.
    until: Option<Instant>,
    /// Whether it always waits: for packets that wait as well.
    waits: bool,
    ledger: Ledger,
    made: u64,
    overflowed: u64,
    chunk: Vec<Body>,
}

impl Hand {
    /// Never waits while packets come, unless they wait: what there is no room for is counted and gone.
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
            Err(TrySendError::Full(chunk)) if self.waits => self.queue.send(chunk).is_ok(),
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
