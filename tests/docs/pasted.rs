//! What the documents show compiles for a user who pastes it: in a crate of its own outside of this workspace, with the
//! dependencies and features that its first line adds, and no others.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a block begins.
const ADD: &str = "// cargo add ";

/// A program in a document.
struct Block {
    /// Where it is.
    place: String,
    /// What its first line adds.
    adds: Vec<String>,
    text: String,
}

/// The programs of all documents, those aside that are marked `ignore`.
fn blocks() -> Vec<Block> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let pages = pages.chain([root.join("README.md")]);
    pages.flat_map(|path| blocks_of(&path)).collect()
}

fn blocks_of(page: &Path) -> Vec<Block> {
    let (name, text) = (page.file_name().unwrap().display(), fs::read_to_string(page).unwrap());
    let mut blocks = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(kind) = line.strip_prefix("```rust") else { continue };
        let body: Vec<&str> =
            lines.by_ref().map(|(line, _)| line).take_while(|line| *line != "```").collect();
        if kind.contains("ignore") {
            continue;
        }
        let place = format!("{name}:{number}");
        let adds = body[0].strip_prefix(ADD);
        let adds = adds.unwrap_or_else(|| panic!("{place} does not begin with `{ADD}…`"));
        let adds = adds.split(" && cargo add ").map(str::to_owned).collect();
        let hidden = body.iter().find(|line| line.starts_with("# "));
        assert!(hidden.is_none(), "{place} has a line that only rustdoc hides");
        blocks.push(Block { place, adds, text: body.join("\n") });
    }
    blocks
}

/// The line of a manifest for `tokio --features macros,rt`; what is ours is taken from here.
fn dependency(add: &str) -> String {
    let (name, features) = add.split_once(" --features ").unwrap_or((add, ""));
    let features: Vec<String> = features
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| format!("{name:?}"))
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = match name {
        "ringtap" => format!("path = {:?}", root.display().to_string()),
        name => match name.strip_prefix("ringtap-") {
            Some(adapter) => {
                let adapter = root.join("runtimes").join(adapter);
                format!("path = {:?}", adapter.display().to_string())
            }
            None => "version = \"*\"".to_owned(), // that of the lock file
        },
    };
    format!("{name} = {{ {source}, features = [{}] }}\n", features.join(", "))
}

#[ringtap_lab::test]
fn each_program_builds_with_what_its_first_line_adds() {
    let Some(cargo) = std::env::var_os("CARGO") else {
        return ringtap_lab::skip_for_ordinary_users("cargo did not start this test");
    };
    let mut groups: BTreeMap<Vec<String>, Vec<Block>> = BTreeMap::new();
    for block in blocks() {
        groups.entry(block.adds.clone()).or_default().push(block);
    }
    assert!(groups.values().map(Vec::len).sum::<usize>() > 20, "this test has gone blind");
    let directory = ringtap_lab::Directory::new();
    for (number, (adds, blocks)) in groups.iter().enumerate() {
        let crate_root = directory.path().join(number.to_string());
        write_crate(&crate_root, adds, blocks);
        check(&cargo, &crate_root, adds);
    }
}

/// The programs that show the runtimes, and what they add.
const PROGRAMS: [(&str, &[&str]); 5] = [
    (
        "runtimes/tokio/examples/spawned.rs",
        &["ringtap", "ringtap-tokio", "tokio --features macros,rt-multi-thread,signal"],
    ),
    (
        "runtimes/glommio/examples/glommio_echo.rs",
        &["ringtap", "ringtap-glommio", "glommio", "futures-util --features io", "ctrlc"],
    ),
    (
        "runtimes/tokio-uring/examples/tokio_uring_recorder.rs",
        &["ringtap --features pcap", "ringtap-tokio-uring", "tokio-uring", "ctrlc"],
    ),
    (
        "runtimes/smoltcp/examples/smoltcp_http.rs",
        &["ringtap --features af-xdp", "ringtap-smoltcp --features af-xdp", "smoltcp", "ctrlc"],
    ),
    ("examples/pollster.rs", &["ringtap", "pollster", "ctrlc"]),
];

/// They run as well, on generated traffic: `tests/programs/examples.rs`.
#[ringtap_lab::test]
fn the_programs_of_the_runtimes_build_as_a_users_crates() {
    let Some(cargo) = std::env::var_os("CARGO") else {
        return ringtap_lab::skip_for_ordinary_users("cargo did not start this test");
    };
    let directory = ringtap_lab::Directory::new();
    for (number, (program, adds)) in PROGRAMS.iter().enumerate() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(program);
        let adds: Vec<String> = adds.iter().map(|add| (*add).to_owned()).collect();
        let text = fs::read_to_string(path).unwrap();
        let block = Block { place: (*program).to_owned(), adds: adds.clone(), text };
        let crate_root = directory.path().join(number.to_string());
        write_crate(&crate_root, &adds, &[block]);
        check(&cargo, &crate_root, &adds);
    }
}

/// One program for each block.
fn write_crate(root: &Path, adds: &[String], blocks: &[Block]) {
    fs::create_dir_all(root.join("src/bin")).unwrap();
    let mut manifest =
        "[package]\nname = \"pasted\"\nedition = \"2024\"\n\n[workspace]\n\n".to_owned();
    manifest.push_str("[dependencies]\n");
    manifest.extend(adds.iter().map(|add| dependency(add)));
    fs::write(root.join("Cargo.toml"), manifest).unwrap();
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    fs::copy(lock, root.join("Cargo.lock")).unwrap();
    for block in blocks {
        let name = block.place.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        fs::write(root.join("src/bin").join(name + ".rs"), &block.text).unwrap();
    }
}

fn check(cargo: &OsString, root: &Path, adds: &[String]) {
    // Beside what has been built already, so that a second run is short.
    let target: PathBuf = std::env::current_exe().unwrap();
    let target = target.ancestors().nth(3).unwrap().join("pasted");
    let mut check = Command::new(cargo);
    check.args(["check", "--offline", "--quiet", "--target-dir"]).arg(target).current_dir(root);
    // A user does not have the settings of this build.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_") && name != "CARGO_HOME" {
            check.env_remove(name);
        }
    }
    let output = check.env("RUSTFLAGS", "-D warnings").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "with {adds:?}:\n{said}");
}
