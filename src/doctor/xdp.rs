//! Checks of AF_XDP: opens a socket without binding it, and loads a program without attaching it.

use super::Finding;
use crate::afxdp::try_program;
use crate::sys::xdp;

pub(super) fn look() -> Vec<Finding> {
    let found = |subject, outcome: crate::error::Result<()>, what: &str| match outcome {
        Ok(()) => Finding::works(subject, what),
        Err(error) => Finding::failed(subject, &error),
    };
    vec![
        found("send", xdp::open().map(drop), "a socket opens (`XdpSocketBuilder::build_sender`)"),
        found("receive", try_program(), "the kernel takes the program that redirects to sockets"),
    ]
}
