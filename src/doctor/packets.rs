//! AF_PACKET, tried on the loopback.

use super::Finding;
use crate::{Capture, CaptureBuilder, FanoutMode, Injector, RingLayout};

/// Small enough for any machine.
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
    findings
}

fn found(subject: &'static str, outcome: crate::Result<()>, what: &str) -> Finding {
    match outcome {
        Ok(()) => Finding::works(subject, what),
        Err(error) => Finding::failed(subject, &error),
    }
}
