//! Receives the packets that a filter accepts through AF_XDP; all others go to the stack.
//!
//! ```sh
//! cargo run --release --features af-xdp --example xdp_self_loaded -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- xdp_self_loaded` tries it on generated traffic, as root.
//! It needs the crate `ctrlc` besides ringtap.

use ringtap::xdp::{Attach, XdpProgram};
use ringtap::{BpfFilter, Capture, XdpSocket};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: xdp_self_loaded INTERFACE")?;
    let filter: BpfFilter = "udp and src portrange 1024-32767".parse()?;
    // ringtap makes an XDP program of the filter, loads it and attaches it.
    let program = XdpProgram::filtered(&interface, Attach::Auto, &filter)?;
    let place = if program.is_generic() { "the stack" } else { "the driver" };
    let options = XdpSocket::builder().interface(&interface);
    let mut socket = options.program(program).build_receiver()?;
    // An ordinary capture sees the packets that the program passes on.
    let others = Capture::open(&interface)?;
    let stop = socket.stop_handle()?;
    ctrlc::set_handler(move || stop.stop())?;
    println!("capturing on {interface}, with a program in {place}");
    let mut taken = 0;
    for batch in socket.batches() {
        taken += batch?.len();
    }
    println!("{taken} packets taken by the program, {} passed on", others.stats()?.packets);
    Ok(())
}
