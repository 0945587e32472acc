//! Joins two interfaces: `cargo run --release --example bridge -- eth0 eth1`, or without arguments two
//! hosts in the lab, one of which asks the other through the bridge.

use ringtap::Bridge;
use ringtap::bridge::BridgeAction;
use ringtap_lab_wire::Pair;

const ASKED: usize = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pair = Pair::from_args()?;
    let [a, b] = &pair.interfaces;
    let mut bridge = Bridge::open_pair(a, b)?;
    let stop = bridge.stop_handle();
    let pinging = pair.ping(ASKED);
    ctrlc::set_handler(move || stop.stop())?;

    let stop = bridge.stop_handle();
    let watching = std::thread::spawn(move || {
        let times = pinging.map(|pinging| pinging.join().expect("hosts do not panic"));
        if times.is_some() {
            stop.stop(); // in the lab, that was all
        }
        times
    });
    // Everything passes; `examples/async_bridge.rs` has a filter.
    bridge.run(|_packet, _direction| BridgeAction::Forward)?;

    println!("{:#?}", bridge.stats()?);
    if let Some(mut times) = watching.join().expect("it only waits") {
        times.sort_unstable();
        println!("{} of {ASKED} questions were answered", times.len());
        if let Some(median) = times.get(times.len() / 2) {
            println!("median of a question and its answer, four wake-ups: {median:?}");
        }
    }
    Ok(())
}
