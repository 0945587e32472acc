//! What a wake-up costs: one frame at a time, each on a sleeping receiver, beside the runtime's own readiness of the same
//! socket. Latency is from the sender's stamp to the callback. System calls are counted by strace, where there is one, in runs
//! of their own, as the difference of two lengths.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process::Command;
use std::time::Duration;

use async_io::Async;
use compio::runtime::fd::PollFd;
use ringtap::capture::RingLayout;
use ringtap::{AsyncCapture, Capture, Error, PacketBatch, Result};
use ringtap_lab::traffic::now;
use ringtap_lab::{Directory, Generator, Mark, Traffic, Veth};
use tokio::io::unix::AsyncFd;

use crate::way::Way;
use crate::{Times, no_times};

/// Frames of a round.
pub(crate) const FRAMES: u64 = 2_000;
const PAUSE: Duration = Duration::from_micros(150);
const TRACED: [u64; 2] = [200, 1_200];

/// The code that waits for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    Ringtap,
    /// The host's own readiness of a descriptor.
    Own,
}

impl Waiter {
    /// Whether the host can wait for a descriptor by itself.
    pub(crate) fn is_there(self, way: Way) -> bool {
        let has_own =
            matches!(way, Way::Blocking | Way::Tokio | Way::TokioUring | Way::Smol | Way::Compio);
        match self {
            Self::Ringtap => way != Way::Blocking,
            Self::Own => has_own,
        }
    }
}

struct Raw(Capture);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// The frames that were received.
struct Received {
    times: Times,
    count: u64,
}

impl Received {
    fn are_enough(&mut self, batch: &PacketBatch) -> bool {
        for mark in batch.iter().filter_map(|packet| Mark::find(packet.data())) {
            let time = now().saturating_sub(mark.stamp);
            self.times.record(time).expect("less than ten minutes");
        }
        self.times.len() >= self.count
    }

    /// Takes what is in the ring.
    fn take(&mut self, capture: &mut Capture) -> bool {
        let mut is_enough = false;
        while let Some(batch) = capture.next_batch() {
            is_enough = self.are_enough(&batch);
        }
        is_enough
    }
}

/// Receives `count` frames.
pub(crate) fn receive(way: Way, waiter: Waiter, capture: Capture, count: u64) -> Result<Times> {
    let mut received = Received { times: no_times(), count };
    match (way, waiter) {
        (Way::Blocking, _) => {
            let mut capture = capture;
            while capture
                .next_batch_timeout(Duration::from_secs(10))?
                .is_none_or(|batch| !received.are_enough(&batch))
            {}
            Ok(received.times)
        }
        (Way::AnyTask, Waiter::Ringtap) => way.run(async move {
            let task = tokio::spawn(async move {
                let mut capture = ringtap_tokio::Capture::new(capture)?;
                while let Some(batch) = capture.next_batch().await? {
                    if received.are_enough(&batch) {
                        break;
                    }
                }
                Ok(received.times)
            });
            task.await.expect("no panic")
        })?,
        (_, Waiter::Ringtap) => way.run(async move {
            let mut capture = AsyncCapture::new(capture)?;
            while let Some(batch) = capture.next_batch().await? {
                if received.are_enough(&batch) {
                    break;
                }
            }
            Ok(received.times)
        })?,
        (_, Waiter::Own) => way.run(own(way, capture, received))?,
    }
}

async fn own(way: Way, mut capture: Capture, mut received: Received) -> Result<Times> {
    let copy = || capture.as_fd().try_clone_to_owned().map(File::from).map_err(Error::other);
    match way {
        Way::Smol => {
            let readiness = Async::new_nonblocking(copy()?).map_err(Error::other)?;
            while !received.take(&mut capture) {
                readiness.readable().await.map_err(Error::other)?;
            }
        }
        Way::Compio => {
            let readiness = PollFd::new(copy()?).map_err(Error::other)?;
            while !received.take(&mut capture) {
                readiness.read_ready().await.map_err(Error::other)?;
            }
        }
        _ => {
            #[allow(
                deprecated,
                reason = "the socket keeps its descriptor open, as its successor demands"
            )]
            let mut socket = AsyncFd::new(Raw(capture)).map_err(Error::other)?;
            loop {
                let mut ready = socket.readable_mut().await.map_err(Error::other)?;
                ready.clear_ready();
                if received.take(&mut ready.get_inner_mut().0) {
                    break;
                }
            }
        }
    }
    Ok(received.times)
}

pub(crate) fn open(interface: &str) -> Result<Capture> {
    let capture = Capture::builder().interface(interface).layout(RingLayout::Frames);
    capture.block_size(1 << 16).block_count(16).build()
}

/// Sends one frame after another until told to stop.
fn send_until(left: &str, mut is_over: impl FnMut() -> bool) {
    let mut generator = Generator::new(left, &Traffic::default());
    while !is_over() {
        generator.flood(1);
        std::thread::sleep(PAUSE);
    }
}

/// The latencies of a round.
pub(crate) fn measure(way: Way, waiter: Waiter, veth: &Veth) -> Result<Times> {
    let capture = open(&veth.right)?;
    let receiver = std::thread::spawn(move || receive(way, waiter, capture, FRAMES));
    send_until(&veth.left, || receiver.is_finished());
    receiver.join().expect("a receiver does not panic")
}

/// The system calls of a wake-up.
pub(crate) fn calls(name: &str, veth: &Veth) -> Option<f64> {
    let [few, many] = TRACED.map(|count| traced(name, veth, count));
    Some((many? - few?) as f64 / (TRACED[1] - TRACED[0]) as f64)
}

/// System calls that it takes to receive `count` frames in a process of its own, its start included.
fn traced(name: &str, veth: &Veth, count: u64) -> Option<u64> {
    let directory = Directory::new();
    let report = directory.path().join("calls");
    let mut child = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(&report)
        .arg(std::env::current_exe().ok()?)
        .args(["--receive", name, &veth.right, &count.to_string()])
        .spawn()
        .ok()?;
    send_until(&veth.left, || !matches!(child.try_wait(), Ok(None)));
    let text = std::fs::read_to_string(&report).ok()?;
    let total = text.lines().find(|line| line.trim_end().ends_with("total"))?;
    total.split_whitespace().next()?.parse().ok()
}
