//! All of it, in a network namespace of its own.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ringtap_lab::{Directory, Stage};

use super::run::{report_of, watch};
use crate::config::{Config, NdjsonConfig, SinkConfig};
use crate::report::Report;
use crate::say::say;
use crate::sensor::Sensor;
use crate::sink::Outcome;
use crate::view::View;

pub(super) fn run(visits: u32, report: Option<&Path>) -> Outcome<ExitCode> {
    if let Some(path) = report {
        Report::check(path)?;
    }
    let stage = Stage::open(None)?;
    let directory = Directory::new();
    let mut config = Config::new("demo", &directory.path().join("spool"))?;
    config.interfaces = vec![stage.interface().to_owned()];
    let path = directory.path().join("flows.ndjson");
    config.sinks = vec![SinkConfig::Ndjson(NdjsonConfig {
        path: Some(path.clone()),
        names: crate::record::Names::Plain,
    })];
    config.shards = Some(2);
    let sensor = Sensor::start(&config)?;
    let talk = stage.talk(visits);
    let is_over = |_: &Sensor| !talk.is_under_way();
    let pause = |_: Option<&mut View>| {
        std::thread::sleep(Duration::from_millis(250));
        Ok(())
    };
    let report = report.map(|path| (path, report_of(&config)));
    let account = watch(sensor, Some(View::new("ringtap demo", None)), report, is_over, pause)?;
    let sent = talk.finish();
    let lost = stage.lost();

    let text = std::fs::read_to_string(&path)?;
    let mut in_flows = 0;
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line)?;
        let number = |name: &str| value[name].as_u64().unwrap_or(0);
        in_flows += number("packets_sent") + number("packets_received");
    }
    say!("{account}")?;
    say!(
        "wire      {sent} frames sent = {} delivered + {} dropped + {lost} lost before",
        account.delivered,
        account.drops
    )?;
    say!(
        "flows     {} packets delivered = {in_flows} in records at the sink + {} of no flow",
        account.delivered,
        account.of_none
    )?;
    say!("sink      {} records spooled = {} lines", account.records, text.lines().count())?;
    let is_exact = sent == account.delivered + account.drops + lost
        && account.delivered == in_flows + account.of_none
        && account.records == text.lines().count() as u64;
    say!(
        "{}",
        if is_exact {
            "every packet is accounted for, from the wire to the sink"
        } else {
            "MISMATCH"
        }
    )?;
    Ok(if is_exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
