//! Writing the batches of a stream as they pass.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_core::Stream;

use super::sink::PacketSink;
use crate::error::{Error, Result};
use crate::reactor::Reactor;
use crate::ring::batch::PacketBatch;
use crate::time::{self, Sleep};

/// Reaction of a [`PcapTap`] to a write error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TapPolicy {
    /// Counts the error and continues.
    #[default]
    Continue,
    /// Counts the error and stops writing; the stream continues.
    DropTap,
    /// Delivers the error instead of the batch; the stream continues with the next batch. Errors of
    /// [`PacketSink::tick`] are only counted.
    FailStream,
}

/// A stream of batches that are written as they pass; from [`PcapTapExt::with_pcap_tap`].
#[derive(Debug)]
pub struct PcapTap<St, S> {
    stream: St,
    sink: S,
    /// Whether batches are still written.
    is_writing: bool,
    policy: TapPolicy,
    errors: u64,
    last_error: Option<Error>,
    /// When the sink's next tick is due, and the timer for it.
    tick: Option<(Instant, Sleep)>,
}

/// Extension of streams of batches that writes them as they pass.
pub trait PcapTapExt: Stream<Item = Result<PacketBatch>> + Sized {
    /// Writes each batch to `sink` and passes it on.
    ///
    /// A file is written synchronously, which may take a while: use a
    /// [`BackgroundWriter`](super::BackgroundWriter) as the sink to write in a thread.
    fn with_pcap_tap<S: PacketSink>(self, sink: S, policy: TapPolicy) -> PcapTap<Self, S> {
        let (errors, last_error) = (0, None);
        PcapTap { stream: self, sink, is_writing: true, policy, errors, last_error, tick: None }
    }
}

impl<St: Stream<Item = Result<PacketBatch>>> PcapTapExt for St {}

impl<St, S> PcapTap<St, S> {
    /// Returns the number of write errors.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Takes the latest error.
    pub fn take_error(&mut self) -> Option<Error> {
        self.last_error.take()
    }

    /// Returns whether batches are still written. After an error with [`TapPolicy::DropTap`] they are not.
    pub fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// Returns the sink.
    pub fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Returns the inner stream.
    pub fn get_ref(&self) -> &St {
        &self.stream
    }

    /// Splits this into the stream and the sink.
    pub fn into_parts(self) -> (St, S) {
        (self.stream, self.sink)
    }
}

impl<St, S: PacketSink> PcapTap<St, S> {
    /// Ticks the sink when it is due, even if no packet arrives. Without a reactor there is no timer, and
    /// nothing happens.
    fn poll_tick(&mut self, cx: &mut Context<'_>) {
        while let Some(due) = self.sink.next_due().filter(|_| Reactor::current().is_ok()) {
            let tick = match &mut self.tick {
                Some((when, tick)) if *when == due => tick,
                tick => &mut tick.insert((due, time::sleep_until(due))).1,
            };
            if Pin::new(tick).poll(cx).is_pending() {
                return;
            }
            self.tick = None;
            if let Err(error) = self.sink.tick() {
                self.errors += 1;
                self.is_writing = self.policy != TapPolicy::DropTap;
                self.last_error = Some(error);
                return;
            }
        }
    }
}

impl<St, S> Stream for PcapTap<St, S>
where
    St: Stream<Item = Result<PacketBatch>> + Unpin,
    S: PacketSink + Unpin,
{
    type Item = Result<PacketBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = Pin::new(&mut this.stream).poll_next(cx);
        if next.is_pending() && this.is_writing {
            this.poll_tick(cx);
        }
        let (Poll::Ready(Some(Ok(batch))), true) = (&next, this.is_writing) else {
            return next;
        };
        let Err(error) = this.sink.write_batch(batch) else { return next };
        this.errors += 1;
        match this.policy {
            TapPolicy::FailStream => return Poll::Ready(Some(Err(error))),
            TapPolicy::DropTap => this.is_writing = false,
            TapPolicy::Continue => {}
        }
        this.last_error = Some(error);
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}
