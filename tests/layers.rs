//! The layer order of `docs/ARCHITECTURE.md` is a test: arrows point down only, and siblings do
//! not name each other.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the bottom up; modules in one list are siblings.
const LAYERS: &[&[&str]] = &[
    &["error", "packet", "stats", "options", "trace"],
    &["sys"],
    &["ring", "wait", "interface", "filter"],
    &["afpacket", "afxdp", "reactor"],
    &["executor", "time"],
    &["io"],
    &["shard"],
    &["bridge", "channel", "dedup", "doctor", "multi", "parse", "pcap"],
    &["flow", "metrics"],
];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &[
    "sys/",
    "ring/xsk_ring.rs",
    "ring/block.rs",
    "ring/slot.rs",
    "ring/umem.rs",
    "reactor/uring.rs",
];

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|siblings| siblings.contains(&module))
}

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Each source file, relative to `src`, with its text.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The modules, and names of the crate's face, that a file names in code and tests, not in docs.
fn named_modules(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{}\n", line.split(" // ").next().unwrap()))
        .collect();
    let mut modules = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let listed = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').collect(),
            None => vec![rest],
        };
        for item in listed {
            let word = |c: char| !(c.is_alphanumeric() || c == '_');
            let name = item.trim().split(word).next().unwrap();
            modules.push(name.to_owned());
        }
    }
    modules.retain(|module| !module.is_empty());
    modules
}

#[test]
fn modules_name_only_what_is_below_them() {
    let mut faults = Vec::new();
    let mut arrows = 0;
    for (file, text) in files() {
        let own = file.split(['/', '.']).next().unwrap();
        if own == "lib" {
            continue;
        }
        let layer =
            layer_of(own).unwrap_or_else(|| panic!("{file}: name its layer in {}", file!()));
        for module in named_modules(&text) {
            if module == own {
                continue;
            }
            arrows += 1;
            match layer_of(&module) {
                None => faults.push(format!(
                    "{file} names `crate::{module}`: a name is imported from the module that owns it, \
                     and a module has a layer in {}",
                    file!()
                )),
                // The foundation's modules are vocabulary and may use each other's words.
                Some(0) if layer == 0 => {}
                Some(other) if other >= layer => {
                    faults.push(format!("{file} names `{module}`, which is not below it"));
                }
                Some(_) => {}
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(arrows > 50, "only {arrows} arrows were found: this test has gone blind");
}

#[test]
fn an_upward_arrow_would_be_seen() {
    let text = "use crate::{shard, Error};\n// crate::io is prose\nfn f() { crate::executor::x() }";
    assert_eq!(named_modules(text), ["shard", "Error", "executor"]);
    assert_eq!(layer_of("Error"), None, "a name of the face is a fault");
}

#[test]
fn unsafe_code_stands_only_where_the_design_allows_it() {
    for (file, text) in files() {
        let allowed = UNSAFE.iter().any(|place| file.starts_with(place))
            || ["ring/block/", "ring/slot/", "ring/xsk_ring/", "ring/umem/"]
                .iter()
                .any(|place| file.starts_with(place));
        let has_unsafe = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .any(|line| line.contains("allow(unsafe_code") || line.contains("unsafe {"));
        assert!(allowed || !has_unsafe, "{file} must do without `unsafe`");
    }
}

#[test]
fn files_stay_readable() {
    for (file, text) in files() {
        let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().count();
        assert!(lines <= 650, "{file} has {lines} lines: is that one idea?");
    }
}
