//! A recording, in a network namespace of its own: killed, started anew, asked, and proved.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringtap::BpfFilter;
use ringtap::record::Archive;
use ringtap_lab::{Directory, Mark, Stage, Traffic};

use crate::say::say;
use crate::sink::Outcome;

/// Frames a second.
const RATE: u64 = 50_000;
/// How long each recorder works.
const WORK: Duration = Duration::from_millis(1500);
/// Packets that are asked for.
const QUESTION: &str = "udp src port 10003";

pub(super) fn run() -> Outcome<ExitCode> {
    let stage = Stage::open(None)?;
    let directory = Directory::new();
    let killed = record(stage.interface(), directory.path())?;
    let running = stage.pace(Duration::from_secs(60), RATE);
    std::thread::sleep(WORK);
    // As a power cut would end it: nothing is flushed, nothing is closed.
    end(killed, Signal::SIGKILL)?;
    let before = numbers(directory.path())?;
    let second = record(stage.interface(), directory.path())?;
    std::thread::sleep(WORK);
    let sent = running.stop();
    std::thread::sleep(Duration::from_millis(300)); // the last of them arrive
    let said = end(second, Signal::SIGTERM)?;
    let [recorded, files, dropped, unwritten] = figures(&said)?;
    let after = numbers(directory.path())?;
    let lost = stage.lost();

    let second: BTreeSet<u64> = after.difference(&before).copied().collect();
    // Each shard listens when its socket is open: the flows of one begin again together.
    let mut resumed: BTreeMap<u32, u64> = BTreeMap::new();
    for &number in &second {
        resumed.entry(traffic().flow(number)).or_insert(number);
    }
    let is_of_kill =
        |number: &u64| resumed.get(&traffic().flow(*number)).is_none_or(|first| number < first);
    let (of_kill, others): (Vec<u64>, Vec<u64>) =
        (0..sent).filter(|number| !after.contains(number)).partition(is_of_kill);
    let archive = Archive::open(directory.path())?;
    let filter: BpfFilter = QUESTION.parse()?;
    let wanted = archive
        .query()
        .packets()
        .filter(|packet| packet.as_ref().is_ok_and(|packet| packet.as_packet().matches(&filter)));
    let (wanted, mut answer) = (wanted.count(), archive.query().filter(filter.clone()).packets());
    let answered = answer.by_ref().filter(Result::is_ok).count();

    say!("sent      {sent} frames, while a recorder was killed and another one was started")?;
    say!(
        "files     {} packets of the first + {} of the second, each once and unchanged; {files} files of the second",
        before.len(),
        second.len()
    )?;
    say!(
        "missing   {} in flight at the kill, or before the second listened; {} others, of {dropped} dropped + {lost} lost on the way",
        of_kill.len(),
        others.len()
    )?;
    say!(
        "query     {answered} packets of `{QUESTION}`, where reading everything finds {wanted}; {} files end early",
        answer.report().cut_short
    )?;
    let is_exact = second.len() as u64 == recorded
        && unwritten == 0
        && !before.is_empty()
        && !second.is_empty()
        && others.len() as u64 <= dropped + lost
        && answered == wanted
        && answered > 0;
    let verdict = match is_exact {
        true => "every packet is in a file once, or known to be missing",
        false => "MISMATCH",
    };
    say!("{verdict}")?;
    Ok(if is_exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts a recorder in a process of its own, and waits until it captures.
fn record(interface: &str, directory: &Path) -> Outcome<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["record", interface, "udp", "--file-mib", "4", "-w"]).arg(directory);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let told = BufReader::new(child.stderr.take().ok_or("piped")?);
    let mut lines = told.lines();
    let begun = lines.next().transpose()?.unwrap_or_default();
    if !begun.starts_with("recording") {
        return Err(begun.into());
    }
    std::thread::spawn(move || lines.count()); // so that it can go on speaking
    Ok(child)
}

/// Ends a recorder. Returns what it has printed.
fn end(mut child: Child, signal: Signal) -> Outcome<String> {
    kill(Pid::from_raw(child.id().try_into()?), signal)?;
    let mut said = String::new();
    child.stdout.take().ok_or("piped")?.read_to_string(&mut said)?;
    child.wait()?;
    Ok(said)
}

/// What the lab sends.
fn traffic() -> Traffic {
    Traffic { len: 128, flows: 64, both_directions: true, ..Traffic::default() }
}

/// The numbers of the frames in all files.
fn numbers(directory: &Path) -> Outcome<BTreeSet<u64>> {
    let (traffic, mut numbers) = (traffic(), BTreeSet::new());
    for packet in Archive::open(directory)?.query().packets() {
        let packet = packet?;
        let mark = Mark::find(packet.data()).ok_or("a packet that nobody has sent")?;
        if packet.data() != traffic.arrives(mark.number, mark.stamp) {
            return Err(format!("frame {} was changed", mark.number).into());
        }
        if !numbers.insert(mark.number) {
            return Err(format!("frame {} was recorded twice", mark.number).into());
        }
    }
    Ok(numbers)
}

/// The numbers in a recorder's last line: packets, files, dropped, not written.
fn figures(said: &str) -> Outcome<[u64; 4]> {
    let numbers = said.split([' ', '\n']).filter_map(|word| word.parse().ok());
    let numbers: Vec<u64> = numbers.collect();
    numbers.try_into().map_err(|_| format!("an unknown end of a recorder: {said:?}").into())
}
