//! An interface's packets, bits and drops, second by second.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringtap::interface::{InterfaceCounters, LocalNames, interface_counters};
use ringtap::{BpfFilter, Capture};
use serde_json::json;

use super::End;
use crate::cli::StatsArgs;
use crate::say::say;
use crate::sink::Outcome;
use crate::units;

/// What was seen up to some time.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    packets: u64,
    bytes: u64,
    /// Dropped for this capture by the kernel, and for everybody by the card.
    dropped: u64,
    card: u64,
}

impl Seen {
    fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            dropped: self.dropped.saturating_sub(before.dropped),
            card: self.card.saturating_sub(before.card), // a card that is gone has none
        }
    }
}

pub(super) fn run(args: &StatsArgs) -> Outcome<ExitCode> {
    let which = &args.from.which;
    let (interface, filter) = (which.interface()?, which.filter(false)?);
    let mut options = Capture::builder().interface(interface).promiscuous(true);
    if let Some(filter) = &filter {
        options = options.filter(BpfFilter::parse_with(filter, &LocalNames::of(interface))?);
    }
    let end = End::new(args.from.seconds)?;
    let mut capture = options.build()?;
    // A capture on `any` is not of one card.
    let card = || interface_counters(interface).unwrap_or_default();
    let at_first = card();
    let (mut seen, mut before, mut looked) = (Seen::default(), Seen::default(), Instant::now());
    loop {
        if let Some(batch) = capture.next_batch_timeout(Duration::from_millis(50))? {
            seen.packets += batch.len() as u64;
            seen.bytes += batch.iter().map(|packet| packet.original_len() as u64).sum::<u64>();
        }
        let (is_over, elapsed) = (end.has_come(), looked.elapsed());
        if elapsed >= Duration::from_secs(1) || is_over {
            seen.dropped = capture.stats()?.drops;
            seen.card = InterfaceCounters::delta_since(&card(), &at_first).card_drops();
            tell(interface, &seen.since(before), elapsed, args.json)?;
            (before, looked) = (seen, Instant::now());
            if is_over || args.once {
                break;
            }
        }
    }
    if !args.json {
        let Seen { packets, bytes, dropped, card } = seen;
        let bytes = units::bytes(bytes);
        say!(
            "in all: {packets} packets, {bytes}, {dropped} dropped by the kernel, {card} by the card"
        )?;
    }
    Ok(end.code())
}

fn tell(interface: &str, seen: &Seen, elapsed: Duration, is_json: bool) -> Outcome<()> {
    let Seen { packets, bytes, dropped, card } = *seen;
    let a_second = |number: u64| number as f64 / elapsed.as_secs_f64().max(1e-9);
    let bits = a_second(8 * bytes);
    match is_json {
        true => say!(
            "{}",
            json!({
                "interface": interface, "seconds": elapsed.as_secs_f64(), "packets": packets,
                "bytes": bytes, "bits_per_second": bits, "dropped": dropped, "card_dropped": card,
            })
        )?,
        false => say!(
            "{interface}: {:.0} packets/s, {}/s, {dropped} dropped by the kernel, {card} by the card",
            a_second(packets),
            units::bits(bits),
        )?,
    }
    Ok(())
}
