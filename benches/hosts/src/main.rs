//! ringtap on every runtime: one table of what an adapter takes, what it shows, what a wake-up costs and what a busy capture
//! leaves to its host.
//!
//! `cargo run --release -p ringtap-bench-hosts [-- ROUNDS]`, without root; some 15 minutes with 5 rounds. The hosts take turns.
//!
//! ```text
//!   way        the hosts
//!   wake       what a wake-up costs, beside the host's own readiness
//!   echo       the host's own I/O
//!   fairness   what a busy capture leaves to it
//! ```

mod echo;
mod fairness;
mod wake;
mod way;

use std::path::Path;
use std::process::Command;

use hdrhistogram::Histogram;
use ringtap::Result;
use ringtap_lab::{Namespace, Veth, bootstrap};

use crate::fairness::{LOADS, Rounds};
use crate::wake::Waiter;
use crate::way::Way;

type Times = Histogram<u64>;

fn no_times() -> Times {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("legal bounds")
}

/// The median, the least and the most of some values.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}

/// What was measured of a host.
struct Row {
    way: Way,
    behaviours: String,
    /// The p50 and p99 of each round in microseconds, of ringtap and of the host's own readiness.
    wakes: [Vec<(f64, f64)>; 2],
    loads: [Rounds; LOADS.len()],
}

impl Row {
    fn new(way: Way) -> Self {
        Self {
            way,
            behaviours: String::new(),
            wakes: Default::default(),
            loads: Default::default(),
        }
    }

    fn measure(&mut self, net: &Namespace, veth: &Veth) -> Result<()> {
        for (waiter, rounds) in [Waiter::Ringtap, Waiter::Own].into_iter().zip(&mut self.wakes) {
            if waiter.is_there(self.way) {
                let times = wake::measure(self.way, waiter, veth)?;
                let micros = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
                rounds.push((micros(0.5), micros(0.99)));
            }
        }
        if self.way != Way::Blocking {
            for (load, rounds) in LOADS.into_iter().zip(&mut self.loads) {
                rounds.measure(self.way, net, load)?;
            }
        }
        Ok(())
    }

    /// The spread of the p50 of one who waits.
    fn p50(&self, waiter: Waiter) -> Option<(f64, f64, f64)> {
        let rounds = &self.wakes[waiter as usize];
        let values: Vec<_> = rounds.iter().map(|(p50, _)| *p50).collect();
        (!rounds.is_empty()).then(|| spread(&values))
    }

    /// The name by which a child is told what to receive with.
    fn child(&self, waiter: Waiter) -> String {
        format!("{:?} {waiter:?}", self.way)
    }
}

/// The lines of the host's adapter.
fn lines(way: Way) -> String {
    let Some((adapter, file)) = way.adapter() else { return "in the core".into() };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes");
    let text = std::fs::read_to_string(root.join(adapter).join("src").join(file));
    text.map_or("?".into(), |text| text.lines().count().to_string())
}

/// How many of the behaviours that the suite asks for the host shows.
fn behaviours(way: Way) -> String {
    let [package, test, filter] = way.conformance();
    let cargo = Command::new("cargo")
        .args(["test", "-q", "-p", package, "--all-features", "--test", test, "--", filter])
        .env("RINGTAP_REQUIRE_KERNEL", "1")
        .output();
    let Ok(output) = cargo else { return "?".into() };
    let said = String::from_utf8_lossy(&output.stdout);
    let number = |before: &str| -> u32 {
        let counts = said.lines().rfind(|line| line.starts_with("test result"));
        let words = counts.unwrap_or_default().split([' ', ';']);
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        let at = words.iter().position(|word| *word == before);
        at.and_then(|at| words[at - 1].parse().ok()).unwrap_or(0)
    };
    let (passed, failed) = (number("passed"), number("failed"));
    format!("{passed} of {}", passed + failed)
}

