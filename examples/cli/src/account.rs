//! What became of packets, flows and records.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::feed::Meter;
use crate::sink::Outcome;
use crate::spooler::Level;

/// What became of everything, from the wire to the sinks.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Account {
    /// Packets that the capture handed out, and that the kernel dropped.
    pub(crate) delivered: u64,
    pub(crate) drops: u64,
    /// Packets of no flow.
    pub(crate) of_none: u64,
    /// Flows that were made records of.
    pub(crate) flows: u64,
    pub(crate) overflowed: u64,
    pub(crate) refused: u64,
    /// Records that were spooled, those of counts included.
    pub(crate) records: u64,
    pub(crate) sinks: Vec<SinkAccount>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct SinkAccount {
    pub(crate) name: String,
    pub(crate) acknowledged: u64,
    /// Whether nothing is left in the spool for it.
    pub(crate) has_all: bool,
}

impl Account {
    pub(crate) fn new(meters: &[Meter], level: &Level, sinks: Vec<SinkAccount>) -> Self {
        let sum = |read: fn(&Meter) -> &AtomicU64| {
            meters.iter().map(|meter| read(meter).load(Ordering::Relaxed)).sum()
        };
        Self {
            delivered: sum(|meter| &meter.packets),
            drops: sum(|meter| &meter.drops),
            of_none: sum(|meter| &meter.of_none),
            flows: sum(|meter| &meter.made),
            overflowed: sum(|meter| &meter.overflowed),
            refused: level.refused.load(Ordering::Relaxed),
            records: level.records.load(Ordering::Relaxed),
            sinks,
        }
    }
}

impl Account {
    /// Returns it, unless something has failed: then what failed first, and the account is printed.
    pub(crate) fn unless(self, failed: Vec<Box<dyn Error + Send + Sync>>) -> Outcome<Self> {
        match failed.into_iter().next() {
            None => Ok(self),
            Some(error) => {
                crate::say::note!("{self}");
                Err(error)
            }
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delivered, drops, of_none, flows, overflowed, refused, records, sinks } = self;
        writeln!(
            f,
            "packets   {delivered} delivered, {drops} dropped by the kernel, {of_none} of no flow"
        )?;
        writeln!(
            f,
            "flows     {flows} made, {overflowed} without room in a queue, {refused} in the spool"
        )?;
        write!(f, "records   {records} spooled")?;
        for SinkAccount { name, acknowledged, has_all } in sinks {
            let rest = if *has_all { "it has all" } else { "the rest waits in the spool" };
            write!(f, "\n{name:<9} {acknowledged} acknowledged; {rest}")?;
        }
        Ok(())
    }
}
