//! The page: one file, without anything from elsewhere.

use std::fmt::{self, Write};

use hdrhistogram::Histogram;
use ringtap::packet::Timestamp;

use super::chart::{Chart, Mark, Series, round_marks};
use super::{Report, Sample};
use crate::say::Plain;
use crate::units;

const STYLE: &str = include_str!("style.css");

/// Text that is not ours, on a page.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in Plain(self.0).to_string().chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

pub(super) fn page(
    report: &Report,
    latency: &Histogram<u32>,
    account: Option<&str>,
) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let host = nix::unistd::gethostname().unwrap_or_default();
    let (title, host) = (Escaped(&report.title), host.to_string_lossy());
    write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style><main><h1>{title}</h1><p class=about>"
    )?;
    write!(out, "{} · interface {} · ", Escaped(&host), Escaped(&report.interface))?;
    match &report.filter {
        Some(filter) => write!(out, "filter <code>{}</code> · ", Escaped(filter))?,
        None => write!(out, "all packets · ")?,
    }
    write!(out, "{} to {}</p>", units::time(report.began), units::time(Timestamp::now()))?;
    tiles(&mut out, report)?;
    write!(out, "{}{}", packets(&report.samples), bits(&report.samples))?;
    if !latency.is_empty() {
        write!(out, "{}", percentiles(latency))?;
    }
    tables(&mut out, report)?;
    if let Some(account) = account {
        write!(out, "<h2>From the wire to the sink</h2><pre>{}</pre>", Lines(account))?;
    }
    write!(out, "</main></html>")?;
    Ok(out)
}

/// Text of several lines.
struct Lines<'a>(&'a str);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.lines().try_for_each(|line| writeln!(f, "{}", Escaped(line)))
    }
}

fn tiles(out: &mut String, report: &Report) -> fmt::Result {
    let last = report.samples.last();
    let (packets, drops) = last.map_or((0, 0), |last| (last.packets, last.drops));
    let most = |read: fn(&Sample) -> f64| report.samples.iter().map(read).fold(0.0, f64::max);
    let share = 100.0 * drops as f64 / packets.max(1) as f64;
    let [active, ended] = report.flows;
    let class = if drops > 0 { "bad" } else { "" };
    write!(out, "<div class=tiles>")?;
    for (name, text, class) in [
        ("packets", number(packets), ""),
        ("at most", format!("{}/s", short(most(|sample| sample.packets_per_second))), ""),
        ("at most", format!("{}/s", units::bits(most(|sample| sample.bits_per_second))), ""),
        ("dropped by the kernel", format!("{} ({share:.2} %)", number(drops)), class),
        ("flows", number(ended + active), ""),
    ] {
        write!(out, "<div class=\"{class}\"><b>{text}</b>{name}</div>")?;
    }
    write!(out, "</div>")
}

/// Packets and drops, on one axis.
fn packets(samples: &[Sample]) -> Chart<'static> {
    let read =
        |read: fn(&Sample) -> f64| samples.iter().map(move |of| (of.at.as_secs_f64(), read(of)));
    let most = samples.iter().map(|of| of.packets_per_second.max(of.drops_per_second));
    let (top, y_marks) = round_marks(most.fold(0.0, f64::max), short);
    let (end, x_marks) = seconds(samples);
    Chart {
        title: "Packets a second",
        series: vec![
            Series {
                name: "received",
                class: "one",
                points: read(|of| of.packets_per_second).collect(),
            },
            Series {
                name: "dropped",
                class: "drops",
                points: read(|of| of.drops_per_second).collect(),
            },
        ],
        x: (0.0, end),
        y: (0.0, top),
        x_marks,
        y_marks,
        x_name: "seconds since the start",
    }
}

fn bits(samples: &[Sample]) -> Chart<'static> {
    let points: Vec<_> =
        samples.iter().map(|of| (of.at.as_secs_f64(), of.bits_per_second)).collect();
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let (top, y_marks) = round_marks(most, units::bits);
    let (end, x_marks) = seconds(samples);
    Chart {
        title: "Bits a second",
        series: vec![Series { name: "received", class: "one", points }],
        x: (0.0, end),
        y: (0.0, top),
        x_marks,
        y_marks,
        x_name: "seconds since the start",
    }
}

