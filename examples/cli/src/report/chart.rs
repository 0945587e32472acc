//! Charts as SVG whose lines scale with the page, and whose words do not: those are HTML around it.
//!
//! A crate that draws charts fixes sizes and colours; these take both from the page, in light and in dark.

use std::fmt::{self, Write};

/// The inner size of a chart. It is stretched to the page's width.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;

/// A line of a chart.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    /// A class of the page's style: its colour.
    pub(super) class: &'a str,
    /// In units of the axes.
    pub(super) points: Vec<(f64, f64)>,
}

/// A mark on an axis: where it is, and what it says.
pub(super) type Mark = (f64, String);

/// A chart with its axes.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) series: Vec<Series<'a>>,
    pub(super) x: (f64, f64),
    pub(super) y: (f64, f64),
    pub(super) x_marks: Vec<Mark>,
    pub(super) y_marks: Vec<Mark>,
    /// What the horizontal axis is.
    pub(super) x_name: &'a str,
}

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share =
            |(from, to): (f64, f64), value: f64| ((value - from) / (to - from)).clamp(0.0, 1.0);
        write!(f, "<figure><figcaption>{}", self.title)?;
        for Series { name, class, .. } in &self.series {
            write!(f, " <span class=\"key {class}\">{name}</span>")?;
        }
        write!(f, "</figcaption><div class=chart><div class=y>")?;
        for (at, text) in &self.y_marks {
            write!(f, "<span style=\"bottom:{:.2}%\">{text}</span>", 100.0 * share(self.y, *at))?;
        }
        write!(
            f,
            "</div><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=none role=img aria-label=\"{}\">",
            self.title
        )?;
        for (at, _) in &self.y_marks {
            let y = HEIGHT * (1.0 - share(self.y, *at));
            write!(f, "<line class=grid x1=0 x2={WIDTH} y1={y:.1} y2={y:.1} />")?;
        }
        for Series { class, points, .. } in &self.series {
            let mut path = String::new();
            for (number, (x, y)) in points.iter().enumerate() {
                let (x, y) = (WIDTH * share(self.x, *x), HEIGHT * (1.0 - share(self.y, *y)));
                write!(path, "{}{x:.1} {y:.1}", if number == 0 { 'M' } else { 'L' })?;
            }
            write!(f, "<path class=\"{class}\" d=\"{path}\"/>")?;
        }
        write!(f, "</svg><div class=x>")?;
        for (at, text) in &self.x_marks {
            let left = 100.0 * share(self.x, *at);
            let class = if left > 95.0 { " class=last" } else { "" };
            write!(f, "<span{class} style=\"left:{left:.2}%\">{text}</span>")?;
        }
        write!(f, "</div></div><p class=axis>{}</p></figure>", self.x_name)
    }
}

/// Some round numbers from 0 to `most`, and an end that has room for it.
pub(super) fn round_marks(most: f64, text: impl Fn(f64) -> String) -> (f64, Vec<Mark>) {
    let most = if most > 0.0 { most } else { 1.0 };
    let magnitude = 10_f64.powf((most / 4.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * magnitude);
    let step = steps.into_iter().find(|step| most / step <= 4.0).unwrap_or(10.0 * magnitude);
    let count = (most / step).ceil().max(1.0);
    let marks = (0..=count as u32).map(|number| f64::from(number) * step);
    (count * step, marks.map(|at| (at, text(at))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_few_and_have_room_for_all() {
        for most in [0.0, 0.3, 1.0, 7.0, 99.0, 100.0, 101.0, 123_456.0, 9.9e9] {
            let (end, marks) = round_marks(most, |at| format!("{at}"));
            assert!(end >= most && end <= 2.5 * most.max(1.0), "{most}: {end}");
            assert!((2..=6).contains(&marks.len()), "{most}: {marks:?}");
            assert!(marks.iter().zip(&marks[1..]).all(|(a, b)| a.0 < b.0), "{marks:?}");
        }
    }
}
