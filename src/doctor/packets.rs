//! Checks of AF_PACKET on the loopback.

use std::time::{Duration, Instant};

use super::Finding;
use crate::afpacket::{Capture, CaptureBuilder, FanoutMode, Injector, RingLayout};
use crate::error::{Error, Result};

/// Capture options with a ring small enough for any machine.
fn small() -> CaptureBuilder {
    Capture::builder().interface("lo").block_size(1 << 16).block_count(2)
}

pub(super) fn look() -> Vec<Finding> {
    let blocks = small().build();
    let has_failed = blocks.is_err();
    let mut findings = vec![found("receive", blocks.map(drop), "blocks (TPACKET_V3)")];
    if has_failed {
        return findings; // the others would fail for the same reason
    }
    let frames = small().layout(RingLayout::Frames).build();
    findings.push(found("frames", frames.map(drop), "frames (TPACKET_V2), for low latency"));
    let fanout = small().fanout_auto(FanoutMode::Hash).build();
    findings.push(found("fanout", fanout.map(drop), "groups with an id of the kernel's choice"));
    let injector = Injector::builder().interface("lo").build();
    findings.push(found("send", injector.map(drop), "frames (TPACKET_V2)"));
    findings.push(block_timeouts());
    findings
}

/// Measures how long a block with a timeout of 1 ms really waits. Kernels before 6.18 count in ticks of their
/// timer.
fn block_timeouts() -> Finding {
    const SUBJECT: &str = "block timeouts";
    match waits() {
        Err(Error::LinkDown { .. }) => Finding::unknown(SUBJECT, "the loopback is down"),
        Err(error) => Finding::failed(SUBJECT, &error),
        Ok(waits) if waits.is_empty() => {
            Finding::unknown(SUBJECT, "nothing comes back on the loopback")
        }
        Ok(mut waits) => {
            waits.sort_unstable();
            let median = waits[waits.len() / 2];
            let detail = format!("a timeout of 1 ms takes {:.1} ms", median.as_secs_f64() * 1e3);
            if median < Duration::from_millis(3) {
                return Finding::works(SUBJECT, detail);
            }
            let remedy = "Linux 6.18 counts finer than timer ticks; \
                          `RingProfile::LowLatency` has no such wait";
            Finding::limited(SUBJECT, detail, remedy)
        }
    }
}

/// Measures, several times, how long a sent frame takes to be received in a block.
fn waits() -> Result<Vec<Duration>> {
    const PATIENCE: Duration = Duration::from_millis(100);
    let mut capture = small().block_timeout_ms(1).ignore_outgoing(true).build()?;
    let mut injector = Injector::open("lo")?;
    let mut waits = Vec::new();
    for number in 0..9 {
        let mut frame = [0; 60];
        // The Ethernet type for local experiments (IEEE 802), which no program receives.
        frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());
        frame[14] = number;
        let sent = Instant::now();
        injector.send(&frame)?;
        if !injector.flush_timeout(PATIENCE)? {
            break;
        }
        while sent.elapsed() < PATIENCE {
            let Some(batch) = capture.next_batch_timeout(PATIENCE)? else { break };
            if batch.iter().any(|packet| packet.data().get(12..15) == frame.get(12..15)) {
                waits.push(sent.elapsed());
                break;
            }
        }
    }
    Ok(waits)
}

fn found(subject: &'static str, outcome: Result<()>, what: &str) -> Finding {
    match outcome {
        Ok(()) => Finding::works(subject, what),
        Err(error) => Finding::failed(subject, &error),
    }
}
