//! A file of a recording without the parts that have nothing of what is asked for.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ringtap_filter::Needs;

use super::copying::ALIGN;
use super::index;
use super::parts::{Group, Part, read_at};
use super::progress::Progress;
use crate::ring::rewrite::pcapng::{Told, WHOLE_ACCOUNT};
use crate::sys::file;

/// What packets are asked for, as far as accounts and indexes can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// In nanoseconds; the end is not part of it.
    pub(super) range: (u64, u64),
    pub(super) needs: Needs,
}

/// Counts bytes, for all files of a query.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) read: AtomicU64,
    /// Passed over, because their packets are of other times.
    pub(super) of_other_times: AtomicU64,
    /// Passed over, because their packets have not the terms that are needed.
    pub(super) without_terms: AtomicU64,
    /// Files that have an index.
    pub(super) indexed: AtomicU64,
    pub(super) progress: Progress,
}

/// How many parts that are going to be read the kernel is told of beforehand.
const AHEAD: usize = 4;

/// Whether a part of a file is read, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Read,
    OfOtherTimes,
    WithoutTerms,
}

impl Wanted {
    fn is_in_range(&self, (earliest, latest): (u64, u64)) -> bool {
        latest >= self.range.0 && earliest < self.range.1
    }

    fn verdict(&self, entry: &index::Entry<'_>) -> Verdict {
        if !self.is_in_range(entry.group.times) {
            Verdict::OfOtherTimes
        } else if !self.needs.may_match(|term| entry.has(term.key())) {
            Verdict::WithoutTerms
        } else {
            Verdict::Read
        }
    }
}

/// The bytes of a file, as far as they may have packets that are wanted.
#[derive(Debug)]
pub(super) struct Segments {
    file: File,
    at: u64,
    /// Bytes until something begins that may be passed over.
    left: u64,
    wanted: Arc<Wanted>,
    /// The parts of the file that its index knows, in their order; and the next of them.
    parts: Vec<(Group, Verdict)>,
    next: usize,
    /// The parts before this one that are to be read, the kernel was told of.
    told: usize,
    scanned: Arc<Scanned>,
}

impl Segments {
    /// Of an open file, whose index is beside `path`.
    pub(super) fn new(file: File, path: &Path, wanted: Arc<Wanted>, scanned: Arc<Scanned>) -> Self {
        let (at, left, parts, next, told) = (0, 0, Vec::new(), 0, 0);
        let mut segments = Self { file, at, left, wanted, parts, next, told, scanned };
        // Without an index that can be read, every part is looked at.
        segments.take_index(&std::fs::read(index::path_of(path)).unwrap_or_default());
        segments
    }

    /// Decides about the parts of which the index tells. An index of another file is left alone.
    fn take_index(&mut self, index: &[u8]) {
        let Ok(len) = self.file.metadata().map(|metadata| metadata.len()) else { return };
        if !self.is_mine(index) {
            return;
        }
        let (mut parts, mut from) = (Vec::new(), 0);
        for entry in index::entries(index) {
            // The file was cut before it, after a failure.
            let Group { offset, span, .. } = entry.group;
            if offset < from || span == 0 || entry.group.end() > len {
                break;
            }
            from = entry.group.end();
            parts.push((entry.group, self.wanted.verdict(&entry)));
        }
        if !parts.is_empty() {
            self.parts = parts;
            self.scanned.indexed.fetch_add(1, Relaxed);
        }
    }

    /// Whether an index is that of this file.
    fn is_mine(&self, index: &[u8]) -> bool {
        let Some((offset, is_first)) = index::first_part(index) else { return false };
        let told = self.account_at(offset).ok().flatten();
        told.is_some_and(|told| is_first(&Part { offset, told }))
    }

    /// Returns the account at this place, if there is one.
    fn account_at(&self, at: u64) -> io::Result<Option<Told>> {
        let mut head = [0; WHOLE_ACCOUNT];
        let len = read_at(&self.file, &mut head, at)?;
        Ok(Told::read(&head[..len]))
    }

    /// Finds the next bytes that must be read. Returns false at the end of the file.
    fn find(&mut self) -> io::Result<bool> {
        loop {
            match self.known_part() {
                Some((group, Verdict::Read)) => {
                    self.left = group.span;
                    self.read_ahead();
                    return Ok(true);
                }
                Some((group, verdict)) => {
                    self.pass_over(group.span, verdict);
                    continue;
                }
                None => {}
            }
            let mut head = [0; WHOLE_ACCOUNT];
            let len = read_at(&self.file, &mut head, self.at)?;
            if len == 0 {
                return Ok(false);
            }
            let Some(told) = Told::read(&head[..len]) else {
                // The header of the file. A block whose length is none is the reader's to refuse, and all behind it.
                let length = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
                self.left = if length < 12 || len < 12 { u64::MAX } else { length.into() };
                return Ok(true);
            };
            let span = u64::from(told.span);
            if span < WHOLE_ACCOUNT as u64 || !span.is_multiple_of(ALIGN as u64) {
                self.left = u64::MAX;
                return Ok(true);
            }
            if self.wanted.is_in_range(told.times) {
                self.left = span;
                return Ok(true);
            }
            self.pass_over(span, Verdict::OfOtherTimes);
        }
    }

    /// Takes the part that begins here, if the index knows it.
    fn known_part(&mut self) -> Option<(Group, Verdict)> {
        while self.parts.get(self.next)?.0.offset < self.at {
            self.next += 1;
        }
        let part = self.parts[self.next];
        (part.0.offset == self.at).then(|| {
            self.next += 1;
            part
        })
    }

    fn pass_over(&mut self, span: u64, verdict: Verdict) {
        self.at += span;
        let counter = match verdict {
            Verdict::WithoutTerms => &self.scanned.without_terms,
            Verdict::OfOtherTimes | Verdict::Read => &self.scanned.of_other_times,
        };
        counter.fetch_add(span, Relaxed);
        self.scanned.progress.add(span);
    }

    /// Tells the kernel which parts are going to be read next, so that they come while this one is looked at.
    fn read_ahead(&mut self) {
        let from = self.told.max(self.next);
        let coming = self.parts.iter().enumerate().skip(self.next);
        let coming = coming.filter(|(_, (_, verdict))| *verdict == Verdict::Read).take(AHEAD);
        for (number, (group, _)) in coming.filter(|(number, _)| *number >= from) {
            file::will_need(self.file.as_fd(), group.offset, group.span);
            self.told = number + 1;
        }
    }

    /// Goes through the whole file without reading more than accounts. Returns the bytes that would be read.
    pub(super) fn survey(mut self) -> io::Result<u64> {
        let (len, mut wanted) = (self.file.metadata()?.len(), 0);
        while self.at < len && self.find()? {
            let left = self.left.min(len - self.at);
            wanted += left;
            self.at += left;
        }
        Ok(wanted)
    }
}

impl Read for Segments {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.find()? {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let len = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += len as u64;
        self.left -= len as u64;
        self.scanned.read.fetch_add(len as u64, Relaxed);
        self.scanned.progress.add(len as u64);
        Ok(len)
    }
}
