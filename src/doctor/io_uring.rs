//! Checks of io_uring and the features of this kernel's version of it.

use super::Finding;
use crate::options::IoUringFeatures;
use crate::reactor::probe;

pub(super) fn look() -> Vec<Finding> {
    let (own, hosted) = match probe() {
        Ok([Ok(own), hosted]) => (own, hosted),
        Ok([Err(error), _]) | Err(error) => {
            let fallback =
                "the built-in executor goes on over poll(2), other runtimes' adapters do not";
            return vec![Finding::failed("ring", &error), Finding::works("without it", fallback)];
        }
    };
    let feature = |subject, feature, detail: &str, since: &str| match own.contains(feature) {
        true => Finding::works(subject, detail),
        false => Finding::limited(
            subject,
            format!("no: {detail}"),
            &format!("Linux {since} has it, if nothing forbids it"),
        ),
    };
    vec![
        Finding::works("ring", "multishot polls, timeouts"),
        feature(
            "deferred work",
            IoUringFeatures::DEFERRED_WORK,
            "completions only when asked for",
            "6.1",
        ),
        other_runtimes(own, hosted),
        feature(
            "registered ring",
            IoUringFeatures::REGISTERED_RING,
            "entered by a registered descriptor",
            "5.18",
        ),
        feature(
            "silent kicks",
            IoUringFeatures::SILENT_KICKS,
            "a kick posts no completion",
            "5.17",
        ),
        feature(
            "moderated waits",
            IoUringFeatures::LEAST_WAITS,
            "`Coalesce` takes one system call",
            "6.12",
        ),
        feature(
            "idle waits",
            IoUringFeatures::NO_IO_WAIT,
            "no I/O wait in the load and in PSI",
            "6.15",
        ),
        feature(
            "restricted",
            IoUringFeatures::RESTRICTED,
            "the ring takes polls, sends, timers and cancellations alone",
            "5.10",
        ),
    ]
}

/// Checks how completions reach a foreign runtime, which watches an eventfd.
fn other_runtimes(own: IoUringFeatures, hosted: crate::error::Result<IoUringFeatures>) -> Finding {
    const SUBJECT: &str = "other runtimes";
    let works_for = |features: IoUringFeatures| features.contains(IoUringFeatures::DEFERRED_WORK);
    match hosted {
        Err(error) => Finding::failed(SUBJECT, &error),
        Ok(hosted) if works_for(own) && !works_for(hosted) => Finding::limited(
            SUBJECT,
            "this kernel loses signals of deferred work: their reactors do without it",
            "6.18 and later kernels signal all; it costs little",
        ),
        Ok(_) => Finding::works(SUBJECT, "every completion signals them"),
    }
}
