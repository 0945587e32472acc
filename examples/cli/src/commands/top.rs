//! A live view of shards, without records.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::End;
use crate::cli::TopArgs;
use crate::config::Config;
use crate::feed::{self, Feed};
use crate::ledger::Ledger;
use crate::report::Report;
use crate::say::say;
use crate::screen::Screen;
use crate::sink::Outcome;
use crate::watch::{Watch, show};

pub(super) fn run(args: &TopArgs) -> Outcome<ExitCode> {
    let which = &args.from.which;
    let mut config = Config::new("top", Path::new("none"))?;
    config.interfaces = vec![which.interface()?.to_owned()];
    (config.filter, config.shards) = (which.filter(false)?, args.shards);
    let end = End::new(args.from.seconds)?;
    let Feed { shards, meters, queues, .. } = feed::start(&config, &Ledger::scratch()?)?;
    drop(queues); // records are nobody's here
    if let Some(path) = &args.report {
        Report::check(path)?;
    }
    let title = format!("ringtap top {}", which.interface()?);
    let mut report = Report::new(&title, which.interface()?, which.filter(false)?.as_deref());
    let mut watch = Watch::new(true);
    let screen = if args.json { None } else { Screen::open(end.ender()) };
    watch.look(&shards.stats()?, &meters);
    let title = format!("{title} (q ends it)");
    while !shards.is_finished() {
        end.wait(Duration::from_secs(1));
        let look = watch.look(&shards.stats()?, &meters);
        if args.report.is_some() {
            report.add(&look);
        }
        match args.json {
            true => say!("{}", serde_json::to_string(&look)?)?,
            false => show(&look, &title, screen.as_ref())?,
        }
        if args.once || end.has_come() {
            break;
        }
    }
    shards.stop();
    shards.join()?;
    if let Some(path) = &args.report {
        report.write(path, &watch.latency, None)?;
    }
    Ok(end.code())
}
