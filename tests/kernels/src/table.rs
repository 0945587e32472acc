//! The matrix as Markdown.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::boot::{Boot, Outcome};
use crate::cells::SUITES;

/// The tables between these lines of a document are generated.
const BEGIN: &str = "<!-- written by `just kernels` -->";
const END: &str = "<!-- end -->";

/// One boot, for the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// The card under test; `None` over veth.
    pub(crate) card: Option<&'static str>,
    pub(crate) boot: Boot,
}

/// The tables: kernel by suite, and for each card mode by kernel.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    let suites: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
    _ = writeln!(
        text,
        "| kernel | {} | seconds |\n|---|{}---:|",
        suites.join(" | "),
        "---|".repeat(suites.len())
    );
    let mut kernels: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.card.is_none()) {
        if !kernels.contains(&row.boot.release.as_str()) {
            kernels.push(&row.boot.release);
        }
    }
    for kernel in kernels {
        let rows = rows.iter().filter(|row| row.card.is_none() && row.boot.release == kernel);
        let boots: Vec<&Boot> = rows.map(|row| &row.boot).collect();
        let seconds: u64 = boots.iter().map(|boot| boot.seconds).sum();
        let cells: Vec<String> = SUITES.iter().map(|suite| cell(&boots, suite.tests)).collect();
        _ = writeln!(text, "| {kernel} | {} | {seconds} |", cells.join(" | "));
    }
    let mut reasons = Vec::new();
    let mut cards: Vec<&str> = rows.iter().filter_map(|row| row.card).collect();
    cards.sort_unstable();
    cards.dedup();
    for card in cards {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.card == Some(card)).collect();
        card_table(&mut text, card, &rows, &mut reasons);
    }
    if !reasons.is_empty() {
        text.push_str("\nNot available, because of:\n\n");
    }
    for (number, reason) in reasons.iter().enumerate() {
        _ = writeln!(text, "{}. {reason}", number + 1);
    }
    text
}

/// A card: mode by kernel.
fn card_table(text: &mut String, card: &str, rows: &[&Row], reasons: &mut Vec<String>) {
    let kernels: Vec<&str> = rows.iter().map(|row| row.boot.release.as_str()).collect();
    _ = writeln!(
        text,
        "\n| {card} | {} |\n|---|{}",
        kernels.join(" | "),
        "---|".repeat(kernels.len())
    );
    let columns: Vec<Vec<(String, String)>> = rows.iter().map(|row| said(&row.boot)).collect();
    let mut modes: Vec<&str> = Vec::new();
    for (mode, _) in columns.iter().flatten() {
        if !modes.contains(&mode.as_str()) {
            modes.push(mode);
        }
    }
    for mode in modes {
        let cells = columns.iter().map(|column| {
            let found = column.iter().find(|(name, _)| name == mode);
            found.map_or("–".to_owned(), |(_, outcome)| shortened(outcome, reasons))
        });
        _ = writeln!(text, "| {mode} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    let seconds: Vec<String> = rows.iter().map(|row| row.boot.seconds.to_string()).collect();
    _ = writeln!(text, "| seconds | {} |", seconds.join(" | "));
}

/// Replaces the reason why a mode is not available, which is long and often repeated, by a number.
fn shortened(outcome: &str, reasons: &mut Vec<String>) -> String {
    let Some(reason) = outcome.strip_prefix("not available: ") else { return outcome.to_owned() };
    let number = reasons.iter().position(|known| known == reason).unwrap_or_else(|| {
        reasons.push(reason.to_owned());
        reasons.len() - 1
    });
    format!("not available ({})", number + 1)
}

/// What a guest said of its modes.
fn said(boot: &Boot) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for outcome in &boot.outcomes {
        for line in &outcome.said {
            let (mode, text) = line.split_once(": ").unwrap_or((line, ""));
            let is_bad = text.starts_with("FAILED");
            said.push((
                mode.to_owned(),
                if is_bad { format!("**{text}**") } else { text.to_owned() },
            ));
        }
        if outcome.code != 0 {
            said.push(("exit status".to_owned(), format!("**{}**", outcome.code)));
        }
        if !outcome.kernel.is_empty() {
            let lines = outcome.kernel.join("<br>");
            said.push(("what the kernel said".to_owned(), format!("**{lines}**")));
        }
    }
    said
}

/// Summarizes the results of a suite's test binaries.
fn cell(boots: &[&Boot], tests: &[&str]) -> String {
    let all = || boots.iter().flat_map(|boot| &boot.outcomes);
    let of = |test: &&str| all().find(|outcome| outcome.cell == **test);
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
