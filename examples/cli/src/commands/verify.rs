//! What a receiver has of sensors' records, and what it lacks.

use std::path::Path;
use std::process::ExitCode;

use ringtap::packet::Timestamp;
use serde_json::{Value, json};

use crate::cli::VerifyArgs;
use crate::config::{Config, SinkConfig};
use crate::proof::{Gap, Proof, Verdict};
use crate::readback;
use crate::say::{Plain, say};
use crate::sink::Outcome;
use crate::units;

pub(super) fn run(args: &VerifyArgs) -> Outcome<ExitCode> {
    let mut places = args.places.iter().map(|word| place(word)).collect::<Outcome<Vec<_>>>()?;
    if let Some(path) = &args.config {
        let sinks = Config::read(path)?.sinks;
        places.extend(sinks.into_iter().filter(|sink| !matches!(sink, SinkConfig::Ipfix(_))));
    }
    if places.is_empty() {
        return Err(
            "nothing to verify: give a place, such as a file or redis://HOST:PORT, or --config"
                .into(),
        );
    }
    let mut is_complete = true;
    for place in &places {
        is_complete &= verify(place, args)?;
    }
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A file or directory, or what is said to `--sink`.
fn place(word: &str) -> Outcome<SinkConfig> {
    let path = Path::new(word);
    let has_parquet = || {
        let mut entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.any(|entry| entry.path().extension().is_some_and(|of| of == "parquet"))
    };
    let text = match path {
        path if path.is_dir() && has_parquet() => format!("parquet:{word}"),
        path if path.exists() || word == "-" => format!("ndjson:{word}"),
        _ => word.to_owned(),
    };
    Ok(text.parse()?)
}

/// Whether a place has all records.
fn verify(place: &SinkConfig, args: &VerifyArgs) -> Outcome<bool> {
    let is_asked = |sensor: &str| args.sensor.as_deref().is_none_or(|asked| asked == sensor);
    let mut proof = Proof::default();
    let strangers = readback::read(place, &mut |told| {
        if is_asked(&told.sensor) {
            proof.add(told);
        }
    })?;
    let verdicts = proof.judge();
    let kind = place.kind();
    if verdicts.is_empty() {
        let who = args.sensor.as_deref().map_or_else(String::new, |name| format!(" of {name}"));
        return Err(format!("{kind}: there is no record{who}").into());
    }
    for verdict in &verdicts {
        match args.json {
            true => say!("{}", of_verdict(kind, verdict))?,
            false => tell(kind, verdict)?,
        }
    }
    match (strangers, args.json) {
        (0, _) => {}
        (count, true) => say!("{}", json!({ "sink": kind, "strangers": count }))?,
        (count, false) => say!("{kind}: {count} entries are no records")?,
    }
    Ok(strangers == 0 && verdicts.iter().all(Verdict::is_complete))
}

fn tell(kind: &str, verdict: &Verdict) -> Outcome<()> {
    let Verdict { sensor, shard, records, flows, numbers, .. } = verdict;
    let what = if verdict.is_complete() { "complete" } else { "incomplete" };
    let times = verdict
        .times
        .map_or_else(String::new, |(from, to)| format!(", from {} to {}", time(from), time(to)));
    say!("{kind}: {} shard {shard}: {what}{times}", Plain(sensor))?;
    say!("  {records} records, {} to {}; {flows} flows", numbers.0, numbers.1)?;
    for Gap { numbers: (first, last), times } in &verdict.gaps {
        let span = match times {
            (Some(after), Some(before)) => {
                format!(", between {} and {}", time(*after), time(*before))
            }
            _ => String::new(),
        };
        say!("  missing: {} records, {first} to {last}{span}", last - first + 1)?;
    }
    for number in &verdict.wrong {
        say!("  record {number} counts other flows than there are before it")?;
    }
    for (count, what) in [
        (verdict.twice, "records are there once more"),
        (verdict.overflowed, "flows are in no record: no room in a queue"),
        (verdict.refused, "flows are in no record: no room in the spool"),
        (verdict.lost, "flows are in no record: the sensor was killed"),
        (verdict.drops, "packets are in no flow: the kernel dropped them"),
        (verdict.open, "records are behind the last counts, which vouch for nothing behind them"),
    ] {
        if count > 0 {
            say!("  {count} {what}")?;
        }
    }
    Ok(())
}

fn of_verdict(kind: &str, verdict: &Verdict) -> Value {
    let of_gap = |gap: &Gap| {
        let (after, before) = gap.times;
        json!({
            "first": gap.numbers.0, "last": gap.numbers.1,
            "after": after.map(time), "before": before.map(time),
        })
    };
    json!({
        "sink": kind,
        "sensor": verdict.sensor,
        "shard": verdict.shard,
        "complete": verdict.is_complete(),
        "times": verdict.times.map(|(from, to)| [time(from), time(to)]),
        "records": verdict.records,
        "flows": verdict.flows,
        "first": verdict.numbers.0,
        "last": verdict.numbers.1,
        "missing": verdict.gaps.iter().map(of_gap).collect::<Vec<_>>(),
        "wrong_counts": verdict.wrong,
        "twice": verdict.twice,
        "overflowed": verdict.overflowed,
        "refused": verdict.refused,
        "lost": verdict.lost,
        "drops": verdict.drops,
        "behind_last_counts": verdict.open,
    })
}

fn time(nanos: u64) -> String {
    units::time(Timestamp::from_nanos(nanos))
}
