//! Joins two interfaces, so that hosts behind them reach each other.
//!
//! ```sh
//! cargo run --release --example bridge -- eth0 eth1
//! ```
//!
//! `cargo run --release --bin lab -- bridge` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use ringtap::Bridge;
use ringtap::bridge::BridgeAction;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(a), Some(b)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bridge INTERFACE INTERFACE".into());
    };
    let mut bridge = Bridge::open_pair(&a, &b)?;
    let stop = bridge.stop_handle();
    ctrlc::set_handler(move || stop.stop())?;
    println!("joining {a} and {b}");
    // Every packet passes; `async_bridge` has a filter.
    bridge.run(|_packet, _direction| BridgeAction::Forward)?;
    println!("{:#?}", bridge.stats()?);
    Ok(())
}
