//! From the sender's stamp to the callback, one frame at a time; and what a default socket takes.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringtap::capture::{RingLayout, RingProfile};
use ringtap::reactor::{Coalesce, ReactorOptions};
use ringtap::shard::{BuiltIn, Runtime};
use ringtap::{AsyncCapture, Capture, XdpSocket};
use ringtap_lab::generator::Sender;
use ringtap_lab::traffic::now;
use ringtap_lab::{Mark, Traffic, Veth};

use crate::harness::{Kind, Outcome, Table, compare, pin, resident};

type Times = Histogram<u64>;
/// Receives so many frames.
type Receiver = fn(&str, u64) -> Outcome<Times>;

const WAYS: &[(&str, Kind, Receiver)] = &[
    ("ringtap, low latency, blocking", Kind::Ours, |name, count| {
        let mut capture = low_latency(name)?;
        let mut times = no_times();
        while times.len() < count {
            if let Some(batch) = capture.next_batch_timeout(Duration::from_secs(2))? {
                batch.iter().for_each(|packet| record(&mut times, packet.data()));
            }
        }
        Ok(times)
    }),
    ("ringtap, low latency, built-in", Kind::Ours, |name, count| {
        on(&BuiltIn::default(), low_latency(name)?, count)
    }),
    ("ringtap, low latency, adaptive", Kind::Ours, |name, count| {
        let adaptive = Coalesce::Adaptive { max: Duration::from_micros(200) };
        on(&BuiltIn::new(ReactorOptions::new().coalesce(adaptive)), low_latency(name)?, count)
    }),
    ("ringtap, low latency, tokio", Kind::Ours, |name, count| {
        on(&ringtap_tokio::Tokio::default(), low_latency(name)?, count)
    }),
    ("ringtap, AF_XDP", Kind::Ours, |name, count| {
        let mut socket = XdpSocket::builder().interface(name).frame_count(512).build_receiver()?;
        let mut times = no_times();
        while times.len() < count {
            if let Some(batch) = socket.next_batch_timeout(Duration::from_secs(2))? {
                batch.iter().for_each(|packet| record(&mut times, packet.data()));
            }
        }
        Ok(times)
    }),
    ("netring 0.29, low latency", Kind::Peer, netring29),
    #[cfg(feature = "netring32")]
    ("netring 0.32, low latency", Kind::Peer, netring32),
];

/// One frame at a time, so many a second.
pub(crate) fn table(veth: &Veth, rate: u32, title: &'static str, rounds: usize) -> Table {
    // Enough that one in a thousand is several.
    let count = u64::from(rate).clamp(2_000, 50_000);
    let pause = Duration::from_secs(1) / rate;
    let columns = &["p50 µs", "p90 µs", "p99 µs", "p99.9 µs"];
    compare(title, columns, WAYS, rounds, |way| {
        let name = veth.right.clone();
        let receiving = std::thread::spawn(move || {
            pin(1);
            way(&name, count)
        });
        pin(0);
        std::thread::sleep(Duration::from_millis(60));
        let (sender, traffic) = (Sender::open(&veth.left)?, Traffic::default());
        let (start, mut number) = (Instant::now(), 0_u32);
        while !receiving.is_finished() {
            if start.elapsed() > Duration::from_secs(20) {
                return Err("it did not receive".into());
            }
            while start.elapsed() < pause * number {
                std::hint::spin_loop();
            }
            sender.send_all(&[traffic.frame(number.into(), now())])?;
            number += 1;
        }
        let times = receiving.join().map_err(|_| "the receiver panicked")??;
        Ok([0.5, 0.9, 0.99, 0.999].map(|at| times.value_at_quantile(at) as f64 / 1e3).to_vec())
    })
}

fn no_times() -> Times {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("legal bounds")
}

fn record(times: &mut Times, data: &[u8]) {
    if let Some(mark) = Mark::find(data) {
        times.record(now().saturating_sub(mark.stamp)).expect("less than a minute");
    }
}

