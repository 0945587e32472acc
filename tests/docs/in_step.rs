//! Pages that list things list all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The first cells of a page's tables that name something in code.
fn listed(page: &str) -> Vec<(String, String)> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (name, rest) = row.split_once('`').expect("a cell in code ends");
        let features = rest.split('|').nth(1).expect("a row has cells").trim().trim_matches('`');
        (name.to_owned(), features.to_owned())
    })
    .collect()
}

#[ringtap_lab::test]
fn the_index_of_examples_lists_each_once_with_its_features() {
    let page = read("examples/README.md");
    let listed = listed(&page);
    let names: BTreeSet<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), listed.len(), "none twice");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let is_package = path.join("Cargo.toml").exists();
            let is_example = path.extension().is_some_and(|extension| extension == "rs")
                || path.join("main.rs").exists() && !is_package;
            let name = path.file_stem()?.to_str()?.to_owned();
            (is_example && name != "lab").then_some(name)
        })
        .collect();
    assert_eq!(names, files.iter().map(String::as_str).collect());
    let manifest = read("examples/Cargo.toml");
    for (name, features) in listed {
        let needs = manifest
            .split("[[")
            .find(|part| {
                part.starts_with("example]]") && part.contains(&format!("name = \"{name}\"\n"))
            })
            .and_then(|part| {
                part.lines().find_map(|line| line.strip_prefix("required-features = "))
            })
            .map_or(String::new(), |list| list.replace(['[', ']', '"', ' '], ""));
        assert_eq!(features, needs, "features of `{name}`");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(&name);
        let file = if folder.is_dir() { format!("{name}/main.rs") } else { format!("{name}.rs") };
        assert!(read(&format!("examples/{file}")).starts_with("//! "), "{name} says what it is");
    }
}

/// The files that a page names in code: `tests/docs/in_step.rs`, or `io.rs` for one in `src`.
fn named_files(page: &str) -> Vec<String> {
    let code = page.split('`').skip(1).step_by(2);
    let is_path = |code: &&str| {
        let letters = |c: char| c.is_ascii_alphanumeric() || "_-/.".contains(c);
        code.ends_with(".rs") && code.len() > 3 && code.chars().all(letters)
    };
    code.filter(is_path).map(str::to_owned).collect()
}

#[ringtap_lab::test]
fn files_that_pages_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = BTreeSet::new();
    let mut named = 0;
    for page in [
        "docs/ARCHITECTURE.md",
        "docs/FLOWS.md",
        "docs/FILTERS.md",
        "docs/RECORDING.md",
        "docs/TOOLBOX.md",
        "docs/SECURITY.md",
        "CONTRIBUTING.md",
    ] {
        for file in named_files(&read(page)) {
            named += 1;
            let places = [root.join(&file), root.join("src").join(&file)];
            if !places.iter().any(|place| place.exists()) {
                missing.insert(format!("{page}: {file}"));
            }
        }
    }
    assert!(named > 20, "only {named} files were found: this test has gone blind");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[ringtap_lab::test]
fn links_between_pages_lead_somewhere() {
    let docs = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
    let mut pages: Vec<String> =
        docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().display())).collect();
    pages.extend(["README.md", "CONTRIBUTING.md", "examples/README.md"].map(str::to_owned));
    let mut links = 0;
    for page in pages {
        let folder = Path::new(&page).parent().unwrap();
        for part in read(&page).split("](").skip(1) {
            let target = part.split(')').next().unwrap();
            if target.contains("://") || target.starts_with('#') {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = folder.join(file);
            let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
            assert!(full.exists(), "{page} links to {target}");
            links += 1;
            if !anchor.is_empty() && full.extension().is_some_and(|kind| kind == "md") {
                let to_anchor = |line: &str| {
                    let kept = line.trim_start_matches(['#', ' ']).to_lowercase();
                    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
                    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
                };
                let text = fs::read_to_string(&full).unwrap();
                let has =
                    text.lines().any(|line| line.starts_with('#') && to_anchor(line) == anchor);
                assert!(has, "{page} links to {target}: no such heading");
            }
        }
    }
    assert!(links > 10, "{links}");
}

/// All text of a folder's sources.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

