//! Receives through AF_XDP with an XDP program and a map that were loaded elsewhere.
//!
//! ```sh
//! cargo run --release --features af-xdp,aya --example xdp_custom_program -- eth0 /sys/fs/bpf/program /sys/fs/bpf/sockets
//! ```
//!
//! `cargo run --release --bin lab -- xdp_custom_program` tries it on generated traffic, as root.
//! It needs the crates `aya` and `ctrlc` besides ringtap; the feature `aya` belongs to this
//! package alone.

use std::os::fd::AsFd;

use aya::maps::MapData;
use aya::programs::ProgramInfo;
use ringtap::XdpSocket;
use ringtap::xdp::{Attach, XdpProgram};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(interface), Some(program), Some(map)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: xdp_custom_program INTERFACE PROGRAM MAP".into());
    };
    // A program, and the map of sockets (XSKMAP) that it redirects to. For instance,
    // `bpftool prog load xdp.o /sys/fs/bpf/program type xdp pinmaps /sys/fs/bpf` loads and names both.
    let program = ProgramInfo::from_pin(program)?.fd()?.as_fd().try_clone_to_owned()?;
    let map = MapData::from_pin(map)?.fd().as_fd().try_clone_to_owned()?;

    let program = XdpProgram::from_fds(&interface, Attach::Auto, program, map)?;
    let options = XdpSocket::builder().interface(&interface);
    let mut socket = options.program(program).build_receiver()?;
    let stop = socket.stop_handle()?;
    ctrlc::set_handler(move || stop.stop())?;
    println!("capturing on {interface}");
    let mut packets = 0;
    for batch in socket.batches() {
        packets += batch?.len();
    }
    println!("{packets} packets redirected by the program");
    Ok(())
}
