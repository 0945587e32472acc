//! A capture file as a stream of batches, at the recorded pace or as fast as possible.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use ringtap_filter::{Ancillary, BpfFilter};

use super::layout::FileInterface;
use super::reader::CaptureReader;
use crate::error::{Error, Result};
use crate::packet::{LinkType, OwnedPacket, Packet, Timestamp};
use crate::ring::batch::PacketBatch;
use crate::ring::batch_builder::BatchBuilder;
use crate::time::{self, Sleep};

/// Limits of a batch, in packets and bytes.
const MAX_PACKETS: usize = 256;
const MAX_BYTES: usize = 1 << 20;
/// Link types for which a filter is compiled at a time.
const MOST_COMPILED: usize = 16;
/// Packets of a recording that are due within this time share a batch.
const TOGETHER: Duration = Duration::from_millis(1);
/// Largest disorder of packets, in nanoseconds; a larger step back means that the clock was set.
const STEP: u64 = 1_000_000_000;

/// Speed at which a recording is played.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Speed {
    /// As fast as the file can be read.
    #[default]
    Fastest,
    /// The recorded speed times a factor: 1.0 keeps it, 2.0 takes half the time. A factor that is not above 0
    /// is an error. A step of the recorded clock into the past is not an error; playback continues without a
    /// delay.
    Recorded(f64),
}

/// Plays a capture file as the batches that a capture would deliver, so that any code for batches also works on
/// files.
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
/// As a stream it waits with this crate's timers, which need a reactor; at [`Speed::Fastest`] it needs none.
/// Reading itself is not async: reading from a pipe may block the thread until a packet arrives.
pub struct PcapSource {
    reader: CaptureReader,
    path: Option<PathBuf>,
    speed: Speed,
    rounds: u64,
    left: u64,
    filter: Option<BpfFilter>,
    /// The filter for the link types so far.
    compiled: Vec<(LinkType, BpfFilter)>,
    sequence: u64,
    /// A batch that was read, and when it is due.
    next: Option<(PacketBatch, Option<Instant>)>,
    /// A packet that was read but belongs to the next batch.
    carried: Option<(OwnedPacket, Option<Instant>)>,
    /// The error that follows the packets read so far.
    fault: Option<Error>,
    clock: Option<Playing>,
    sleep: Option<Sleep>,
    /// Whether any packet was read: a file without packets is played only once.
    has_packets: bool,
}

/// The clock that determines when packets are due.
#[derive(Debug, Clone, Copy)]
struct Playing {
    began: Instant,
    /// Nanoseconds of recording since then, up to the latest packet.
    at: u64,
    /// The time of that packet; `None` at the beginning of another round.
    latest: Option<Timestamp>,
}

