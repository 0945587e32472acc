//! Handles for the program that started the shards.

use std::fmt;
use std::thread::JoinHandle;

use ringtap_filter::BpfFilter;

use super::plan::ShardSpec;
use crate::afpacket::{FilterHandle, StatsHandle};
#[cfg(feature = "af-xdp")]
use crate::afxdp::XdpStatsHandle;
use crate::error::{Error, Result};
use crate::reactor::ReactorStatsHandle;
#[cfg(feature = "af-xdp")]
use crate::stats::XdpStats;
use crate::stats::{CaptureStats, ReactorStats};
use crate::wait::StopHandle;

/// Reads the statistics of one shard.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    pub(super) ports: Vec<ReadStats>,
    pub(super) reactor: ReactorStatsHandle,
}

/// Reads the statistics of one socket.
#[derive(Debug, Clone)]
pub(super) enum ReadStats {
    Capture(StatsHandle, FilterHandle),
    #[cfg(feature = "af-xdp")]
    Xdp(XdpStatsHandle),
}

impl ReadStats {
    fn stats(&self) -> Result<CaptureStats> {
        match self {
            Self::Capture(handle, _) => handle.stats(),
            #[cfg(feature = "af-xdp")]
            Self::Xdp(handle) => Ok(handle.stats()?.as_capture()),
        }
    }

    #[cfg(feature = "af-xdp")]
    fn xdp(&self) -> Option<Result<XdpStats>> {
        match self {
            Self::Capture(..) => None,
            Self::Xdp(handle) => Some(handle.stats()),
        }
    }

    fn filter(&self) -> Option<&FilterHandle> {
        match self {
            Self::Capture(_, filter) => Some(filter),
            #[cfg(feature = "af-xdp")]
            Self::Xdp(_) => None,
        }
    }
}

/// Running captures on several cores, from [`Shards::builder`]. They can be watched, stopped and joined.
///
/// Dropping this stops the shards and waits for them to end.
///
/// ```no_run
/// use futures_util::StreamExt;
/// use ringtap::Shards;
/// use ringtap::fanout::FanoutMode;
/// use ringtap::shard::{Cores, Source};
///
/// # fn main() -> ringtap::Result<()> {
/// let shards = Shards::builder()
///     .interface("eth0")
///     .source(Source::Fanout(FanoutMode::Hash))
///     .cores(Cores::All)
///     .spawn(|mut shard| async move {
///         while let Some(batch) = shard.capture.next().await {
///             let batch = batch?;
///             println!("shard {}: {} packets", shard.index(), batch.len());
///         }
///         Ok(())
///     })?;
/// std::thread::sleep(std::time::Duration::from_secs(10));
/// shards.stop();
/// println!("{:?}", shards.join()?.total());
/// # Ok(())
/// # }
/// ```
pub struct Shards {
    threads: Vec<JoinHandle<Result<()>>>,
    specs: Vec<ShardSpec>,
    readers: Vec<Readers>,
    stop: StopHandle,
}

/// Statistics of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardStats {
    /// The shard's number and core.
    pub spec: ShardSpec,
    /// Totals of its sockets, added up. For those of AF_XDP, see `XdpStats::as_capture`.
    pub capture: CaptureStats,
    /// All counters of its AF_XDP socket, if it has one.
    #[cfg(feature = "af-xdp")]
    pub xdp: Option<XdpStats>,
    /// Totals of its reactor.
    pub reactor: ReactorStats,
}

/// Statistics of all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllShardStats {
    shards: Vec<ShardStats>,
}

/// The outcome of all shards.
#[derive(Debug)]
#[non_exhaustive]
pub struct ShardsReport {
    /// The result of each shard, by number.
    pub outcomes: Vec<Result<()>>,
    /// The final statistics.
    pub stats: AllShardStats,
}

impl AllShardStats {
    /// Returns the statistics of each shard, by number.
    pub fn shards(&self) -> &[ShardStats] {
        &self.shards
    }

