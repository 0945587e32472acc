//! No error is left out: what the sources list, these tests name.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The variants of an enum, by its source.
fn variants(file: &str, name: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let source = fs::read_to_string(path).unwrap();
    let body = source.split_once(&format!("pub enum {name} {{")).unwrap().1;
    let body = body.split_once("\n}").unwrap().0;
    // Variants are indented once, fields of theirs twice.
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let names = lines.filter(|line| line.starts_with(|letter: char| letter.is_ascii_uppercase()));
    let word = |line: &str| line.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
    names.map(|line| format!("{name}::{}", word(line))).collect()
}

/// Errors that only a card which this machine lacks can provoke: `doctor --report` meets it on igb (`tests/kernels`).
const ON_CARDS: &[&str] = &["Step::KickWithoutProgram"];

#[ringtap_lab::test]
fn every_error_is_provoked_by_name() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    let mut tests = String::new();
    for entry in fs::read_dir(here).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("coverage.rs") {
            tests.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let mut missing = Vec::new();
    let mut count = 0;
    for (file, name) in [
        ("src/error.rs", "Error"),
        ("src/error/step.rs", "Step"),
        ("src/error/geometry.rs", "GeometryError"),
        ("src/filter/error.rs", "ProgramFault"),
        ("src/error/file.rs", "FileFault"),
    ] {
        let found = variants(file, name);
        assert!(found.len() > 5, "{file} is read wrongly: {found:?}");
        count += found.len();
        // Followed by what cannot go on with the name, so that `Error::File` is not found in `Error::FileX`.
        let is_named = |variant: &str| {
            tests.match_indices(variant).any(|(at, _)| {
                !tests[at + variant.len()..].starts_with(|c: char| c.is_alphanumeric())
            })
        };
        let is_missing =
            |variant: &String| !is_named(variant) && !ON_CARDS.contains(&variant.as_str());
        missing.extend(found.into_iter().filter(is_missing));
    }
    assert!(missing.is_empty(), "of {count} errors these are not provoked: {missing:#?}");
}
