//! The recorder: batches in, files out.

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::builder::{OnDiskError, OnSlowDisk, RecorderBuilder};
use super::copying::{self, ALIGN};
use super::current::Current;
use super::index;
use super::index_file::IndexFile;
use super::leftover;
use super::next::Next;
use super::output::Output;
use super::stats::{Counts, RecordStats};
use crate::error::{Error, Result};
use crate::io::AsyncCapture;
use crate::packet::Timestamp;
use crate::pcap::InterfaceStatistics;
use crate::pcap::names::{Names, Written};
use crate::reactor::{FileOp, PendingFile, Reactor};
use crate::ring::batch::PacketBatch;
use crate::ring::rewrite::pcapng::{Account, FINISHED, Plan};
use crate::sys::{file, fork};
use crate::time::{self, Sleep};

/// How many files a recorder may have reserved room for: those that are being closed, the one that is written, the next one.
const PREPARED: usize = 4;
/// How long to wait before another file is begun after a failure.
const RETRY: Duration = Duration::from_secs(1);

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
/// Dropping a recorder, or ending its executor, leaves the last file without its statistics, and loses packets that were
/// only formatted, and writes that were not submitted: call [`finish`](Self::finish), or [`flush`](Self::flush).
#[derive(Debug)]
pub struct Recorder {
    reactor: Reactor,
    options: RecorderBuilder,
    names: Names,
    current: Option<Current>,
    next: Next,
    /// Files that are being finished.
    ending: Vec<Output>,
    /// Indexes that are being finished.
    indexes: Vec<IndexFile>,
    /// The last file with packets that was closed.
    last_closed: Option<PathBuf>,
    /// Files that are being removed, and whether that is counted.
    removals: Vec<(PendingFile, bool)>,
    statistics: Option<InterfaceStatistics>,
    /// What the kernel has dropped of captures that were recorded before this one.
    dropped_before: u64,
    /// No file is begun before this time.
    wait_until: Option<Instant>,
    /// The next file is not prepared before this time.
    prepare_at: Option<Instant>,
    /// Packets of the batch that `write` has in hand.
    in_hand: u64,
    /// What its accounts have in common.
    run: u64,
    /// A forked child does nothing with its parent's files.
    forks: u32,
    /// The last failure, until it was told.
    last_error: Option<Error>,
    counts: Counts,
}

