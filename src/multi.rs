//! Captures on several interfaces in one stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::afpacket::Capture;
use crate::error::{Error, Result};
use crate::io::AsyncCapture;
use crate::ring::batch::PacketBatch;
use crate::stats::CaptureStats;
use crate::wait::StopHandle;

/// Captures on several interfaces on this thread's reactor. This is a stream of batches, each with the number
/// of its capture.
///
/// ```no_run
/// use ringtap::executor;
/// use ringtap::capture::MultiCapture;
///
/// # fn main() -> ringtap::Result<()> {
/// executor::block_on(async {
///     let mut captures = MultiCapture::open(["eth0", "eth1"])?;
///     while let Some((number, batch)) = captures.next_batch().await? {
///         println!("{}: {} packets", captures.interface(number), batch.len());
///     }
///     Ok(())
/// })
/// # }
/// ```
///
/// The captures take turns, so a flooded one delays the others by at most one batch. If one fails, its error is
/// delivered once, and the others go on.
pub struct MultiCapture {
    /// `None` for a capture that has ended or failed.
    captures: Vec<Option<AsyncCapture>>,
    names: Vec<String>,
    stop: StopHandle,
    /// Number of the capture that is polled next.
    next: usize,
    /// Totals of the captures that have ended.
    ended: CaptureStats,
}

impl MultiCapture {
    /// Opens a capture with the default options on each interface.
    ///
    /// # Errors
    /// As for [`Capture::open`], from the first that fails; [`Error::NoReactor`] on a thread without a reactor.
    pub fn open<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let captures: Result<Vec<_>> = interfaces.into_iter().map(Capture::open).collect();
        Self::new(captures?)
    }

    /// Combines captures that are already open, with any options, even from different namespaces. From now on
    /// they share the stop handle of the first capture; handles obtained earlier from the others have no effect
    /// any more.
    ///
    /// # Errors
    /// [`Error::NoReactor`] on a thread without a reactor; [`Error::InterfaceMissing`] if `captures` is empty.
    pub fn new(captures: impl IntoIterator<Item = Capture>) -> Result<Self> {
        let mut stop = None;
        let (mut all, mut names) = (Vec::new(), Vec::new());
        for mut capture in captures {
            let stop = match &stop {
                Some(stop) => stop,
                None => stop.insert(capture.stop_handle()?),
            };
            capture.share_stop(stop.clone());
            names.push(capture.interface().to_owned());
            all.push(Some(AsyncCapture::new(capture)?));
        }
        let stop = stop.ok_or(Error::InterfaceMissing)?;
        Ok(Self { captures: all, names, stop, next: 0, ended: CaptureStats::default() })
    }

    /// Waits for the next batch. Returns it with the number of its capture, counted from 0; `None` once all
    /// captures have ended.
    ///
    /// Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// As for [`AsyncCapture::next_batch`], once per capture that fails.
    pub async fn next_batch(&mut self) -> Result<Option<(usize, PacketBatch)>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await.transpose()
    }

    /// Returns the number of captures, including those that have ended.
    pub fn len(&self) -> usize {
        self.captures.len()
    }

    /// Returns whether there are no captures, which is never the case.
    pub fn is_empty(&self) -> bool {
        self.captures.is_empty()
    }

    /// Returns the interface of a capture, by its number.
    ///
    /// # Panics
    /// If there is no such capture.
    pub fn interface(&self, number: usize) -> &str {
        &self.names[number]
    }

    /// Returns a capture by its number, unless it has ended or failed.
    pub fn capture(&self, number: usize) -> Option<&AsyncCapture> {
        self.captures.get(number)?.as_ref()
    }

    /// Returns a handle that ends all captures from any thread. The packets in their rings are still delivered.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Returns the totals of all captures, added up.
    ///
    /// # Errors
    /// As for [`Capture::stats`](crate::Capture::stats).
    pub fn stats(&self) -> Result<CaptureStats> {
        self.captures
            .iter()
            .flatten()
            .try_fold(self.ended, |sum, capture| Ok(sum.plus(&capture.stats()?)))
    }

    fn end(&mut self, number: usize) {
        if let Some(capture) = self.captures[number].take() {
            self.ended = self.ended.plus(&capture.stats().unwrap_or_default());
        }
    }
}

impl Stream for MultiCapture {
    type Item = Result<(usize, PacketBatch)>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let count = this.captures.len();
        let mut are_waiting = false;
        for turn in 0..count {
            let number = (this.next + turn) % count;
            let Some(capture) = &mut this.captures[number] else { continue };
            let item = match Pin::new(capture).poll_next(cx) {
                Poll::Pending => {
                    are_waiting = true;
                    continue;
                }
                Poll::Ready(None) => {
                    this.end(number);
                    continue;
                }
                Poll::Ready(Some(Ok(batch))) => Ok((number, batch)),
                Poll::Ready(Some(Err(error))) => {
                    this.end(number);
                    Err(error)
                }
            };
            this.next = (number + 1) % count;
            return Poll::Ready(Some(item));
        }
        if are_waiting { Poll::Pending } else { Poll::Ready(None) }
    }
}

impl fmt::Debug for MultiCapture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultiCapture").field("interfaces", &self.names).finish_non_exhaustive()
    }
}
