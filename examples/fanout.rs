//! A fanout group by hand, with blocking captures on threads (shards do this for you).
//! `cargo run --example fanout -- eth0`, or without arguments in the lab.

use std::time::Duration;

use ringtap::capture::CaptureBuilder;
use ringtap::fanout::FanoutMode;
use ringtap::{Capture, StopHandle};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let ring: CaptureBuilder = Capture::builder()
        .interface(stage.interface())
        .block_size(1 << 18)
        .block_count(32)
        .block_timeout_ms(10);

    // The first member has the kernel choose a group id that no other program uses …
    let first = ring.clone().fanout_auto(FanoutMode::Hash).build()?;
    let group = first.fanout_group().expect("it joined one");
    println!("fanout group {group}");
    // … which the others join.
    let mut captures = vec![first];
    for _ in 0..2 {
        captures.push(ring.clone().fanout(FanoutMode::Hash, group).build()?);
    }

    let stops: Vec<StopHandle> =
        captures.iter_mut().map(Capture::stop_handle).collect::<ringtap::Result<_>>()?;
    let threads: Vec<_> = captures
        .into_iter()
        .enumerate()
        .map(|(member, mut capture)| {
            std::thread::spawn(move || -> ringtap::Result<u64> {
                let mut packets = 0;
                for batch in capture.batches() {
                    packets += batch?.iter().count() as u64;
                }
                println!("member {member}: {packets} packets, {:?}", capture.stats()?);
                Ok(packets)
            })
        })
        .collect();

    let sent = stage.pace(Duration::from_secs(2), 100_000).finish();
    // Last member first: the kernel fills the hole that a member leaves with the last one, which
    // would move flows of those that still drain.
    let mut packets = 0;
    for (stop, thread) in stops.into_iter().zip(threads).rev() {
        stop.stop();
        packets += thread.join().expect("no member panics")?;
    }
    println!("{packets} packets captured; {sent} sent in the lab");
    Ok(())
}
