//! Packets that are seen twice, once: on loopback each goes out and comes in.
//! `cargo run --example dedup -- lo`, or without arguments in the lab.

use std::net::UdpSocket;
use std::time::Duration;

use futures_util::StreamExt;
use ringtap::dedup::{Dedup, DedupExt, DedupMode};
use ringtap::{AsyncCapture, Capture, executor, time};
use ringtap_lab_wire::{Namespace, bootstrap};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1);
    let lab = match interface {
        Some(_) => None,
        None => {
            bootstrap::enter()?;
            let namespace = Namespace::enter()?;
            namespace.loopback_up();
            println!("no interface named: capturing on lo, in a network namespace of my own");
            Some(namespace)
        }
    };
    let interface = interface.unwrap_or_else(|| "lo".to_owned());
    executor::block_on(async {
        let options = Capture::builder().interface(&interface).block_timeout_ms(50);
        let capture = options.filter("udp".parse()?).build()?;
        // `Dedup::loopback()` remembers packets for 1 ms, as long as a fast machine takes.
        let dedup = Dedup::new(DedupMode::Loopback, Duration::from_millis(100), 1 << 16);
        let mut stream = AsyncCapture::new(capture)?.with_dedup(dedup);
        if lab.is_some() {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            for number in 0..1000_u32 {
                // The same twice is two packets all the same.
                socket.send_to(&(number / 2).to_be_bytes(), socket.local_addr()?)?;
            }
        }
        let mut kept = 0;
        let wait = Duration::from_secs(if lab.is_some() { 1 } else { 10 });
        while let Ok(Some(batch)) = time::timeout(wait, stream.next()).await {
            kept += batch?.iter().count();
        }
        println!("{kept} packets kept; {:?}", stream.stats());
        Ok(())
    })
}
