//! ringtap beside its peers, on the same traffic, in one run: `cargo run --release --features libpcap --bin field` in
//! this directory, as root (`just bench-field`). Without the feature, libpcap is left out, and needs not be installed.
//!
//! Over veth pairs of a namespace of its own. Ways take turns; a figure is the median of the rounds, with the least and
//! the most. The sender has core 0, the measured code core 1. `--rounds N`; `--only NAME` for one table;
//! `--markdown FILE`, `--json FILE`, `--svg FILE`. With `FIELD_WAY=PART;PART` in the environment, only ways with one of
//! those in their name, for a profiler.

mod calls;
mod filters;
mod flows;
mod growth;
mod hand;
mod harness;
mod latency;
mod receive;
mod report;
mod transmit;
mod xdp;

use std::path::PathBuf;

use harness::{Outcome, Table};
use report::Target;
use ringtap_lab::Namespace;

/// In a page, what the tables are written behind.
const MARK: &str = "<!-- measured -->\n";

/// Above this, a table is measured once more.
const NOISY: f64 = 0.4;

const LATENCY: &str = "Latency at 10,000 packets a second";

const TARGETS: &[Target] = &[
    Target {
        what: "blocks, CPU",
        ours: "ringtap, built-in",
        other: "hand-written loop",
        table: "Receiving",
        column: 0,
        bound: 1.1,
    },
    Target {
        what: "blocks, CPU",
        ours: "ringtap, built-in",
        other: "netring 0.29, batches",
        table: "Receiving",
        column: 0,
        bound: 1.0,
    },
    Target {
        what: "blocks, CPU",
        ours: "ringtap, tokio",
        other: "netring 0.32, batches",
        table: "Receiving",
        column: 0,
        bound: 1.0,
    },
    Target {
        what: "handed over, CPU",
        ours: "ringtap, to another task",
        other: "netring 0.29, to another task",
        table: "Receiving",
        column: 0,
        bound: 0.12,
    },
    Target {
        what: "libpcap, CPU",
        ours: "ringtap, blocking",
        other: "libpcap, for_each",
        table: "Receiving",
        column: 0,
        bound: 0.5,
    },
    Target {
        what: "libpcap, CPU",
        ours: "ringtap, blocking",
        other: "libpcap, next",
        table: "Receiving",
        column: 0,
        bound: 0.3,
    },
    Target {
        what: "frames, moderated",
        ours: "ringtap, frames, adaptive",
        other: "ringtap, frames",
        table: "Receiving",
        column: 0,
        bound: 0.5,
    },
    Target {
        what: "latency, p50",
        ours: "ringtap, low latency, built-in",
        other: "netring 0.29, low latency",
        table: LATENCY,
        column: 0,
        bound: 0.04,
    },
    Target {
        what: "sending, CPU",
        ours: "ringtap, Injector",
        other: "netring 0.32, Injector",
        table: "Sending",
        column: 0,
        bound: 1.0,
    },
    Target {
        what: "sending, CPU",
        ours: "ringtap, Injector",
        other: "hand-written TX_RING",
        table: "Sending",
        column: 0,
        bound: 1.05,
    },
    Target {
        what: "sending by AF_XDP, CPU",
        ours: "ringtap, AF_XDP",
        other: "netring 0.29, AF_XDP",
        table: "Sending",
        column: 0,
        bound: 1.0,
    },
    Target {
        what: "forwarding, frames a second",
        ours: "ringtap, Bridge",
        other: "netring 0.32, Bridge",
        table: "Forwarding",
        column: 1,
        bound: -1.1,
    },
    Target {
        what: "forwarding by AF_XDP, CPU",
        ours: "ringtap, XdpBridge, adaptive",
        other: "netring 0.32, Bridge",
        table: "Forwarding",
        column: 0,
        bound: 0.7,
    },
    Target {
        what: "AF_XDP, CPU",
        ours: "ringtap, async, adaptive",
        other: Target::BEST_PEER,
        table: "AF_XDP",
        column: 0,
        bound: 0.5,
    },
    Target {
        what: "AF_XDP, packets a second",
        ours: "ringtap, async, adaptive",
        other: Target::BEST_PEER,
        table: "AF_XDP",
        column: 1,
        bound: -1.15,
    },
    Target {
        what: "AF_XDP without moderation, CPU",
        ours: "ringtap, async",
        other: Target::BEST_PEER,
        table: "AF_XDP",
        column: 0,
        bound: 1.05,
    },
    Target {
        what: "growth, CPU",
        ours: "64 captures",
        other: "1 capture",
        table: "Captures on one reactor",
        column: 0,
        bound: 1.15,
    },
    Target {
        what: "growth, CPU, sharing wake-ups",
        ours: "64 captures, 5 ms",
        other: "1 capture, 5 ms",
        table: "Captures on one reactor",
        column: 0,
        bound: 1.15,
    },
    Target {
        what: "growth, CPU",
        ours: "8 shards",
        other: "1 shard",
        table: "Shards",
        column: 0,
        bound: 1.15,
    },
    Target {
        what: "growth, CPU",
        ours: "64 terms, the first matches",
        other: "1 term",
        table: "Terms of a filter",
        column: 0,
        bound: 1.15,
    },
    Target {
        what: "filters, CPU",
        ours: "64 terms, none matches",
        other: "64 terms, none matches, libpcap",
        table: "Terms of a filter",
        column: 0,
        bound: 1.0,
    },
    Target {
        what: "filters on a socket, CPU of who sends",
        ours: "ringtap, none of 64 terms",
        other: "libpcap, none of 64 terms",
        table: "A filter on a socket",
        column: 0,
        bound: 1.0,
    },
    Target {
        what: "growth, CPU",
        ours: "1,000,000 flows",
        other: "64 flows",
        table: "Live flows in a table",
        column: 0,
        bound: 2.0,
    },
    Target {
        what: "default memory",
        ours: "ringtap, Capture::open",
        other: "netring 0.29, Capture::open",
        table: "A capture with default options",
        column: 0,
        bound: 0.125,
    },
    Target {
        what: "1 connection, CPU",
        ours: "ringtap, flow_stream",
        other: "netring 0.29, flow_stream",
        table: "1 connection",
        column: 0,
        bound: 0.6,
    },
    Target {
        what: "4,096 connections, CPU",
        ours: "ringtap, flow_stream",
        other: "netring 0.29, flow_stream",
        table: "4,096 connections",
        column: 0,
        bound: 0.6,
    },
    Target {
        what: "65,536 connections, CPU",
        ours: "ringtap, flow_stream",
        other: "netring 0.29, flow_stream",
        table: "65,536 connections",
        column: 0,
        bound: 0.6,
    },
];

fn main() -> Outcome<()> {
    let mut args = pico_args::Arguments::from_env();
    let rounds: usize = args.opt_value_from_str("--rounds")?.unwrap_or(5);
    let only: Option<String> = args.opt_value_from_str("--only")?;
    let mut file = |name| args.opt_value_from_str::<_, PathBuf>(name);
    let (page, figures, picture) = (file("--markdown")?, file("--json")?, file("--svg")?);
    let net = Namespace::enter()?;
    let veth = net.veth();
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
    let text = report::markdown(&tables, TARGETS);
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
    if let (Some(path), Some(table)) = (picture, tables.first()) {
        report::draw(table, &path)?;
    }
    Ok(())
}
