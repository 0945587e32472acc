//! Counts protocols by the first bytes of each payload, behind a filter in the kernel.
//!
//! ```sh
//! cargo run --release --example dpi -- eth0 'tcp or udp port 53'
//! ```
//!
//! `cargo run --release --bin lab -- dpi` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `etherparse` besides ringtap.

use std::collections::BTreeMap;

use etherparse::{SlicedPacket, TransportSlice};
use ringtap::{BpfFilter, Capture};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: dpi INTERFACE")?;
    let text = std::env::args().nth(2).unwrap_or_else(|| "tcp or udp port 53".to_owned());
    let filter: BpfFilter = text.parse()?;
    let options = Capture::builder().interface(&interface).filter(filter);
    let mut capture = options.vlan_reinsert(true).build()?;
    let stop = capture.stop_handle()?;
    ctrlc::set_handler(move || stop.stop())?;
    println!("capturing on {interface}");
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for batch in capture.batches() {
        for packet in &batch? {
            if let Some(name) = payload(packet.data()).map(guess) {
                *counts.entry(name).or_default() += 1;
            }
        }
    }
    println!("{text}: {counts:?}");
    Ok(())
}

/// The bytes behind the TCP or UDP header, if there are any.
fn payload(frame: &[u8]) -> Option<&[u8]> {
    let payload = match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Tcp(tcp) => tcp.payload(),
        TransportSlice::Udp(udp) => udp.payload(),
        _ => return None,
    };
    (!payload.is_empty()).then_some(payload)
}

/// By the first bytes alone; a real sensor would also look at ports and at later bytes.
fn guess(payload: &[u8]) -> &'static str {
    const HTTP: [&[u8]; 5] = [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"HTTP/1."];
    match payload {
        _ if HTTP.iter().any(|start| payload.starts_with(start)) => "HTTP",
        // The hello of a client or a server, of TLS 1.0 to 1.3.
        [0x16, 0x03, 0..=4, _, _, 1 | 2, ..] => "TLS",
        [b'S', b'S', b'H', b'-', ..] => "SSH",
        // A header with one question and few flags.
        [_, _, flags, _, 0, 1, _, ..] if payload.len() > 16 && flags & 0x78 == 0 => "DNS",
        _ => "something else",
    }
}
