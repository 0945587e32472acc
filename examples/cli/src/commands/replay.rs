//! A capture file, sent.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringtap::pcap::Speed;
use ringtap::{AsyncInjector, executor};
use serde_json::json;

use crate::cli::ReplayArgs;
use crate::say::{note, say};
use crate::sink::Outcome;

pub(super) fn run(args: &ReplayArgs) -> Outcome<()> {
    if !(0.001..=1e6).contains(&args.speed) {
        return Err(format!(
            "--speed {}: give a number above 0, from 0.001 to 1000000",
            args.speed
        )
        .into());
    }
    if args.rounds > 1 && args.file.to_str() == Some("-") {
        return Err("--rounds: standard input can be read once".into());
    }
    let filter = (!args.filter.is_empty()).then(|| args.filter.join(" "));
    let speed = if args.fast { Speed::Fastest } else { Speed::Recorded(args.speed) };
    let mut source = super::source_of(&args.file, filter.as_deref())?.speed(speed);
    if args.rounds > 1 {
        source = source.rounds(args.rounds);
    }
    if let Some(count) = args.count {
        source = source.limit(count);
    }
    executor::block_on(async {
        let mut injector = AsyncInjector::open(&args.interface)?;
        let (start, mut packets, mut bytes, mut refused) = (Instant::now(), 0_u64, 0_u64, 0_u64);
        let (mut first, mut latest) = (None, Duration::ZERO);
        let mut why = None;
        while let Some(batch) = source.next().await {
            let batch = batch?;
            let began = *first.get_or_insert(batch.ts_first());
            for packet in &batch {
                packets += 1;
                match injector.send(packet.data()).await {
                    Ok(_) => bytes += packet.len() as u64,
                    // A frame that the interface does not take is no reason not to send the others.
                    Err(error @ ringtap::Error::FrameLength { .. }) => {
                        refused += 1;
                        why.get_or_insert(error);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if !args.fast && args.rounds == 1 {
                let recorded = batch.ts_last().as_duration().saturating_sub(began.as_duration());
                let due = recorded.div_f64(args.speed);
                latest = latest.max(start.elapsed().saturating_sub(due));
            }
        }
        injector.drain().await?;
        let (took, rejected) = (start.elapsed(), injector.stats().rejected);
        if let Some(error) = why {
            note!("{error}");
        }
        let sent = packets - refused - rejected;
        if args.json {
            say!(
                "{}",
                json!({
                    "packets": packets, "sent": sent, "bytes": bytes, "too_large": refused,
                    "rejected": rejected, "seconds": took.as_secs_f64(),
                    "latest_seconds": latest.as_secs_f64(),
                })
            )?;
        } else {
            say!(
                "{sent} of {packets} packets sent in {:.3} s; {refused} were too large, {rejected} refused by the driver; \
                 the latest was {:.3} s behind its time",
                took.as_secs_f64(),
                latest.as_secs_f64(),
            )?;
        }
        Ok(())
    })
}
