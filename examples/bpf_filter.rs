//! Prints the program of a filter, captures 1000 packets with it, and changes it for 1000 others.
//!
//! ```sh
//! cargo run --release --example bpf_filter -- eth0 'tcp port 443'
//! ```
//!
//! `cargo run --release --bin lab -- bpf_filter` tries it on generated traffic, without root.

use ringtap::filter::FilterTarget;
use ringtap::{BpfFilter, Capture};

const ENOUGH: u64 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: bpf_filter INTERFACE")?;
    let text = std::env::args().nth(2).unwrap_or_else(|| "udp and src port 443".to_owned());
    // Printed with `{}`, an error shows the wrong place with a caret.
    let filter: BpfFilter = text.parse().map_err(|error| format!("{error}"))?;
    let other = BpfFilter::builder().udp().dst_port(443).or(|b| b.arp()).build()?;

    let mut capture = Capture::builder().interface(&interface).filter(filter.clone()).build()?;
    let handle = capture.filter_handle();
    println!("capturing on {interface} with {text:?}");
    println!("{}", filter.disassembly(FilterTarget::Socket));
    let (mut first, mut second) = (0_u64, 0_u64);
    for batch in capture.batches() {
        for packet in &batch? {
            // The filters decide on packets without a kernel, too.
            match (packet.matches(&filter), packet.matches(&other)) {
                (true, _) => first += 1,
                (_, true) => second += 1,
                _ => return Err("a packet that neither filter accepts".into()),
            }
        }
        if first >= ENOUGH {
            handle.set(&other)?;
        }
        if second >= ENOUGH {
            break;
        }
    }
    println!("{first} packets with {text:?}, then {second} with {:?}", other.to_string());
    println!("{:?}", capture.stats()?);
    Ok(())
}