fn seconds(samples: &[Sample]) -> (f64, Vec<Mark>) {
    let last = samples.last().map_or(1.0, |last| last.at.as_secs_f64());
    let (_, marks) = round_marks(last, |at| short((10.0 * at).round() / 10.0));
    (last, marks.into_iter().filter(|(at, _)| *at <= last).collect())
}

/// Latency by percentile, with as much room for the last hundredth as for the first nine tenths.
fn percentiles(latency: &Histogram<u32>) -> Chart<'static> {
    const ENDS: [(f64, &str); 5] =
        [(0.0, "0"), (1.0, "90"), (2.0, "99"), (3.0, "99.9"), (4.0, "99.99")];
    let value = |nines: f64| latency.value_at_quantile(1.0 - 10_f64.powf(-nines)).max(1) as f64;
    let points: Vec<_> =
        (0..=160).map(|step| f64::from(step) / 40.0).map(|at| (at, value(at).log10())).collect();
    let top = points.iter().map(|point| point.1).fold(1.0, f64::max).ceil();
    let y_marks = (0..=top as u32).map(|power| {
        let micros = 10_u64.pow(power);
        let text = match micros {
            0..1000 => format!("{micros} µs"),
            1000..1_000_000 => format!("{} ms", micros / 1000),
            _ => format!("{} s", micros / 1_000_000),
        };
        (f64::from(power), text)
    });
    Chart {
        title: "Latency of packets, from the kernel's stamp to their flow",
        series: vec![Series { name: "packets that waited no longer", class: "one", points }],
        x: (0.0, 4.0),
        y: (0.0, top),
        x_marks: ENDS.iter().map(|(at, text)| (*at, (*text).to_owned())).collect(),
        y_marks: y_marks.collect(),
        x_name: "percentile; both axes are logarithmic",
    }
}

fn tables(out: &mut String, report: &Report) -> fmt::Result {
    write!(
        out,
        "<h2>Shards</h2><div class=wide><table><tr><th>shard<th>core<th>packets<th>dropped<th>p50<th>p99</tr>"
    )?;
    for shard in &report.shards {
        let core = shard.core.map_or("–".to_owned(), |core| core.to_string());
        let class = if shard.drops > 0 { " class=bad" } else { "" };
        write!(
            out,
            "<tr><td>{}<td>{core}<td>{}<td{class}>{}<td>{} µs<td>{} µs</tr>",
            shard.shard,
            number(shard.packets),
            number(shard.drops),
            number(shard.latency_p50_us),
            number(shard.latency_p99_us),
        )?;
    }
    write!(out, "</table></div>")?;
    amounts(out, "Who talked most", "hosts", &Report::most(&report.talkers))?;
    amounts(out, "By what", "protocol and port", &Report::most(&report.services))
}

fn amounts(out: &mut String, title: &str, of: &str, all: &[(&str, [u64; 2])]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    write!(out, "<h2>{title}</h2><div class=wide><table><tr><th>{of}<th>bytes<th>packets</tr>")?;
    for (name, [bytes, packets]) in all {
        let (name, bytes, packets) = (Escaped(name), units::bytes(*bytes), number(*packets));
        write!(out, "<tr><td>{name}<td>{bytes}<td>{packets}</tr>")?;
    }
    write!(out, "</table></div>")
}

/// A number with spaces between its thousands.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join("\u{202f}")
}

/// A number with three digits and a letter for its thousands.
fn short(number: f64) -> String {
    let (number, letter) = match number {
        0.0..1e3 => (number, ""),
        1e3..1e6 => (number / 1e3, " k"),
        _ => (number / 1e6, " M"),
    };
    let digits = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{number:.digits$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{letter}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_people() {
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!((number(12), number(0)), ("12".to_owned(), "0".to_owned()));
        for (value, expected) in [(0.0, "0"), (950.0, "950"), (1500.0, "1.5 k"), (2e6, "2 M")] {
            assert_eq!(short(value), expected);
        }
    }

    #[test]
    fn what_is_not_ours_is_no_part_of_the_page() {
        let report = Report::new("a<script>", "eth0\"", Some("host <b> & \u{202e}x"));
        let latency = Histogram::new_with_bounds(1, 1000, 2).unwrap();
        let page = page(&report, &latency, Some("<i>")).unwrap();
        assert!(!page.contains("<script>") && !page.contains("<b> &") && !page.contains("<i>"));
        assert!(page.contains("host &lt;b&gt; &amp; \\u{202e}x") && page.contains("&lt;i&gt;"));
    }
}
