//! Sends back every packet of a queue with its addresses exchanged, without copying it and with one system call
//! a turn: `cargo run --release --features af-xdp --example xdp_echo -- eth0`, or without arguments in the lab.
//! Receiving takes root.

use std::time::Duration;

use ringtap::reactor::Reactor;
use ringtap::xdp::AsyncXdpSocket;
use ringtap::{XdpSocket, executor, time};
use ringtap_lab_wire::{Stage, link};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let traffic = (!stage.is_real()).then(|| stage.pace(Duration::from_secs(2), 50_000));
    executor::block_on(async {
        let socket = XdpSocket::builder().interface(stage.interface()).build()?;
        let mut socket = AsyncXdpSocket::new(socket)?;
        let before = Reactor::current()?.stats();
        let (mut turns, mut echoed) = (0_u64, 0);
        let patience = Duration::from_millis(500);
        while let Ok(batch) = time::timeout(patience, socket.next_batch()).await {
            let Some(batch) = batch? else { break };
            turns += 1;
            let swap = |frame: &mut [u8]| {
                frame[..12].rotate_left(6);
                true
            };
            echoed += socket.send_batch(batch, swap).await?;
        }
        socket.drain().await?;
        let enters = Reactor::current()?.stats().delta_since(&before).enters;
        println!("{echoed} packets sent back in {turns} turns, {enters} system calls");
        println!("{:?}", socket.stats()?);
        if !stage.is_real() {
            println!(
                "the sender's end received {}",
                link::stats(stage.sending_interface())?.received
            );
        }
        drop(traffic);
        Ok(())
    })
}
