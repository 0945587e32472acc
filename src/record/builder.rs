//! Configuration of a recorder.

use std::path::PathBuf;
use std::time::Duration;

use crate::pcap::{CaptureWriter, CaptureWriterBuilder, FileInterface, MAX_SNAP_LEN};

/// What a recorder does when a file cannot be created or written: the disk is full, broken, or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnDiskError {
    /// Returns the error. What was in flight is counted as lost, and the next packets begin another file.
    #[default]
    Stop,
    /// Counts the packets as lost, and begins another file after a second; see
    /// [`RecordStats::errors`](super::RecordStats::errors) and [`Recorder::take_error`](super::Recorder::take_error).
    DropAndRetry,
}

/// Which packets go while the disk is slower than they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnSlowDisk {
    /// The newest: [`write`](super::Recorder::write) waits, the ring fills, and the kernel drops what comes then, which the
    /// capture counts. What came before the disk was slow is in the files.
    #[default]
    DropNewest,
    /// The oldest: a batch for which there is no room is dropped after one turn of the executor, and counted as
    /// [`lost`](super::RecordStats::lost). What comes when the disk is fast again is in the files without a delay, and
    /// `write` never waits for the disk, but for the first file.
    DropOldest,
}

/// Configures a recorder; from [`Recorder::builder`](super::Recorder::builder).
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct RecorderBuilder {
    pub(super) directory: PathBuf,
    pub(super) prefix: String,
    file: CaptureWriterBuilder,
    interface: Option<FileInterface>,
    pub(super) describes_each: bool,
    /// Bytes of a packet that are kept.
    pub(super) most: usize,
    pub(super) max_bytes: u64,
    pub(super) max_time: Option<Duration>,
    pub(super) keep_files: Option<usize>,
    pub(super) keep_bytes: Option<u64>,
    pub(super) depth: usize,
    pub(super) is_direct: bool,
    pub(super) syncs: bool,
    pub(super) has_index: bool,
    pub(super) on_error: OnDiskError,
    pub(super) on_slow: OnSlowDisk,
}

impl RecorderBuilder {
    pub(super) fn new(directory: PathBuf, prefix: String) -> Self {
        Self {
            directory,
            prefix,
            file: CaptureWriter::builder(),
            interface: None,
            describes_each: false,
            most: MAX_SNAP_LEN as usize,
            max_bytes: 1 << 30,
            max_time: None,
            keep_files: None,
            keep_bytes: None,
            depth: 8,
            is_direct: true,
            syncs: false,
            has_index: true,
            on_error: OnDiskError::default(),
            on_slow: OnSlowDisk::default(),
        }
    }

    /// Describes the interface of the packets. By default it is an Ethernet interface without a name. Of a packet, its
    /// `snap_len` is kept.
    pub fn interface(mut self, interface: FileInterface) -> Self {
        self.most = interface.kept_len() as usize;
        self.interface = Some(interface);
        self
    }

    /// Describes each interface when its first packet is written, for a capture on `any`; see
    /// [`CaptureWriterBuilder::each_interface`]. Packets of such a capture are copied once.
    pub fn each_interface(mut self) -> Self {
        self.file = self.file.each_interface();
        self.describes_each = true;
        self
    }

    /// Sets a comment on each file.
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.file = self.file.comment(text);
        self
    }

    /// Sets the size at which a file is closed; it may be exceeded by a block. Default: 1 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the age at which a file is closed, with the next packets. No limit by default.
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = Some(time);
        self
    }

    /// Sets how many files to keep, with the current one, but not the next one, which is empty. The oldest are removed when a
    /// file with packets is closed, also those of earlier runs. No limit by default.
    pub fn keep_files(mut self, files: usize) -> Self {
        self.keep_files = Some(files.max(1));
        self
    }

    /// Sets how many bytes to keep, twice [`max_bytes`](Self::max_bytes) of which are for the current file and the next one. Their
    /// indexes are not counted. No limit by default.
    pub fn keep_bytes(mut self, bytes: u64) -> Self {
        self.keep_bytes = Some(bytes);
        self
    }

    /// Sets how many writes may be in flight, each of a block: a ring with fewer blocks, or hardly more, drops packets while
    /// the disk is slow. Default: 8.
    pub fn depth(mut self, writes: usize) -> Self {
        self.depth = writes.max(1);
        self
    }

    /// Sets whether files are written past the page cache (`O_DIRECT`), where the file system takes that. Default: true.
    pub fn direct(mut self, on: bool) -> Self {
        self.is_direct = on;
        self
    }

    /// Sets whether a file that is closed is synced (`fdatasync`), by a worker of the kernel. A failure is one of
    /// [`RecordStats::errors`](super::RecordStats::errors). Without it a power cut takes what the file system had not noted in its
    /// journal yet, although the packets are on the disk: of ext4, files of the last five seconds. Default: false.
    pub fn sync(mut self, on: bool) -> Self {
        self.syncs = on;
        self
    }

    /// Sets whether each file gets an index beside it, by which an [`Archive`](super::Archive) passes over what has none of the
    /// hosts, ports, protocols or VLANs that are asked for. It takes less than a hundredth of the file. A file that describes
    /// [each interface](Self::each_interface) gets none. Default: true.
    pub fn index(mut self, on: bool) -> Self {
        self.has_index = on;
        self
    }

    /// Sets what happens when a file cannot be created or written. Default: [`OnDiskError::Stop`].
    pub fn on_error(mut self, policy: OnDiskError) -> Self {
        self.on_error = policy;
        self
    }

    /// Sets which packets go while [`depth`](Self::depth) writes are in flight and more come. Default:
    /// [`OnSlowDisk::DropNewest`].
    pub fn on_slow_disk(mut self, policy: OnSlowDisk) -> Self {
        self.on_slow = policy;
        self
    }

    /// The interface, if it was described.
    pub(super) fn described(&self) -> Option<&FileInterface> {
        self.interface.as_ref()
    }

    /// How each file is written.
    pub(super) fn writer(&self) -> CaptureWriterBuilder {
        let file = self.file.clone();
        match &self.interface {
            Some(interface) => file.interface(interface.clone()),
            None => file,
        }
    }
}
