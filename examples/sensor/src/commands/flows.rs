//! Flows, printed as they end.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTupleKey;
use ringtap::flow::{FlowConfig, FlowExt, FlowRecord, RecordFormat, RecordWriter};
use ringtap::interface::LocalNames;
use ringtap::{BpfFilter, Capture, Shards, executor};

use super::End;
use crate::cli::{FlowsArgs, Format};
use crate::record::Flow;
use crate::say::note;
use crate::sink::Outcome;

/// Where records go.
enum Out {
    Table(io::BufWriter<io::Stdout>),
    Writer(RecordWriter<io::BufWriter<io::Stdout>>),
}

pub(super) fn run(args: &FlowsArgs) -> Outcome<ExitCode> {
    if args.active_seconds == Some(0) {
        return Err("--active-seconds 0: give at least one, or leave it out".into());
    }
    match &args.from.read {
        Some(file) => from_file(args, file),
        None => from_interface(args),
    }
}

fn config(args: &FlowsArgs) -> FlowConfig {
    let mut config = FlowConfig::default();
    config.active_timeout = args.active_seconds.map(Duration::from_secs);
    config
}

fn from_file(args: &FlowsArgs, file: &Path) -> Outcome<ExitCode> {
    let mut out = Out::new(args.format)?;
    let flows = args.from.source(file)?.flow_stream(args.from.extractor());
    let mut records = flows.with_config(config(args)).into_records();
    executor::block_on(async {
        while let Some(record) = records.next().await {
            out.write(&record?)?;
        }
        Outcome::Ok(())
    })?;
    out.flush()?;
    let stats = records.table().stats();
    note!("{} flows; {} packets of none", stats.flows_created, stats.packets_unmatched);
    Ok(ExitCode::SUCCESS)
}

fn from_interface(args: &FlowsArgs) -> Outcome<ExitCode> {
    let from = &args.from;
    let interface = from.interface.as_deref().unwrap_or_default();
    let mut options = Capture::builder().interface(interface).block_timeout_ms(20);
    if let Some(filter) = &from.filter {
        options = options.filter(BpfFilter::parse_with(filter, &LocalNames::of(interface))?);
    }
    let out = Arc::new(Mutex::new(Out::new(args.format)?));
    let end = End::new(from.seconds)?;
    let shards = Shards::builder().capture(options.promiscuous(true)).flow(from.extractor());
    let shards = shards.config(config(args)).spawn(move |shard| {
        let out = Arc::clone(&out);
        async move {
            let mut records = shard.flows.into_records();
            while let Some(record) = records.next().await {
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                out.write(&record?).and_then(|()| out.flush()).map_err(carried)?;
            }
            Ok(())
        }
    })?;
    while !end.has_come() && !shards.is_finished() {
        end.wait(Duration::from_millis(500));
    }
    shards.stop();
    let stats = shards.join()?.total();
    note!("{} packets, {} dropped by the kernel", stats.delivered, stats.drops);
    Ok(end.code())
}

/// An error of the output, which a shard carries.
fn carried(error: io::Error) -> ringtap::Error {
    ringtap::Error::Other(Box::new(error))
}

impl Out {
    fn new(format: Format) -> io::Result<Self> {
        let mut out = io::BufWriter::new(io::stdout());
        let format = match format {
            Format::Table => {
                writeln!(
                    out,
                    "{:<6} {:<44} {:<44} {:>9} {:>12} {:>9} {:>12} history",
                    "proto", "from", "to", "packets", "octets", "answered", "octets"
                )?;
                return Ok(Self::Table(out));
            }
            Format::Ndjson => RecordFormat::Ndjson,
            Format::Csv => RecordFormat::Csv,
            Format::Eve => RecordFormat::Eve,
            Format::Zeek => RecordFormat::Zeek,
        };
        Ok(Self::Writer(RecordWriter::new(out, format)?))
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

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Table(out) => out.flush(),
            Self::Writer(writer) => writer.flush(),
        }
    }
}
