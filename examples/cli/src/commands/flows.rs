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
use crate::screen::Screen;
use crate::sink::Outcome;

/// Where records go.
enum Out {
    /// Whether the terminal has no room for exact numbers.
    Table(io::BufWriter<io::Stdout>, bool),
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

fn format(args: &FlowsArgs) -> Format {
    if args.json { Format::Ndjson } else { args.format }
}

fn config(args: &FlowsArgs) -> FlowConfig {
    let mut config = FlowConfig::default();
    config.active_timeout = args.active_seconds.map(Duration::from_secs);
    config
}

fn from_file(args: &FlowsArgs, file: &Path) -> Outcome<ExitCode> {
    let mut out = Out::new(format(args))?;
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
    let interface = from.which.interface()?;
    let mut options = Capture::builder().interface(interface).block_timeout_ms(20);
    if let Some(filter) = &from.which.filter(false)? {
        options = options.filter(BpfFilter::parse_with(filter, &LocalNames::of(interface))?);
    }
    let out = Arc::new(Mutex::new(Out::new(format(args))?));
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
                let is_narrow = Screen::columns().is_some_and(|columns| columns < WIDE);
                let names = ["proto", "from", "to", "packets", "octets", "answered", "octets"];
                let short = ["prot", "from", "to", "sent", "byte", "rcvd", "byte"];
                let names = if is_narrow { short } else { names }.map(str::to_owned);
                writeln!(out, "{}", line(names, "history", is_narrow))?;
                return Ok(Self::Table(out, is_narrow));
            }
            Format::Ndjson => RecordFormat::Ndjson,
            Format::Csv => RecordFormat::Csv,
            Format::Eve => RecordFormat::Eve,
            Format::Zeek => RecordFormat::Zeek,
        };
        Ok(Self::Writer(RecordWriter::new(out, format)?))
    }

    fn write(&mut self, record: &FlowRecord<FiveTupleKey>) -> io::Result<()> {
        let (out, is_narrow) = match self {
            Self::Writer(writer) => return writer.write(record),
            Self::Table(out, is_narrow) => (out, *is_narrow),
        };
        let flow = Flow::new(record);
        let count = |count: u64| if is_narrow { short(count) } else { count.to_string() };
        let cells = [
            record.l4.map_or("other", |l4| l4.canonical_name()).to_owned(),
            flow.initiator.to_string(),
            flow.responder.to_string(),
            count(flow.sent.packets),
            count(flow.sent.octets),
            count(flow.received.packets),
            count(flow.received.octets),
        ];
        writeln!(out, "{}", line(cells, flow.history(), is_narrow))
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Table(out, _) => out.flush(),
            Self::Writer(writer) => writer.flush(),
        }
    }
}

/// The columns that a line with exact numbers and addresses of IPv6 takes.
const WIDE: usize = 145;

/// A line of the table: in a narrow one addresses of IPv4 have room, and longer ones move what follows.
fn line(cells: [String; 7], history: &str, is_narrow: bool) -> String {
    let [proto, from, to, sent, octets, answered, octets_answered] = cells;
    if is_narrow {
        let ends = format!("{proto:<4} {from:<21} {to:<21}");
        format!("{ends} {sent:>4} {octets:>4} {answered:>4} {octets_answered:>4} {history}")
    } else {
        let ends = format!("{proto:<6} {from:<44} {to:<44}");
        format!("{ends} {sent:>9} {octets:>12} {answered:>9} {octets_answered:>12} {history}")
    }
}

/// A number in four characters.
fn short(number: u64) -> String {
    if number < 1000 {
        return number.to_string();
    }
    let (mut value, mut unit) = (number as f64 / 1000.0, "kMGTPE".chars());
    let mut name = unit.next();
    while value >= 999.5 {
        value /= 1000.0;
        name = unit.next();
    }
    let digits = usize::from(value < 9.95);
    format!("{value:.digits$}{}", name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_a_line_of_ipv4_fits_into_80_columns() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (9949, "9.9k"),
            (9950, "10k"),
            (999_499, "999k"),
            (999_500, "1.0M"),
            (12_345_678_901, "12G"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(short(number), text);
        }
        let end = || "255.255.255.255:65535".to_owned();
        let cells =
            ["sctp".to_owned(), end(), end(), short(9999), short(1 << 40), short(1), short(0)];
        assert!(line(cells, "ShADadFfRr", true).len() <= 80);
    }
}
