//! What a run came to: a page, figures for programs, a picture.

use std::fmt::Write;
use std::path::Path;

use plotters::prelude::*;

use crate::harness::{Kind, Outcome, Row, Spread, Table};

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
    fn other<'a>(&self, table: &'a Table) -> Option<&'a Row> {
        match self.other {
            Self::BEST_PEER => table.best_peer(self.column, self.bound < 0.0),
            name => table.row(name),
        }
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
    }
    line("\n## Targets\n\nRatios are of rounds: their median, and the least and the most.\n");
    line("| what | ratio | target | |\n|---|---|---|---|");
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
        let (bound, is_met) = match target.bound {
            least if least < 0.0 => (format!("≥ {}", -least), ratio >= -least),
            most => (format!("≤ {most}"), ratio <= most),
        };
        let verdict = if is_met { "met" } else { "**missed**" };
        line(&format!(
            "| {}: {} / {} | {} | {bound} | {verdict} |",
            target.what,
            target.ours,
            target.other,
            ranged(ratios)
        ));
    }
    page
}

/// A ratio with its range.
fn ranged((least, median, most): (f64, f64, f64)) -> String {
    format!("{median:.2} ({least:.2} … {most:.2})")
}

fn short(value: f64) -> String {
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

/// A dot for each way's median of the first column, and a line for its range, on a linear scale. Ways that take far longer than the
/// others are left to the table, and named below.
pub(crate) fn draw(table: &Table, into: &Path) -> Outcome<()> {
    const ROW: i32 = 24;
    const LEFT: i32 = 250;
    const WIDTH: i32 = 860;
    const TOP: i32 = 44;
    let rows: Vec<_> = table
        .rows
        .iter()
        .filter(|row| row.fault.is_none())
        .filter_map(|row| Some((row, row.spread(0)?)))
        .collect();
    let mut medians: Vec<f64> = rows.iter().map(|(_, spread)| spread.1).collect();
    medians.sort_by(f64::total_cmp);
    let bound = FAR * medians.get(medians.len() / 2).copied().unwrap_or(1.0);
    let (shown, far): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(_, spread)| spread.1 <= bound);
    let most = shown.iter().map(|(_, spread)| spread.2).fold(1.0, f64::max).min(2.0 * bound);
    let height = TOP + ROW * shown.len() as i32 + 60 + 18 * far.len().div_ceil(4) as i32;
    let area = SVGBackend::new(into, (WIDTH as u32, height as u32)).into_drawing_area();
    // Legible on light and on dark pages.
    area.fill(&RGBColor(0xfb, 0xfb, 0xfa))?;
    let ink = RGBColor(0x22, 0x22, 0x22);
    let font = |size: i32| ("sans-serif", size).into_font().color(&ink);
    let title = format!("{}: {} (median, and range of the rounds)", table.title, table.columns[0]);
    area.draw_text(&title, &font(16), (10, 12))?;
    let place = |value: f64| LEFT + (value.min(most) / most * f64::from(WIDTH - LEFT - 60)) as i32;
    let bottom = TOP + ROW * shown.len() as i32;
    for mark in marks(most) {
        let x = place(mark);
        area.draw(&PathElement::new([(x, TOP - 4), (x, bottom)], RGBColor(0xdd, 0xdd, 0xdd)))?;
        area.draw_text(&short_mark(mark), &font(12), (x - 6, bottom + 4))?;
    }
    for (at, (row, (least, median, most))) in shown.iter().enumerate() {
        let y = TOP + ROW * at as i32 + ROW / 2;
        let colour = match row.kind {
            Kind::Ours => RGBColor(0x1f, 0x77, 0xb4),
            Kind::Peer => RGBColor(0xb0, 0x5a, 0x1a),
            Kind::Limit => RGBColor(0x55, 0x55, 0x55),
        };
        area.draw_text(row.name, &font(14), (10, y - 8))?;
        let range = [(place(*least), y), (place(*most), y)];
        area.draw(&PathElement::new(range, colour.stroke_width(2)))?;
        area.draw(&Circle::new((place(*median), y), 5, colour.filled()))?;
    }
    let mut below = vec!["blue: ringtap, brown: others, grey: no library".to_owned()];
    for some in far.chunks(4) {
        let named = |(row, spread): &(&Row, Spread)| format!("{} {}", row.name, short(spread.1));
        below.push(format!("not shown: {}", some.iter().map(named).collect::<Vec<_>>().join(", ")));
    }
    for (at, line) in below.iter().enumerate() {
        area.draw_text(line, &font(13), (10, bottom + 30 + 18 * at as i32))?;
    }
    area.present()?;
    Ok(())
}

/// A way that takes so many times the median way is not drawn.
const FAR: f64 = 4.0;

/// Some four to eight round numbers up to a value.
fn marks(most: f64) -> Vec<f64> {
    let power = 10_f64.powf((most / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|of| of * power);
    let step = step.into_iter().find(|step| most / step <= 8.0).unwrap_or(power);
    (0..).map(|at| f64::from(at) * step).take_while(|mark| *mark <= most).collect()
}

fn short_mark(value: f64) -> String {
    if value >= 10.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value}") }
}
