//! The recorder: batches in, files out.

use std::ffi::CString;
use std::future::{Future, poll_fn};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant, SystemTime};

use futures_core::Stream;

use super::builder::{OnDiskError, RecorderBuilder};
use super::copying::{ALIGN, Copying};
use super::output::{Output, file_error};
use crate::error::{Error, Result};
use crate::io::AsyncCapture;
use crate::pcap::InterfaceStatistics;
use crate::pcap::names::{Names, Written};
use crate::reactor::{FileOp, PendingFile, Reactor};
use crate::ring::batch::PacketBatch;
use crate::ring::disk::DiskBuffer;
use crate::ring::rewrite::pcapng::Account;
use crate::sys::file;
use crate::time::{self, Sleep};

/// How long to wait before another file is begun after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How long packets that were copied wait for more.
const IDLE: Duration = Duration::from_secs(1);

/// Writes packets to a series of pcapng files by this thread's reactor, from where the kernel has put them.
///
/// A batch of a TPACKET_V3 ring is turned into a part of the file in place and written from there. Other batches (of rings of
/// frames, of AF_XDP, of capture files, detached ones, and of a capture on `any`) are copied once.
///
/// The next file is created and its room reserved before the current one is full, and a file is finished while the next one
/// is written: no packet waits for that. A disk that is slower than the packets makes [`write`](Self::write) wait; the ring
/// fills, and the kernel drops the newest packets and counts them.
///
/// If the process is killed, a file ends with its last whole block, of up to [`depth`](RecorderBuilder::depth) that were in
/// flight; what a reader finds up to there is complete.
///
/// Dropping a recorder leaves its last file without its statistics; call [`finish`](Self::finish).
#[derive(Debug)]
pub struct Recorder {
    reactor: Reactor,
    options: RecorderBuilder,
    names: Names,
    current: Option<Current>,
    next: Next,
    /// Files that are being finished.
    ending: Vec<Output>,
    /// Files that are being removed.
    removals: Vec<PendingFile>,
    statistics: Option<InterfaceStatistics>,
    /// No file is begun before this time.
    wait_until: Option<Instant>,
    /// The last failure, until it was told.
    last_error: Option<Error>,
    counts: Counts,
}

/// The file that is written, and what was formatted for it.
#[derive(Debug)]
struct Current {
    output: Output,
    copying: Copying,
}

/// The next file, on its way.
#[derive(Debug)]
enum Next {
    Nothing,
    Creating { op: PendingFile, path: PathBuf, is_direct: bool },
    Reserving { op: PendingFile, output: Output },
    Ready(Output),
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    accepted: u64,
    /// Packets that were handed to files.
    handed: u64,
    written: u64,
    bytes: u64,
    blocks: u64,
    copied: u64,
    files: u64,
    removed: u64,
    errors: u64,
}

/// Counters of a [`Recorder`]. Each packet is in exactly one of `written`, `pending` and `lost`.
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
}

impl RecorderBuilder {
    /// Creates the recorder on this thread's reactor. No file is created before the first packets.
    ///
    /// # Errors
    /// [`Error::NoReactor`]; [`Error::File`] if the directory cannot be read.
    pub fn build(self) -> Result<Recorder> {
        let reactor = Reactor::current()?;
        let names = Names::read(&self.directory, &self.prefix, "pcapng")?;
        Ok(Recorder {
            reactor,
            options: self,
            names,
            current: None,
            next: Next::Nothing,
            ending: Vec::new(),
            removals: Vec::new(),
            statistics: None,
            wait_until: None,
            last_error: None,
            counts: Counts::default(),
        })
    }
}

impl Recorder {
    /// Returns a builder for a recorder whose files are `PREFIX_NUMBER_TIME.pcapng` in this directory. It goes on after the
    /// files of that prefix that are there.
    pub fn builder(directory: impl Into<PathBuf>, prefix: impl Into<String>) -> RecorderBuilder {
        RecorderBuilder::new(directory.into(), prefix.into())
    }

    /// Records a capture until it ends, with its statistics. Call it again to record another one into the same files.
    ///
    /// If this is dropped before it completes, no packet is lost that was written; a batch that was just taken may be.
    ///
    /// # Errors
    /// The errors of [`write`](Self::write), and those of
    /// [`next_batch`](crate::capture::AsyncReceiver::next_batch).
    pub async fn record(&mut self, capture: &mut AsyncCapture) -> Result<()> {
        while let Some(batch) = self.next_of(capture).await? {
            self.write(batch).await?;
            self.set_statistics(capture.stats()?.into());
        }
        self.set_statistics(capture.stats()?.into());
        Ok(())
    }

