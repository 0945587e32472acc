//! The command `ringtap`, on ringtap's public API; and its flow sensor.
//!
//! ```text
//!   shards (feed) ──a queue each──► spooler ──► spool ──► a courier a sink ──► NDJSON IPFIX NATS Redis Parquet
//!      │ never wait                 numbers      disk      delivers again until it is acknowledged
//!      └► meters ──► watch: live view, report, /metrics
//! ```

mod account;
mod bar;
mod cli;
mod commands;
mod config;
mod feed;
mod harden;
mod http;
mod ledger;
mod lines;
mod offline;
mod passed;
mod pipeline;
mod proof;
mod readback;
mod record;
mod report;
mod say;
mod screen;
mod seal;
mod sensor;
mod sink;
mod spool;
mod spooler;
mod talk;
mod tracked;
mod units;
mod view;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use nix::sys::stat::Mode;

use crate::cli::Cli;

/// What a shell says of a process that SIGPIPE has ended.
const READER_GONE: u8 = 128 + 13;

/// Runs the command `ringtap`.
pub fn main() -> ExitCode {
    run(Cli::parse())
}

/// Runs the command `ringtap-sensor`, which is `ringtap sensor` unless it is told another command.
pub fn sensor_main() -> ExitCode {
    run(Cli::parse_from(cli::of_sensor(std::env::args_os())))
}

fn run(cli: Cli) -> ExitCode {
    // Packets and what is known of them are not for everybody on the machine, whatever the shell's umask is.
    nix::sys::stat::umask(Mode::S_IRWXG | Mode::S_IRWXO);
    match commands::run(cli.command) {
        Ok(code) => code,
        Err(error) if say::is_of_gone_reader(error.as_ref()) => ExitCode::from(READER_GONE),
        Err(error) => {
            say::note!("ringtap: {error}");
            ExitCode::FAILURE
        }
    }
}
