//! The copying path: the header and the statistics of a file, and packets that are not in a block of a ring.

use std::time::{Duration, Instant};

use crate::error::{FileError, Result};
use crate::pcap::{CaptureWriter, CaptureWriterBuilder, InterfaceStatistics};
use crate::ring::batch::PacketBatch;
use crate::ring::rewrite::pcapng::{Account, WHOLE_ACCOUNT, account_block, filler};
use crate::sys::aligned::AlignedBuf;

/// A disk takes multiples of this many bytes, from memory that begins at one.
pub(super) const ALIGN: usize = 4096;
/// How much is gathered before it is written.
const ENOUGH: usize = 1 << 20;
/// How long packets wait for more.
const IDLE: Duration = Duration::from_secs(1);
/// The times of packets that are never passed over: there are descriptions of interfaces between them.
pub(super) const ALWAYS: (u64, u64) = (0, u64::MAX);

/// An account without packets, for the end of a file that was closed without it.
pub(super) fn end_of_recording(account: &Account) -> Vec<u8> {
    let mut end = account_block(account, 0, ALIGN as u32, ALWAYS).to_vec();
    let filler = filler(ALIGN - end.len(), ALIGN);
    end.extend(filler);
    end
}

/// What was formatted, with an account before it.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) buffer: AlignedBuf,
    pub(super) packets: u64,
    /// The times of the earliest and the latest packet.
    pub(super) times: (u64, u64),
}

/// Formats packets, and gathers what was formatted.
#[derive(Debug)]
pub(super) struct Copying {
    writer: CaptureWriter<Vec<u8>>,
    packets: u64,
    /// The times of the earliest and the latest packet.
    times: (u64, u64),
    describes_each: bool,
    /// Whether the header was taken.
    has_begun: bool,
    /// When the first of the packets was formatted.
    since: Option<Instant>,
}

impl Copying {
    /// Begins a file: its header is there already.
    pub(super) fn new(file: &CaptureWriterBuilder, describes_each: bool) -> Result<Self> {
        let writer = file.clone().to(Vec::new())?;
        let (times, has_begun) = ((u64::MAX, 0), false);
        Ok(Self { writer, packets: 0, times, describes_each, has_begun, since: None })
    }

    /// Formats packets. Returns whether there is enough to be written. If this fails, those that could be formatted were.
    pub(super) fn push(&mut self, batch: &PacketBatch) -> Result<bool> {
        let before = self.writer.stats().packets;
        let formatted = self.writer.write_batch(batch);
        self.packets += self.writer.stats().packets - before;
        self.since.get_or_insert_with(Instant::now);
        formatted?;
        let nanos = batch.iter().map(|packet| packet.timestamp().as_nanos());
        let (earliest, latest) = self.times;
        self.times = nanos.fold((earliest, latest), |(earliest, latest), nanos| {
            (earliest.min(nanos), latest.max(nanos))
        });
        Ok(self.writer.get_ref().len() >= ENOUGH)
    }

    /// Returns when packets that were formatted are to be written, however few they are.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.filter(|_| self.packets > 0).map(|since| since + IDLE)
    }

    /// Returns the packets that are not taken yet.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Takes what was formatted.
    pub(super) fn take(&mut self, account: &Account) -> Result<Option<Gathered>> {
        self.writer.flush()?;
        self.since = None;
        if self.writer.get_ref().is_empty() { Ok(None) } else { self.gathered(account).map(Some) }
    }

    /// Takes what the file ends with: an account without packets, and the statistics if there are some.
    pub(super) fn end(&mut self, account: &Account) -> Result<Gathered> {
        self.writer.flush()?;
        self.gathered(account)
    }

    /// Adds the statistics of the first interface, for the end of the file. There is none before the first packet of a
    /// capture on `any`.
    pub(super) fn add_statistics(&mut self, statistics: &InterfaceStatistics) {
        let _ = self.writer.write_statistics(0, statistics);
    }

    /// Puts an account before what was formatted, except before the header.
    fn gathered(&mut self, account: &Account) -> Result<Gathered> {
        let bytes = std::mem::take(self.writer.get_mut());
        let has_account = std::mem::replace(&mut self.has_begun, true);
        let packets = std::mem::take(&mut self.packets);
        let times = std::mem::replace(&mut self.times, (u64::MAX, 0));
        let times = if self.describes_each || packets == 0 { ALWAYS } else { times };
        let head = if has_account { WHOLE_ACCOUNT } else { 0 };
        let len = (head + bytes.len()).next_multiple_of(ALIGN);
        let filler = filler(len - head - bytes.len(), ALIGN);
        let len = head + bytes.len() + filler.len();
        let mut buffer = AlignedBuf::new(len).map_err(|error| FileError::io(0, error))?;
        if has_account {
            buffer.push(&account_block(account, packets as u32, len as u32, times));
        }
        buffer.push(&bytes);
        buffer.push(&filler);
        Ok(Gathered { buffer, packets, times })
    }
}
