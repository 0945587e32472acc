//! The commands.

mod archive;
mod bridge;
mod capture;
mod demo;
mod demo_recording;
mod filter;
mod flows;
mod measure;
mod messages;
mod pass;
mod query;
mod record;
mod replay;
mod run;
mod stats;
mod top;
mod verify;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use clap::CommandFactory;
use ringtap::flow::extract::FiveTuple;
use ringtap::packet::Tunnels;
use ringtap::pcap::PcapSource;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::cli::{Cli, Command, Depth, Input};
use crate::config::Config;
use crate::say::say;
use crate::sink::Outcome;
use crate::view::View;

pub(crate) fn run(command: Command) -> Outcome<ExitCode> {
    match command {
        Command::Capture(args) => return capture::run(&args),
        Command::Record(args) => return record::run(&args),
        Command::Query(args) => query::run(&args)?,
        Command::Archive { what } => return archive::run(&what),
        Command::Replay(args) => replay::run(&args)?,
        Command::Bridge(args) => return bridge::run(&args),
        Command::Stats(args) => return stats::run(&args),
        Command::Filter(args) => filter::run(&args)?,
        Command::Top(args) => return top::run(&args),
        Command::Flows(args) => return flows::run(&args),
        Command::Messages(args) => return messages::run(&args),
        Command::Sensor(args) => return run::run(args),
        Command::Pass(args) => return pass::run(&args),
        Command::Verify(args) => return verify::run(&args),
        Command::Demo { recording: true, .. } => return demo_recording::run(),
        Command::Demo { visits, report, .. } => return demo::run(visits, report.as_deref()),
        Command::Doctor { interface, json } => {
            let report = ringtap::doctor::examine(interface.as_deref());
            say!("{}", if json { report.to_json() } else { report.to_string() })?;
        }
        Command::Measure { sinks, config, records, couriers } => {
            let mut all =
                config.map_or(Ok(Vec::new()), |path| Config::read(&path).map(|of| of.sinks))?;
            all.extend(run::sinks_of(&sinks)?);
            measure::run(&all, records, couriers)?;
        }
        Command::Completions { shell } => {
            let (mut command, mut text) = (Cli::command(), Vec::new());
            clap_complete::generate(shell, &mut command, "ringtap", &mut text);
            std::io::stdout().write_all(&text)?;
        }
        Command::Man { command } => {
            let (mut text, mut all) = (Vec::new(), Cli::command());
            all.build(); // so that each command's page has its whole name
            let page = match &command {
                None => Some(&all),
                Some(name) => all.find_subcommand(name),
            };
            let page = page.ok_or("there is no such command; `ringtap --help` lists them")?;
            clap_mangen::Man::new(page.clone()).render(&mut text)?;
            std::io::stdout().write_all(&text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens a file, or standard input if it is `-`, behind a filter.
fn source_of(file: &Path, filter: Option<&str>) -> Outcome<PcapSource> {
    let source = match file.to_str() {
        Some("-") => PcapSource::from_reader(std::io::stdin())?,
        _ => PcapSource::open(file)?,
    };
    Ok(match filter {
        Some(filter) => source.filter(filter.parse()?),
        None => source,
    })
}

impl Input {
    fn source(&self, file: &Path) -> Outcome<PcapSource> {
        source_of(file, self.which.filter(true)?.as_deref())
    }

    fn extractor(&self) -> FiveTuple {
        let tunnels = match self.tunnels {
            Depth::Outer => Tunnels::Outer,
            Depth::Inner => Tunnels::Inner,
            Depth::Innermost => Tunnels::Innermost,
        };
        FiveTuple::bidirectional()
            .tunnels(tunnels)
            .vlan_ids(self.vlan_ids)
            .tunnel_ids(self.tunnel_ids)
    }
}

/// Whether whoever started this process has it ignore a signal.
fn is_ignored(signal: i32) -> Outcome<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.unwrap_or("0").trim(), 16)?;
    Ok(ignored >> (signal - 1) & 1 == 1)
}

/// Set by SIGINT, SIGTERM and SIGHUP, or when the time is up.
#[derive(Debug, Clone)]
struct End {
    /// The number of the signal; 0 before there is one.
    signal: Arc<AtomicI32>,
    is_status_asked: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl End {
    fn new(seconds: Option<u64>) -> Outcome<Self> {
        let (signal, is_status_asked) = (Arc::default(), Arc::default());
        let (ended, asked) = (Arc::clone(&signal), Arc::clone(&is_status_asked));
        let waiter = std::thread::current();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGUSR2])?;
        if !is_ignored(SIGHUP)? {
            signals.add_signal(SIGHUP)?; // under nohup it is to go on
        }
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for number in signals.forever() {
                match number {
                    // As tcpdump's; nothing is buffered that SIGUSR2 could have written.
                    SIGUSR1 | SIGUSR2 => AtomicBool::store(&asked, true, Ordering::Relaxed),
                    number => AtomicI32::store(&ended, number, Ordering::Relaxed),
                }
                waiter.unpark();
            }
        })?;
        let deadline =
            seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        Ok(Self { signal, is_status_asked, deadline })
    }

    /// What wakes who waits for the end.
    fn waker() -> impl Fn() + Send + 'static {
        let waiter = std::thread::current();
        move || waiter.unpark()
    }

    /// What ends it as SIGTERM does.
    fn ender(&self) -> impl Fn() + Send + 'static {
        let (signal, waiter) = (Arc::clone(&self.signal), std::thread::current());
        move || {
            signal.store(SIGTERM, Ordering::Relaxed);
            waiter.unpark();
        }
    }

    /// Whether SIGUSR1 or SIGUSR2 has asked how it goes, since this was last asked.
    fn is_status_asked(&self) -> bool {
        self.is_status_asked.swap(false, Ordering::Relaxed)
    }

    /// What the process ends with: after SIGHUP not success, so that a supervisor starts it anew, with what its files say
    /// then.
    fn code(&self) -> ExitCode {
        match self.signal.load(Ordering::Relaxed) {
            SIGHUP => ExitCode::from(128 + SIGHUP as u8),
            _ => ExitCode::SUCCESS,
        }
    }

    fn has_come(&self) -> bool {
        self.signal.load(Ordering::Relaxed) != 0
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits for a time, or until the end comes.
    fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now())
            && !self.has_come()
        {
            std::thread::park_timeout(left.min(Duration::from_millis(100)));
        }
    }

    /// Waits for a time, or until the end comes, by a signal or by a key.
    fn wait_for_keys(&self, view: &mut View, time: Duration) -> std::io::Result<()> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now())
            && !self.has_come()
            && !view.has_ended()
        {
            std::thread::park_timeout(left.min(Duration::from_millis(100)));
            view.heed()?;
        }
        Ok(())
    }
}
