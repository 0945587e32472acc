//! Joins two interfaces through AF_XDP with one UMEM, so that no frame is copied on its way:
//! `cargo run --release --features af-xdp --example xdp_bridge -- eth0 eth1`, or without arguments two hosts in
//! the lab, one of which asks the other through the bridge. It takes root.

use ringtap::bridge::XdpBridge;
use ringtap_lab_wire::Pair;

const ASKED: usize = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pair = Pair::from_args()?;
    pair.finish_checksums(); // AF_XDP passes frames on as they are
    let [a, b] = &pair.interfaces;
    // `open_pair` refuses interfaces whose VLAN tags AF_XDP does not see, as veth pairs' often are.
    let bridge = XdpBridge::open_pair_without_vlans(a, b)?;
    let (stop, stats) = (bridge.stop_handle(), bridge.stats_handles());
    let pinging = pair.ping(ASKED);
    ctrlc::set_handler({
        let stop = stop.clone();
        move || stop.stop()
    })?;
    let watching = std::thread::spawn(move || {
        let times = pinging.map(|pinging| pinging.join().expect("hosts do not panic"));
        if times.is_some() {
            stop.stop(); // in the lab, that was all
        }
        times
    });
    bridge.run(|_frame, _direction| true)?;

    for (name, stats) in [a, b].into_iter().zip(stats) {
        println!("{name}: {:?}", stats.stats()?);
    }
    if let Some(mut times) = watching.join().expect("it only waits") {
        times.sort_unstable();
        println!("{} of {ASKED} questions were answered", times.len());
        if let Some(median) = times.get(times.len() / 2) {
            println!("median of a question and its answer, four wake-ups: {median:?}");
        }
    }
    Ok(())
}
