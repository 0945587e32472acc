//! Pictures of a run, each of which answers one question. Legible on light and on dark pages.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::bursts::BURSTS;
use crate::harness::{Kind, Outcome, Row, Spread, Table};
use crate::report::short;

const WIDTH: i32 = 860;
const LEFT: i32 = 250;
const PAPER: RGBColor = RGBColor(0xfb, 0xfb, 0xfa);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The picture that belongs below a table, by its title.
pub(crate) fn below(title: &str) -> Option<&'static str> {
    match title {
        "Receiving" => Some("performance.svg"),
        crate::LATENCY => Some("performance-latency.svg"),
        "Bursts" => Some("performance-bursts.svg"),
        "65,536 connections" => Some("performance-flows.svg"),
        _ => None,
    }
}

/// Whichever can be drawn of these tables.
pub(crate) fn all(tables: &[Table], directory: &Path) -> Outcome<()> {
    let table = |title: &str| tables.iter().find(|table| table.title == title);
    if let Some(table) = table("Receiving") {
        dots(table, &directory.join("performance.svg"))?;
    }
    if let Some(table) = table(crate::LATENCY) {
        let places = ["50", "90", "99", "99.9"].map(str::to_owned).to_vec();
        let title = format!("{}: µs by percentile (median, and range of the rounds)", table.title);
        let lines = table.rows.iter().filter_map(Line::of).collect();
        Lines { title, places, lines, is_log: true }
            .draw(&directory.join("performance-latency.svg"))?;
    }
    if let Some(table) = table("Bursts") {
        let places = BURSTS.map(|count| format!("{} Ki", count >> 10)).to_vec();
        let title =
            "Lost % of a burst that nobody reads, by its packets, of IMIX; rings of 8 MiB".into();
        let lines = table.rows.iter().filter_map(Line::of).collect();
        Lines { title, places, lines, is_log: false }
            .draw(&directory.join("performance-bursts.svg"))?;
    }
    let sizes = ["1 connection", "4,096 connections", "65,536 connections"].map(table);
    if let [Some(first), Some(_), Some(_)] = sizes {
        let of_row = |row: &Row| {
            let spreads = sizes.iter().map(|table| (*table)?.row(row.name)?.spread(0));
            Some(Line { name: row.name, kind: row.kind, spreads: spreads.collect::<Option<_>>()? })
        };
        let lines = first.rows.iter().filter_map(of_row).collect();
        let places = ["1", "4,096", "65,536"].map(str::to_owned).to_vec();
        let title = "CPU ns/packet of a flow_stream, by connections that are open".into();
        Lines { title, places, lines, is_log: false }
            .draw(&directory.join("performance-flows.svg"))?;
    }
    Ok(())
}

fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Ours => RGBColor(0x1f, 0x77, 0xb4),
        Kind::Peer => RGBColor(0xb0, 0x5a, 0x1a),
        Kind::Limit => RGBColor(0x55, 0x55, 0x55),
    }
}

fn text(area: &Area<'_>, text: &str, size: i32, at: (i32, i32)) -> Outcome<()> {
    Ok(area.draw_text(text, &("sans-serif", size).into_font().color(&INK), at)?)
}

/// A way's course over the places of an axis.
struct Line {
    name: &'static str,
    kind: Kind,
    spreads: Vec<Spread>,
}

impl Line {
    /// Over all columns.
    fn of(row: &Row) -> Option<Self> {
        let spreads = (0..row.samples.len()).map(|column| row.spread(column));
        let spreads = spreads.collect::<Option<_>>().filter(|_| row.fault.is_none())?;
        Some(Self { name: row.name, kind: row.kind, spreads })
    }
}

struct Lines {
    title: String,
    /// What stands below the axis, from left to right.
    places: Vec<String>,
    lines: Vec<Line>,
    is_log: bool,
}

impl Lines {
    const TOP: i32 = 48;
    const BOTTOM: i32 = 348;
    const FROM: i32 = 70;
    const TO: i32 = WIDTH - 250;

    fn x(&self, place: usize) -> i32 {
        let steps = (self.places.len() - 1).max(1) as i32;
        Self::FROM + 20 + (Self::TO - Self::FROM - 40) * place as i32 / steps
    }