impl PcapSource {
    /// Opens a file.
    ///
    /// # Errors
    /// The errors of [`CaptureReader::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut source = Self::on(CaptureReader::open(path)?);
        source.path = Some(path.to_owned());
        Ok(source)
    }

    /// Plays a capture file from any [`Read`].
    ///
    /// # Errors
    /// The errors of [`CaptureReader::from_reader`].
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
            filter: None,
            compiled: Vec::new(),
            sequence: 0,
            next: None,
            carried: None,
            fault: None,
            clock: None,
            sleep: None,
            has_packets: false,
        }
    }

    /// Sets the speed. Default: as fast as possible.
    #[must_use]
    pub fn speed(mut self, speed: Speed) -> Self {
        self.speed = speed;
        self
    }

    /// Sets how often the file is played in succession; a source from a reader is played only once. Default:
    /// once.
    #[must_use]
    pub fn rounds(mut self, rounds: u64) -> Self {
        self.rounds = rounds.max(1);
        self
    }

    /// Sets the maximum number of packets played in all rounds together. No limit by default.
    #[must_use]
    pub fn limit(mut self, packets: u64) -> Self {
        self.left = packets;
        self
    }

    /// Plays only the packets that match `filter`, which is compiled for the link types of the file. The first `vlan` in
    /// it tests the bytes, since files have no tags beside them
    /// ([`FilterTarget::Offline`](crate::filter::FilterTarget::Offline)).
    ///
    /// If the filter cannot be compiled for a packet's link type, that is an error behind the packets before it, and
    /// nothing follows the error.
    #[must_use]
    pub fn filter(mut self, filter: BpfFilter) -> Self {
        (self.filter, self.compiled) = (Some(filter), Vec::new());
        self
    }

    /// Returns the file's interfaces, as far as the file has been read. The index of a packet's interface is
    /// [`interface_index`](crate::Packet::interface_index), counted from 0.
    pub fn interfaces(&self) -> &[FileInterface] {
        self.reader.interfaces()
    }

    /// Waits until the next batch is due and returns it, or `None` at the end.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if the file is damaged, after the packets before the damage; nothing
    /// follows the error.
    pub fn next_batch(&mut self) -> Result<Option<PacketBatch>> {
        let Some(due) = self.load()? else { return Ok(None) };
        if let Some(due) = due {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.sleep = None;
        }
        Ok(self.next.take().map(|(batch, _)| batch))
    }

    /// Returns an iterator over the batches.
    pub fn batches(&mut self) -> impl Iterator<Item = Result<PacketBatch>> + '_ {
        std::iter::from_fn(|| self.next_batch().transpose())
    }

    /// Loads the next batch and returns when it is due, or `None` at the end.
    fn load(&mut self) -> Result<Option<Option<Instant>>> {
        if self.next.is_none() {
            self.next = self.read()?;
        }
        Ok(self.next.as_ref().map(|(_, due)| *due))
    }

    /// Reads packets that are due together, and returns them with the time at which the last of them is due.
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
            // Packets that a pipe has delivered do not wait for later ones.
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
                    // The packets read before it are delivered first.
                    self.fault = Some(error);
                    break;
                }
            };
            match is_wanted(self.filter.as_ref(), &mut self.compiled, &packet) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    self.fault = Some(error);
                    break;
                }
            }
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

    /// Starts the next round. Returns false if there is none.
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

/// Returns whether a packet matches the filter, if there is one.
fn is_wanted(
    filter: Option<&BpfFilter>,
    compiled: &mut Vec<(LinkType, BpfFilter)>,
    packet: &Packet<'_>,
) -> Result<bool> {
    let Some(filter) = filter else { return Ok(true) };
    let link = packet.link_type().unwrap_or(LinkType::UNKNOWN);
    let known = Ancillary::of_len(packet.original_len() as u32);
    if let Some((_, of_link)) = compiled.iter().find(|(of, _)| *of == link) {
        return Ok(of_link.matches_offline(packet.data(), &known));
    }
    let of_link = filter.on(Some(link))?;
    of_link.check_offline()?;
    let is_match = of_link.matches_offline(packet.data(), &known);
    if compiled.len() == MOST_COMPILED {
        compiled.clear();
    }
    compiled.push((link, of_link));
    Ok(is_match)
}

/// Returns when a packet recorded at `time` is due.
fn due(
    clock: &mut Option<Playing>,
    speed: Speed,
    (time, has_time): (Timestamp, bool),
) -> Option<Instant> {
    let Speed::Recorded(factor) = speed else { return None };
    let began = Instant::now();
    let playing = clock.get_or_insert(Playing { began, at: 0, latest: None });
    // A packet without a time is due with the previous one, and a late packet is due at once.
    if has_time {
        let latest = playing.latest.get_or_insert(time);
        let back = latest.as_nanos().saturating_sub(time.as_nanos());
        if back > STEP {
            *latest = time; // the clock was set; continue from there
        }
        playing.at = playing.at.saturating_add(time.as_nanos().saturating_sub(latest.as_nanos()));
        *latest = time.max(*latest);
    }
    let nanos = playing.at as f64 / factor;
    // Limit the delay to a hundred years.
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
