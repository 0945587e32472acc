//! Recorded packets of a time and a filter.

use std::io::Write;

use ringtap::packet::Timestamp;
use ringtap::pcap::CaptureWriter;
use ringtap::record::{Answer, Archive, Explanation, Missing, Report};
use serde_json::{Value, json};

use super::archive;
use crate::bar::Bar;
use crate::cli::QueryArgs;
use crate::say::{note, say};
use crate::sink::Outcome;
use crate::units;

pub(super) fn run(args: &QueryArgs) -> Outcome<()> {
    let archive = Archive::open(&args.directory)?;
    let mut query = archive.query();
    if let Some(from) = &args.from {
        query = query.from(time(from)?);
    }
    if let Some(to) = &args.to {
        query = query.to(time(to)?);
    }
    if let Some(series) = &args.series {
        if archive.files(series).is_empty() {
            let there: Vec<&str> = archive.series().collect();
            return Err(format!("no series {series:?}; there are {there:?}").into());
        }
        query = query.series(series);
    }
    if !args.filter.is_empty() {
        query = query.filter(args.filter.join(" ").parse()?);
    }
    if args.explain {
        let told = query.explain()?;
        match args.json {
            true => say!("{}", explained(&told))?,
            false => say!("{told}")?,
        }
        return Ok(());
    }
    let bar = Bar::of(&archive, "reading");
    let mut answer = query.clone().packets();
    match &args.write {
        Some(path) if path.to_str() == Some("-") => write(&mut answer, std::io::stdout())?,
        Some(path) => {
            let file = std::fs::File::create(path);
            write(&mut answer, file.map_err(|error| format!("{}: {error}", path.display()))?)?;
        }
        None => answer.try_for_each(|packet| packet.map(drop))?,
    }
    drop(bar);
    let report = answer.report();
    if let Some(path) = &args.manifest {
        let manifest = manifest(args, &report, &query.missing()?);
        let written = std::fs::write(path, format!("{manifest:#}\n"));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let text = format!(
        "{} packets of {} looked at, in {} files; {} read, {} passed over; {} files end early",
        report.packets,
        report.looked_at,
        report.files,
        units::bytes(report.read),
        units::bytes(report.passed_over),
        report.cut_short,
    );
    match (args.json, &args.write) {
        (true, _) => say!("{}", of_report(&report))?,
        (false, None) => say!("{text}")?,
        (false, Some(_)) => note!("{text}"),
    }
    Ok(())
}

/// Writes the packets, each as of the interface that it was seen on.
fn write(answer: &mut Answer, out: impl Write) -> Outcome<()> {
    let mut file = CaptureWriter::builder().each_interface().to(out)?;
    while answer.write_next(&mut file)? {}
    file.finish()?;
    Ok(())
}

fn of_report(report: &Report) -> Value {
    json!({
        "packets": report.packets,
        "looked_at": report.looked_at,
        "files": report.files,
        "indexed": report.indexed,
        "cut_short": report.cut_short,
        "gone": report.gone,
        "read": report.read,
        "passed_over": report.passed_over,
        "ruled_out": report.ruled_out,
    })
}

fn explained(told: &Explanation) -> Value {
    json!({
        "by_index": told.needs.to_string(),
        "files": told.files,
        "bytes": told.bytes,
        "indexed": told.indexed,
        "of_other_times": told.of_other_times,
        "without_terms": told.without_terms,
        "to_read": told.to_read,
    })
}

/// What was asked for, what was found, and what is missing.
fn manifest(args: &QueryArgs, report: &Report, missing: &[Missing]) -> Value {
    json!({
        "directory": args.directory,
        "series": args.series,
        "filter": args.filter.join(" "),
        "from": args.from,
        "to": args.to,
        "written_to": args.write,
        "found": of_report(report),
        "complete": missing.is_empty() && report.cut_short == 0 && report.gone == 0,
        "missing": missing.iter().map(archive::of_missing).collect::<Vec<_>>(),
    })
}

/// Reads a time: as RFC 3339 has it, or in seconds since 1970.
fn time(text: &str) -> Outcome<Timestamp> {
    let time = match text.parse::<f64>() {
        Ok(seconds) if !seconds.is_finite() => return Err(format!("{text:?} is no time").into()),
        Ok(seconds) => jiff::Timestamp::from_nanosecond((seconds * 1e9) as i128),
        Err(_) => text.parse(),
    };
    let time = time.map_err(|error| format!("{text:?} is no time: {error}"))?;
    let nanos = u64::try_from(time.as_nanosecond());
    let nanos = nanos.map_err(|_| format!("{text:?} is before 1970"))?;
    Ok(Timestamp::from_nanos(nanos))
}
