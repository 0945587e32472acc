//! Sends back every packet of a queue with its addresses exchanged, without copying it.
//!
//! ```sh
//! cargo run --release --features af-xdp --example xdp_echo -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- xdp_echo` tries it on generated traffic, as root.
//! It needs the crate `ctrlc` besides ringtap.

use ringtap::reactor::Reactor;
use ringtap::xdp::AsyncXdpSocket;
use ringtap::{XdpSocket, executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: xdp_echo INTERFACE")?;
    executor::block_on(async {
        let mut socket = AsyncXdpSocket::new(XdpSocket::open(&interface)?)?;
        let stop = socket.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("echoing on {interface}");
        let before = Reactor::current()?.stats();
        let (mut turns, mut echoed) = (0_u64, 0);
        while let Some(batch) = socket.next_batch().await? {
            turns += 1;
            let swap = |frame: &mut [u8]| {
                frame[..12].rotate_left(6); // the hardware addresses
                true
            };
            echoed += socket.send_batch(batch, swap).await?;
        }
        socket.drain().await?;
        let enters = Reactor::current()?.stats().delta_since(&before).enters;
        println!("{:?}", socket.stats()?);
        println!("{echoed} packets sent back in {turns} turns with {enters} system calls");
        Ok(())
    })
}