fn table(rows: &[Row], blocking: f64, veth: &Veth) {
    println!(
        "\n| host | lines | behaviours | calls a wake-up | worst µs of its own I/O | p50 µs | p50 to its own |"
    );
    println!("|---|---|---|---|---|---|---|");
    for row in rows.iter().filter(|row| row.way != Way::Blocking) {
        let calls = wake::calls(&row.child(Waiter::Ringtap), veth);
        let calls = calls.map_or("?".into(), |calls| format!("{calls:.2}"));
        let longest = row.loads[LOADS.len() - 1].micros(1.0);
        let ours = row.p50(Waiter::Ringtap).expect("it was measured");
        let own = match row.way {
            Way::AnyTask => {
                rows.iter().find(|row| row.way == Way::Tokio).and_then(|row| row.p50(Waiter::Own))
            }
            _ => row.p50(Waiter::Own),
        };
        let ratio = match own {
            Some(own) => format!("{:.2} ({:.1} µs)", ours.0 / own.0, own.0),
            None => format!("none; to `poll(2)` {:.2}", ours.0 / blocking),
        };
        println!(
            "| {} | {} | {} | {calls} | {:.0} ({:.0}) | {:.1} ({:.1} … {:.1}) | {ratio} |",
            row.way.name(),
            lines(row.way),
            row.behaviours,
            longest.0,
            longest.2,
            ours.0,
            ours.1,
            ours.2,
        );
    }
}

fn fairness_table(rows: &[Row]) {
    println!("\n| host | a packet takes | p50 µs | p99 µs | longest µs | packets/s |");
    println!("|---|---|---|---|---|---|");
    for row in rows.iter().filter(|row| row.way != Way::Blocking) {
        for (load, rounds) in LOADS.iter().zip(&row.loads) {
            let name = if load.is_none() { row.way.name() } else { "" };
            let load_is =
                load.map_or("no packets".into(), |load| format!("{} µs", load.as_micros()));
            let packets =
                load.map_or(String::new(), |_| format!("{:.0}", rounds.packets_per_second()));
            let longest = rounds.micros(1.0);
            println!(
                "| {name} | {load_is} | {:.0} | {:.0} | {:.0} ({:.0}) | {packets} |",
                rounds.micros(0.5).0,
                rounds.micros(0.99).0,
                longest.0,
                longest.2,
            );
        }
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut rows: Vec<Row> = [Way::Blocking].into_iter().chain(Way::HOSTS).map(Row::new).collect();
    if let [flag, name, interface, count] = &args[..]
        && flag == "--receive"
    {
        let waiter = if name.ends_with("Own") { Waiter::Own } else { Waiter::Ringtap };
        let row = rows.iter().find(|row| row.child(waiter) == *name).ok_or("no such host")?;
        wake::receive(row.way, waiter, wake::open(interface)?, count.parse()?)?;
        return Ok(()); // in the namespace of who has started it
    }
    for row in rows.iter_mut().filter(|row| row.way != Way::Blocking) {
        row.behaviours = behaviours(row.way);
    }
    bootstrap::enter()?;
    let rounds: usize = args.first().map_or(Ok(5), |rounds| rounds.parse())?;
    let net = Namespace::enter()?;
    net.loopback_up();
    let veth = net.veth();
    for round in 0..rounds {
        let len = rows.len();
        for step in 0..len {
            rows[(step + round) % len].measure(&net, &veth)?;
        }
    }
    let blocking = rows[0].p50(Waiter::Own).ok_or("no round")?;
    println!("{rounds} rounds of {} frames, and of {:?} of echoes", wake::FRAMES, echo::LENGTH);
    println!(
        "`poll(2)`, blocking: p50 {:.1} ({:.1} … {:.1}) µs",
        blocking.0, blocking.1, blocking.2
    );
    table(&rows, blocking.0, &veth);
    fairness_table(&rows);
    Ok(())
}
