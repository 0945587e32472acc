//! The runner, with scripts in place of examples.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use ringtap_lab_wire::Directory;

const FOLDER: &str = "RINGTAP_EXAMPLES";

/// Runs the runner in which the example `name` is this script.
fn run(name: &str, script: &str) -> Output {
    // One at a time: a process that another test starts would hold the script open for writing for a moment.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Directory::new();
    let path = folder.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    // Where the tests were moved to, it is beside the examples.
    let lab = std::env::var_os(FOLDER)
        .map_or(env!("CARGO_BIN_EXE_lab").into(), |folder| Path::new(&folder).join("lab"));
    Command::new(lab).arg(name).env(FOLDER, folder.path()).output().unwrap()
}

#[test]
fn it_ends_with_the_status_of_the_example() {
    for status in [0, 3] {
        let output = run("doctor", &format!("echo hello; exit {status}"));
        assert_eq!(output.status.code(), Some(status));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().any(|line| line == "hello"), "{text}");
    }
}

#[test]
fn an_example_that_is_killed_is_an_error() {
    let output = run("doctor", "echo hello; kill -9 $$");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("signal: 9"), "{output:?}");
}

#[test]
fn its_files_are_removed_even_after_a_failure() {
    let output = run("flow_keys", "echo \"$1\"; test -s \"$1\" && exit 5");
    assert_eq!(output.status.code(), Some(5), "there was a file");
    let text = String::from_utf8(output.stdout).unwrap();
    let path = text.lines().find(|line| line.starts_with('/')).unwrap();
    assert!(!Path::new(path).parent().unwrap().exists(), "{path}");
}

#[test]
fn an_unknown_name_is_an_error() {
    let output = run("no_such_example", "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--list"), "{output:?}");
}
