//! The layer order of `docs/ARCHITECTURE.md` is a test: modules import downward only, siblings do not name each other, and
//! no files import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the bottom up; modules in one list are siblings.
const LAYERS: &[&[&str]] = &[
    &["error", "packet", "stats", "options", "trace"],
    &["sys"],
    &["ring", "wait", "interface"],
    &["port"],
    &["afpacket", "afxdp", "reactor"],
    &["executor", "time"],
    &["io"],
    &["shard"],
    &["bridge", "channel", "dedup", "doctor", "multi", "parse", "pcap"],
    &["record"],
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

#[ringtap_lab::test]
fn modules_name_only_what_is_below_them() {
    let mut faults = Vec::new();
    let mut arrows = 0;
    for (file, text) in files() {
        let own = file.split(['/', '.']).next().unwrap();
        if own == "lib" || own == "filter" {
            continue; // the face, and a crate of its own
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

#[ringtap_lab::test]
fn an_upward_arrow_would_be_seen() {
    let text = "use crate::{shard, Error};\n// crate::io is prose\nfn f() { crate::executor::x() }";
    assert_eq!(named_modules(text), ["shard", "Error", "executor"]);
    assert_eq!(layer_of("Error"), None, "a name of the face is a fault");
}

#[ringtap_lab::test]
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

#[ringtap_lab::test]
fn files_stay_readable() {
    for (file, text) in files() {
        let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().count();
        assert!(lines <= 650, "{file} has {lines} lines: is that one idea?");
    }
}

#[test]
fn names_of_temporary_files_come_from_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for part in ["src", "runtimes", "examples", "tests", "benches"] {
        sources(&root.join(part), &mut paths);
    }
    let source = root.join("tests/lab/wire/src/directory.rs");
    assert!(paths.contains(&source));
    let this = root.join("tests/docs/layers.rs");
    let named = |path: &&PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let of_a_process = |line: &str| line.contains("format!(") && line.contains("process::id()");
        **path != this && text.lines().any(of_a_process)
    };
    // Numbers of processes come again: they alone are no name.
    assert_eq!(paths.iter().filter(named).collect::<Vec<_>>(), [&source]);
}

/// A module's code: no comments, no tests.
fn code_of(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{}\n", line.split(" // ").next().unwrap())).collect()
}

/// The paths that a tree of imports names: `a::{b, c::{d, e}}` has three.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, list)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().to_owned()];
    };
    let list = list.trim_end().strip_suffix('}').expect("a list of imports ends");
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match (letter, depth) {
            (',', 0) => parts.push(String::new()),
            _ => parts.last_mut().unwrap().push(letter),
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| leaves(part)).map(|leaf| format!("{before}{leaf}")).collect()
}

/// The paths that code imports or names, from `root` on (`super`, `crate` or `self`).
fn paths(code: &str, root: &str) -> Vec<String> {
    let imports = code.split("use ").skip(1).filter_map(|rest| rest.split_once(';'));
    let imports = imports.map(|(tree, _)| tree).filter(|tree| tree.starts_with(root));
    let word = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    let is_start = |at: usize| code[..at].ends_with(|c: char| word(c) && c != '$');
    let named = code.match_indices(root).filter(|(at, _)| is_start(*at));
    let named = named.map(|(at, _)| &code[at..]);
    let named =
        named.map(|rest| rest.split(word).next().unwrap().trim_end_matches("::").to_owned());
    imports
        .flat_map(leaves)
        .chain(named)
        .map(|path| path.replace(char::is_whitespace, ""))
        .collect()
}

/// What each file of `files` names of the others, parents and children aside.
fn named_files(files: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    // Names that a module has from its children: whoever imports one there has it from the child.
    let mut from_children = BTreeMap::new();
    for (module, code) in files {
        for path in paths(code, "self::") {
            if let Some((child, name)) = path.trim_start_matches("self::").rsplit_once("::") {
                from_children.insert(format!("{module}::{name}"), format!("{module}::{child}"));
            }
        }
    }
    let file_of = |path: &str| {
        let mut path = path;
        loop {
            if let Some(child) = from_children.get(path).filter(|child| files.contains_key(*child))
            {
                return Some(child.clone());
            }
            if files.contains_key(path) {
                return Some(path.to_owned());
            }
            path = path.rsplit_once("::")?.0;
        }
    };
    let are_kin =
        |a: &str, b: &str| a.starts_with(&format!("{b}::")) || b.starts_with(&format!("{a}::"));
    let named = |(module, code): (&String, &String)| {
        let absolute = paths(code, "crate::")
            .into_iter()
            .map(|path| path.trim_start_matches("crate::").to_owned());
        let relative = paths(code, "super::").into_iter().map(|path| {
            let (mut base, mut rest) = (module.as_str(), path.as_str());
            while let Some(behind) = rest.strip_prefix("super::") {
                base = base.rsplit_once("::").map_or("", |(parent, _)| parent);
                rest = behind;
            }
            format!("{base}::{rest}").trim_start_matches("::").to_owned()
        });
        let others = absolute.chain(relative).filter_map(|path| file_of(&path));
        let others = others.filter(|other| other != module && !are_kin(other, module));
        (module.clone(), others.collect())
    };
    files.iter().map(named).collect()
}

/// The files that are in a circle, or lie between two.
fn circles(mut named: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let left: BTreeSet<String> = named.keys().cloned().collect();
        named.values_mut().for_each(|others| others.retain(|other| left.contains(other)));
        let before = named.len();
        let some_name: BTreeSet<String> = named.values().flatten().cloned().collect();
        named.retain(|file, others| !others.is_empty() && some_name.contains(file));
        if named.len() == before {
            return named;
        }
    }
}

#[ringtap_lab::test]
fn no_files_name_each_other_in_a_circle() {
    let is_test = |file: &str| file.ends_with("tests.rs") || file.ends_with("model.rs");
    let files = files().into_iter().filter(|(file, _)| file != "lib.rs" && !is_test(file));
    let module = |file: &str| file.strip_suffix(".rs").unwrap().replace('/', "::");
    // The filters are a crate of their own.
    let code = |file: &str, text: &str| match file.starts_with("filter/") {
        true => code_of(text).replace("crate::", "crate::filter::"),
        false => code_of(text),
    };
    let files = files.map(|(file, text)| (module(&file), code(&file, &text)));
    let files = files.map(|(module, code)| (module.trim_end_matches("::lib").to_owned(), code));
    let files = files.collect();
    let named = named_files(&files);
    let arrows: usize = named.values().map(BTreeSet::len).sum();
    assert!(arrows > 500, "only {arrows} arrows were found: this test has gone blind");
    let circles = circles(named);
    assert!(circles.is_empty(), "{circles:#?}");
}

#[ringtap_lab::test]
fn a_circle_would_be_seen() {
    let of = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(module, code)| ((*module).to_owned(), (*code).to_owned()));
        circles(named_files(&files.collect())).into_keys().collect::<Vec<_>>()
    };
    let parent = ("a", "mod b;\nmod c;\npub use self::c::{C, D};");
    assert_eq!(of(&[parent, ("a::b", "use super::c::C;"), ("a::c", "")]), [""; 0]);
    assert_eq!(
        of(&[parent, ("a::b", "use super::c::C;"), ("a::c", "fn f(b: crate::a::b::B) {}")]),
        ["a::b", "a::c"]
    );
    // By the parent's name for it.
    assert_eq!(
        of(&[parent, ("a::b", "use crate::a::{C, x};"), ("a::c", "use super::{b::B, y};")]),
        ["a::b", "a::c"]
    );
}
