//! Joins two interfaces, drops every tenth UDP packet in one direction, and rewrites the others.
//!
//! ```sh
//! cargo run --release --example async_bridge -- eth0 eth1
//! ```
//!
//! `cargo run --release --bin lab -- async_bridge` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use std::time::Duration;

use ringtap::bridge::{BridgeAction, BridgeDirection, BridgeFrame, BridgeLaneStats};
use ringtap::{Bridge, Packet, executor, time};

// Where these stand in an Ethernet frame with an IPv4 header without options.
const TTL: usize = 22;
const PROTOCOL: usize = 23;
const CHECKSUM: usize = 24;
const IPV4: u16 = 0x0800;
const UDP: u8 = 17;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(a), Some(b)) = (arguments.next(), arguments.next()) else {
        return Err("usage: async_bridge INTERFACE INTERFACE".into());
    };
    let mut bridge = Bridge::open_pair(&a, &b)?;
    let (stop, stats) = (bridge.stop_handle(), bridge.stats_handle());
    ctrlc::set_handler(move || stop.stop())?;
    println!("joining {a} and {b}");

    let mut seen = 0_u32;
    let decide = |packet: &Packet<'_>, direction: BridgeDirection| {
        let is_udp = packet.ll_protocol() == Some(IPV4)
            && packet.stripped_vlan().is_none() // the rewritten frame has its tag again
            && packet.data().get(PROTOCOL) == Some(&UDP);
        if direction == BridgeDirection::BtoA || !is_udp {
            return BridgeAction::Forward;
        }
        seen += 1;
        match packet.data()[TTL] <= 1 || seen.is_multiple_of(10) {
            true => BridgeAction::Drop,
            false => BridgeAction::Rewrite,
        }
    };
    // Like a router: one hop less, and the header checksum adjusted (RFC 1624).
    let rewrite = |frame: &mut BridgeFrame<'_>, _: BridgeDirection| {
        frame[TTL] -= 1;
        let sum = u16::from_be_bytes([frame[CHECKSUM], frame[CHECKSUM + 1]]);
        let (sum, carry) = sum.overflowing_add(0x0100);
        frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    };

    executor::block_on(async {
        let _ticking = executor::spawn_local(async move {
            loop {
                time::sleep(Duration::from_secs(1)).await;
                println!("{:?}", stats.stats().map(|stats| stats.a_to_b));
            }
        });
        bridge.run_with_async((decide, rewrite)).await
    })?;

    let stats = bridge.stats()?;
    for (name, lane) in [("there", stats.a_to_b), ("back", stats.b_to_a)] {
        let BridgeLaneStats { received, forwarded, filtered, .. } = lane;
        let others = lane.too_large + lane.rejected + lane.ring_full;
        println!(
            "{name}: {received} received, {forwarded} forwarded, {filtered} dropped, {others} failed"
        );
    }
    Ok(())
}
