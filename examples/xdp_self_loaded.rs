//! A program that ringtap makes of a filter, loads and attaches: what the filter accepts comes here, all else goes on
//! to the kernel's stack. `cargo run --release --features af-xdp --example xdp_self_loaded -- eth0`, or without
//! arguments in the lab, as root.

use std::time::Duration;

use ringtap::xdp::{Attach, XdpMode, XdpProgram};
use ringtap::{BpfFilter, Capture, XdpSocket};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let filter: BpfFilter = "udp and src portrange 1024-32767".parse()?;
    let program = XdpProgram::filtered(stage.interface(), Attach::Auto, &filter)?;
    println!(
        "{} has a program, run {}",
        stage.interface(),
        match program.is_generic() {
            true => "in the stack",
            false => "in the driver",
        }
    );
    let options = XdpSocket::builder().interface(stage.interface()).mode(XdpMode::Rx);
    let mut socket = options.program(program).build()?;
    // What the program passes on is seen where everybody looks.
    let mut rest = Capture::open(stage.interface())?;
    let traffic = (!stage.is_real()).then(|| stage.pace(Duration::from_secs(1), 20_000));
    let mut taken = 0;
    // The first may take a while, none of the others.
    let patience = |taken| Duration::from_millis(if taken == 0 { 10_000 } else { 500 });
    while let Some(batch) = socket.next_batch_timeout(patience(taken))? {
        for packet in &batch {
            assert!(filter.matches(packet.data()), "only what the filter accepts");
            taken += 1;
        }
    }
    let mut passed = 0;
    while let Some(batch) = rest.next_batch_timeout(Duration::from_millis(200))? {
        passed += batch.len();
    }
    println!("{taken} packets taken by the program, {passed} passed on");
    drop(traffic);
    Ok(())
}
