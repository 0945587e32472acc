//! The file that is written, what was formatted for it, and its index.

use super::builder::RecorderBuilder;
use super::copying::{Copying, Gathered};
use super::index::{self, Collector, Piece};
use super::index_file::IndexFile;
use super::output::Output;
use super::parts::Part;
use crate::error::Result;
use crate::packet::LinkType;
use crate::reactor::Reactor;
use crate::ring::batch::PacketBatch;
use crate::ring::disk::DiskBuffer;
use crate::ring::rewrite::pcapng::{Account, Converted, Placed, Plan};

#[derive(Debug)]
pub(super) struct Current {
    pub(super) output: Output,
    pub(super) copying: Copying,
    /// None where an interface is described when its first packet comes: what is between packets is never passed over.
    pub(super) index: Option<Indexing>,
}

/// The index of a file that is written.
#[derive(Debug)]
pub(super) struct Indexing {
    collector: Collector,
    pub(super) file: IndexFile,
    /// The beginning was written.
    has_begun: bool,
    /// Entries of a block that is being turned.
    entries: Vec<u8>,
}

impl Indexing {
    fn begin(&mut self, part: &Part) {
        if !std::mem::replace(&mut self.has_begun, true) {
            index::begin(self.file.waiting(), part);
        }
    }

    /// Appends the entries of a block, of which there may be none yet.
    fn append_entries(&mut self, part: &Part) {
        self.begin(part);
        self.file.waiting().append(&mut self.entries);
    }
}

impl Current {
    /// Begins a file.
    pub(super) fn new(
        output: Output,
        options: &RecorderBuilder,
        reactor: &Reactor,
    ) -> Result<Self> {
        let copying = Copying::new(&options.writer(), options.describes_each)?;
        let mut current = Self { output, copying, index: None };
        if current.lacks_index(options) {
            // Without one, if that cannot be.
            let file = IndexFile::create(reactor, index::path_of(&current.output.path)).ok();
            current.index = file.map(|file| Indexing {
                collector: Collector::new(options.link_type()),
                file,
                has_begun: false,
                entries: Vec::new(),
            });
        }
        Ok(current)
    }

    /// Whether it is to have an index, and has none.
    pub(super) fn lacks_index(&self, options: &RecorderBuilder) -> bool {
        options.has_index && !options.describes_each && self.index.is_none()
    }

    /// Turns a block into a part of the file and starts to write it. Returns what became of it.
    pub(super) fn write_block(
        &mut self,
        reactor: &Reactor,
        batch: PacketBatch,
        plan: &Plan<'_>,
    ) -> std::result::Result<Result<Converted>, PacketBatch> {
        let offset = self.output.len();
        let mut piece = Piece::at(offset);
        let (buffer, converted) = match &mut self.index {
            Some(Indexing { collector, entries, .. }) => {
                batch.into_disk(plan, |packet: Placed<'_>| {
                    piece.reach(offset + packet.at as u64, packet.nanos, collector, entries);
                    collector.see(packet.data, None);
                })?
            }
            None => batch.into_disk(plan, |_| ())?,
        };
        let Converted { len, packets, times, .. } = converted;
        let written = match packets {
            0 => Ok(()),
            packets => self.output.write(reactor, buffer, packets),
        };
        if let Some(indexing) = &mut self.index {
            // Of what is not going to be there, nothing is known.
            let told = plan.account.of(packets as u32, len as u32, times);
            let part = Part { offset, told };
            let group = part.group().filter(|_| written.is_ok());
            piece.end(group, &mut indexing.collector, &mut indexing.entries);
            if group.is_some() {
                indexing.append_entries(&part);
            }
        }
        Ok(written.map(|()| converted))
    }

    /// Formats the packets of a batch. Returns whether there is enough to be written.
    pub(super) fn copy(&mut self, batch: &PacketBatch) -> Result<bool> {
        if let Some(Indexing { collector, .. }) = &mut self.index {
            for packet in batch {
                collector.see(packet.data(), packet.stripped_vlan());
            }
        }
        self.copying.push(batch)
    }

    /// Starts to write what was formatted.
    pub(super) fn write_copied(&mut self, reactor: &Reactor, account: &Account) -> Result<()> {
        match self.copying.take(account)? {
            Some(gathered) => self.write_gathered(reactor, gathered, account),
            None => Ok(()),
        }
    }

    /// Starts to write what the file ends with, behind all packets.
    pub(super) fn write_end(&mut self, reactor: &Reactor, account: &Account) -> Result<()> {
        let gathered = self.copying.end(account)?;
        self.write_gathered(reactor, gathered, account)
    }

    fn write_gathered(
        &mut self,
        reactor: &Reactor,
        gathered: Gathered,
        account: &Account,
    ) -> Result<()> {
        let Gathered { buffer, packets, times } = gathered;
        let told = account.of(packets as u32, buffer.bytes().len() as u32, times);
        let part = Part { offset: self.output.len(), told };
        self.output.write(reactor, DiskBuffer::Own(buffer), packets)?;
        self.note(part);
        Ok(())
    }

    /// Notes in the index what is being written.
    fn note(&mut self, part: Part) {
        if let (Some(indexing), Some(group)) = (&mut self.index, part.group()) {
            indexing.begin(&part);
            indexing.collector.note(group, indexing.file.waiting());
        }
    }

    /// Ends the file: nothing more is written to it.
    pub(super) fn end(self) -> (Output, Option<IndexFile>) {
        let index = self.index.map(|Indexing { mut collector, mut file, .. }| {
            collector.end_group(file.waiting());
            file.end();
            file
        });
        (self.output, index)
    }
}

impl RecorderBuilder {
    /// The link type of the packets.
    fn link_type(&self) -> LinkType {
        self.described().map_or(LinkType::ETHERNET, |interface| interface.link_type)
    }
}
