//! AF_XDP whose driver is polled by the system calls of its reader, instead of by interrupts, beside one without:
//! `cargo run --release --features af-xdp --example xdp_busy_poll -- eth0`, or without arguments in the lab, as root.
//! A veth has no driver to poll: there the options are taken and change little.

use std::time::{Duration, Instant};

use ringtap::executor::Executor;
use ringtap::reactor::{Coalesce, Reactor, ReactorOptions};
use ringtap::xdp::{AsyncXdpSocket, XdpMode};
use ringtap::{XdpSocket, time};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let mut taken = Vec::new();
    for is_polled in [false, true] {
        let options = XdpSocket::builder().interface(stage.interface()).mode(XdpMode::Rx);
        let socket = if is_polled {
            let polled = options.busy_poll_us(20);
            match polled.clone().prefer_busy_poll(true).busy_poll_budget(64).build() {
                Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                    println!("polled beside interrupts, before Linux 5.11: {error}");
                    polled.build()?
                }
                socket => socket?,
            }
        } else {
            options.build()?
        };
        let reactor = ReactorOptions::new().coalesce(Coalesce::Fixed(Duration::from_micros(50)));
        let traffic = stage.pace(Duration::from_secs(2), 50_000);
        let (packets, wakeups) = Executor::new(reactor)?.block_on(async {
            let mut socket = AsyncXdpSocket::new(socket)?;
            let end = Instant::now() + Duration::from_secs(2);
            let mut packets = 0;
            loop {
                let left = end.saturating_duration_since(Instant::now());
                let Ok(batch) = time::timeout(left, socket.next_batch()).await else { break };
                packets += batch?.map_or(0, |batch| batch.len());
            }
            let wakeups = Reactor::current()?.stats().wakeups;
            Ok::<_, ringtap::Error>((packets, wakeups))
        })?;
        drop(traffic);
        let how = if is_polled { "busy polling" } else { "interrupts" };
        println!("{how}: {packets} packets, {wakeups} wake-ups");
        taken.push(packets);
    }
    println!("packets by interrupts and by busy polling: {} and {}", taken[0], taken[1]);
    Ok(())
}
