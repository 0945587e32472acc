//! How long a filter takes to compile, and how fast its machine is. `cargo bench --bench filter`

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringtap::BpfFilter;
use ringtap::filter::{Ancillary, FilterTarget};

const EXPRESSIONS: &[&str] = &[
    "tcp port 443",
    "udp port 53",
    "host 10.0.0.1 and not port 22",
    "net 10.0.0.0/8 or net 192.168.0.0/16",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "vlan 100 and tcp dst port 80",
    "icmp or icmp6 or arp",
    "port 80 or 443 or 8080 or 8443 or 53 or 22 or 25 or 110",
];
const ROUNDS: usize = 9;

/// The median, and the spread from the least to the most.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.1} ({:.1} to {:.1})", values[values.len() / 2], values[0], values[values.len() - 1])
}

fn time(mut work: impl FnMut()) -> f64 {
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < Duration::from_millis(30) {
        work();
        count += 1;
    }
    began.elapsed().as_secs_f64() / f64::from(count)
}

fn main() {
    println!(
        "µs to parse an expression and compile it for both targets; instructions for a socket"
    );
    for expression in EXPRESSIONS {
        let compile = || drop(black_box(BpfFilter::parse(black_box(expression))));
        let times = (0..ROUNDS).map(|_| 1e6 * time(compile)).collect();
        let filter = BpfFilter::parse(expression).expect("an everyday expression");
        println!(
            "{:>24}  {:3}  {expression}",
            spread(times),
            filter.program(FilterTarget::Socket).len()
        );
    }
    // All instructions but for the jumps taken: no test of these holds.
    let tests: Vec<String> = (0..500).map(|at| format!("ether[{at}] = 1")).collect();
    let filter = BpfFilter::parse(&tests.join(" or ")).expect("500 tests");
    let frame = [0; 600];
    let run = || {
        black_box(filter.matches_offline(black_box(&frame), &Ancillary::default()));
    };
    let rates = (0..ROUNDS).map(|_| 1000.0 / time(run) / 1e6).collect();
    println!("million instructions a second in the machine: {}", spread(rates));
}