    /// Returns the totals of all captures, added up.
    pub fn total(&self) -> CaptureStats {
        self.shards.iter().map(|shard| shard.capture).sum()
    }
}

impl Shards {
    pub(super) fn new(
        threads: Vec<JoinHandle<Result<()>>>,
        specs: Vec<ShardSpec>,
        readers: Vec<Readers>,
        stop: StopHandle,
    ) -> Self {
        Self { threads, specs, readers, stop }
    }

    /// Returns the number of shards.
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Returns whether there are no shards, which is never the case.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// Reads the current statistics of all shards without disturbing their data paths.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses to report them.
    pub fn stats(&self) -> Result<AllShardStats> {
        let shards = self.specs.iter().zip(&self.readers).map(|(&spec, readers)| {
            let ports = readers.ports.iter().map(ReadStats::stats);
            let capture = ports.sum::<Result<CaptureStats>>()?;
            Ok(ShardStats {
                spec,
                capture,
                #[cfg(feature = "af-xdp")]
                xdp: readers.ports.iter().find_map(ReadStats::xdp).transpose()?,
                reactor: readers.reactor.stats(),
            })
        });
        Ok(AllShardStats { shards: shards.collect::<Result<_>>()? })
    }

    /// Sets the filter of every capture of every shard; see
    /// [`Capture::set_filter`](crate::Capture::set_filter). The captures change one after the other, so for a
    /// moment some accept packets that others do not.
    ///
    /// # Errors
    /// As for [`Capture::set_filter`](crate::Capture::set_filter), from the first capture that refuses; the
    /// others have the new filter. [`Error::FilteredByProgram`] on AF_XDP.
    pub fn set_filter(&self, filter: &BpfFilter) -> Result<()> {
        self.each_filter(|handle| handle.set(filter))
    }

    /// Removes the filter from every capture.
    ///
    /// # Errors
    /// As for [`set_filter`](Self::set_filter).
    pub fn clear_filter(&self) -> Result<()> {
        self.each_filter(FilterHandle::clear)
    }

    fn each_filter(&self, change: impl Fn(&FilterHandle) -> Result<()>) -> Result<()> {
        let mut outcome = Ok(());
        for port in self.readers.iter().flat_map(|readers| &readers.ports) {
            let changed = match port.filter() {
                Some(filter) => change(filter),
                None => Err(Error::FilteredByProgram),
            };
            outcome = outcome.and(changed);
        }
        outcome
    }

    /// Asks all shards to drain and end. No further packets come in, the packets in the rings are delivered,
    /// and then the streams end.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Returns a handle that stops the shards from elsewhere, such as the thread of a signal handler.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Returns whether every shard has ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until every shard has ended, and returns the final statistics. This does not stop any shard; call
    /// [`stop`](Self::stop) first.
    ///
    /// # Errors
    /// [`Error::Shard`] or [`Error::ShardPanicked`] of the failed shard with the lowest number. To get all of
    /// them and the statistics as well, use [`join_each`](Self::join_each).
    pub fn join(self) -> Result<AllShardStats> {
        let report = self.join_each()?;
        report.outcomes.into_iter().collect::<Result<()>>()?;
        Ok(report.stats)
    }

    /// Waits until every shard has ended, and returns the result of each shard and the final statistics.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses to report the statistics.
    pub fn join_each(mut self) -> Result<ShardsReport> {
        let outcomes = self.join_threads();
        Ok(ShardsReport { outcomes, stats: self.stats()? })
    }

    fn join_threads(&mut self) -> Vec<Result<()>> {
        let joined = self.threads.drain(..).enumerate().map(|(index, thread)| {
            thread.join().unwrap_or_else(|_| {
                // Panics of the shard itself are caught in its thread, so this one came from a destructor.
                Err(Error::ShardPanicked { index, message: "while ending".to_owned() })
            })
        });
        joined.collect()
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.stop.stop();
        self.join_threads();
    }
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("specs", &self.specs).finish_non_exhaustive()
    }
}
