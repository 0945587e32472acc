//! The sensor.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::End;
use crate::account::Account;
use crate::cli::SensorArgs;
use crate::config::{CaptureKind, Config, SinkConfig};
use crate::offline;
use crate::report::Report;
use crate::say::{note, say};
use crate::screen::Screen;
use crate::sensor::Sensor;
use crate::sink::Outcome;
use crate::view::View;
use crate::watch::Watch;

pub(super) fn run(args: SensorArgs) -> Outcome<ExitCode> {
    let (seconds, is_json, view) = (args.seconds, args.json, args.view);
    let report = args.report.clone();
    if let Some(path) = &report {
        Report::check(path)?;
    }
    let config = configure(args)?;
    if config.harden && report.is_some() {
        return Err(
            "harden: a report could not be written at the end; leave one of both out".into()
        );
    }
    let end = End::new(seconds)?;
    if !config.read.is_empty() {
        if view || report.is_some() {
            return Err("--view and --report are for interfaces".into());
        }
        let (account, is_whole) = offline::run(&config, || end.has_come())?;
        tell(&account, is_json)?;
        if !is_whole {
            note!("it was ended before all was read");
        }
        let has_all = is_whole && account.sinks.iter().all(|sink| sink.has_all);
        return Ok(if has_all { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let sensor = Sensor::start(&config)?;
    note!(
        "{} watches {} with {} shards",
        config.sensor,
        config.interfaces.join(", "),
        sensor.shards.len()
    );
    let is_over = |_: &Sensor| end.has_come();
    let pause = |view: Option<&mut View>| match view {
        Some(view) => end.wait_for_keys(view, Duration::from_secs(1)),
        None => {
            end.wait(Duration::from_secs(1));
            Ok(())
        }
    };
    let view = view.then(|| View::new(&config.sensor, Screen::open(end.ender(), End::waker())));
    let report = report.as_deref().map(|path| (path, report_of(&config)));
    let account = watch(sensor, view, report, is_over, pause)?;
    tell(&account, is_json)?;
    Ok(end.code())
}

fn tell(account: &Account, is_json: bool) -> Outcome<()> {
    match is_json {
        true => say!("{}", serde_json::to_string(account)?)?,
        false => say!("{account}")?,
    }
    Ok(())
}

/// A report of a sensor.
pub(super) fn report_of(config: &Config) -> Report {
    let title = format!("ringtap sensor {}", config.sensor);
    Report::new(&title, &config.interfaces.join(", "), config.filter.as_deref())
}

/// Looks at a sensor until it is over, and then for its account.
pub(super) fn watch(
    sensor: Sensor,
    mut view: Option<View>,
    mut report: Option<(&Path, Report)>,
    is_over: impl Fn(&Sensor) -> bool,
    pause: impl Fn(Option<&mut View>) -> std::io::Result<()>,
) -> Outcome<Account> {
    let mut watch = Watch::new(view.is_some() || report.is_some());
    let failed = loop {
        let stats = match sensor.look() {
            Ok(stats) => stats,
            Err(error) => break Some(error),
        };
        let look = watch.look(&stats, &sensor.meters);
        if let Some((_, report)) = &mut report {
            report.add(&look);
        }
        let shown = view.as_mut().map_or(Ok(()), |view| view.show(look));
        let is_over =
            is_over(&sensor) || sensor.has_ended() || view.as_ref().is_some_and(View::has_ended);
        if is_over && shown.is_ok() {
            break None;
        }
        if let Err(error) = shown.and_then(|()| pause(view.as_mut())) {
            break Some(error.into());
        }
    };
    drop(view);
    let meters = Arc::clone(&sensor.meters);
    let account = sensor.finish()?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some((path, mut report)) = report {
        report.add_rest(&meters);
        report.write(path, &watch.latency, Some(&account.to_string()))?;
    }
    Ok(account)
}

/// Reads the sinks of a command line: here, and not where the line is read, as what is wrong with it would be shown
/// there as it is, passwords included.
pub(super) fn sinks_of(words: &[String]) -> Outcome<Vec<SinkConfig>> {
    Ok(words.iter().map(|word| word.parse()).collect::<Result<_, String>>()?)
}

fn configure(args: SensorArgs) -> Outcome<Config> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => {
            if args.interfaces.is_empty() && args.read.is_empty() {
                return Err("no interface: give --interface, --read, or --config".into());
            }
            let spool = args.spool.as_deref().ok_or("no spool: give --spool, or --config")?;
            Config::new(args.sensor.as_deref().unwrap_or("sensor"), spool)?
        }
    };
    if args.config.is_some() {
        config.sensor = args.sensor.unwrap_or(config.sensor);
        config.spool = args.spool.unwrap_or(config.spool);
    }
    if !args.interfaces.is_empty() {
        config.interfaces = args.interfaces;
    }
    if !args.read.is_empty() {
        (config.read, config.interfaces) = (args.read, Vec::new());
    }
    if args.xdp {
        config.capture = CaptureKind::AfXdp;
    }
    if args.passed {
        config.capture = CaptureKind::Passed;
    }
    config.harden |= args.harden;
    config.applications |= args.applications;
    config.netns = args.netns.or(config.netns);
    config.filter = args.filter.or(config.filter);
    config.shards = args.shards.or(config.shards);
    config.spool_mib = args.spool_mib.unwrap_or(config.spool_mib);
    config.idle_seconds = args.idle_seconds.or(config.idle_seconds);
    config.active_seconds = args.active_seconds.unwrap_or(config.active_seconds);
    config.listen = args.listen.or(config.listen);
    config.sinks.extend(sinks_of(&args.sinks)?);
    Ok(config)
}
