//! Recorded packets as a stream of batches.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::answer::{Answer, Report};
use crate::error::{Error, Result};
use crate::ring::batch::PacketBatch;
use crate::ring::batch_builder::BatchBuilder;

/// Limits of a batch, in packets and bytes.
const MAX_PACKETS: usize = 256;
const MAX_BYTES: usize = 1 << 20;

/// The packets that a [`Query`](super::Query) asked for, as batches; from [`Query::batches`](super::Query::batches).
///
/// ```no_run
/// use ringtap::record::Archive;
///
/// let filter = "udp port 53".parse()?;
/// let mut batches = Archive::open("/var/spool/capture")?.query().filter(filter).batches();
/// while let Some(batch) = batches.next_batch()? {
///     for packet in &batch {
///         println!("{} bytes", packet.len());
///     }
/// }
/// # Ok::<(), ringtap::Error>(())
/// ```
///
/// As a stream it is always ready, and needs no reactor: a file is read by the thread that polls, after the kernel was asked to
/// read ahead what will be wanted.
#[derive(Debug)]
pub struct Batches {
    answer: Answer,
    sequence: u64,
    /// The error that follows the packets read so far.
    fault: Option<Error>,
}

impl Batches {
    pub(super) fn new(answer: Answer) -> Self {
        Self { answer, sequence: 0, fault: None }
    }

    /// Returns what was read so far.
    pub fn report(&self) -> Report {
        self.answer.report()
    }

    /// Returns the next packets, or `None` at the end.
    ///
    /// # Errors
    /// [`Error::File`] if a file cannot be read, after the packets before it; the other files are read all the same.
    pub fn next_batch(&mut self) -> Result<Option<PacketBatch>> {
        let mut batch = BatchBuilder::default();
        while self.fault.is_none() && batch.len() < MAX_PACKETS && batch.bytes() < MAX_BYTES {
            match self.answer.next() {
                Some(Ok(packet)) => batch.push(&packet.as_packet()),
                Some(Err(error)) => self.fault = Some(error),
                None => break,
            }
        }
        if batch.is_empty() {
            return self.fault.take().map_or(Ok(None), Err);
        }
        self.sequence += 1;
        Ok(Some(batch.finish(self.sequence)))
    }
}

impl Stream for Batches {
    type Item = Result<PacketBatch>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.next_batch().transpose())
    }
}
