//! The lifetime of a shard's thread.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::handle::{Readers, Shards};
use super::plan::{ShardPlan, ShardSpec};
use super::source::{Opened, ShardSockets};
use super::startup::{Exit, Lineup, Verdict};
use super::{FailurePolicy, Runtime, Shard};
use crate::error::{Error, Result, Step};
use crate::reactor::Reactor;
use crate::sys::thread;
use crate::trace;
use crate::wait::StopHandle;

/// The job that all shards carry out.
pub(super) struct Job<I, R, F> {
    /// The source of their packets.
    pub(super) sockets: I,
    pub(super) on_failure: FailurePolicy,
    pub(super) runtime: R,
    pub(super) work: F,
}

/// State shared by the shards of one job.
struct Common<I, R, F> {
    job: Job<I, R, F>,
    count: usize,
    lineup: Lineup,
    exit: Exit,
    stop: StopHandle,
}

/// A shard's report that it is ready to start, or its error.
type Report = (usize, Result<Readers>);

/// Starts the threads and waits until all of them capture, or none.
pub(super) fn spawn<I, R, F, Fut>(plan: &ShardPlan, job: Job<I, R, F>) -> Result<Shards>
where
    I: ShardSockets,
    R: Runtime,
    F: Fn(Shard<I::Port>) -> Fut + Send + Sync + 'static,
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
            Ok(Shards::new(threads, plan.specs().to_vec(), readers, stop))
        }
        Err(error) => {
            common.lineup.decide(Verdict::Abort);
            for thread in threads {
                // Its result was reported already, or follows from another shard's failure.
                let _ = thread.join();
            }
            Err(error)
        }
    }
}

/// Waits for every shard's report, or for the first error.
fn collect(reports: &Receiver<Report>, count: usize) -> Result<Vec<Readers>> {
    let mut readers: Vec<Option<Readers>> = (0..count).map(|_| None).collect();
    for _ in 0..count {
        match reports.recv().expect("no shard ends before it has reported, unless told to") {
            (index, Ok(reader)) => readers[index] = Some(reader),
            (_, Err(Error::Shard { source, .. })) if source.is_about_options() => {
                return Err(*source); // no shard could have started
            }
            (_, Err(error)) => return Err(error),
        }
    }
    Ok(readers.into_iter().flatten().collect())
}

/// The main function of a shard's thread, from pinning to leaving the group.
fn shard_main<I, R, F, Fut>(
    common: &Common<I, R, F>,
    spec: ShardSpec,
    report: &Sender<Report>,
) -> Result<()>
where
    I: ShardSockets,
    R: Runtime,
    F: Fn(Shard<I::Port>) -> Fut,
    Fut: Future<Output = Result<()>> + 'static,
{
    let index = spec.index;
    let (anchors, has_reported) = (Cell::new(Vec::new()), Cell::new(false));
    let run = || {
        pin(spec)?;
        let (anchors, has_reported) = (&anchors, &has_reported);
        common.job.runtime.run(spec.core, async move {
            let opened = common.job.sockets.open(spec, &common.lineup, &common.stop)?;
            let Some(Opened { mut ports, readers, anchors: held }) = opened else { return Ok(()) };
            anchors.set(held);
            let readers = Readers { ports: readers, reactor: Reactor::current()?.stats_handle() };
            has_reported.set(true);
            // If the receiver is gone, another shard has failed, and the verdict will say so.
            let _ = report.send((index, Ok(readers)));
            if common.lineup.wait_for_verdict() == Verdict::Abort {
                return Ok(());
            }
            let opened = ports.iter_mut().try_for_each(I::open_intake);
            common.lineup.under_way();
            opened?;
            let mut ports = ports.into_iter();
            (common.job.work)(Shard {
                capture: ports.next().expect("a shard has a socket"),
                others: ports.collect(),
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
    if let Err(error) = &outcome {
        trace::shard_failed(index, error);
    }
    // A shard that fails, or ends without being stopped, leaves the group now, so that the others get its
    // packets.
    let was_stopped = outcome.is_ok() && common.stop.is_stopped();
    let anchors = if was_stopped { anchors.take() } else { Vec::new() };
    for anchor in &anchors {
        // Already closed, unless the future ended without draining.
        let _ = anchor.close_intake();
    }
    common.exit.leave(index, anchors);
    match outcome {
        Err(error) if !has_reported.get() => {
            let _ = report.send((index, Err(error)));
            return Ok(()); // the error has been reported
        }
        Err(_) if common.job.on_failure == FailurePolicy::Stop => common.stop.stop(),
        _ => {}
    }
    outcome
}

fn pin(spec: ShardSpec) -> Result<()> {
    let Some(core) = spec.core else { return Ok(()) };
    let fault = |source| Error::os(Step::PinThread, source).of(format_args!("core {core}"));
    thread::pin_to(core).map_err(fault)
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned())
}
