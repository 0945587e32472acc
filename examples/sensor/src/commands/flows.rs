//! Flows, printed as they end.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{FlowRecord, RecordFormat, RecordWriter};
use ringtap::{Capture, Shards};

use super::End;
use crate::cli::{FlowsArgs, Format};
use crate::record::Flow;
use crate::sink::Outcome;

/// Where records go.
enum Out {
    Table(io::Stdout),
    Writer(RecordWriter<io::Stdout>),
}

pub(super) fn run(args: &FlowsArgs) -> Outcome<()> {
    let from = &args.from;
    let mut options = Capture::builder().interface(&from.interface).block_timeout_ms(20);
    if let Some(filter) = &from.filter {
        options = options.filter(filter.parse()?);
    }
    let out = Arc::new(Mutex::new(Out::new(args.format)?));
    let end = End::new(from.seconds)?;
    let shards =
        Shards::builder().capture(options.promiscuous(true)).flow(FiveTuple::bidirectional());
    let shards = shards.spawn(move |shard| {
        let out = Arc::clone(&out);
        async move {
            let mut records = shard.flows.into_records();
            while let Some(record) = records.next().await {
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                out.write(&record?).map_err(ringtap::Error::other)?;
            }
            Ok(())
        }
    })?;
    while !end.has_come() && !shards.is_finished() {
        end.wait(Duration::from_millis(500));
    }
    shards.stop();
    let stats = shards.join()?.total();
    eprintln!("{} packets, {} dropped by the kernel", stats.delivered, stats.drops);
    Ok(())
}

impl Out {
    fn new(format: Format) -> io::Result<Self> {
        let format = match format {
            Format::Table => {
                println!(
                    "{:<6} {:<44} {:<44} {:>9} {:>12} {:>9} {:>12} history",
                    "proto", "from", "to", "packets", "octets", "answered", "octets"
                );
                return Ok(Self::Table(io::stdout()));
            }
            Format::Ndjson => RecordFormat::Ndjson,
            Format::Csv => RecordFormat::Csv,
            Format::Eve => RecordFormat::Eve,
            Format::Zeek => RecordFormat::Zeek,
        };
        Ok(Self::Writer(RecordWriter::new(io::stdout(), format)?))
    }

    fn write(&mut self, record: &FlowRecord<FiveTupleKey>) -> io::Result<()> {
        let out = match self {
            Self::Writer(writer) => return writer.write(record),
            Self::Table(out) => out,
        };
        let flow = Flow::new(record);
        let protocol = record.l4.map_or("other", |l4| l4.canonical_name());
        writeln!(
            out,
            "{protocol:<6} {:<44} {:<44} {:>9} {:>12} {:>9} {:>12} {}",
            flow.initiator.to_string(),
            flow.responder.to_string(),
            flow.sent.packets,
            flow.sent.octets,
            flow.received.packets,
            flow.received.octets,
            flow.history()
        )
    }
}
