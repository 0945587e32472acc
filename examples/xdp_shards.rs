//! Runs one shard for each receive queue through AF_XDP.
//!
//! ```sh
//! cargo run --release --features af-xdp --example xdp_shards -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- xdp_shards` tries it on generated traffic, as root.
//! It needs the crate `ctrlc` besides ringtap.

use ringtap::{Shards, XdpSocket};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: xdp_shards INTERFACE")?;
    let socket = XdpSocket::builder().interface(&interface);
    let shards = Shards::xdp(socket).spawn_receivers(|mut shard| async move {
        while let Some(batch) = shard.capture.next_batch().await? {
            for packet in &batch {
                std::hint::black_box(packet.data()); // the work
            }
        }
        Ok(())
    })?;
    let stop = shards.stop_handle();
    ctrlc::set_handler(move || stop.stop())?;
    println!("capturing on {interface}");
    let stats = shards.join()?;
    println!("queue  packets  dropped  batches  wake-ups");
    for shard in stats.shards() {
        let (capture, reactor) = (shard.capture, shard.reactor);
        println!(
            "{:5} {:8} {:8} {:8} {:9}",
            shard.spec.index, capture.delivered, capture.drops, capture.batches, reactor.wakeups
        );
    }
    let total = stats.total();
    println!("in all: {} delivered, {} dropped", total.delivered, total.drops);
    Ok(())
}
