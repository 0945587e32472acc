//! The matrix as Markdown.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::boot::{Boot, Outcome};
use crate::cells::SUITES;

/// Between these lines a document's tables are ours.
const BEGIN: &str = "<!-- written by `just kernels` -->";
const END: &str = "<!-- end -->";

/// One boot, for the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) release: String,
    /// The card under test; `None` over veth.
    pub(crate) card: Option<&'static str>,
    pub(crate) boot: Boot,
}

/// The tables: kernel by suite, and kernel and card by mode.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    let suites: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
    _ = writeln!(
        text,
        "| kernel | {} | seconds |\n|---|{}---:|",
        suites.join(" | "),
        "---|".repeat(suites.len())
    );
    for row in rows.iter().filter(|row| row.card.is_none()) {
        let cells: Vec<String> = SUITES.iter().map(|suite| cell(&row.boot, suite.tests)).collect();
        _ = writeln!(text, "| {} | {} | {} |", row.release, cells.join(" | "), row.boot.seconds);
    }
    _ = writeln!(
        text,
        "\n| kernel | card | what is received and sent, by mode | seconds |\n|---|---|---|---:|"
    );
    for row in rows {
        let Some(card) = row.card else { continue };
        let said: Vec<String> = row.boot.outcomes.iter().flat_map(said).collect();
        _ = writeln!(
            text,
            "| {} | {card} | {} | {} |",
            row.release,
            said.join("<br>"),
            row.boot.seconds
        );
    }
    text
}

fn said(outcome: &Outcome) -> Vec<String> {
    let mut said = outcome.said.clone();
    if outcome.code != 0 {
        said.push(format!("**exit status {}**", outcome.code));
    }
    said.extend(outcome.kernel.iter().map(|line| format!("**the kernel: {line}**")));
    said
}

/// What came of a suite's binaries.
fn cell(boot: &Boot, tests: &[&str]) -> String {
    let of = |test: &&str| boot.outcomes.iter().find(|outcome| outcome.cell == **test);
    let outcomes: Vec<&Outcome> = tests.iter().filter_map(of).collect();
    if outcomes.is_empty() {
        return "–".to_owned();
    }
    let (passed, ignored) = outcomes
        .iter()
        .fold((0, 0), |(passed, ignored), of| (passed + of.passed, ignored + of.ignored));
    let mut cell = format!("{passed} pass");
    if ignored > 0 {
        _ = write!(cell, ", {ignored} not run");
    }
    for outcome in outcomes.iter().filter(|outcome| !outcome.is_good()) {
        for failed in &outcome.failed {
            _ = write!(cell, "<br>**{failed}**");
        }
        if outcome.failed.is_empty() {
            _ = write!(cell, "<br>**{}: exit status {}**", outcome.cell, outcome.code);
        }
        for line in &outcome.kernel {
            _ = write!(cell, "<br>**the kernel: {line}**");
        }
    }
    cell
}

/// Replaces the tables of a document.
pub(crate) fn write_into(document: &Path, tables: &str) -> Result<()> {
    let text = fs::read_to_string(document)?;
    let (before, rest) =
        text.split_once(BEGIN).ok_or("the document has no place for the tables")?;
    let (_, after) = rest.split_once(END).ok_or("the place for the tables has no end")?;
    fs::write(document, format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))?;
    Ok(())
}
