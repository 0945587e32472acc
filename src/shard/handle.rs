//! What is left in the hands of whoever started the shards.

use std::fmt;
use std::thread::JoinHandle;

use super::plan::ShardSpec;
use crate::afpacket::{FilterHandle, StatsHandle};
#[cfg(feature = "af-xdp")]
use crate::afxdp::XdpStatsHandle;
use crate::error::{Error, Result};
use crate::filter::BpfFilter;
use crate::reactor::ReactorStatsHandle;
use crate::stats::{CaptureStats, ReactorStats};
use crate::wait::StopHandle;

/// Reads one shard's statistics.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    pub(super) ports: Vec<ReadStats>,
    pub(super) reactor: ReactorStatsHandle,
}

/// Reads one socket's statistics.
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

    fn filter(&self) -> Option<&FilterHandle> {
        match self {
            Self::Capture(_, filter) => Some(filter),
            #[cfg(feature = "af-xdp")]
            Self::Xdp(_) => None,
        }
    }
}

/// Captures on every core, running: from [`Shards::builder`]. Watch them, stop them, join them.
///
/// Dropping this stops the shards and waits for their end.
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

/// One shard's statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardStats {
    /// Which shard, and where.
    pub spec: ShardSpec,
    /// Its sockets' totals, added up; see `XdpStats::as_capture` for those of AF_XDP.
    pub capture: CaptureStats,
    /// Its reactor's totals.
    pub reactor: ReactorStats,
}

/// Every shard's statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllShardStats {
    shards: Vec<ShardStats>,
}

/// How shards ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct ShardsReport {
    /// How each ended, by number.
    pub outcomes: Vec<Result<()>>,
    /// Their last statistics.
    pub stats: AllShardStats,
}

impl AllShardStats {
    /// The shards, by number.
    pub fn shards(&self) -> &[ShardStats] {
        &self.shards
    }

    /// All captures added up.
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

    /// How many shards were started.
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Whether there are none; there always are.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// Every shard's statistics now, read without disturbing their data paths.
    ///
    /// # Errors
    /// [`Error::Os`] where the kernel refuses to tell.
    pub fn stats(&self) -> Result<AllShardStats> {
        let shards = self.specs.iter().zip(&self.readers).map(|(&spec, readers)| {
            let ports = readers.ports.iter().map(ReadStats::stats);
            let capture = ports.sum::<Result<CaptureStats>>()?;
            Ok(ShardStats { spec, capture, reactor: readers.reactor.stats() })
        });
        Ok(AllShardStats { shards: shards.collect::<Result<_>>()? })
    }

    /// Has every capture of every shard take only these packets from now on; see
    /// [`Capture::set_filter`](crate::Capture::set_filter). One after the other: for a moment some take what others
    /// do not.
    ///
    /// # Errors
    /// As there, of the first that refuses; the others have the new filter. [`Error::Other`] on AF_XDP, where the
    /// program decides.
    pub fn set_filter(&self, filter: &BpfFilter) -> Result<()> {
        self.each_filter(|handle| handle.set(filter))
    }

    /// Has them take all packets again.
    ///
    /// # Errors
    /// As [`set_filter`](Self::set_filter).
    pub fn clear_filter(&self) -> Result<()> {
        self.each_filter(FilterHandle::clear)
    }

    fn each_filter(&self, change: impl Fn(&FilterHandle) -> Result<()>) -> Result<()> {
        let mut outcome = Ok(());
        for port in self.readers.iter().flat_map(|readers| &readers.ports) {
            let changed = match port.filter() {
                Some(filter) => change(filter),
                None => Err(Error::other("AF_XDP sockets have no filter: `XdpProgram::filtered`")),
            };
            outcome = outcome.and(changed);
        }
        outcome
    }

    /// Asks all shards to drain and end: no further packet gets in, what their rings hold is
    /// delivered, then their streams end.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// A handle to stop the shards from elsewhere, for a signal handler's thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Whether every shard has ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until every shard has ended, and returns their last statistics. Stops none: call
    /// [`stop`](Self::stop) first.
    ///
    /// # Errors
    /// [`Error::Shard`] or [`Error::ShardPanicked`] of the lowest-numbered shard that failed;
    /// [`join_each`](Self::join_each) has all of them, and the statistics too.
    pub fn join(self) -> Result<AllShardStats> {
        let report = self.join_each()?;
        report.outcomes.into_iter().collect::<Result<()>>()?;
        Ok(report.stats)
    }

    /// Waits until every shard has ended: how each of them ended, and their last statistics.
    ///
    /// # Errors
    /// [`Error::Os`] where the kernel refuses to tell the statistics.
    pub fn join_each(mut self) -> Result<ShardsReport> {
        let outcomes = self.join_threads();
        Ok(ShardsReport { outcomes, stats: self.stats()? })
    }

    fn join_threads(&mut self) -> Vec<Result<()>> {
        let joined = self.threads.drain(..).enumerate().map(|(index, thread)| {
            thread.join().unwrap_or_else(|_| {
                // The shard's own panics are caught in its thread: this one was a destructor's.
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
