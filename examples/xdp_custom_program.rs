//! A program and a map made elsewhere, as by aya or libbpf: here one that drops UDP from odd source ports and
//! redirects the rest. `cargo run --release --features af-xdp --example xdp_custom_program`, as root.

use std::os::fd::AsFd;
use std::time::Duration;

use ringtap::XdpSocket;
use ringtap::xdp::{Attach, XdpMode, XdpProgram};
use ringtap_lab_wire::{Stage, xdp};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    // Two descriptors, wherever they come from: a loaded program, and the XSKMAP that it redirects by.
    let map = xdp::xskmap(64).map_err(|error| format!("making a map: {error}; it takes root"))?;
    let loaded = xdp::drop_odd_ports(map.as_fd())?;

    let program = XdpProgram::from_fds(stage.interface(), Attach::Auto, loaded, map)?;
    let options = XdpSocket::builder().interface(stage.interface()).mode(XdpMode::Rx);
    let mut socket = options.program(program).build()?;
    let traffic = (!stage.is_real()).then(|| stage.pace(Duration::from_secs(1), 20_000));
    let (mut even, mut odd) = (0_u64, 0_u64);
    // The first may take a while, none of the others.
    let patience = |seen| Duration::from_millis(if seen == 0 { 10_000 } else { 500 });
    while let Some(batch) = socket.next_batch_timeout(patience(even + odd))? {
        for packet in &batch {
            match packet.data().get(35) {
                Some(port) if port % 2 == 1 => odd += 1,
                _ => even += 1,
            }
        }
    }
    println!("{even} packets from even ports, {odd} from odd ones");
    drop(traffic);
    Ok(())
}
