//! Ways of capture by the size of frames and the rate at which they come: what a packet costs, what is lost, and the highest
//! rate at which nothing is.

use std::time::Duration;

use ringtap::XdpSocket;
use ringtap::executor::Executor;
use ringtap::reactor::{Coalesce, ReactorOptions};
use ringtap::time::timeout;
use ringtap::xdp::AsyncXdpReceiver;
use ringtap_lab::Veth;
use ringtap_lab::generator::Sender;

use crate::harness::{Kind, Outcome, Progress, Table, Used, compare, pin, resident};
use crate::offer::{Offer, Size};
use crate::receive::{self, PATIENCE, RETIRE_MS, Receiver, touch};

const TIME: Duration = Duration::from_millis(400);

/// Steps of the search for a rate (RFC 2544, 26.1): to 2 % of the flood's.
const STEPS: usize = 6;

/// Those of `receive` that are compared here, besides AF_XDP.
const NAMES: &[&str] = &[
    "hand-written loop",
    "ringtap, blocking",
    "ringtap, built-in",
    "ringtap, tokio",
    "ringtap, frames, adaptive",
    "netring 0.29, batches",
    "netring 0.32, batches",
    "libpcap, for_each",
];

/// The column of the highest rate without loss.
pub(crate) const LOSSLESS: usize = 6;

const COLUMNS: &[&str] = &[
    "CPU ns/packet at 90 %",
    "at 50 %",
    "at 10 %",
    "in a flood",
    "lost % at 90 %",
    "in a flood",
    "lossless kpackets/s",
    "memory MiB",
];

pub(crate) fn table(veth: &Veth, size: Size, title: &'static str, rounds: usize) -> Table {
    let blocks = receive::WAYS.iter().filter(|(name, ..)| NAMES.contains(name)).copied();
    let ways: Vec<(&str, Kind, Receiver)> =
        blocks.chain([("ringtap, AF_XDP, adaptive", Kind::Ours, xdp as Receiver)]).collect();
    let reference = with(veth, crate::hand::receive, |trial| lossless(size, trial));
    let Ok(reference) = reference else {
        return compare(title, COLUMNS, &ways, 0, |_| Err("the hand-written loop failed".into()));
    };
    let mut table = compare(title, COLUMNS, &ways, rounds, |way| {
        let before = resident()?;
        with(veth, way, |trial| {
            let offer = Offer::flood(size, TIME);
            let flood = trial(&offer)?;
            let memory = (resident()? - before) as f64 / f64::from(1 << 20);
            let mut at = |share: f64| trial(&offer.clone().at(share * reference));
            let (most, half, least) = (at(0.9)?, at(0.5)?, at(0.1)?);
            let lossless = lossless(size, trial)? / 1e3;
            Ok(vec![
                most.cpu,
                half.cpu,
                least.cpu,
                flood.cpu,
                most.lost,
                flood.lost,
                lossless,
                memory.max(0.0),
            ])
        })
    });
    table.note = Some(format!(
        "100 % are {:.0} kpackets/s, at which the hand-written loop lost nothing.",
        reference / 1e3
    ));
    table
}

/// What came of an offer.
#[derive(Debug, Clone, Copy)]
struct Trial {
    /// Nanoseconds a packet.
    cpu: f64,
    lost: f64,
    /// Packets a second that were offered.
    rate: f64,
}

/// The highest rate at which nothing is lost, by halves; that of the flood, if that is lossless.
fn lossless(size: Size, trial: &mut dyn FnMut(&Offer) -> Outcome<Trial>) -> Outcome<f64> {
    let offer = Offer::flood(size, TIME);
    let flood = trial(&offer)?;
    if flood.lost == 0.0 {
        return Ok(flood.rate);
    }
    let (mut held, mut above) = (0.0, flood.rate);
    for _ in 0..STEPS {
        let rate = f64::midpoint(held, above);
        let trial = trial(&offer.clone().at(rate))?;
        if trial.lost == 0.0 { held = trial.rate.min(above) } else { above = rate }
    }
    Ok(held)
}

/// Opens a receiver, and lets it be offered something, one after another.
fn with<T>(
    veth: &Veth,
    way: Receiver,
    run: impl FnOnce(&mut dyn FnMut(&Offer) -> Outcome<Trial>) -> Outcome<T>,
) -> Outcome<T> {
    let (name, progress) = (veth.right.clone(), Progress::default());
    let for_receiver = progress.clone();
    let receiving = std::thread::spawn(move || {
        pin(1);
        way(&name, &for_receiver)
    });
    pin(0);
    std::thread::sleep(Duration::from_millis(400)); // it opens its socket
    let sender = Sender::open(&veth.left)?;
    let mut trial = |offer: &Offer| {
        let used = || Used::by(libc::RUSAGE_SELF).cpu - Used::by(libc::RUSAGE_THREAD).cpu;
        let (before, had) = (used(), progress.packets());
        let (sent, seconds) = offer.send(&sender)?;
        std::thread::sleep(Duration::from_millis(2 * u64::from(RETIRE_MS) + 20));
        let (cpu, packets) = (used().saturating_sub(before), progress.packets() - had);
        Ok(Trial {
            cpu: cpu.as_nanos() as f64 / packets.max(1) as f64,
            lost: 100.0 * (1.0 - packets as f64 / sent as f64).max(0.0),
            rate: sent as f64 / seconds,
        })
    };
    let is_there = !receiving.is_finished();
    let outcome = if is_there { run(&mut trial) } else { Err("it ended".into()) };
    progress.stop();
    receiving.join().map_err(|_| "the receiver panicked")??;
    outcome
}

fn xdp(name: &str, progress: &Progress) -> Outcome<()> {
    let coalesce = Coalesce::Adaptive { max: Duration::from_micros(200) };
    let socket = XdpSocket::builder().interface(name).frame_count(8192).build_receiver()?;
    Executor::new(ReactorOptions::new().coalesce(coalesce))?.block_on(async {
        let mut socket = AsyncXdpReceiver::new(socket)?;
        while !progress.is_over() {
            let Ok(batch) = timeout(PATIENCE, socket.next_batch()).await else { continue };
            let Some(batch) = batch? else { break };
            std::hint::black_box(batch.iter().map(|packet| touch(packet.data())).sum::<u64>());
            progress.add(batch.len() as u64);
        }
        Ok(())
    })
}
