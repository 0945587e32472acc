//! A capture file as a stream of batches, at its own pace or as fast as it goes.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::layout::FileInterface;
use super::reader::CaptureReader;
use crate::error::{Error, Result};
use crate::packet::{OwnedPacket, Timestamp};
use crate::ring::batch::PacketBatch;
use crate::ring::batch_builder::BatchBuilder;
use crate::time::{self, Sleep};

/// The most packets a batch has, and bytes.
const MAX_PACKETS: usize = 256;
const MAX_BYTES: usize = 1 << 20;
/// Packets of a recording that come within so much time come together.
const TOGETHER: Duration = Duration::from_millis(1);
/// Packets are out of order by less than this, in nanoseconds; a step back by more is one of the clock.
const STEP: u64 = 1_000_000_000;

/// How fast a recording is played.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Speed {
    /// As fast as it can be read.
    #[default]
    Fastest,
    /// As it was recorded, so many times as fast: 1.0 as it was, 2.0 in half the time; not above 0 it is an error. A
    /// step of the clock into the past is none.
    Recorded(f64),
}

/// Plays a capture file: the same batches as a capture delivers, so that whatever is made for these works on files.
///
/// ```no_run
/// use ringtap::pcap::PcapSource;
///
/// for batch in PcapSource::open("a.pcap")?.batches() {
///     for packet in &batch? {
///         println!("{} bytes", packet.len());
///     }
/// }
/// # Ok::<(), ringtap::Error>(())
/// ```
///
/// As a stream it waits by this crate's timers, which take a reactor; as fast as it goes it needs none. Reading itself is
/// not async: from a pipe it may hold up its thread until there is a packet.
pub struct PcapSource {
    reader: CaptureReader,
    path: Option<PathBuf>,
    speed: Speed,
    rounds: u64,
    left: u64,
    sequence: u64,
    /// A batch that was read, and when it is due.
    next: Option<(PacketBatch, Option<Instant>)>,
    /// What was read beyond a batch.
    carried: Option<(OwnedPacket, Option<Instant>)>,
    /// What is wrong behind it.
    fault: Option<Error>,
    clock: Option<Playing>,
    sleep: Option<Sleep>,
    /// Whether there was any: a file without is played once.
    has_packets: bool,
}

/// When packets are due.
#[derive(Debug, Clone, Copy)]
struct Playing {
    began: Instant,
    /// Nanoseconds of recording since then, up to the latest packet.
    at: u64,
    /// That packet's time; `None` where another round begins.
    latest: Option<Timestamp>,
}

