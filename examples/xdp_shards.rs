//! One shard a receive queue through AF_XDP: `cargo run --release --features af-xdp --example xdp_shards -- eth0`,
//! or without arguments in the lab. Receiving takes root.

use std::time::Duration;

use futures_util::StreamExt;
use ringtap::shard::{Cores, Queues};
use ringtap::xdp::XdpMode;
use ringtap::{Shards, XdpSocket};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let shards = Shards::builder()
        .interface(stage.interface())
        .cores(Cores::All)
        .xdp(Queues::Auto, XdpSocket::builder().mode(XdpMode::Rx))
        .spawn(|mut shard| async move {
            while let Some(batch) = shard.capture.next().await {
                for packet in &batch? {
                    std::hint::black_box(packet.data()); // the work
                }
            }
            Ok(())
        })?;
    let traffic = (!stage.is_real()).then(|| stage.flood(Duration::from_secs(2)));
    std::thread::sleep(Duration::from_secs(if traffic.is_some() { 2 } else { 10 }));
    let sent = traffic.map(|traffic| traffic.finish());
    shards.stop();
    let stats = shards.join()?;
    println!("queue  packets  dropped  batches  wake-ups");
    for shard in stats.shards() {
        let (capture, reactor) = (shard.capture, shard.reactor);
        println!(
            "{:5} {:8} {:8} {:8} {:9}",
            shard.spec.index, capture.delivered, capture.drops, capture.batches, reactor.wakeups
        );
    }
    if let Some(sent) = sent {
        // A packet that a socket drops is counted by the veth too: its redirection failed.
        let delivered: u64 = stats.shards().iter().map(|shard| shard.capture.delivered).sum();
        let accounted = delivered + stage.lost();
        println!("accounted: {accounted} of {sent}");
        if accounted != sent {
            return Err("packets are not accounted for: do the shards see all queues?".into());
        }
    }
    Ok(())
}
