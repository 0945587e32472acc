//! Tests that cripple their process (limits, capabilities, seccomp) run in one of their own.

use std::process::Command;

const VARIABLE: &str = "RINGTAP_TEST_CHILD";

/// Runs the test named `child::{test}` of this binary in a process of its own, which finds `value`
/// by [`value`].
///
/// # Panics
/// Where that process fails.
#[track_caller]
pub fn run(test: &str, value: &str) {
    let name = format!("child::{test}");
    let status = Command::new(std::env::current_exe().expect("a test has a path"))
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, value)
        .status()
        .expect("a test can be run");
    assert!(status.success(), "{name}: {status}");
}

/// The value that [`run`] gave this process; `None` where it is an ordinary test process, in which
/// a child's test has nothing to do.
pub fn value() -> Option<String> {
    std::env::var(VARIABLE).ok()
}
