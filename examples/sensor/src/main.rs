//! A flow sensor on ringtap's public API.
//!
//! ```text
//!   shards (feed) ──a queue each──► spooler ──► spool ──► a courier a sink ──► NDJSON IPFIX NATS Redis Parquet
//!      │ never wait                 numbers      disk      delivers again until it is acknowledged
//!      └► meters ──► watch: live view, report, /metrics
//! ```

mod cli;
mod commands;
mod config;
mod feed;
mod http;
mod ledger;
mod record;
mod report;
mod say;
mod screen;
mod sensor;
mod sink;
mod spool;
mod spooler;
mod talk;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use nix::sys::stat::Mode;

use crate::cli::Cli;

/// What a shell says of a process that SIGPIPE has ended.
const READER_GONE: u8 = 128 + 13;

fn main() -> ExitCode {
    // Packets and what is known of them are not for everybody on the machine, whatever the shell's umask is.
    nix::sys::stat::umask(Mode::S_IRWXG | Mode::S_IRWXO);
    match commands::run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) if say::is_of_gone_reader(error.as_ref()) => ExitCode::from(READER_GONE),
        Err(error) => {
            say::note!("ringtap-sensor: {error}");
            ExitCode::FAILURE
        }
    }
}