    /// Records a stream of batches until it ends: of several captures, of an AF_XDP socket, of a capture file.
    ///
    /// # Errors
    /// The errors of [`write`](Self::write), and those of the stream.
    pub async fn record_stream<S>(&mut self, batches: &mut S) -> Result<()>
    where
        S: Stream<Item = Result<PacketBatch>> + Unpin,
    {
        while let Some(batch) = self.next_of(batches).await? {
            self.write(batch).await?;
        }
        Ok(())
    }

    /// Waits for the next batch, goes on with files meanwhile, and writes what was copied if there is none for long.
    async fn next_of<S>(&mut self, batches: &mut S) -> Result<Option<PacketBatch>>
    where
        S: Stream<Item = Result<PacketBatch>> + Unpin,
    {
        let mut idle: Option<Sleep> = None;
        poll_fn(|cx| {
            self.poll_files(cx);
            if let Some(error) = self.error_to_tell() {
                return Poll::Ready(Err(error));
            }
            if let Poll::Ready(next) = Pin::new(&mut *batches).poll_next(cx) {
                return Poll::Ready(next.transpose());
            }
            let holds = self.current.as_ref().is_some_and(|current| current.copying.packets() > 0);
            if holds && Pin::new(idle.get_or_insert_with(|| time::sleep(IDLE))).poll(cx).is_ready()
            {
                if let Err(error) = self.write_copied() {
                    return Poll::Ready(Err(error));
                }
                self.poll_files(cx);
            }
            Poll::Pending
        })
        .await
    }

    /// Writes the packets of a batch; waits while [`depth`](RecorderBuilder::depth) writes are in flight, and for the first
    /// file. The batch returns to its ring when it is on the disk.
    ///
    /// If this is dropped before it completes, the batch is counted as lost.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if a file cannot be created, or an earlier write has failed, with
    /// [`OnDiskError::Stop`]: packets that were in flight, and this batch, are lost and counted. The next batch begins another
    /// file. [`Error::ReactorGone`](crate::Error::ReactorGone); [`Error::TooManyOps`](crate::Error::TooManyOps).
    pub async fn write(&mut self, batch: PacketBatch) -> Result<()> {
        self.counts.accepted += batch.len() as u64;
        poll_fn(|cx| self.poll_room(cx)).await;
        if let Some(error) = self.error_to_tell() {
            return Err(error);
        }
        if self.wait_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        self.rotate_if_due()?;
        let began = poll_fn(|cx| self.poll_begin(cx)).await;
        let put = began.and_then(|()| self.put(batch));
        match (put, self.options.on_error) {
            (Err(error @ Error::File(_)), OnDiskError::DropAndRetry) => {
                self.failed(error);
                Ok(())
            }
            (put, _) => put,
        }
    }

