//! A run as a picture: packets a second, drops, and latencies.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use plotters::prelude::*;

use crate::sink::Outcome;
use crate::watch::Look;

/// What a report is drawn of.
pub(crate) struct Report {
    start: Instant,
    /// When, packets a second, drops so far.
    samples: Vec<(Duration, f64, u64)>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), samples: Vec::new() }
    }

    pub(crate) fn add(&mut self, look: &Look) {
        let rate = look.shards.iter().map(|shard| shard.packets_per_second).sum();
        let drops = look.shards.iter().map(|shard| shard.drops).sum();
        self.samples.push((self.start.elapsed(), rate, drops));
    }

    /// Writes it, as HTML or as SVG by the name's ending.
    pub(crate) fn write(&self, path: &Path, latency: &Histogram<u32>) -> Outcome<()> {
        let mut picture = String::new();
        self.draw(&mut picture, latency)?;
        let text = match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => picture,
            Some("html") => {
                format!("<!doctype html><meta charset=utf-8><title>ringtap</title>{picture}")
            }
            _ => return Err(format!("{}: a report ends with .html or .svg", path.display()).into()),
        };
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    fn draw(&self, picture: &mut String, latency: &Histogram<u32>) -> Outcome<()> {
        let area = SVGBackend::with_string(picture, (900, 840)).into_drawing_area();
        area.fill(&WHITE)?;
        let parts = area.split_evenly((3, 1));
        let over_time = |read: fn(&(Duration, f64, u64)) -> f64| -> Vec<(f64, f64)> {
            self.samples.iter().map(|sample| (sample.0.as_secs_f64(), read(sample))).collect()
        };
        let rates = over_time(|sample| sample.1);
        line(&parts[0], "packets a second", "seconds", &rates)?;
        let drops = over_time(|sample| sample.2 as f64);
        line(&parts[1], "packets dropped by the kernel, in all", "seconds", &drops)?;
        let quantiles = (0..=100).map(|percent| {
            let value = latency.value_at_quantile(f64::from(percent) / 100.0);
            (f64::from(percent), value as f64)
        });
        let quantiles: Vec<_> = quantiles.collect();
        line(&parts[2], "latency of packets, µs, by percentile", "percent", &quantiles)?;
        area.present()?;
        Ok(())
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn line(area: &Area<'_>, title: &str, unit: &str, points: &[(f64, f64)]) -> Outcome<()> {
    let right = points.last().map_or(1.0, |point| point.0.max(1.0));
    let top = points.iter().map(|point| point.1).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(title, ("sans-serif", 18))
        .x_label_area_size(36)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..right, 0.0..top * 1.05)
        .map_err(|error| error.to_string())?;
    chart.configure_mesh().x_desc(unit).draw().map_err(|error| error.to_string())?;
    let series = LineSeries::new(points.iter().copied(), &BLUE);
    chart.draw_series(series).map_err(|error| error.to_string())?;
    Ok(())
}
