//! Several interfaces in one stream.

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

/// Captures on several interfaces, on this thread's reactor: a stream of batches, each with the number of the capture
/// that it is of.
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
/// They take turns: one that is flooded holds up none of the others by more than a batch. Where one fails, the error is
/// delivered once, and the others go on.
pub struct MultiCapture {
    /// `None`: it has ended, or failed.
    captures: Vec<Option<AsyncCapture>>,
    names: Vec<String>,
    stop: StopHandle,
    /// Whose turn it is.
    next: usize,
    /// What those counted that have ended.
    ended: CaptureStats,
}

impl MultiCapture {
    /// Opens one with the default options on each interface.
    ///
    /// # Errors
    /// As [`Capture::open`], of the first that fails; [`Error::NoReactor`] on a thread without a reactor.
    pub fn open<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let captures: Result<Vec<_>> = interfaces.into_iter().map(Capture::open).collect();
        Self::new(captures?)
    }

    /// Of captures that are open, with whatever options, be they of other namespaces. From here on they have one stop
    /// handle, that of the first: one that was got of another before does nothing any more.
    ///
    /// # Errors
    /// [`Error::NoReactor`] on a thread without a reactor; [`Error::InterfaceMissing`] where there are none.
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

    /// The next batch, and the number of its capture, counted from 0; `None` once all have ended.
    ///
    /// Cancel safe: a wait that is dropped loses nothing.
    ///
    /// # Errors
    /// As [`AsyncCapture::next_batch`], once of each that fails.
    pub async fn next_batch(&mut self) -> Result<Option<(usize, PacketBatch)>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await.transpose()
    }

    /// How many captures there were at first.
    pub fn len(&self) -> usize {
        self.captures.len()
    }

    /// Whether there were none, which is so of no such stream.
    pub fn is_empty(&self) -> bool {
        self.captures.is_empty()
    }

    /// The interface of a capture, by its number.
    ///
    /// # Panics
    /// Where there is no such capture.
    pub fn interface(&self, number: usize) -> &str {
        &self.names[number]
    }

    /// A capture, by its number, unless it has ended or failed.
    pub fn capture(&self, number: usize) -> Option<&AsyncCapture> {
        self.captures.get(number)?.as_ref()
    }

    /// Ends all of them, from any thread: what their rings hold is delivered.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// What all counted together.
    ///
    /// # Errors
    /// As [`Capture::stats`](crate::Capture::stats).
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
