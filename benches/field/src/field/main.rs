//! ringtap beside its peers, on the same traffic, in one run: `cargo run --release --features libpcap --bin field` in
//! this directory, as root (`just bench-field`). Without the feature, libpcap is left out, and needs not be installed.
//!
//! Over veth pairs of a namespace of its own. Ways take turns; a figure is the median of the rounds, with the least and
//! the most. The sender has core 0, the measured code core 1. `--rounds N`; `--only NAME` for one table;
//! `--markdown FILE`, `--json FILE`, `--pictures DIRECTORY`. With `FIELD_WAY=PART;PART` in the environment, only ways with one of
//! those in their name, for a profiler.

mod bursts;
mod calls;
mod filters;
mod flows;
mod growth;
mod hand;
mod harness;
mod latency;
mod offer;
mod picture;
mod rates;
mod receive;
mod report;
mod targets;
mod transmit;
mod xdp;

use std::path::PathBuf;

use harness::{Outcome, Table};
use offer::Size;
use ringtap_lab::Namespace;

/// In a page, what the tables are written behind.
const MARK: &str = "<!-- measured -->\n";

/// Above this, a table is measured once more.
const NOISY: f64 = 0.4;

pub(crate) const LATENCY: &str = "Latency at 10,000 packets a second";
pub(crate) const IMIX: &str = "Frames of IMIX";

fn main() -> Outcome<()> {
    let mut args = pico_args::Arguments::from_env();
    let rounds: usize = args.opt_value_from_str("--rounds")?.unwrap_or(5);
    let only: Option<String> = args.opt_value_from_str("--only")?;
    let mut file = |name| args.opt_value_from_str::<_, PathBuf>(name);
    let (page, figures, pictures) = (file("--markdown")?, file("--json")?, file("--pictures")?);
    let machine = report::machine();
    let net = Namespace::enter()?;
    let veth = net.veth();
    // XDP does not take frames that are longer than a page.
    let jumbo = net.veth();
    jumbo.set_mtu(Size::Jumbo.longest() as u32);
    let mut tables: Vec<Table> = Vec::new();
    let is_loaded = args.contains("--loaded");
    let runs: &[(&str, &dyn Fn() -> Table)] = &[
        ("receive", &|| receive::table(&veth, rounds)),
        ("xdp", &|| xdp::table(&veth, is_loaded, rounds)),
        ("latency", &|| latency::table(&veth, 1_000, "Latency at 1,000 packets a second", rounds)),
        ("latency", &|| latency::table(&veth, 10_000, LATENCY, rounds)),
        ("latency", &|| {
            latency::table(&veth, 100_000, "Latency at 100,000 packets a second", rounds)
        }),
        ("latency", &|| {
            latency::table(&veth, 300_000, "Latency at 300,000 packets a second", rounds)
        }),
        ("rates", &|| rates::table(&veth, Size::Least, "Frames of 60 bytes", rounds)),
        ("rates", &|| rates::table(&veth, Size::Imix, IMIX, rounds)),
        ("rates", &|| rates::table(&veth, Size::Full, "Frames of 1,514 bytes", rounds)),
        ("rates", &|| rates::table(&jumbo, Size::Jumbo, "Frames of 9,000 bytes", rounds)),
        ("bursts", &|| bursts::table(&veth, rounds)),
        ("send", &|| transmit::table(&veth, rounds)),
        ("forward", &|| transmit::bridges(&net, rounds)),
        ("defaults", &|| latency::defaults(&veth, rounds)),
        ("flows", &|| flows::table(&veth, 1, "1 connection", rounds)),
        ("flows", &|| flows::table(&veth, 4_096, "4,096 connections", rounds)),
        ("flows", &|| flows::table(&veth, 65_536, "65,536 connections", rounds)),
        ("growth", &|| growth::captures(&veth, rounds)),
        ("growth", &|| growth::shards(&veth, rounds)),
        ("filters", &|| filters::terms(rounds)),
        ("filters", &|| filters::on_a_socket(&veth, rounds)),
        ("growth", &|| growth::flows(rounds)),
        ("idle", &|| growth::idle(&veth, rounds)),
    ];
    for &(name, run) in runs {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let mut table = run();
        if table.noise() > NOISY {
            eprintln!("  noisy ({:.0} %): once more", 100.0 * table.noise());
            let again = run();
            table = if again.noise() < table.noise() { again } else { table };
        }
        tables.push(table);
    }
    let text = report::markdown(&machine, &tables, targets::TARGETS);
    println!("{text}");
    if let Some(path) = page {
        // What is above the mark was written by hand, and stays.
        let above = std::fs::read_to_string(&path).unwrap_or_default();
        let kept = above.split_inclusive(MARK).next().filter(|kept| kept.ends_with(MARK));
        std::fs::write(path, format!("{}\n{text}", kept.unwrap_or_default()))?;
    }
    if let Some(path) = figures {
        std::fs::write(path, report::json(&tables).to_string())?;
    }
    if let Some(directory) = pictures {
        picture::all(&tables, &directory)?;
    }
    Ok(())
}
