//! The commands.

mod capture;
mod demo;
mod flows;
mod measure;
mod messages;
mod run;
mod top;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::CommandFactory;
use ringtap::flow::extract::FiveTuple;
use ringtap::packet::Tunnels;
use ringtap::pcap::PcapSource;

use crate::cli::{Cli, Command, Depth, Input};
use crate::sink::Outcome;

pub(crate) fn run(command: Command) -> Outcome<ExitCode> {
    match command {
        Command::Capture(args) => capture::run(&args)?,
        Command::Top(args) => top::run(&args)?,
        Command::Flows(args) => flows::run(&args)?,
        Command::Messages(args) => messages::run(&args)?,
        Command::Run(args) => run::run(args)?,
        Command::Demo { visits, report } => return demo::run(visits, report.as_deref()),
        Command::Doctor { interface, json } => {
            let report = ringtap::doctor::examine(interface.as_deref());
            println!("{}", if json { report.to_json() } else { report.to_string() });
        }
        Command::Measure { sinks, records } => measure::run(&sinks, records)?,
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "ringtap-sensor", &mut std::io::stdout());
        }
        Command::Man => clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Input {
    /// Opens the file, or standard input if it is `-`, behind the filter.
    fn source(&self, file: &Path) -> Outcome<PcapSource> {
        let source = match file.to_str() {
            Some("-") => PcapSource::from_reader(std::io::stdin())?,
            _ => PcapSource::open(file)?,
        };
        Ok(match &self.filter {
            Some(filter) => source.filter(filter.parse()?),
            None => source,
        })
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

/// Set by SIGINT, SIGTERM and SIGHUP, or when the time is up.
#[derive(Debug, Clone)]
struct End {
    is_asked: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl End {
    fn new(seconds: Option<u64>) -> Outcome<Self> {
        let is_asked = Arc::new(AtomicBool::new(false));
        let (asked, waiter) = (Arc::clone(&is_asked), std::thread::current());
        ctrlc::set_handler(move || {
            asked.store(true, Ordering::Relaxed);
            waiter.unpark();
        })?;
        let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        Ok(Self { is_asked, deadline })
    }

    fn has_come(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed)
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
}
