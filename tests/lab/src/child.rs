//! Tests that cripple their process (limits, capabilities, seccomp) run in one of their own.

use std::process::{Child, Command, Stdio};

const VARIABLE: &str = "RINGTAP_TEST_CHILD";

/// Runs a test in a process of its own, which finds `value` by [`value`]. It is the test of this name in the module `child`
/// of the module whose `module_path!()` is given.
///
/// # Panics
/// Where that process fails.
#[track_caller]
pub fn run(module_path: &str, test: &str, value: &str) {
    let status = command(module_path, test, value).status().expect("a test can be run");
    assert!(status.success(), "{test}: {status}");
}

fn command(module_path: &str, test: &str, value: &str) -> Command {
    let module =
        module_path.split_once("::").map_or(String::new(), |(_, rest)| format!("{rest}::"));
    let name = format!("{module}child::{test}");
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(VARIABLE, value);
    command
}

/// Starts what [`run`] runs, and goes on: its output can be read from the process.
///
/// # Panics
/// Where there can be no process.
pub fn start(module_path: &str, test: &str, value: &str) -> Child {
    command(module_path, test, value).stdout(Stdio::piped()).spawn().expect("a test can be run")
}

/// The value that [`run`] gave this process; `None` where it is an ordinary test process, in which
/// a child's test has nothing to do.
pub fn value() -> Option<String> {
    std::env::var(VARIABLE).ok()
}
