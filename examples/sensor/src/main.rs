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
mod sensor;
mod sink;
mod spool;
mod spooler;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

fn main() -> ExitCode {
    match commands::run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringtap-sensor: {error}");
            ExitCode::FAILURE
        }
    }
}
