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
use crate::view::View;
use crate::watch::Watch;

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
    let screen = if args.json { None } else { Screen::open(end.ender(), End::waker()) };
    let mut view = View::new(&title, screen);
    watch.look(&shards.stats()?, &meters);
    while !shards.is_finished() {
        end.wait_for_keys(&mut view, Duration::from_secs(1))?;
        let look = watch.look(&shards.stats()?, &meters);
        if args.report.is_some() {
            report.add(&look);
        }
        match args.json {
            true => say!("{}", serde_json::to_string(&look)?)?,
            false => view.show(look)?,
        }
        if args.once || end.has_come() || view.has_ended() {
            break;
        }
    }
    drop(view);
    shards.stop();
    shards.join()?;
    if let Some(path) = &args.report {
        report.add_rest(&meters);
        report.write(path, &watch.latency, None)?;
    }
    Ok(end.code())
}
