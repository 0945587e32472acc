//! Sending 60-byte frames, 64 a kick, and forwarding them. What counts is what arrived.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringtap::bridge::BridgeAction;
use ringtap::executor::{self, Executor};
use ringtap::reactor::{Coalesce, ReactorOptions};
use ringtap::{AsyncInjector, Bridge, Injector, StopHandle, XdpSocket};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Namespace, Traffic, Veth, link};

use crate::hand;
use crate::harness::{Kind, Outcome, Progress, Table, compare, cpu_time, pin};

const COUNT: u64 = 100_000;
const BATCH: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(5);

type Transmitter = fn(&str, &[u8]) -> Outcome<()>;

const WAYS: &[(&str, Kind, Transmitter)] = &[
    ("hand-written TX_RING", Kind::Limit, |name, frame| hand::transmit(name, frame, COUNT)),
    ("sendmmsg", Kind::Limit, sendmmsg),
    ("ringtap, Injector", Kind::Ours, injector),
    ("ringtap, AsyncInjector", Kind::Ours, async_injector),
    ("netring 0.29, Injector", Kind::Peer, netring29),
    #[cfg(feature = "netring32")]
    ("netring 0.32, Injector", Kind::Peer, netring32),
    ("ringtap, AF_XDP", Kind::Ours, xdp),
    ("netring 0.29, AF_XDP", Kind::Peer, netring_xdp),
];

pub(crate) fn table(veth: &Veth, rounds: usize) -> Table {
    let frame = Traffic::default().frame(0, 0)[..60].to_vec();
    compare("Sending", &["CPU ns/frame", "kframes/s"], WAYS, rounds, |way| {
        pin(0);
        std::thread::sleep(Duration::from_millis(30)); // the queue of the last socket is free by then
        let before =
            (link::stats(&veth.right)?.received, cpu_time(libc::RUSAGE_THREAD), Instant::now());
        way(&veth.left, &frame)?;
        let (cpu, took) = (cpu_time(libc::RUSAGE_THREAD) - before.1, before.2.elapsed());
        let arrived = link::stats(&veth.right)?.received - before.0;
        if arrived < COUNT * 99 / 100 {
            return Err(format!("{arrived} of {COUNT} arrived").into());
        }
        Ok(vec![cpu.as_nanos() as f64 / arrived as f64, arrived as f64 / took.as_secs_f64() / 1e3])
    })
}

fn sendmmsg(name: &str, frame: &[u8]) -> Outcome<()> {
    let (sender, frames) = (Sender::open(name)?, vec![frame; BATCH as usize]);
    for _ in 0..COUNT / BATCH {
        sender.send_all(&frames)?;
    }
    Ok(())
}

fn injector(name: &str, frame: &[u8]) -> Outcome<()> {
    let mut tx = Injector::builder().interface(name).frame_count(512).build()?;
    for number in 0..COUNT {
        tx.send(frame)?;
        if number % BATCH == BATCH - 1 {
            tx.flush()?;
        }
    }
    if tx.drain(PATIENCE)? { Ok(()) } else { Err("not drained".into()) }
}

fn async_injector(name: &str, frame: &[u8]) -> Outcome<()> {
    let tx = Injector::builder().interface(name).frame_count(512).build()?;
    executor::block_on(async {
        let mut tx = AsyncInjector::new(tx)?;
        for number in 0..COUNT {
            tx.send(frame).await?;
            if number % BATCH == BATCH - 1 {
                tx.flush().await?;
            }
        }
        tx.drain().await
    })?;
    Ok(())
}

fn xdp(name: &str, frame: &[u8]) -> Outcome<()> {
    let options = XdpSocket::builder().interface(name);
    let mut tx = options.frame_count(512).build_sender()?;
    for number in 0..COUNT {
        tx.send(frame)?;
        if number % BATCH == BATCH - 1 {
            tx.flush()?;
        }
    }
    if tx.drain(PATIENCE)? { Ok(()) } else { Err("not drained".into()) }
}

macro_rules! netring {
    ($name:ident, $krate:ident) => {
        fn $name(name: &str, frame: &[u8]) -> Outcome<()> {
            let mut tx = ::$krate::Injector::builder().interface(name).frame_count(512).build()?;
            let start = Instant::now();
            for number in 0..COUNT {
                loop {
                    if let Some(mut slot) = tx.allocate(frame.len()) {
                        slot.data_mut()[..frame.len()].copy_from_slice(frame);
                        slot.set_len(frame.len());
                        slot.send();
                        break;
                    }
                    tx.flush()?;
                    if start.elapsed() > PATIENCE {
                        return Err(format!("its ring has stalled after {number} frames").into());
                    }
                }
                if number % BATCH == BATCH - 1 {
                    tx.flush()?;
                }
            }
            tx.flush()?;
            Ok(tx.wait_drained(PATIENCE)?)
        }
    };
}

netring!(netring29, netring);
#[cfg(feature = "netring32")]
netring!(netring32, netring32);

