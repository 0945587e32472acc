//! Uses a loaded eBPF program as the filter of a capture.
//!
//! ```sh
//! cargo run --release --features aya --example ebpf_filter -- eth0 /sys/fs/bpf/filter
//! ```
//!
//! `cargo run --release --bin lab -- ebpf_filter` tries it on generated traffic, as root.
//! It needs the crates `aya` and `ctrlc` besides ringtap; the feature `aya` belongs to this
//! package alone.

use std::os::fd::AsFd;

use aya::programs::SocketFilter;
use ringtap::Capture;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(interface), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: ebpf_filter INTERFACE PROGRAM".into());
    };
    // For instance one that `bpftool prog load filter.o /sys/fs/bpf/filter type socket` has loaded.
    let program = SocketFilter::from_pin(path)?;
    let mut capture = Capture::open(&interface)?;
    capture.attach_ebpf_filter(program.fd()?.as_fd().try_clone_to_owned()?)?;
    // From now on nobody can change the filter, not even this program.
    capture.lock_filter()?;
    let stop = capture.stop_handle()?;
    ctrlc::set_handler(move || stop.stop())?;
    println!("capturing on {interface}");
    let mut packets = 0;
    for batch in capture.batches() {
        packets += batch?.len();
    }
    println!("{packets} packets accepted by the program");
    Ok(())
}