impl RecorderBuilder {
    /// Creates the recorder on this thread's reactor. No file is created before the first packets.
    ///
    /// # Errors
    /// [`Error::NoReactor`]; [`Error::File`] if the directory cannot be read.
    pub fn build(self) -> Result<Recorder> {
        let reactor = Reactor::current()?;
        let names = Names::read(&self.directory, &self.prefix, "pcapng")?;
        names.last(PREPARED).for_each(leftover::give_back);
        Ok(Recorder {
            reactor,
            options: self,
            names,
            current: None,
            next: Next::Nothing,
            ending: Vec::new(),
            indexes: Vec::new(),
            last_closed: None,
            removals: Vec::new(),
            statistics: None,
            dropped_before: 0,
            wait_until: None,
            prepare_at: None,
            in_hand: 0,
            run: Timestamp::now().as_nanos(),
            forks: fork::generation(),
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
        let mut idle: Option<(Instant, Sleep)> = None;
        poll_fn(|cx| {
            self.poll_files(cx);
            if let Some(error) = self.error_to_tell() {
                return Poll::Ready(Err(error));
            }
            if let Poll::Ready(next) = Pin::new(&mut *batches).poll_next(cx) {
                return Poll::Ready(next.transpose());
            }
            let due = self.current.as_ref().and_then(|current| current.copying.due());
            if let Some(due) = due {
                let (_, sleep) = match idle.take().filter(|(when, _)| *when == due) {
                    Some(known) => idle.insert(known),
                    None => idle.insert((due, time::sleep_until(due))),
                };
                if Pin::new(sleep).poll(cx).is_ready() {
                    if let Err(error) = self.write_copied() {
                        return Poll::Ready(Err(error));
                    }
                    self.poll_files(cx);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Writes the packets of a batch; waits while [`depth`](RecorderBuilder::depth) writes are in flight, unless they are
    /// [to be dropped](OnSlowDisk::DropOldest) then, and for the first file. The batch returns to its ring when it is on the disk.
    ///
    /// If this is dropped before it completes, the batch is counted as lost.
    ///
    /// # Errors
    /// [`Error::File`], with [`OnDiskError::Stop`]: if a file cannot be created, which loses this batch; or if an earlier write
    /// has failed, whose packets are lost, while this batch begins another file. [`Error::ReactorGone`];
    /// [`Error::TooManyOps`].
    pub async fn write(&mut self, batch: PacketBatch) -> Result<()> {
        let packets = batch.len() as u64;
        self.counts.accepted += packets;
        self.in_hand = packets;
        let mut has_waited = false;
        let has_room = poll_fn(|cx| self.poll_room(&mut has_waited, cx)).await;
        let told = self.error_to_tell();
        if !has_room {
            self.in_hand = 0; // it is lost
            return told.map_or(Ok(()), Err);
        }
        let waits = self.wait_until.is_some_and(|until| Instant::now() < until);
        let put = match waits && self.current.is_none() {
            true => Ok(()),
            false => self.write_now(batch).await,
        };
        self.in_hand = 0;
        let put = match (put, self.options.on_error) {
            (Err(error @ Error::File(_)), OnDiskError::DropAndRetry) => {
                self.failed(error);
                Ok(())
            }
            (Err(error), _) => {
                self.counts.errors += 1;
                Err(error)
            }
            (Ok(()), _) => Ok(()),
        };
        told.map_or(Ok(()), Err).and(put)
    }

    async fn write_now(&mut self, batch: PacketBatch) -> Result<()> {
        self.rotate_if_due()?;
        poll_fn(|cx| self.poll_begin(cx)).await?;
        self.put(batch)?;
        let due = self.current.as_ref().and_then(|current| current.copying.due());
        if due.is_some_and(|due| due <= Instant::now()) { self.write_copied() } else { Ok(()) }
    }

    /// Closes the file; the next packets begin another one.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn rotate(&mut self) -> Result<()> {
        self.close(0)
    }

    /// Closes the file with an account of this number.
    fn close(&mut self, sequence: u64) -> Result<()> {
        let written = self.write_copied();
        let account = self.account(sequence);
        let Some(mut current) = self.current.take() else { return written };
        let statistics = self.statistics.filter(|_| !self.options.describes_each);
        statistics.iter().for_each(|statistics| current.copying.add_statistics(statistics));
        let ended = written.and_then(|()| current.write_end(&self.reactor, &account));
        self.end(current);
        ended
    }

    /// Lets a file and its index come to their ends.
    fn end(&mut self, current: Current) {
        let (output, index) = current.end();
        self.ending.push(output);
        self.indexes.extend(index);
    }

    /// Sets the statistics that each file has at its end, of its first interface; [`record`](Self::record) does it itself.
    /// They are totals of the whole capture, and therefore not written where each interface is described.
    pub fn set_statistics(&mut self, statistics: InterfaceStatistics) {
        let dropped = |of: Option<InterfaceStatistics>| of.and_then(|of| of.dropped).unwrap_or(0);
        let former = dropped(self.statistics);
        if dropped(Some(statistics)) < former {
            self.dropped_before += former; // of another capture
        }
        self.statistics = Some(statistics);
    }

    /// Waits until all packets that were given are in files, or lost, and all files but the current one are closed or
    /// removed.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub async fn flush(&mut self) -> Result<()> {
        self.write_copied()?;
        poll_fn(|cx| {
            self.poll_files(cx);
            let has_ended = self.ending.is_empty() && self.indexes.is_empty();
            let has_ended = has_ended && self.removals.is_empty();
            if self.in_flight() == 0 && has_ended { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.error_to_tell().map_or(Ok(()), Err)
    }

    /// Writes everything, closes the last file, and removes the one that was prepared.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub async fn finish(mut self) -> Result<RecordStats> {
        self.in_hand = 0;
        let flushed = self.flush().await;
        let (errors, last) = (self.counts.errors, self.path().map(Path::to_owned));
        let closed = self.close(FINISHED);
        poll_fn(|cx| self.poll_next_file(cx).map(drop)).await;
        if let Some(output) = self.next.take() {
            self.remove(output.path.clone(), false);
        }
        poll_fn(|cx| {
            self.poll_files(cx);
            let Self { ending, indexes, removals, .. } = &self;
            let is_done = ending.is_empty() && indexes.is_empty() && removals.is_empty();
            if is_done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let is_told = closed.is_ok() && self.counts.errors == errors;
        if !is_told || last.is_none() || self.last_closed != last {
            self.tell_end();
        }
        flushed.and(closed)?;
        self.error_to_tell().map_or(Ok(self.stats()), Err)
    }

    /// Adds the last account to the last file that has packets, which was closed without it. If that cannot be, what is on its
    /// way is not known to a reader, who is told that.
    fn tell_end(&self) {
        let Some(path) = &self.last_closed else { return };
        let end = copying::end_of_recording(&self.account(FINISHED));
        let Ok(mut file) = File::options().append(true).open(path) else { return };
        let len = file.metadata().map(|metadata| metadata.len());
        if let (Err(_), Ok(len)) = (file.write_all(&end), len) {
            let _ = file.set_len(len);
        }
    }

    /// Returns the counters so far.
    pub fn stats(&self) -> RecordStats {
        let copying = self.current.as_ref().map_or(0, |current| current.copying.packets());
        let flying: u64 = self.outputs().map(Output::packets_in_flight).sum();
        // A batch in the hand of a future that was dropped is lost with the next one.
        self.counts.stats(copying + flying + self.in_hand)
    }

    /// Takes the latest failure that was not returned, with [`OnDiskError::DropAndRetry`].
    pub fn take_error(&mut self) -> Option<Error> {
        self.last_error.take()
    }

    /// Returns the path of the file being written.
    pub fn path(&self) -> Option<&Path> {
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

    /// Notes a failure that is none of the current file.
    fn noted(&mut self, error: Error) {
        self.counts.errors += 1;
        self.last_error = Some(error);
    }

    /// Notes a failure. With the policy that goes on, no file is begun for a while.
    fn failed(&mut self, error: Error) {
        self.noted(error);
        if self.options.on_error == OnDiskError::DropAndRetry {
            self.wait_until = Some(Instant::now() + RETRY);
        }
    }

    /// Hands a batch to the current file.
    fn put(&mut self, batch: PacketBatch) -> Result<()> {
        // Packets in a block are of the first interface.
        let is_block = !self.options.describes_each && batch.suits_disk(ALIGN);
        if is_block {
            self.write_copied()?; // it came before
        }
        let account = self.account(batch.seq_num());
        let Some(current) = &mut self.current else { return Ok(()) };
        let mut batch = batch;
        if is_block {
            let plan = Plan { align: ALIGN, most: self.options.most, account: &account };
            batch = match current.write_block(&self.reactor, batch, &plan) {
                Ok(written) => {
                    self.in_hand = 0;
                    self.counts.blocks += u64::from(written?.packets > 0);
                    return Ok(());
                }
                Err(batch) => batch,
            };
        }
        self.counts.copied += 1;
        self.in_hand = 0;
        if current.copy(&batch)? { self.write_copied() } else { Ok(()) }
    }

    /// The account of packets that are about to be written, behind what waits to be.
    fn account(&self, sequence: u64) -> Account {
        let RecordStats { written, pending, lost, .. } = self.stats();
        let dropped = self.statistics.and_then(|statistics| statistics.dropped).unwrap_or(0);
        let missing = lost + dropped + self.dropped_before;
        Account { sequence, before: written + pending - self.in_hand, missing, run: self.run }
    }

    /// Writes what was formatted.
    fn write_copied(&mut self) -> Result<()> {
        let mut account = self.account(0);
        let Some(current) = &mut self.current else { return Ok(()) };
        account.before -= current.copying.packets();
        current.write_copied(&self.reactor, &account)
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
        let may_prepare = self.prepare_at.is_none_or(|at| Instant::now() >= at);
        if is_half && may_prepare && self.next.is_nothing() {
            self.prepare_at = None;
            self.create_next().unwrap_or_else(|error| self.not_prepared(error));
        }
        Ok(())
    }

    /// Begins to create the next file.
    fn create_next(&mut self) -> Result<()> {
        self.next.create(&self.reactor, &mut self.names, self.options.is_direct)
    }

    /// Goes on with the next file until it can be written.
    fn poll_next_file(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.next.poll(&self.reactor, &mut self.names, self.options.max_bytes, cx)
    }

    /// Makes the next file the current one, if there is none.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.current.is_none() {
            if self.next.is_nothing() {
                self.create_next()?;
            }
            ready!(self.poll_next_file(cx))?;
            if let Some(mut output) = self.next.take() {
                output.began = Instant::now();
                let current = Current::new(output, &self.options, &self.reactor)?;
                self.counts.unindexed += u64::from(current.lacks_index(&self.options));
                self.current = Some(current);
                self.counts.files += 1;
                if let Err(error) = self.write_copied() {
                    self.current = None; // nobody could read it without its header
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until another write may begin. Returns false if it may not after one turn of the executor, in which writes are
    /// submitted, and the oldest packets are to go.
    fn poll_room(&mut self, has_waited: &mut bool, cx: &mut Context<'_>) -> Poll<bool> {
        self.poll_files(cx);
        let is_failing = self.outputs().any(Output::has_failed);
        if self.in_flight() < self.options.depth && !is_failing {
            return Poll::Ready(true);
        }
        match self.options.on_slow {
            OnSlowDisk::DropNewest => Poll::Pending,
            OnSlowDisk::DropOldest if std::mem::replace(has_waited, true) => Poll::Ready(false),
            OnSlowDisk::DropOldest => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Takes what has ended into account, and goes on with files that are being finished.
    fn poll_files(&mut self, cx: &mut Context<'_>) {
        let Self { current, ending, counts, .. } = self;
        let mut failure = None;
        if let Some(Current { output, .. }) = current {
            take_landed(output, counts, cx);
            failure = output.cut();
        }
        let mut failures: Vec<Error> = Vec::new();
        for output in ending {
            take_landed(output, counts, cx);
            failures.extend(output.cut());
        }
        if let Some(error) = failure
            && let Some(current) = self.current.take()
        {
            if current.output.refuses_direct(&error) {
                self.options.is_direct = false;
            }
            self.end(current); // what was only formatted is lost with it
            self.failed(error);
        }
        failures.into_iter().for_each(|error| self.noted(error));
        self.poll_indexes(cx);
        self.poll_ending(cx);
        if let Poll::Ready(Err(error)) = self.poll_next_file(cx) {
            self.not_prepared(error);
        }
    }

    /// Notes that the next file could not be prepared. It is begun when it is needed, and the error counts then.
    fn not_prepared(&mut self, error: Error) {
        self.prepare_at = Some(Instant::now() + RETRY);
        if self.options.on_error == OnDiskError::DropAndRetry {
            self.noted(error);
        }
    }

    /// Goes on with indexes. One that cannot be written is no harm to its file.
    fn poll_indexes(&mut self, cx: &mut Context<'_>) {
        let Self { reactor, current, indexes, counts, .. } = self;
        let mut has_ended = |index: &mut IndexFile| match index.poll(reactor, cx) {
            Poll::Ready(ended) => {
                counts.unindexed += u64::from(ended.is_err());
                true
            }
            Poll::Pending => false,
        };
        if let Some(Current { index: Some(index), .. }) = current {
            has_ended(&mut index.file);
        }
        let mut unwanted = Vec::new();
        indexes.retain_mut(|index| {
            let is_over = has_ended(index);
            if is_over && index.is_unwanted {
                unwanted.push(index.path.clone());
            }
            !is_over
        });
        unwanted.into_iter().for_each(|path| self.remove_one(path, false));
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>) {
        let mut at = 0;
        while let Some(output) = self.ending.get_mut(at) {
            let Poll::Ready(ended) = output.poll_end(&self.reactor, self.options.syncs, cx) else {
                at += 1;
                continue;
            };
            let output = self.ending.remove(at);
            if let Err(error) = ended {
                self.noted(error);
            }
            // A file without packets is of no use to anybody, and must not push out one that has some.
            if output.has_packets() {
                let (path, bytes) = (output.path.clone(), output.whole());
                self.last_closed = Some(path.clone());
                self.names.wrote(Written { path, bytes });
                self.remove_excess();
            } else {
                self.remove(output.path.clone(), false);
            }
        }
        let Self { removals, counts, .. } = self;
        removals.retain_mut(|(removal, is_counted)| {
            let Poll::Ready(removed) = removal.poll(cx) else { return true };
            match removed {
                Ok(Ok(_)) => counts.removed += u64::from(*is_counted),
                // It may no longer be ours, and is not tried again.
                _ => counts.errors += u64::from(*is_counted),
            }
            false
        });
    }

    /// Removes the oldest files that are not to be kept.
    fn remove_excess(&mut self) {
        let current = usize::from(self.current.is_some());
        let files = self.options.keep_files.map(|files| files - current);
        // Room for the current file, and for the next one that is prepared meanwhile.
        let room = self.options.max_bytes.saturating_mul(2 * current as u64);
        let bytes = self.options.keep_bytes.map(|bytes| bytes.saturating_sub(room));
        while let Some(path) = self.names.excess(files, bytes) {
            self.remove(path, true);
        }
    }

    /// Removes a file and its index.
    fn remove(&mut self, path: PathBuf, is_counted: bool) {
        let index = index::path_of(&path);
        match self.indexes.iter_mut().find(|of| of.path == index) {
            Some(of) => of.is_unwanted = true,
            None => self.remove_one(index, false),
        }
        self.remove_one(path, is_counted);
    }

    fn remove_one(&mut self, path: PathBuf, is_counted: bool) {
        let Ok(path) = file::c_path(&path) else { return };
        if let Ok(removal) = PendingFile::start(&self.reactor, FileOp::Remove { path }) {
            self.removals.push((removal, is_counted));
        }
    }
}

/// Counts what is in a file since the last look.
fn take_landed(output: &mut Output, counts: &mut Counts, cx: &mut Context<'_>) {
    let landed = output.poll_writes(cx);
    counts.written += landed.packets;
    counts.bytes += landed.bytes;
}

impl Drop for Recorder {
    /// Takes what has ended into account, so that files whose writes have ended give back what was reserved.
    fn drop(&mut self) {
        if self.forks == fork::generation() {
            self.poll_files(&mut Context::from_waker(Waker::noop()));
        }
    }
}