fn netring_xdp(name: &str, frame: &[u8]) -> Outcome<()> {
    let options = netring::XdpSocket::builder().interface(name).mode(netring::XdpMode::Tx);
    let mut tx = options.queue_id(0).frame_count(512).build()?;
    for number in 0..COUNT {
        while !tx.send(frame)? {
            tx.flush()?;
        }
        if number % BATCH == BATCH - 1 {
            tx.flush()?;
        }
    }
    tx.flush()?;
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}

const ADAPTIVE: Coalesce = Coalesce::Adaptive { max: Duration::from_micros(200) };

type Forwarder = fn([&str; 2], &Progress) -> Outcome<()>;

const BRIDGES: &[(&str, Kind, Forwarder)] = &[
    ("ringtap, Bridge", Kind::Ours, |names, progress| bridge(names, progress, Coalesce::Off)),
    ("ringtap, Bridge, adaptive", Kind::Ours, |names, progress| bridge(names, progress, ADAPTIVE)),
    ("ringtap, XdpBridge", Kind::Ours, |names, progress| {
        xdp_bridge(names, progress, Coalesce::Off)
    }),
    ("ringtap, XdpBridge, adaptive", Kind::Ours, |names, progress| {
        xdp_bridge(names, progress, ADAPTIVE)
    }),
    #[cfg(feature = "netring32")]
    ("netring 0.32, Bridge", Kind::Peer, netring_bridge),
];

/// A flood into one end of a bridge, and what comes out at the other.
pub(crate) fn bridges(net: &Namespace, rounds: usize) -> Table {
    compare("Forwarding", &["CPU ns/frame", "kframes/s"], BRIDGES, rounds, |way| {
        let (left, right) = (net.veth(), net.veth());
        let names = [left.right.clone(), right.left.clone()];
        let progress = Progress::default();
        let for_bridge = progress.clone();
        let bridging = std::thread::spawn(move || {
            pin(1);
            way([&names[0], &names[1]], &for_bridge)
        });
        pin(0);
        std::thread::sleep(Duration::from_millis(1500)); // it opens its sockets
        let (before, own) = (cpu_time(libc::RUSAGE_SELF), cpu_time(libc::RUSAGE_THREAD));
        let sender = Sender::open(&left.left)?;
        let frame = Traffic::default().frame(0, 0)[..60].to_vec();
        let (frames, start) = (vec![frame; 64], Instant::now());
        let arrived = link::stats(&right.right)?.received;
        while start.elapsed() < Duration::from_millis(400) {
            sender.send_all(&frames)?;
        }
        let (count, took) = (link::stats(&right.right)?.received - arrived, start.elapsed());
        let used = cpu_time(libc::RUSAGE_SELF) - before - (cpu_time(libc::RUSAGE_THREAD) - own);
        progress.stop();
        bridging.join().map_err(|_| "the bridge panicked")??;
        if count == 0 {
            return Err("nothing was forwarded".into());
        }
        Ok(vec![used.as_nanos() as f64 / count as f64, count as f64 / took.as_secs_f64() / 1e3])
    })
}

fn bridge(names: [&str; 2], progress: &Progress, coalesce: Coalesce) -> Outcome<()> {
    let mut bridge = Bridge::builder().interface_a(names[0]).interface_b(names[1]).build()?;
    let watching = stop_when_over(bridge.stop_handle(), progress);
    let forward =
        |_: &ringtap::Packet<'_>, _: ringtap::bridge::BridgeDirection| BridgeAction::Forward;
    let executor = Executor::new(ReactorOptions::new().coalesce(coalesce))?;
    executor.block_on(bridge.run_async(forward))?;
    watching.join().map_err(|_| "the watch panicked")?;
    Ok(())
}

fn stop_when_over(stop: StopHandle, progress: &Progress) -> JoinHandle<()> {
    let watched = progress.clone();
    std::thread::spawn(move || {
        while !watched.is_over() {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.stop();
    })
}

/// With one UMEM for both sides.
fn xdp_bridge(names: [&str; 2], progress: &Progress, coalesce: Coalesce) -> Outcome<()> {
    let bridge = ringtap::bridge::XdpBridge::open_pair_without_vlans(names[0], names[1])?;
    let watching = stop_when_over(bridge.stop_handle(), progress);
    let executor = Executor::new(ReactorOptions::new().coalesce(coalesce))?;
    executor.block_on(bridge.run_async(|_frame, _direction| true))?;
    watching.join().map_err(|_| "the watch panicked")?;
    Ok(())
}

#[cfg(feature = "netring32")]
fn netring_bridge([left, right]: [&str; 2], progress: &Progress) -> Outcome<()> {
    use ::netring32::bridge::{Bridge, BridgeAction};
    let options = Bridge::builder().interface_a(left).interface_b(right);
    let mut bridge = options.poll_timeout(Duration::from_millis(5)).build()?;
    while !progress.is_over() {
        bridge.run_iterations(50, |_, _| BridgeAction::Forward)?;
    }
    Ok(())
}
