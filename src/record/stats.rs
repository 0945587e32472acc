//! What a recorder counts.

/// The counters, of which what is pending is known elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) accepted: u64,
    pub(super) written: u64,
    pub(super) bytes: u64,
    pub(super) blocks: u64,
    pub(super) copied: u64,
    pub(super) files: u64,
    pub(super) removed: u64,
    pub(super) errors: u64,
    pub(super) unindexed: u64,
}

/// Counters of a [`Recorder`](super::Recorder). Each packet is in exactly one of `written`, `pending` and `lost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RecordStats {
    /// Packets given to the recorder.
    pub packets: u64,
    /// Packets in files.
    pub written: u64,
    /// Packets on their way into a file.
    pub pending: u64,
    /// Packets that are in no file: writing failed, or their header in the ring was inconsistent.
    pub lost: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Blocks that were written from where the kernel had put them.
    pub blocks: u64,
    /// Batches that had to be copied.
    pub copied: u64,
    /// Files begun.
    pub files: u64,
    /// Oldest files removed.
    pub removed: u64,
    /// Failures to create or write a file.
    pub errors: u64,
    /// Files whose index could not be written whole: they are searched without it, as is what is behind its end.
    pub unindexed: u64,
}

impl Counts {
    /// Returns the statistics, with `pending` packets on their way into a file.
    pub(super) fn stats(self, pending: u64) -> RecordStats {
        let Self { accepted, written, bytes, blocks, copied, files, removed, errors, unindexed } =
            self;
        let lost = accepted.saturating_sub(written + pending);
        RecordStats {
            packets: accepted,
            written,
            pending,
            lost,
            bytes,
            blocks,
            copied,
            files,
            removed,
            errors,
            unindexed,
        }
    }
}
