//! Filters as text and by terms, checked offline, and changed while packets come in.
//! `cargo run --release --example bpf_filter -- eth0 'tcp port 443'`, or without arguments in the lab.

use std::time::Duration;

use ringtap::filter::FilterTarget;
use ringtap::{BpfFilter, Capture};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let text = std::env::args().nth(2).unwrap_or_else(|| "udp and src port 10000".to_owned());
    // An error shows the place with a caret.
    let filter: BpfFilter = match text.parse() {
        Ok(filter) => filter,
        Err(error) => return Err(format!("{error}").into()),
    };
    println!("{text}\n{}\n", filter.disassembly(FilterTarget::Socket));
    let by_terms = BpfFilter::builder().udp().src_port(10_001).or(|b| b.arp()).build()?;

    let options = Capture::builder().interface(stage.interface()).block_timeout_ms(5);
    let mut capture = options.filter(filter.clone()).build()?;
    let changing = capture.filter_handle();
    let stop = capture.stop_handle()?;
    let traffic = (!stage.is_real()).then(|| stage.pace(Duration::from_secs(2), 20_000));
    let other = by_terms.clone();
    let timer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        let changed = changing.set(&other);
        std::thread::sleep(Duration::from_secs(1));
        stop.stop();
        changed
    });
    let (mut first, mut second) = (0_u64, 0_u64);
    for batch in capture.batches() {
        for packet in &batch? {
            // The same decision, offline.
            match (filter.matches_packet(&packet), by_terms.matches_packet(&packet)) {
                (true, _) => first += 1,
                (_, true) => second += 1,
                _ => return Err("a packet that neither filter takes".into()),
            }
        }
    }
    timer.join().expect("it only waits")?;
    println!("{first} packets by the first filter, then {second} by the second");
    println!("{:?}", capture.stats()?);
    drop(traffic);
    Ok(())
}