    fn draw(&self, into: &Path) -> Outcome<()> {
        let values = || self.lines.iter().flat_map(|line| &line.spreads);
        let most = values().map(|spread| spread.2).fold(1.0, f64::max);
        let least = values().map(|spread| spread.0).fold(most, f64::min).max(most / 1e4);
        let (low, high) =
            if self.is_log { (least.log10().floor(), most.log10()) } else { (0.0, most) };
        let y = |value: f64| {
            let value = if self.is_log { value.max(1e-9).log10() } else { value };
            let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
            Self::BOTTOM - (share * f64::from(Self::BOTTOM - Self::TOP)) as i32
        };
        let area = SVGBackend::new(into, (WIDTH as u32, 400)).into_drawing_area();
        area.fill(&PAPER)?;
        text(&area, &self.title, 16, (10, 12))?;
        let marks = if self.is_log { powers(low, high) } else { marks(most) };
        for mark in marks {
            let y = y(mark);
            area.draw(&PathElement::new([(Self::FROM, y), (Self::TO, y)], GRID))?;
            text(&area, &short_mark(mark), 12, (14, y - 6))?;
        }
        for (at, place) in self.places.iter().enumerate() {
            text(&area, place, 12, (self.x(at) - 4 * place.len() as i32, Self::BOTTOM + 10))?;
        }
        let mut labels: Vec<(i32, &Line)> = Vec::new();
        for (number, line) in self.lines.iter().enumerate() {
            let colour = colour(line.kind);
            // Beside each other, so that ranges do not hide one another.
            let x = |at| self.x(at) + 2 * (number as i32 - self.lines.len() as i32 / 2);
            let points = line.spreads.iter().enumerate().map(|(at, spread)| (x(at), y(spread.1)));
            area.draw(&PathElement::new(points.collect::<Vec<_>>(), colour.stroke_width(2)))?;
            for (at, &(least, median, most)) in line.spreads.iter().enumerate() {
                area.draw(&PathElement::new([(x(at), y(least)), (x(at), y(most))], colour))?;
                area.draw(&Circle::new((x(at), y(median)), 3, colour.filled()))?;
            }
            let end = line.spreads.last().map_or(Self::BOTTOM, |spread| y(spread.1));
            labels.push((end, line));
        }
        // Names stand where their lines end, one below another where these meet.
        labels.sort_by_key(|label| label.0);
        let room = Self::BOTTOM - 16 * labels.len() as i32;
        let mut from = Self::TOP - 16;
        for (at, (end, line)) in labels.into_iter().enumerate() {
            from = end.clamp(from + 16, (room + 16 * (at as i32 + 1)).max(from + 16));
            area.draw(&Circle::new((Self::TO + 14, from), 4, colour(line.kind).filled()))?;
            text(&area, line.name, 13, (Self::TO + 24, from - 7))?;
        }
        text(&area, KEY, 13, (10, 378))?;
        Ok(area.present()?)
    }
}

const KEY: &str = "blue: ringtap, brown: others, grey: no library";

/// A dot for each way's median of the first column, and a line for its range, on a linear scale. Ways that take far longer than
/// the others are left to the table, and named below.
fn dots(table: &Table, into: &Path) -> Outcome<()> {
    const ROW: i32 = 24;
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
    area.fill(&PAPER)?;
    let title = format!("{}: {} (median, and range of the rounds)", table.title, table.columns[0]);
    text(&area, &title, 16, (10, 12))?;
    let place = |value: f64| LEFT + (value.min(most) / most * f64::from(WIDTH - LEFT - 60)) as i32;
    let bottom = TOP + ROW * shown.len() as i32;
    for mark in marks(most) {
        let x = place(mark);
        area.draw(&PathElement::new([(x, TOP - 4), (x, bottom)], GRID))?;
        text(&area, &short_mark(mark), 12, (x - 6, bottom + 4))?;
    }
    for (at, (row, (least, median, most))) in shown.iter().enumerate() {
        let y = TOP + ROW * at as i32 + ROW / 2;
        let colour = colour(row.kind);
        text(&area, row.name, 14, (10, y - 8))?;
        let range = [(place(*least), y), (place(*most), y)];
        area.draw(&PathElement::new(range, colour.stroke_width(2)))?;
        area.draw(&Circle::new((place(*median), y), 5, colour.filled()))?;
    }
    let mut below = vec![KEY.to_owned()];
    for some in far.chunks(4) {
        let named = |(row, spread): &(&Row, Spread)| format!("{} {}", row.name, short(spread.1));
        below.push(format!("not shown: {}", some.iter().map(named).collect::<Vec<_>>().join(", ")));
    }
    for (at, line) in below.iter().enumerate() {
        text(&area, line, 13, (10, bottom + 30 + 18 * at as i32))?;
    }
    Ok(area.present()?)
}

/// Ways that take more than this many times the median are not drawn.
const FAR: f64 = 4.0;

/// Some four to eight round numbers up to a value.
fn marks(most: f64) -> Vec<f64> {
    let power = 10_f64.powf((most / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|of| of * power);
    let step = step.into_iter().find(|step| most / step <= 8.0).unwrap_or(power);
    (0..).map(|at| f64::from(at) * step).take_while(|mark| *mark <= most).collect()
}

/// Powers of ten between two exponents.
fn powers(low: f64, high: f64) -> Vec<f64> {
    (low as i32..=high as i32).map(|power| 10_f64.powi(power)).collect()
}

fn short_mark(value: f64) -> String {
    if value >= 10.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value}") }
}
