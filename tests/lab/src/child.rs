//! Tests that cripple their process (limits, capabilities, seccomp) run in one of their own.

use std::process::{Child, Command, Stdio};

const VARIABLE: &str = "RINGTAP_TEST_CHILD";

/// Runs the test named `child::{test}` of this binary in a process of its own, which finds `value`
/// by [`value`].
///
/// # Panics
/// Where that process fails.
#[track_caller]
pub fn run(test: &str, value: &str) {
    run_named(&format!("child::{test}"), value);
}

/// As [`run`], of a test in the module `child` of the module whose `module_path!()` is given.
///
/// # Panics
/// Where that process fails.
#[track_caller]
pub fn run_in(module_path: &str, test: &str) {
    let module =
        module_path.split_once("::").map_or(String::new(), |(_, rest)| format!("{rest}::"));
    run_named(&format!("{module}child::{test}"), "");
}

#[track_caller]
fn run_named(name: &str, value: &str) {
    let status = command(name, value).status().expect("a test can be run");
    assert!(status.success(), "{name}: {status}");
}

fn command(name: &str, value: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(VARIABLE, value);
    command
}

/// Starts what [`run`] runs, and goes on: its output can be read from the process.
///
/// # Panics
/// Where there can be no process.
pub fn start(test: &str, value: &str) -> Child {
    command(&format!("child::{test}"), value)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a test can be run")
}

/// The value that [`run`] gave this process; `None` where it is an ordinary test process, in which
/// a child's test has nothing to do.
pub fn value() -> Option<String> {
    std::env::var(VARIABLE).ok()
}
