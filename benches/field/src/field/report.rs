//! What a run came to: a page, figures for programs, a picture.

use std::fmt::Write;
use std::path::Path;

use plotters::prelude::*;

use crate::harness::{Kind, Outcome, Table};

/// A claim: one way's median against another's.
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) ours: &'static str,
    pub(crate) other: &'static str,
    pub(crate) table: &'static str,
    pub(crate) column: usize,
    /// The ratio is to be at most this, or, below zero, at least its amount.
    pub(crate) bound: f64,
}

impl Target {
    /// In place of a name: whichever of the peers is best in that column.
    pub(crate) const BEST_PEER: &str = "the best peer";

    /// What the target is against.
    fn other(&self, table: &Table) -> Option<f64> {
        if self.other != Self::BEST_PEER {
            return table.of(self.other, self.column);
        }
        let peers = table.rows.iter().filter(|row| row.kind == Kind::Peer);
        let values = peers.filter_map(|row| row.median(self.column));
        if self.bound < 0.0 { values.max_by(f64::total_cmp) } else { values.min_by(f64::total_cmp) }
    }
}

pub(crate) fn markdown(tables: &[Table], targets: &[Target]) -> String {
    let mut page = String::new();
    let mut line = |text: &str| {
        page.push_str(text);
        page.push('\n');
    };
    for table in tables {
        line(&format!("\n## {}\n", table.title));
        line(&format!(
            "| way | {} | {} to the best peer |",
            table.columns.join(" | "),
            table.columns[0]
        ));
        line(&format!("|---|{}", "---|".repeat(table.columns.len() + 1)));
        let peers = table.rows.iter().filter(|row| row.kind == Kind::Peer);
        let best = peers.filter_map(|row| row.median(0)).min_by(f64::total_cmp);
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
            match (best, row.median(0)) {
                (Some(best), Some(own)) => line(&format!("{text} {:.2} |", own / best)),
                _ => line(&format!("{text} |")),
            }
        }
        line(&format!(
            "\nThe middle half of a row's rounds spans {:.0} % (median over the rows).",
            100.0 * table.noise()
        ));
    }
    line("\n## Targets\n\n| what | ratio | target | |\n|---|---|---|---|");
    for target in targets {
        let table = tables.iter().find(|table| table.title == target.table);
        let ours = table.and_then(|table| table.of(target.ours, target.column));
        let (Some(ours), Some(other)) = (ours, table.and_then(|table| target.other(table))) else {
            line(&format!("| {} | not measured | | |", target.what));
            continue;
        };
        let ratio = ours / other;
        let (bound, is_met) = match target.bound {
            least if least < 0.0 => (format!("≥ {}", -least), ratio >= -least),
            most => (format!("≤ {most}"), ratio <= most),
        };
        let verdict = if is_met { "met" } else { "**missed**" };
        line(&format!(
            "| {}: {} / {} | {ratio:.3} | {bound} | {verdict} |",
            target.what, target.ours, target.other
        ));
    }
    page
}

fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

pub(crate) fn json(tables: &[Table]) -> serde_json::Value {
    let row = |row: &crate::harness::Row| serde_json::json!({ "way": row.name, "samples": row.samples, "fault": row.fault });
    let table = |table: &Table| {
        let rows: Vec<_> = table.rows.iter().map(row).collect();
        serde_json::json!({ "title": table.title, "columns": table.columns, "rows": rows })
    };
    tables.iter().map(table).collect()
}

/// Bars of a table's first column, on a logarithmic scale.
pub(crate) fn draw(table: &Table, into: &Path) -> Outcome<()> {
    const ROW: i32 = 26;
    const LEFT: i32 = 250;
    const WIDTH: i32 = 860;
    let rows: Vec<_> = table.rows.iter().filter(|row| row.fault.is_none()).collect();
    let height = 50 + ROW * rows.len() as i32;
    let area = SVGBackend::new(into, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let font = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    area.draw_text(
        &format!("{}: {}, logarithmic", table.title, table.columns[0]),
        &font(16),
        (10, 10),
    )?;
    let most = rows.iter().filter_map(|row| row.median(0)).fold(1.0, f64::max);
    for (at, row) in rows.iter().enumerate() {
        let value = row.median(0).unwrap_or(0.0);
        let share = (1.0 + value).ln() / (1.0 + most).ln();
        let (top, right) =
            (40 + ROW * at as i32, LEFT + (share * f64::from(WIDTH - LEFT - 80)) as i32);
        let colour = match row.kind {
            Kind::Ours => RGBColor(0x1f, 0x77, 0xb4),
            Kind::Peer => RGBColor(0xc0, 0xc0, 0xc0),
            Kind::Limit => RGBColor(0x55, 0x55, 0x55),
        };
        area.draw_text(row.name, &font(14), (10, top + 2))?;
        area.draw(&Rectangle::new([(LEFT, top), (right, top + ROW - 8)], colour.filled()))?;
        area.draw_text(&short(value), &font(14), (right + 6, top + 2))?;
    }
    area.present()?;
    Ok(())
}
