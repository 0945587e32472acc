//! The life of a shard's thread.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::handle::{Readers, ShardsHandle};
use super::lineup::{Exit, Lineup, Verdict};
use super::plan::{ShardPlan, ShardSpec};
use super::{OnShardFailure, Runtime, Shard};
use crate::sys::thread;
use crate::wait::StopHandle;
use crate::{AsyncCapture, Capture, CaptureBuilder, Error, Reactor, Result, Step};

/// What every shard is to do.
pub(super) struct Job<R, F> {
    /// What each shard captures; at least one.
    pub(super) captures: Vec<CaptureBuilder>,
    pub(super) on_failure: OnShardFailure,
    pub(super) runtime: R,
    pub(super) work: F,
}

/// What the shards of one job have in common.
struct Common<R, F> {
    job: Job<R, F>,
    count: usize,
    lineup: Lineup,
    exit: Exit,
    stop: StopHandle,
}

/// A shard's report that it is ready to start, or why it is not.
type Report = (usize, Result<Readers>);

/// Starts the threads and waits until all capture, or none does.
pub(super) fn spawn<R, F, Fut>(plan: &ShardPlan, job: Job<R, F>) -> Result<ShardsHandle>
where
    R: Runtime,
    F: Fn(Shard) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + 'static,
{
    let count = plan.specs().len();
    let stop = StopHandle::new()?;
    let common = Arc::new(Common {
        job,
        count,
        lineup: Lineup::default(),
        exit: Exit::new(count),
        stop: stop.clone(),
    });
    let (report, reports) = channel();
    let mut threads = Vec::with_capacity(count);
    let mut failure = None;
    for &spec in plan.specs() {
        let (common, report) = (Arc::clone(&common), report.clone());
        let thread = std::thread::Builder::new().name(format!("ringtap-{}", spec.index));
        match thread.spawn(move || shard_main(&common, spec, &report)) {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                failure = Some(Error::os(Step::SpawnThread, source));
                break;
            }
        }
    }
    drop(report);
    let started = match failure {
        Some(error) => Err(error),
        None => collect(&reports, count),
    };
    match started {
        Ok(readers) => {
            common.lineup.decide(Verdict::Go);
            common.lineup.wait_until_under_way(count);
            Ok(ShardsHandle::new(threads, plan.specs().to_vec(), readers, stop))
        }
        Err(error) => {
            common.lineup.decide(Verdict::Abort);
            for thread in threads {
                // What it says was reported already, or is the echo of another's failure.
                let _ = thread.join();
            }
            Err(error)
        }
    }
}

/// Waits for every shard's report, or for the first that failed.
fn collect(reports: &Receiver<Report>, count: usize) -> Result<Vec<Readers>> {
    let mut readers: Vec<Option<Readers>> = (0..count).map(|_| None).collect();
    for _ in 0..count {
        match reports.recv() {
            Ok((index, Ok(reader))) => readers[index] = Some(reader),
            Ok((_, Err(error))) => return Err(error),
            Err(_) => break, // a runtime ended without running its future
        }
    }
    let missing = readers.iter().position(Option::is_none);
    match missing {
        Some(index) => {
            let why = "its runtime ended before the shard could start";
            Err(Error::Shard { index, source: Box::new(Error::other(why)) })
        }
        None => Ok(readers.into_iter().flatten().collect()),
    }
}

/// A shard's thread, from pinning to leaving the group.
fn shard_main<R, F, Fut>(
    common: &Common<R, F>,
    spec: ShardSpec,
    report: &Sender<Report>,
) -> Result<()>
where
    R: Runtime,
    F: Fn(Shard) -> Fut,
    Fut: Future<Output = Result<()>> + 'static,
{
    let index = spec.index;
    let (anchors, has_reported) = (Cell::new(Vec::new()), Cell::new(false));
    let run = || {
        pin(spec)?;
        let (anchors, has_reported) = (&anchors, &has_reported);
        common.job.runtime.run(spec.core, async move {
            let Some((captures, readers)) = open(common, spec)? else { return Ok(()) };
            anchors.set(captures.iter().map(|capture| capture.get_ref().anchor()).collect());
            has_reported.set(true);
            // A receiver that is gone has heard of another shard's failure: the verdict tells.
            let _ = report.send((index, Ok(readers)));
            if common.lineup.wait_for_verdict() == Verdict::Abort {
                return Ok(());
            }
            let opened = captures.iter().try_for_each(|capture| capture.get_ref().open_intake());
            common.lineup.under_way();
            opened?;
            let mut captures = captures.into_iter();
            (common.job.work)(Shard {
                capture: captures.next().expect("a shard has a capture"),
                others: captures.collect(),
                spec,
                count: common.count,
                stop: common.stop.clone(),
            })
            .await
        })?
    };
    let outcome = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.map_err(|source| Error::Shard { index, source: Box::new(source) }),
        Err(panic) => Err(Error::ShardPanicked { index, message: message_of(&*panic) }),
    };
    // Whoever fails, or ends of his own accord, leaves the group now: the others get his packets.
    let was_stopped = outcome.is_ok() && common.stop.is_stopped();
    let anchors = if was_stopped { anchors.take() } else { Vec::new() };
    for anchor in &anchors {
        // It has done so already, unless its future ended without draining.
        let _ = anchor.close_intake();
    }
    common.exit.leave(index, anchors);
    match outcome {
        Err(error) if !has_reported.get() => {
            let _ = report.send((index, Err(error)));
            return Ok(()); // that was its report
        }
        Err(_) if common.job.on_failure == OnShardFailure::Stop => common.stop.stop(),
        _ => {}
    }
    outcome
}

fn pin(spec: ShardSpec) -> Result<()> {
    let Some(core) = spec.core else { return Ok(()) };
    thread::pin_to(core).map_err(|source| Error::os(Step::PinThread, source))
}

/// A shard's captures, their intakes closed, in their places in their groups; `None` where the start
/// was aborted meanwhile.
fn open<R, F>(
    common: &Common<R, F>,
    spec: ShardSpec,
) -> Result<Option<(Vec<AsyncCapture>, Readers)>> {
    let options = &common.job.captures;
    let open_all = || -> Result<Vec<OwnedFd>> {
        options.iter().map(|_| CaptureBuilder::open_socket()).collect()
    };
    let sockets = match common.lineup.in_turn(spec.index, open_all) {
        Some(opened) => opened?,
        None => return Ok(None),
    };
    let opened = options.iter().zip(sockets).map(|(options, socket)| options.open_closed(socket));
    let mut captures: Vec<Capture> = opened.collect::<Result<_>>()?;
    let Ok(groups) = common.lineup.wait_to_join(spec.index) else { return Ok(None) };
    for (at, (options, capture)) in options.iter().zip(&mut captures).enumerate() {
        if let Some(membership) = options.effective_membership() {
            capture.join(&membership.of_group(groups.get(at).copied().flatten()))?;
        }
    }
    common.lineup.joined(captures.iter().map(Capture::fanout_group).collect());
    let attach = |mut capture: Capture| {
        capture.share_stop(common.stop.clone());
        AsyncCapture::new(capture)
    };
    let captures: Vec<AsyncCapture> = captures.into_iter().map(attach).collect::<Result<_>>()?;
    let readers = Readers {
        captures: captures.iter().map(AsyncCapture::stats_handle).collect(),
        reactor: Reactor::current()?.stats_handle(),
    };
    Ok(Some((captures, readers)))
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned())
}