impl PcapSource {
    /// Opens a file.
    ///
    /// # Errors
    /// As [`CaptureReader::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut source = Self::on(CaptureReader::open(path)?);
        source.path = Some(path.to_owned());
        Ok(source)
    }

    /// Plays what a reader delivers.
    ///
    /// # Errors
    /// As [`CaptureReader::from_reader`].
    pub fn from_reader(reader: impl Read + Send + 'static) -> Result<Self> {
        Ok(Self::on(CaptureReader::from_reader(reader)?))
    }

    fn on(reader: CaptureReader) -> Self {
        Self {
            reader,
            path: None,
            speed: Speed::Fastest,
            rounds: 1,
            left: u64::MAX,
            sequence: 0,
            next: None,
            carried: None,
            fault: None,
            clock: None,
            sleep: None,
            has_packets: false,
        }
    }

    /// How fast. Default as fast as it goes.
    #[must_use]
    pub fn speed(mut self, speed: Speed) -> Self {
        self.speed = speed;
        self
    }

    /// How often it is played, one after the other; a reader once only. Default once.
    #[must_use]
    pub fn rounds(mut self, rounds: u64) -> Self {
        self.rounds = rounds.max(1);
        self
    }

    /// The most packets that are played, in all rounds together. Default all.
    #[must_use]
    pub fn limit(mut self, packets: u64) -> Self {
        self.left = packets;
        self
    }

    /// The file's interfaces, as far as it was read; a packet's is
    /// [`interface_index`](crate::Packet::interface_index), counted from 0.
    pub fn interfaces(&self) -> &[FileInterface] {
        self.reader.interfaces()
    }

    /// The next batch, when it is due; `None` at the end.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) where the file is damaged, behind the packets before; after that, the end.
    pub fn next_batch(&mut self) -> Result<Option<PacketBatch>> {
        let Some(due) = self.load()? else { return Ok(None) };
        if let Some(due) = due {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.sleep = None;
        }
        Ok(self.next.take().map(|(batch, _)| batch))
    }

    /// The batches, one after the other.
    pub fn batches(&mut self) -> impl Iterator<Item = Result<PacketBatch>> + '_ {
        std::iter::from_fn(|| self.next_batch().transpose())
    }

    /// Has the next batch at hand: when it is due; `None` at the end.
    fn load(&mut self) -> Result<Option<Option<Instant>>> {
        if self.next.is_none() {
            self.next = self.read()?;
        }
        Ok(self.next.as_ref().map(|(_, due)| *due))
    }

    /// Reads packets that are due together, and when the last of them is.
    fn read(&mut self) -> Result<Option<(PacketBatch, Option<Instant>)>> {
        if let Some(error) = self.fault.take() {
            self.left = 0;
            return Err(error);
        }
        if let Speed::Recorded(factor) = self.speed
            && (factor.is_nan() || factor <= 0.0)
        {
            self.left = 0;
            self.speed = Speed::Fastest;
            return Err(Error::other(format!("a speed above 0, not {factor}")));
        }
        let mut batch = BatchBuilder::default();
        let (mut first, mut last) = (None, None);
        if let Some((packet, due)) = self.carried.take() {
            (first, last) = (due, due);
            batch.push(&packet.as_packet());
        }
        while self.left > 0 && batch.len() < MAX_PACKETS && batch.bytes() < MAX_BYTES {
            // What a pipe has brought is not held back for what it may bring.
            if !batch.is_empty() && !self.reader.is_at_hand() && !self.reader.is_at_end() {
                break;
            }
            let (packet, has_time) = match self.reader.next_record() {
                Ok(Some(record)) => (record.packet(), record.has_time()),
                Ok(None) => match self.rewind() {
                    Ok(true) => continue,
                    Ok(false) => break,
                    Err(error) => {
                        self.fault = Some(error);
                        break;
                    }
                },
                Err(error) => {
                    // What was read before it comes first.
                    self.fault = Some(error);
                    break;
                }
            };
            let due = due(&mut self.clock, self.speed, (packet.timestamp(), has_time));
            self.left -= 1;
            self.has_packets = true;
            if let (Some(first), Some(due)) = (first, due)
                && due > first + TOGETHER
            {
                self.carried = Some((packet.to_owned(), Some(due)));
                break;
            }
            first = first.or(due);
            last = due;
            batch.push(&packet);
        }
        if batch.is_empty() {
            return match self.fault.take() {
                Some(error) => {
                    self.left = 0;
                    Err(error)
                }
                None => Ok(None),
            };
        }
        self.sequence += 1;
        Ok(Some((batch.finish(self.sequence), last)))
    }

    /// Begins anew, if there is another round: whether there is.
    fn rewind(&mut self) -> Result<bool> {
        let Some(path) = self.path.as_ref().filter(|_| self.rounds > 1 && self.has_packets) else {
            return Ok(false);
        };
        self.rounds -= 1;
        self.reader = CaptureReader::open(path)?;
        if let Some(clock) = &mut self.clock {
            clock.latest = None;
        }
        Ok(true)
    }
}

/// When a packet is due, which was recorded at `time`.
fn due(
    clock: &mut Option<Playing>,
    speed: Speed,
    (time, has_time): (Timestamp, bool),
) -> Option<Instant> {
    let Speed::Recorded(factor) = speed else { return None };
    let began = Instant::now();
    let playing = clock.get_or_insert(Playing { began, at: 0, latest: None });
    // Without a time it is due with the one before, and one that comes late is due at once.
    if has_time {
        let latest = playing.latest.get_or_insert(time);
        let back = latest.as_nanos().saturating_sub(time.as_nanos());
        if back > STEP {
            *latest = time; // the clock was set, and goes on from there
        }
        playing.at = playing.at.saturating_add(time.as_nanos().saturating_sub(latest.as_nanos()));
        *latest = time.max(*latest);
    }
    let nanos = playing.at as f64 / factor;
    // What is due in a hundred years is due then.
    let most = Duration::from_secs(100 * 365 * 86_400);
    Some(playing.began + Duration::try_from_secs_f64(nanos / 1e9).unwrap_or(most).min(most))
}

impl Stream for PcapSource {
    type Item = Result<PacketBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let due = match this.load() {
            Ok(Some(due)) => due,
            Ok(None) => return Poll::Ready(None),
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        if let Some(due) = due {
            let sleep = this.sleep.get_or_insert_with(|| time::sleep_until(due));
            ready!(Pin::new(sleep).poll(cx));
            this.sleep = None;
        }
        Poll::Ready(this.next.take().map(|(batch, _)| Ok(batch)))
    }
}

impl fmt::Debug for PcapSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapSource")
            .field("reader", &self.reader)
            .field("speed", &self.speed)
            .field("rounds", &self.rounds)
            .finish_non_exhaustive()
    }
}