fn low_latency(name: &str) -> Outcome<Capture> {
    Ok(Capture::builder()
        .interface(name)
        .layout(RingLayout::Frames)
        .profile(RingProfile::LowLatency)
        .build()?)
}

fn on(runtime: &impl Runtime, capture: Capture, count: u64) -> Outcome<Times> {
    let times = runtime.run(None, async {
        let (mut capture, mut times) = (AsyncCapture::new(capture)?, no_times());
        while times.len() < count {
            let Some(batch) = capture.next_batch().await? else { break };
            batch.iter().for_each(|packet| record(&mut times, packet.data()));
        }
        Ok::<_, ringtap::Error>(times)
    })??;
    Ok(times)
}

macro_rules! netring {
    ($name:ident, $krate:ident) => {
        fn $name(name: &str, count: u64) -> Outcome<Times> {
            let ring = ::$krate::Capture::builder()
                .interface(name)
                .profile(::$krate::RingProfile::LowLatency);
            let capture = ring.build()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (mut capture, mut times) = (::$krate::AsyncCapture::new(capture)?, no_times());
                while times.len() < count {
                    let mut ready = capture.readable().await?;
                    while let Some(batch) = ready.next_batch() {
                        for packet in &batch {
                            record(&mut times, packet.data());
                        }
                    }
                }
                Ok(times)
            })
        }
    };
}

netring!(netring29, netring);
#[cfg(feature = "netring32")]
netring!(netring32, netring32);

/// A capture with default options: what reads all it has received, and gives the count.
type Opener = fn(&str) -> Outcome<Box<dyn FnMut() -> Outcome<u64>>>;

const OPENERS: &[(&str, Kind, Opener)] = &[
    ("ringtap, Capture::open", Kind::Ours, |name| {
        let mut capture = Capture::open(name)?;
        Ok(Box::new(move || {
            let mut count = 0;
            while let Some(batch) = capture.next_batch_timeout(SETTLE)? {
                count += batch.len() as u64;
            }
            Ok(count)
        }))
    }),
    ("netring 0.29, Capture::open", Kind::Peer, default29),
    #[cfg(feature = "netring32")]
    ("netring 0.32, Capture::open", Kind::Peer, default32),
];

macro_rules! netring_default {
    ($name:ident, $krate:ident) => {
        fn $name(name: &str) -> Outcome<Box<dyn FnMut() -> Outcome<u64>>> {
            let mut capture = ::$krate::Capture::open(name)?;
            Ok(Box::new(move || {
                let mut count = 0;
                while let Some(batch) = capture.next_batch_blocking(SETTLE)? {
                    count += batch.into_iter().count() as u64;
                }
                Ok(count)
            }))
        }
    };
}

netring_default!(default29, netring);
#[cfg(feature = "netring32")]
netring_default!(default32, netring32);

/// Longer than blocks of a default ring are held back.
const SETTLE: Duration = Duration::from_millis(150);

/// What a default capture takes, and whether it holds a burst of 1,514-byte frames that nobody reads meanwhile.
pub(crate) fn defaults(veth: &Veth, rounds: usize) -> Table {
    const BURST: u64 = 16_384;
    let columns = &["memory MiB", "open ms", "lost of 16,384 frames"];
    compare("A capture with default options", columns, OPENERS, rounds, |open| {
        let before = resident()?;
        let start = Instant::now();
        let mut read = open(&veth.right)?;
        let took = start.elapsed();
        let memory = resident()? - before;
        let (sender, frame) = (Sender::open(&veth.left)?, [0xff; 1514]);
        for _ in 0..BURST / 64 {
            sender.send_all(&[frame; 64])?;
        }
        let lost = BURST.saturating_sub(read()?);
        Ok(vec![memory as f64 / f64::from(1 << 20), took.as_secs_f64() * 1e3, lost as f64])
    })
}
