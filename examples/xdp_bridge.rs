//! Joins two interfaces through AF_XDP with one UMEM, so that no frame is copied on its way.
//!
//! ```sh
//! cargo run --release --features af-xdp --example xdp_bridge -- eth0 eth1
//! ```
//!
//! `cargo run --release --bin lab -- xdp_bridge` tries it on generated traffic, as root.
//! It needs the crate `ctrlc` besides ringtap.

use ringtap::bridge::XdpBridge;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(a), Some(b)) = (arguments.next(), arguments.next()) else {
        return Err("usage: xdp_bridge INTERFACE INTERFACE".into());
    };
    // `open_pair` refuses interfaces that strip VLAN tags, because AF_XDP does not see these.
    let bridge = XdpBridge::open_pair_without_vlans(&a, &b)?;
    let (stop, stats) = (bridge.stop_handle(), bridge.stats_handles());
    ctrlc::set_handler(move || stop.stop())?;
    println!("joining {a} and {b}");
    bridge.run(|_frame, _direction| true)?;
    for (name, stats) in [a, b].iter().zip(stats) {
        println!("{name}: {:?}", stats.stats()?);
    }
    Ok(())
}
