//! Capture files: writing, reading, rotation and replay.
//!
//! ```text
//!   CaptureWriter ──► RotatingWriter, PreTrigger, BackgroundWriter      a batch at a time: `PacketSink`
//!   CaptureReader ──► PcapSource                                        a stream of batches, as from a ring
//! ```

mod appearing;
mod append;
mod background;
mod builder;
mod compress;
mod encode;
mod layout;
pub(crate) mod names;
mod reader;
mod rotate;
mod sink;
mod source;
mod tap;
mod trigger;
mod writer;

pub use self::background::{BackgroundStats, BackgroundWriter};
pub use self::builder::CaptureWriterBuilder;
pub use self::compress::{CaptureFile, Compression};
pub use self::encode::PacketNote;
pub use self::layout::{FileFormat, FileInterface, InterfaceStatistics, MAX_SNAP_LEN};
pub use self::reader::{CaptureReader, FileBlock, Record};
pub use self::rotate::{RotatingWriter, RotatingWriterBuilder, RotationStats};
pub use self::sink::PacketSink;
pub use self::source::{PcapSource, Speed};
pub use self::tap::{PcapTap, PcapTapExt, TapPolicy};
pub use self::trigger::PreTrigger;
pub use self::writer::{CaptureWriter, WriterStats};
