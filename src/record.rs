//! Recording packets to disk from where the kernel has put them.
//!
//! A [`Recorder`] turns a block of a ring into a part of a pcapng file where it lies, and writes it from there by the
//! reactor's io_uring, past the page cache: no thread, no copy, and no system call of its own. The block returns to the
//! kernel once it is on the disk.
//!
//! ```no_run
//! use ringtap::pcap::FileInterface;
//! use ringtap::record::Recorder;
//! use ringtap::{AsyncCapture, Capture, executor};
//!
//! fn main() -> ringtap::Result<()> {
//!     executor::block_on(async {
//!         let capture = Capture::builder().interface("eth0").for_recording(true).build()?;
//!         let mut capture = AsyncCapture::new(capture)?;
//!         let recorder = Recorder::builder("/var/spool/capture", "eth0");
//!         let recorder = recorder.interface(FileInterface::ethernet("eth0"));
//!         let mut recorder = recorder.max_bytes(1 << 30).keep_bytes(500 << 30).build()?;
//!         recorder.record(&mut capture).await?;
//!         println!("{:?}", recorder.finish().await?);
//!         Ok(())
//!     })
//! }
//! ```
//!
//! `docs/RECORDING.md` has the layout of the files, and figures.
//!
//! ```text
//!   Recorder ──► Current ──► Output ──► reactor: PendingFile     a file, and its writes in flight
//!      │            ├──────► Copying ──► CaptureWriter            what cannot be turned into pcapng where it lies
//!      │            └──────► Collector ──► IndexFile              which terms are where in it
//!      └───────► Next, Names                                      which files there are
//!   Archive ──► Answer, Batches ──► Segments ──► CaptureReader    asked for by time and filter
//! ```

mod answer;
mod archive;
mod batches;
mod builder;
mod copying;
mod current;
mod explain;
mod index;
mod index_file;
mod leftover;
mod next;
mod output;
mod parts;
mod progress;
mod rebuild;
mod recorder;
mod segments;
mod stats;
#[cfg(test)]
mod tests;
mod verify;

pub use self::answer::{Answer, Report};
pub use self::archive::{Archive, Query};
pub use self::batches::Batches;
pub use self::builder::{OnDiskError, OnSlowDisk, RecorderBuilder};
pub use self::explain::Explanation;
pub use self::progress::Progress;
pub use self::rebuild::Indexed;
pub use self::recorder::Recorder;
pub use self::stats::RecordStats;
pub use self::verify::{Fault, FaultKind, Held, Missing, Verified, Why};