#[ringtap_lab::test]
fn the_guides_from_other_crates_name_only_what_there_is() {
    let source = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let words: BTreeSet<&str> = source.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    // Of other crates and of the language.
    let foreign = ["EPERM", "FnMut", "OwnedFd", "VecDeque"];
    let pages = ["docs/MIGRATING_FROM_NETRING.md", "docs/MIGRATING_FROM_PCAP.md"].map(read);
    let lines = pages.iter().flat_map(|page| page.lines());
    let tables = lines.filter(|line| line.starts_with("| ") && line.matches('|').count() == 4);
    let (mut names, mut unknown) = (0, BTreeSet::new());
    for row in tables {
        let ours = row.split(" | ").nth(1).expect("three cells");
        for code in ours.split('`').skip(1).step_by(2) {
            for word in code.split(|c: char| !c.is_alphanumeric() && c != '_') {
                if word.len() > 2 && word.starts_with(char::is_alphabetic) {
                    names += 1;
                    if !words.contains(word) && !foreign.contains(&word) {
                        unknown.insert(word);
                    }
                }
            }
        }
    }
    assert!(unknown.is_empty() && names > 450, "{names} names, of which there is no {unknown:?}");
}

#[ringtap_lab::test]
fn the_crates_root_stays_small_and_each_of_its_names_is_in_the_changelog() {
    let (source, changelog) = (read("src/lib.rs"), read("CHANGELOG.md"));
    let mut root = BTreeSet::new();
    // At the margin: what is indented is in a module.
    for part in source.split("\npub ").skip(1) {
        if let Some(module) = part.strip_prefix("mod ") {
            root.insert(module.split([';', ' ']).next().unwrap().to_owned());
        } else if let Some(path) = part.strip_prefix("use self::") {
            let path = path.split(';').next().unwrap();
            let names = path.rsplit("::").next().unwrap().trim_matches(['{', '}']);
            root.extend(names.split(',').map(|name| name.trim().to_owned()));
        }
    }
    root.remove("guides"); // pages, in no program
    assert!(root.contains("Capture") && root.contains("xdp"), "{root:?}");
    assert!(root.len() <= 35, "{} names: {root:?}", root.len());
    let unsaid: Vec<_> =
        root.iter().filter(|name| !changelog.contains(&format!("`{name}`"))).collect();
    assert!(unsaid.is_empty(), "a new name at the root is a line of the changelog: {unsaid:?}");
}

#[ringtap_lab::test]
fn the_page_of_troubles_has_every_error() {
    let page = read("docs/TROUBLESHOOTING.md");
    let listed: Vec<String> = listed(&page).into_iter().map(|(name, _)| name).collect();
    let mut count = 0;
    for (file, name) in [("src/error.rs", "Error"), ("src/error/step.rs", "Step")] {
        let source = read(file);
        let body = source.split_once(&format!("pub enum {name} {{")).unwrap().1;
        for line in body.split_once("\n}").unwrap().0.lines() {
            let Some(line) = line.strip_prefix("    ") else { continue };
            if line.starts_with(|c: char| c.is_ascii_uppercase()) {
                let variant = line.split(|c: char| !c.is_alphanumeric()).next().unwrap();
                count += 1;
                assert!(listed.iter().any(|name| name == variant), "{name}::{variant}");
            }
        }
    }
    assert!(count > 50, "{count}");
}

/// The table of hosts in the guide is printed by a bench; this keeps its counts of lines true until the next run.
#[ringtap_lab::test]
fn the_guide_counts_the_lines_of_each_adapter() {
    let page = read("docs/ASYNC_GUIDE.md");
    let mut counted = BTreeSet::new();
    for row in page.lines().filter(|line| line.contains(" of ") && line.starts_with("| ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let Ok(lines) = cells[2].parse::<usize>() else { continue };
        let (adapter, file) = match cells[1] {
            "tokio, in any task" => ("tokio", "receiver.rs"),
            adapter => (adapter, "lib.rs"),
        };
        let source = read(&format!("runtimes/{adapter}/src/{file}"));
        assert_eq!(source.lines().count(), lines, "{row}");
        assert!(file != "lib.rs" || lines <= 120, "{row}");
        counted.insert(cells[1].to_owned());
    }
    let adapters =
        ["compio", "glommio", "monoio", "smol", "tokio", "tokio, in any task", "tokio-uring"];
    assert!(counted.iter().eq(&adapters), "{counted:?}");
}
