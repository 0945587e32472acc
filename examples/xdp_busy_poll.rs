//! Receives 50,000 packets through AF_XDP with interrupts, and 50,000 by polling the driver.
//!
//! ```sh
//! cargo run --release --features af-xdp --example xdp_busy_poll -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- xdp_busy_poll` tries it on generated traffic, as root.

use std::time::{Duration, Instant};

use ringtap::XdpSocket;
use ringtap::executor::Executor;
use ringtap::reactor::{Coalesce, Reactor, ReactorOptions};
use ringtap::xdp::{AsyncXdpReceiver, XdpReceiver};

const ENOUGH: usize = 50_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: xdp_busy_poll INTERFACE")?;
    let options = XdpSocket::builder().interface(&interface);
    let socket = options.clone().build_receiver()?;
    println!("capturing on {interface}");
    receive("interrupts", socket)?;
    let options = options.busy_poll_us(20);
    // The kernel prefers polling to interrupts since Linux 5.11; before, it only adds polling to them.
    let preferred = options.clone().prefer_busy_poll(true).busy_poll_budget(64).build_receiver();
    receive("busy polling", preferred.or_else(|_| options.build_receiver())?)?;
    Ok(())
}

fn receive(how: &str, receiver: XdpReceiver) -> ringtap::Result<()> {
    let reactor = ReactorOptions::new().coalesce(Coalesce::Fixed(Duration::from_micros(50)));
    Executor::new(reactor)?.block_on(async {
        let mut receiver = AsyncXdpReceiver::new(receiver)?;
        let (start, mut packets) = (Instant::now(), 0);
        while packets < ENOUGH {
            packets += receiver.next_batch().await?.map_or(0, |batch| batch.len());
        }
        let wakeups = Reactor::current()?.stats().wakeups;
        println!("{how}: {packets} packets in {:?}, {wakeups} wake-ups", start.elapsed());
        Ok(())
    })
}