    /// Closes the file; the next packets begin another one.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn rotate(&mut self) -> Result<()> {
        if let Some(current) = &mut self.current
            && let Some(statistics) = &self.statistics
        {
            current.copying.add_statistics(statistics);
        }
        let written = self.write_copied();
        self.ending.extend(self.current.take().map(|current| current.output));
        written
    }

    /// Sets the statistics that each file has at its end, of its first interface; [`record`](Self::record) does it itself.
    /// They are totals of the whole capture.
    pub fn set_statistics(&mut self, statistics: InterfaceStatistics) {
        self.statistics = Some(statistics);
    }

    /// Waits until all packets that were given are in files, or lost.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub async fn flush(&mut self) -> Result<()> {
        self.write_copied()?;
        poll_fn(|cx| {
            self.poll_files(cx);
            if self.in_flight() == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.error_to_tell().map_or(Ok(()), Err)
    }

    /// Writes everything, closes the last file, and removes the one that was prepared.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub async fn finish(mut self) -> Result<RecordStats> {
        let flushed = self.flush().await;
        let rotated = self.rotate();
        poll_fn(|cx| self.poll_next_file(cx).map(drop)).await;
        if let Next::Ready(output) = std::mem::replace(&mut self.next, Next::Nothing) {
            self.remove(output.path.clone());
        }
        poll_fn(|cx| {
            self.poll_files(cx);
            let is_done = self.ending.is_empty() && self.removals.is_empty();
            if is_done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        flushed.and(rotated)?;
        self.error_to_tell().map_or(Ok(self.stats()), Err)
    }

    /// Returns the counters so far.
    pub fn stats(&self) -> RecordStats {
        let Counts { accepted, written, bytes, blocks, copied, files, removed, errors, .. } =
            self.counts;
        let copying = self.current.as_ref().map_or(0, |current| current.copying.packets());
        let flying: u64 = self.outputs().map(Output::packets_in_flight).sum();
        let pending = copying + flying;
        // A future that was dropped has lost its packets as well.
        let lost = accepted - written - pending;
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
        }
    }

    /// Takes the latest failure that was not returned, with [`OnDiskError::DropAndRetry`].
    pub fn take_error(&mut self) -> Option<Error> {
        self.last_error.take()
    }

    /// Returns the path of the file being written.
    pub fn path(&self) -> Option<&std::path::Path> {
        self.current.as_ref().map(|current| &*current.output.path)
    }

    fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.current.iter().map(|current| &current.output).chain(&self.ending)
    }

    fn in_flight(&self) -> usize {
        self.outputs().map(Output::in_flight).sum()
    }

    /// Returns the error of a failure that is to be returned.
    fn error_to_tell(&mut self) -> Option<Error> {
        match self.options.on_error {
            OnDiskError::Stop => self.last_error.take(),
            OnDiskError::DropAndRetry => None,
        }
    }

    /// Notes a failure. With the policy that goes on, no file is begun for a while.
    fn failed(&mut self, error: Error) {
        self.counts.errors += 1;
        self.last_error = Some(error);
        if self.options.on_error == OnDiskError::DropAndRetry {
            self.wait_until = Some(Instant::now() + RETRY);
        }
    }

    /// Hands a batch to the current file.
    fn put(&mut self, batch: PacketBatch) -> Result<()> {
        let account = self.account(&batch);
        match batch.into_disk(ALIGN, &account) {
            Ok((_, converted)) if converted.packets == 0 => Ok(()),
            Ok((buffer, converted)) => {
                self.write_copied()?; // it came before
                self.counts.blocks += 1;
                self.counts.handed += converted.packets;
                let Some(current) = &mut self.current else { return Ok(()) };
                current.output.write(&self.reactor, buffer, converted.packets)
            }
            Err(batch) => {
                self.counts.copied += 1;
                let Some(current) = &mut self.current else { return Ok(()) };
                if current.copying.push(&batch)? { self.write_copied() } else { Ok(()) }
            }
        }
    }

    /// The account of a batch that is about to be written.
    fn account(&self, batch: &PacketBatch) -> Account {
        let waiting = self.current.as_ref().map_or(0, |current| current.copying.packets());
        let (sequence, before) = (batch.seq_num(), self.counts.handed + waiting);
        Account { sequence, before, missing: self.missing() - batch.len() as u64 }
    }

    /// Packets that are known to be missing: dropped by the kernel, or lost.
    fn missing(&self) -> u64 {
        let dropped = self.statistics.and_then(|statistics| statistics.dropped).unwrap_or(0);
        self.stats().lost + dropped
    }

    /// Writes what was formatted.
    fn write_copied(&mut self) -> Result<()> {
        let (missing, before) = (self.missing(), self.counts.handed);
        let Some(Current { output, copying }) = &mut self.current else { return Ok(()) };
        match copying.take(&Account { sequence: 0, before, missing })? {
            Some((buffer, packets)) => {
                self.counts.handed += packets;
                output.write(&self.reactor, DiskBuffer::Own(buffer), packets)
            }
            None => Ok(()),
        }
    }

    fn rotate_if_due(&mut self) -> Result<()> {
        let Some(Current { output, .. }) = &self.current else { return Ok(()) };
        let age = output.began.elapsed();
        let is_old = |most: Duration| age >= most;
        if output.len() >= self.options.max_bytes || self.options.max_time.is_some_and(is_old) {
            return self.rotate();
        }
        let is_half = output.len() >= self.options.max_bytes / 2
            || self.options.max_time.is_some_and(|most| age >= most / 2);
        if is_half && matches!(self.next, Next::Nothing) {
            self.create_next(self.options.is_direct)?;
        }
        Ok(())
    }

    /// Begins to create the next file.
    fn create_next(&mut self, is_direct: bool) -> Result<()> {
        let path = self.names.next(SystemTime::now());
        let op = FileOp::Create { path: c_path(&path)?, is_direct };
        let op = PendingFile::start(&self.reactor, op).map_err(|(error, _)| error)?;
        self.next = Next::Creating { op, path, is_direct };
        Ok(())
    }

    /// Goes on with the next file until it can be written.
    fn poll_next_file(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match &mut self.next {
                Next::Nothing | Next::Ready(_) => return Poll::Ready(Ok(())),
                Next::Creating { op, .. } => {
                    let created = ready!(op.poll(cx));
                    self.created(created?)?;
                }
                Next::Reserving { op, .. } => {
                    // Without room for all of it, it is written for as long as there is some.
                    let _ = ready!(op.poll(cx));
                    let next = std::mem::replace(&mut self.next, Next::Nothing);
                    if let Next::Reserving { output, .. } = next {
                        self.next = Next::Ready(output);
                    }
                }
            }
        }
    }

    fn created(&mut self, result: io::Result<u32>) -> Result<()> {
        let next = std::mem::replace(&mut self.next, Next::Nothing);
        let Next::Creating { path, is_direct, .. } = next else { return Ok(()) };
        match result {
            Ok(fd) => {
                let output = Output::new(file::adopt(fd as i32), path, is_direct);
                let reserve = output.reserve(self.options.max_bytes);
                self.next = match reserve.map(|op| PendingFile::start(&self.reactor, op)) {
                    Some(Ok(op)) => Next::Reserving { op, output },
                    _ => Next::Ready(output),
                };
                Ok(())
            }
            // A file system that does not take direct I/O has created the file all the same.
            Err(error) if is_direct && error.raw_os_error() == Some(libc::EINVAL) => {
                let _ = std::fs::remove_file(&path);
                self.create_next(false)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.create_next(is_direct)
            }
            Err(error) => Err(file_error(0, error, &path)),
        }
    }

    /// Makes the next file the current one, if there is none.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.current.is_none() {
            if let Next::Nothing = self.next {
                self.create_next(self.options.is_direct)?;
            }
            ready!(self.poll_next_file(cx))?;
            if let Next::Ready(_) = self.next {
                let next = std::mem::replace(&mut self.next, Next::Nothing);
                let Next::Ready(mut output) = next else { continue };
                output.began = Instant::now();
                let copying = Copying::new(&self.options.file, self.options.describes_each)?;
                self.current = Some(Current { output, copying });
                self.counts.files += 1;
                self.remove_excess();
                self.write_copied()?; // its header
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until another write may begin.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_files(cx);
        let is_failing = self.outputs().any(Output::has_failed);
        if self.in_flight() < self.options.depth && !is_failing {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Takes what has ended into account, and goes on with files that are being finished.
    fn poll_files(&mut self, cx: &mut Context<'_>) {
        let Self { current, ending, counts, .. } = self;
        let outputs = current.iter_mut().map(|current| &mut current.output).chain(ending);
        let mut failures = Vec::new();
        for output in outputs {
            let landed = output.poll_writes(cx);
            counts.written += landed.packets;
            counts.bytes += landed.bytes;
            failures.extend(output.cut());
        }
        let has_failed = !failures.is_empty();
        for error in failures {
            self.failed(error);
        }
        if has_failed && let Some(current) = self.current.take() {
            self.ending.push(current.output); // what was only formatted is lost with it
        }
        self.poll_ending(cx);
        if !matches!(self.next, Next::Nothing)
            && let Poll::Ready(Err(error)) = self.poll_next_file(cx)
        {
            self.failed(error);
        }
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>) {
        let mut at = 0;
        while let Some(output) = self.ending.get_mut(at) {
            if !output.poll_end(&self.reactor, self.options.syncs, cx) {
                at += 1;
                continue;
            }
            let output = self.ending.swap_remove(at);
            self.names.wrote(Written { path: output.path.clone(), bytes: output.whole() });
            self.remove_excess();
        }
        self.removals.retain_mut(|removal| removal.poll(cx).is_pending());
    }

    /// Removes the oldest files that are not to be kept.
    fn remove_excess(&mut self) {
        let current = usize::from(self.current.is_some());
        let files = self.options.keep_files.map(|files| files - current);
        // Room for the current file, and for the next one that is prepared meanwhile.
        let room = 2 * current as u64 * self.options.max_bytes;
        let bytes = self.options.keep_bytes.map(|bytes| bytes.saturating_sub(room));
        while let Some(path) = self.names.excess(files, bytes) {
            self.counts.removed += 1;
            self.remove(path);
        }
    }

    fn remove(&mut self, path: PathBuf) {
        let Ok(path) = c_path(&path) else { return };
        // If it cannot be, it is not tried again: it may no longer be ours.
        if let Ok(removal) = PendingFile::start(&self.reactor, FileOp::Remove { path }) {
            self.removals.push(removal);
        }
    }
}

fn c_path(path: &std::path::Path) -> Result<CString> {
    let zero = |_| file_error(0, io::ErrorKind::InvalidInput.into(), path);
    CString::new(path.as_os_str().as_bytes()).map_err(zero)
}

impl Drop for Recorder {
    /// Takes what has ended into account, so that files whose writes have ended give back what was reserved.
    fn drop(&mut self) {
        self.poll_files(&mut Context::from_waker(Waker::noop()));
    }
}
