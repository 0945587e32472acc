//! A loaded eBPF program as a capture's filter, as aya or libbpf load one: here one that takes even source ports.
//! `cargo run --release --example ebpf_filter`, as root.

use std::time::Duration;

use ringtap::Capture;
use ringtap_lab_wire::{Stage, bpf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    // A descriptor, wherever it comes from (with aya: `program.fd()?.as_fd().try_clone_to_owned()?`).
    let Some(program) = bpf::socket_filter_of_even_ports() else { return Ok(()) };
    let options = Capture::builder().interface(stage.interface()).block_timeout_ms(5);
    let mut capture = options.build()?;
    capture.attach_ebpf_filter(program)?;
    // Nobody can change it any more, not even this program.
    capture.lock_filter()?;

    let traffic = (!stage.is_real()).then(|| stage.pace(Duration::from_secs(1), 20_000));
    let (mut even, mut odd) = (0_u64, 0_u64);
    while let Some(batch) = capture.next_batch_timeout(Duration::from_millis(500))? {
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
