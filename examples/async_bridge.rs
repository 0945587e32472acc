//! A bridge beside other tasks of its thread, that drops one question in ten and rewrites the rest:
//! `cargo run --release --example async_bridge -- eth0 eth1`, or without arguments in the lab.

use std::time::Duration;

use ringtap::bridge::{BridgeAction, BridgeDirection, BridgeFrame, BridgeLaneStats};
use ringtap::{Bridge, Packet, executor, time};
use ringtap_lab_wire::Pair;

const ASKED: usize = 20;
// Where these stand in an Ethernet frame of IPv4 without options.
const PROTOCOL: usize = 23;
const TTL: usize = 22;
const CHECKSUM: usize = 24;
const IPV4: u16 = 0x0800;
const UDP: u8 = 17;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pair = Pair::from_args()?;
    let [a, b] = &pair.interfaces;
    let mut bridge = Bridge::open_pair(a, b)?;
    let (stop, stats) = (bridge.stop_handle(), bridge.stats_handle());
    let pinging = pair.ping(ASKED);
    let interrupted = stop.clone();
    ctrlc::set_handler(move || interrupted.stop())?;

    let mut questions = 0_u32;
    let decide = |packet: &Packet<'_>, direction: BridgeDirection| {
        let is_udp = packet.ll_protocol() == Some(IPV4)
            && packet.stripped_vlan().is_none() // the frame that is rewritten has its tag again
            && packet.data().get(PROTOCOL) == Some(&UDP);
        if direction == BridgeDirection::BtoA || !is_udp {
            return BridgeAction::Forward;
        }
        if packet.data()[TTL] <= 1 {
            return BridgeAction::Drop;
        }
        questions += 1;
        if questions.is_multiple_of(10) { BridgeAction::Drop } else { BridgeAction::Rewrite }
    };
    // As a router would, one hop less, and the header's checksum brought along (RFC 1624).
    let rewrite = |frame: &mut BridgeFrame<'_>, _: BridgeDirection| {
        frame[TTL] -= 1;
        let sum = u16::from_be_bytes([frame[CHECKSUM], frame[CHECKSUM + 1]]);
        let (sum, carry) = sum.overflowing_add(0x0100);
        frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    };

    executor::block_on(async {
        let _ticking = executor::spawn_local(async move {
            let mut ticks = time::interval(Duration::from_millis(500));
            loop {
                ticks.tick().await;
                if pinging.as_ref().is_some_and(std::thread::JoinHandle::is_finished) {
                    let times = pinging.map(|pinging| pinging.join().expect("no panic"));
                    println!("{} of {ASKED} answered", times.map_or(0, |times| times.len()));
                    stop.stop();
                    return;
                }
                println!("{:?}", stats.stats().map(|stats| stats.a_to_b));
            }
        });
        bridge.run_with_async((decide, rewrite)).await
    })?;
    let stats = bridge.stats()?;
    for (name, lane) in [("there", stats.a_to_b), ("and back", stats.b_to_a)] {
        let BridgeLaneStats { received, forwarded, filtered, .. } = lane;
        let other = lane.too_large + lane.rejected + lane.ring_full;
        println!(
            "{name}: {received} received = {forwarded} forwarded + {filtered} filtered + {other} others"
        );
        if received + lane.segmented != forwarded + filtered + other + lane.stale {
            return Err(format!("{name}: frames are not accounted for").into());
        }
    }
    Ok(())
}
