//! Recordings: what there is, whether it is all there, and indexes.

use std::path::Path;
use std::process::ExitCode;

use ringtap::record::{Archive, Missing, Verified, Why};
use serde_json::{Value, json};

use crate::bar::Bar;
use crate::cli::ArchiveCommand;
use crate::say::say;
use crate::seal::{self, Broken, Key};
use crate::sink::Outcome;
use crate::units;

pub(super) fn run(what: &ArchiveCommand) -> Outcome<ExitCode> {
    match what {
        ArchiveCommand::Ls(args) => list(&args.directory, args.json)?,
        ArchiveCommand::Verify { archive, key } => {
            return verify(&archive.directory, archive.json, key.as_deref());
        }
        ArchiveCommand::Seal { archive, key } => {
            let (directory, key) = (&archive.directory, Key::read(key)?);
            let count = seal_all(directory, &key, false)?;
            match archive.json {
                true => say!("{}", json!({ "sealed": count, "public_key": key.public() }))?,
                false => say!("{count} files sealed; the public key is {}", key.public())?,
            }
        }
        ArchiveCommand::Key { file } => say!("{}", Key::make(file)?)?,
        ArchiveCommand::Index(args) => index(&args.directory, args.json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(directory: &Path, is_json: bool) -> Outcome<()> {
    let archive = Archive::open(directory)?;
    let mut rows = Vec::new();
    for series in archive.series() {
        let (mut bytes, mut index) = (0, 0);
        for file in archive.files(series) {
            bytes += std::fs::metadata(file).map_or(0, |of| of.len());
            index += std::fs::metadata(file.with_extension("idx")).map_or(0, |of| of.len());
        }
        let held = archive.query().series(series).held()?;
        rows.push((series, archive.files(series).len(), bytes, index, held));
    }
    if rows.is_empty() {
        return Err(format!("no recorder has written into {}", directory.display()).into());
    }
    for (series, files, bytes, index, held) in rows {
        let times = held.times.map(|(from, to)| [units::time(from), units::time(to)]);
        if is_json {
            say!(
                "{}",
                json!({
                    "series": series, "files": files, "bytes": bytes, "index_bytes": index,
                    "packets": held.packets, "times": times,
                })
            )?;
            continue;
        }
        let size = units::bytes(bytes);
        say!("{series}: {files} files, {size}, {} packets", held.packets)?;
        if let Some([from, to]) = times {
            say!("  {from} to {to}")?;
        }
        match index {
            0 => say!("  without an index yet")?,
            index => say!("  index: {}", units::bytes(index))?,
        }
    }
    Ok(())
}

/// Seals the files of all series, but while a recorder is at work not the last two of each: the one that is written, and the next
/// one or the one before, which may be being closed.
pub(super) fn seal_all(directory: &Path, key: &Key, is_at_work: bool) -> Outcome<usize> {
    let (archive, mut count) = (Archive::open(directory)?, 0);
    for series in archive.series() {
        let files = archive.files(series);
        let files = &files[..files.len().saturating_sub(if is_at_work { 2 } else { 0 })];
        count += seal::seal(directory, series, files, key)?;
    }
    Ok(count)
}

fn verify(directory: &Path, is_json: bool, key: Option<&str>) -> Outcome<ExitCode> {
    let archive = Archive::open(directory)?;
    let mut verified = Vec::new();
    let bar = Bar::of(&archive, "verifying");
    for series in archive.series() {
        verified.extend(archive.query().series(series).verify()?);
    }
    drop(bar);
    let mut is_sealed = true;
    for one in &verified {
        let files = archive.files(&one.series);
        let broken = key.map(|key| seal::check(directory, &one.series, files, key)).transpose()?;
        match is_json {
            true => say!("{}", of_series(one, broken.as_deref()))?,
            false => tell(one)?,
        }
        for Broken { file, why } in broken.iter().flatten() {
            is_sealed = false;
            if !is_json {
                say!("  {file}: {why}")?;
            }
        }
    }
    if verified.is_empty() {
        return Err(format!("no recorder has written into {}", directory.display()).into());
    }
    let is_complete = is_sealed && verified.iter().all(Verified::is_complete);
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(verified: &Verified) -> Outcome<()> {
    let Verified { series, files, packets, missing, faults, times, .. } = verified;
    let times = times.map_or_else(String::new, |(from, to)| {
        format!(", from {} to {}", units::time(from), units::time(to))
    });
    let what = if verified.is_complete() { "complete" } else { "incomplete" };
    say!("{series}: {what}, {packets} packets in {files} files{times}")?;
    for missing in missing {
        say!("  missing {}: {}", span(missing), missing.why)?;
    }
    for fault in faults {
        say!("  {fault}")?;
    }
    Ok(())
}

/// Between which packets something is missing.
fn span(missing: &Missing) -> String {
    match (missing.after, missing.before) {
        (Some(after), Some(before)) => {
            format!("from {} to {}", units::time(after), units::time(before))
        }
        (Some(after), None) => format!("from {} on", units::time(after)),
        (None, Some(before)) => format!("before {}", units::time(before)),
        (None, None) => "at any time".to_owned(),
    }
}

fn of_series(verified: &Verified, broken: Option<&[Broken]>) -> Value {
    let of_seal = |broken: &Broken| json!({ "file": broken.file, "why": broken.why });
    json!({
        "broken_seals": broken.map(|broken| broken.iter().map(of_seal).collect::<Vec<_>>()),
        "series": verified.series,
        "complete": verified.is_complete(),
        "files": verified.files,
        "packets": verified.packets,
        "runs": verified.runs,
        "times": verified.times.map(|(from, to)| [units::time(from), units::time(to)]),
        "missing": verified.missing.iter().map(of_missing).collect::<Vec<_>>(),
        "faults": verified.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

pub(super) fn of_missing(missing: &Missing) -> Value {
    let (kind, packets) = match missing.why {
        Why::Dropped(packets) => ("dropped", Some(packets)),
        Why::Removed(packets) => ("removed", Some(packets)),
        Why::Restarted => ("restarted", None),
        _ => ("open", None),
    };
    json!({
        "series": missing.series,
        "after": missing.after.map(units::time),
        "before": missing.before.map(units::time),
        "kind": kind,
        "packets": packets,
        "why": missing.why.to_string(),
    })
}

fn index(directory: &Path, is_json: bool) -> Outcome<()> {
    let archive = Archive::open(directory)?;
    let bar = Bar::of(&archive, "indexing");
    let made = archive.index()?;
    drop(bar);
    match is_json {
        true => say!(
            "{}",
            json!({
                "files": made.files, "written": made.written, "bytes": made.bytes,
                "of_bytes": made.of_bytes,
            })
        )?,
        false => say!(
            "{} of {} files had no index; {} of {} written",
            made.written,
            made.files,
            units::bytes(made.bytes),
            units::bytes(made.of_bytes),
        )?,
    }
    Ok(())
}
