//! What a run came to: a page, and figures for programs.

use std::fmt::Write;
use std::process::Command;

use crate::harness::{Row, Spread, Table};
use crate::picture;

/// A claim: one way's median against another's.
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) ours: &'static str,
    pub(crate) other: &'static str,
    pub(crate) table: &'static str,
    pub(crate) column: usize,
    /// The ratio is to be at most this, or, below zero, at least its amount.
    pub(crate) bound: f64,
    /// Of a miss that is no surprise.
    pub(crate) why: &'static str,
}

impl Target {
    /// In place of a name: whichever of the peers is best in that column.
    pub(crate) const BEST_PEER: &str = "the best peer";

    /// What the target is against.
    fn other<'a>(&self, table: &'a Table) -> Option<&'a Row> {
        match self.other {
            Self::BEST_PEER => table.best_peer(self.column, self.bound < 0.0),
            name => table.row(name),
        }
    }
}

/// Where and when a run was made.
pub(crate) fn machine() -> String {
    let said = |program: &str, arguments: &[&str]| -> String {
        let output = Command::new(program).args(arguments).output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text).trim().to_owned()
    };
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (processors, load) = (read("/proc/cpuinfo"), read("/proc/loadavg"));
    let model =
        processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!(
        "Measured on {} with Linux {}, {} cores of {}, and a load of {} before.",
        said("date", &["-u", "+%F"]),
        said("uname", &["-r"]),
        std::thread::available_parallelism().map_or(0, usize::from),
        model.map_or("an unknown kind", |(_, model)| model),
        load.split(' ').next().unwrap_or("?"),
    )
}

pub(crate) fn markdown(machine: &str, tables: &[Table], targets: &[Target]) -> String {
    let mut page = String::new();
    let mut line = |text: &str| {
        page.push_str(text);
        page.push('\n');
    };
    line(machine);
    for table in tables {
        line(&format!("\n### {}\n", table.title));
        if let Some(note) = &table.note {
            line(&format!("{note}\n"));
        }
        line(&format!(
            "| way | {} | {} to the best peer |",
            table.columns.join(" | "),
            table.columns[0]
        ));
        line(&format!("|---|{}", "---|".repeat(table.columns.len() + 1)));
        let best = table.best_peer(0, false);
        for row in &table.rows {
            if let Some(fault) = &row.fault {
                line(&format!("| {} | not run: {fault} |", row.name));
                continue;
            }
            let mut text = format!("| {} |", row.name);
            for column in 0..table.columns.len() {
                let (least, median, most) = row.spread(column).unwrap_or_default();
                let _ = write!(text, " {} ({} … {}) |", short(median), short(least), short(most));
            }
            match best.and_then(|best| row.ratio(best, 0)) {
                Some(ratio) => line(&format!("{text} {} |", ranged(ratio))),
                None => line(&format!("{text} |")),
            }
        }
        line(&format!(
            "\nThe middle half of a row's rounds spans {:.0} % (median over the rows).",
            100.0 * table.noise()
        ));
        if let Some(picture) = picture::below(table.title) {
            line(&format!("\n![{}]({picture})", table.title));
        }
    }
    verdicts(tables, targets, &mut line);
    page
}

/// What became of the targets.
fn verdicts(tables: &[Table], targets: &[Target], line: &mut dyn FnMut(&str)) {
    line("\n### Targets\n\nRatios are of rounds: their median, and the least and the most.\n");
    line("| what | ratio | target | |\n|---|---|---|---|");
    let (mut met, mut missed) = (0, Vec::new());
    for target in targets {
        let table = tables.iter().find(|table| table.title == target.table);
        let ours = table.and_then(|table| table.row(target.ours));
        let other = table.and_then(|table| target.other(table));
        let of_both = ours.zip(other).and_then(|(ours, other)| ours.ratio(other, target.column));
        let Some(ratios) = of_both else {
            line(&format!("| {} | not measured | | |", target.what));
            continue;
        };
        let ratio = ratios.1;
        let goal = target.bound.abs();
        let is_within = (ratios.0..=ratios.2).contains(&goal);
        let (bound, is_met) = match target.bound {
            least if least < 0.0 => (format!("≥ {}", -least), ratio >= -least),
            most => (format!("≤ {most}"), ratio <= most),
        };
        let verdict = match (is_met, is_within) {
            (true, false) => "met",
            (true, true) => "met, not in each round",
            (false, true) => "**missed**, not in each round",
            (false, false) => "**missed**",
        };
        if is_met {
            met += 1;
        } else {
            missed.push(target);
        }
        line(&format!(
            "| {}: {} / {} | {} | {bound} | {verdict} |",
            target.what,
            target.ours,
            target.other,
            ranged(ratios)
        ));
    }
    line(&format!("\n{met} of {} are met. Of those that are not:\n", met + missed.len()));
    for target in missed.iter().filter(|target| !target.why.is_empty()) {
        line(&format!(
            "- **{} / {}** ({}). {}",
            target.ours, target.other, target.what, target.why
        ));
    }
}

/// A ratio with its range.
fn ranged((least, median, most): Spread) -> String {
    format!("{median:.2} ({least:.2} … {most:.2})")
}

pub(crate) fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

pub(crate) fn json(tables: &[Table]) -> serde_json::Value {
    let row = |row: &Row| serde_json::json!({ "way": row.name, "samples": row.samples, "fault": row.fault });
    let table = |table: &Table| {
        let rows: Vec<_> = table.rows.iter().map(row).collect();
        serde_json::json!({ "title": table.title, "columns": table.columns, "rows": rows })
    };
    tables.iter().map(table).collect()
}
