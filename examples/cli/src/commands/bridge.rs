//! Two interfaces, joined.

use std::process::ExitCode;
use std::time::Duration;

use ringtap::bridge::{BridgeAction, BridgeLaneStats};
use ringtap::{BpfFilter, Bridge};
use serde_json::{Value, json};

use super::End;
use crate::cli::BridgeArgs;
use crate::say::{note, say};
use crate::sink::Outcome;

pub(super) fn run(args: &BridgeArgs) -> Outcome<ExitCode> {
    let filter = match &args.filter[..] {
        [] => None,
        words => Some(words.join(" ").parse::<BpfFilter>()?),
    };
    let end = End::new(args.seconds)?;
    let mut bridge = Bridge::open_pair(&args.interface_a, &args.interface_b)?;
    let (stop, asked) = (bridge.stop_handle(), end.clone());
    std::thread::spawn(move || {
        while !asked.has_come() {
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.stop();
    });
    note!("joining {} and {}", args.interface_a, args.interface_b);
    bridge.run(|packet, _| match &filter {
        Some(filter) if !packet.matches(filter) => BridgeAction::Drop,
        _ => BridgeAction::Forward,
    })?;
    let stats = bridge.stats()?;
    let lanes = [
        (&args.interface_a, &args.interface_b, &stats.a_to_b),
        (&args.interface_b, &args.interface_a, &stats.b_to_a),
    ];
    for (from, to, lane) in lanes {
        match args.json {
            true => say!("{}", of_lane(from, to, lane))?,
            false => say!(
                "{from} to {to}: {} forwarded of {}, {} filtered, {} too large, {} refused, {} without room, {} lost",
                lane.forwarded,
                lane.received,
                lane.filtered,
                lane.too_large,
                lane.rejected,
                lane.ring_full,
                lane.lost,
            )?,
        }
    }
    Ok(end.code())
}

fn of_lane(from: &str, to: &str, lane: &BridgeLaneStats) -> Value {
    json!({
        "from": from, "to": to, "received": lane.received, "forwarded": lane.forwarded,
        "filtered": lane.filtered, "too_large": lane.too_large, "rejected": lane.rejected,
        "ring_full": lane.ring_full, "lost": lane.lost,
    })
}
