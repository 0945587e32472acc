//! Other programs, as oracles.

use std::io::{ErrorKind, Write};
use std::process::{Command, Output, Stdio};

use crate::skip;

/// What a program writes that reads `input`, and does well; `None`, said loudly, where there is no such program.
///
/// # Panics
/// Where it fails, or no program may be missing.
pub fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<String> {
    let output = output(program, arguments, input)?;
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same, however it does: tshark tells what is whole of a damaged file, and fails.
///
/// # Panics
/// Where it cannot be run though it is there, or no program may be missing.
pub fn output(program: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    let mut command = Command::new(program);
    // A home that everybody may read: without one tshark crashes.
    command.args(arguments).env("HOME", std::env::temp_dir()).env_remove("XDG_CONFIG_HOME");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip(&format!("no {program} here"));
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let mut stdin = child.stdin.take().expect("it was asked for");
    // Who does not read it says why.
    let _ = stdin.write_all(input);
    drop(stdin);
    Some(child.wait_with_output().unwrap_or_else(|error| panic!("{program}: {error}")))
}
