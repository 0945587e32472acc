//! Receiving a flood of 60-byte frames: a ring of 32 MiB for all, of blocks of 1 MiB where their size can be chosen (libpcap, and so
//! tcpdump and dumpcap, have their own).

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringtap::capture::{CaptureBuilder, RingLayout};
use ringtap::interface::interface_info;
use ringtap::reactor::{Coalesce, ReactorOptions};
use ringtap::shard::{BuiltIn, Runtime};
use ringtap::{AsyncCapture, Capture};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Traffic, Veth};

use crate::calls::Calls;
use crate::hand;
use crate::harness::{CALLS, Kind, Outcome, Progress, Table, Used, WAKEUPS, compare, pin};

pub(crate) const BLOCK: usize = 1 << 20;
pub(crate) const BLOCKS: usize = 32;
pub(crate) const RETIRE_MS: u32 = 20;
/// Bytes of each packet's place in a ring that has one for each.
pub(crate) const FRAME: usize = 2048;
/// How long a receiver waits before it looks whether it is to end.
pub(crate) const PATIENCE: Duration = Duration::from_millis(40);
const TIME: Duration = Duration::from_millis(800);

/// Receives until it is told to end.
pub(crate) type Receiver = fn(&str, &Progress) -> Outcome<()>;

pub(crate) const WAYS: &[(&str, Kind, Receiver)] = &[
    ("hand-written loop", Kind::Limit, hand::receive),
    ("hand-written loop, epoll", Kind::Limit, hand::receive_by_epoll),
    ("hand-written loop, io_uring", Kind::Limit, hand::receive_by_uring),
    ("ringtap, blocking", Kind::Ours, blocking),
    ("ringtap, built-in", Kind::Ours, |name, progress| on(&BuiltIn::default(), name, progress)),
    ("ringtap, tokio", Kind::Ours, |name, progress| {
        on(&ringtap_tokio::Tokio::default(), name, progress)
    }),
    ("ringtap, tokio-uring", Kind::Ours, |name, progress| {
        on(&ringtap_tokio_uring::TokioUring::default(), name, progress)
    }),
    ("ringtap, glommio", Kind::Ours, |name, progress| {
        on(&ringtap_glommio::Glommio::default(), name, progress)
    }),
    ("ringtap, to another task", Kind::Ours, to_another_task),
    ("ringtap, to another thread", Kind::Ours, to_another_thread),
    ("ringtap, frames", Kind::Ours, |name, progress| frames(name, progress, Coalesce::Off)),
    ("ringtap, frames, adaptive", Kind::Ours, |name, progress| {
        frames(name, progress, Coalesce::Adaptive { max: Duration::from_micros(200) })
    }),
    ("netring 0.29, batches", Kind::Peer, netring29::batches),
    #[cfg(feature = "netring32")]
    ("netring 0.32, batches", Kind::Peer, netring32::batches),
    ("netring 0.29, to another task", Kind::Peer, netring29::owned),
    #[cfg(feature = "netring32")]
    ("netring 0.32, to another task", Kind::Peer, netring32::owned),
    #[cfg(feature = "libpcap")]
    ("libpcap, for_each", Kind::Peer, libpcap::for_each),
    #[cfg(feature = "libpcap")]
    ("libpcap, next", Kind::Peer, libpcap::next),
    ("afpacket 0.2", Kind::Peer, afpacket),
    ("tcpdump", Kind::Peer, |name, progress| {
        program("tcpdump", &["-p", "-n", "-B", "32768", "-w", "/dev/null", "-i", name], progress)
    }),
    ("dumpcap", Kind::Peer, |name, progress| {
        program("dumpcap", &["-p", "-q", "-P", "-B", "32", "-w", "/dev/null", "-i", name], progress)
    }),
];

pub(crate) fn table(veth: &Veth, rounds: usize) -> Table {
    let columns = &["CPU ns/packet", "kpackets/s", "lost %", WAKEUPS, CALLS];
    compare("Receiving", columns, WAYS, rounds, |way| measure(veth, way))
}

fn measure(veth: &Veth, way: Receiver) -> Outcome<Vec<f64>> {
    let (name, progress) = (veth.right.clone(), Progress::default());
    let for_receiver = progress.clone();
    let (give, counted) = std::sync::mpsc::channel();
    let receiving = std::thread::spawn(move || {
        pin(1);
        let _ = give.send(Calls::of_this_thread());
        way(&name, &for_receiver)
    });
    pin(0);
    let calls = counted.recv()?;
    let calls = || calls.as_ref().map_or(0, Calls::count);
    // The receiver opens its socket, or starts, which is not counted.
    std::thread::sleep(Duration::from_millis(400));
    let process = progress.used_by_process();
    let (before, own) = (Used::by(libc::RUSAGE_SELF), Used::by(libc::RUSAGE_THREAD));
    let called = calls();
    let sender = Sender::open(&veth.left)?;
    let frame = Traffic::default().frame(0, 0);
    let frames = vec![&frame[..60]; 64];
    let (start, mut sent) = (Instant::now(), 0_u64);
    while start.elapsed() < TIME {
        sender.send_all(&frames)?;
        sent += 64;
    }
    let elapsed = start.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_millis(2 * u64::from(RETIRE_MS) + 20));
    let called = calls() - called;
    let (own, used) =
        (Used::by(libc::RUSAGE_THREAD).since(own), Used::by(libc::RUSAGE_SELF).since(before));
    let process = progress.used_by_process().since(process);
    progress.stop();
    receiving.join().map_err(|_| "the receiver panicked")??;
    let (cpu, sleeps) =
        (used.cpu - own.cpu + process.cpu, used.sleeps - own.sleeps + process.sleeps);
    let packets = progress.packets() as f64;
    if packets == 0.0 {
        return Err("it received nothing".into());
    }
    let a_thousand = |count: u64| 1e3 * count as f64 / packets;
    let lost = 100.0 * (1.0 - packets / sent as f64);
    Ok(vec![
        cpu.as_nanos() as f64 / packets,
        packets / elapsed / 1e3,
        lost.max(0.0),
        a_thousand(sleeps),
        a_thousand(called),
    ])
}

fn ring(name: &str) -> CaptureBuilder {
    let ring = Capture::builder().interface(name).block_size(BLOCK).block_count(BLOCKS);
    // On veth the kernel would dissect each packet for it, which libpcap does not ask for.
    ring.block_timeout_ms(RETIRE_MS).fill_rxhash(false)
}

#[inline(always)]
pub(crate) fn touch(data: &[u8]) -> u64 {
    u64::from(data[0]) + data.len() as u64
}

fn count(batch: &ringtap::PacketBatch) -> u64 {
    std::hint::black_box(batch.iter().map(|packet| touch(packet.data())).sum::<u64>());
    batch.len() as u64
}

fn blocking(name: &str, progress: &Progress) -> Outcome<()> {
    let mut capture = ring(name).build()?;
    while !progress.is_over() {
        let Some(batch) = capture.next_batch_timeout(PATIENCE)? else { continue };
        progress.add(count(&batch));
    }
    Ok(())
}

/// Gives each batch to `take` until it is over.
async fn each(
    capture: Capture,
    progress: &Progress,
    mut take: impl FnMut(ringtap::PacketBatch),
) -> ringtap::Result<()> {
    let mut capture = AsyncCapture::new(capture)?;
    while !progress.is_over() {
        match ringtap::time::timeout(PATIENCE, capture.next_batch()).await {
            Ok(Ok(Some(batch))) => take(batch),
            Ok(ended) => return ended.map(drop),
            Err(_) => {}
        }
    }
    Ok(())
}

fn on(runtime: &impl Runtime, name: &str, progress: &Progress) -> Outcome<()> {
    let capture = ring(name).build()?;
    runtime.run(Some(1), each(capture, progress, |batch| progress.add(count(&batch))))??;
    Ok(())
}

fn to_another_task(name: &str, progress: &Progress) -> Outcome<()> {
    let capture = ring(name).build()?;
    ringtap_tokio::Tokio::default().run(None, async {
        let (give, mut taken) = tokio::sync::mpsc::unbounded_channel();
        let counted = progress.clone();
        let taking = tokio::task::spawn_local(async move {
            while let Some(batch) = taken.recv().await {
                counted.add(count(&batch));
            }
        });
        each(capture, progress, |batch| drop(give.send(batch))).await?;
        drop(give);
        taking.await.map_err(ringtap::Error::other)
    })??;
    Ok(())
}

fn to_another_thread(name: &str, progress: &Progress) -> Outcome<()> {
    let capture = ring(name).build()?;
    let (give, taken) = std::sync::mpsc::sync_channel::<ringtap::PacketBatch>(BLOCKS);
    let counted = progress.clone();
    let taking =
        std::thread::spawn(move || taken.iter().for_each(|batch| counted.add(count(&batch))));
    BuiltIn::default().run(None, each(capture, progress, |batch| drop(give.send(batch))))??;
    drop(give);
    taking.join().map_err(|_| "the other thread panicked".into())
}

fn frames(name: &str, progress: &Progress, coalesce: Coalesce) -> Outcome<()> {
    // Segments that a card has put together would be longer, and have 64 KiB each by default.
    let longest = interface_info(name)?.mtu as usize + 128;
    let frame = FRAME.max(longest.next_multiple_of(16));
    let capture = ring(name).layout(RingLayout::Frames).frame_size(frame).build()?;
    let runtime = BuiltIn::new(ReactorOptions::new().coalesce(coalesce));
    runtime.run(None, each(capture, progress, |batch| progress.add(count(&batch))))??;
    Ok(())
}

macro_rules! netring {
    ($module:ident, $krate:ident) => {
        mod $module {
            use super::*;

            fn open(name: &str) -> Outcome<::$krate::AsyncCapture<::$krate::Capture>> {
                let ring = ::$krate::Capture::builder()
                    .interface(name)
                    .block_size(BLOCK)
                    .block_count(BLOCKS)
                    .fill_rxhash(false);
                Ok(::$krate::AsyncCapture::new(ring.block_timeout_ms(RETIRE_MS).build()?)?)
            }

            fn run(future: impl Future<Output = Outcome<()>>) -> Outcome<()> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                tokio::task::LocalSet::new().block_on(&runtime, future)
            }

            pub(super) fn batches(name: &str, progress: &Progress) -> Outcome<()> {
                run(async {
                    let mut capture = open(name)?;
                    while !progress.is_over() {
                        let Ok(ready) = tokio::time::timeout(PATIENCE, capture.readable()).await
                        else {
                            continue;
                        };
                        let mut ready = ready?;
                        while let Some(batch) = ready.next_batch() {
                            let mut count = 0;
                            let mut sum = 0;
                            for packet in &batch {
                                sum += touch(packet.data());
                                count += 1;
                            }
                            std::hint::black_box(sum);
                            progress.add(count);
                        }
                    }
                    Ok(())
                })
            }

            pub(super) fn owned(name: &str, progress: &Progress) -> Outcome<()> {
                run(async {
                    let mut capture = open(name)?;
                    let (give, mut taken) =
                        tokio::sync::mpsc::unbounded_channel::<Vec<::$krate::OwnedPacket>>();
                    let counted = progress.clone();
                    let taking = tokio::task::spawn_local(async move {
                        while let Some(packets) = taken.recv().await {
                            std::hint::black_box(
                                packets.iter().map(|packet| touch(&packet.data)).sum::<u64>(),
                            );
                            counted.add(packets.len() as u64);
                        }
                    });
                    while !progress.is_over() {
                        let Ok(packets) = tokio::time::timeout(PATIENCE, capture.recv()).await
                        else {
                            continue;
                        };
                        let _ = give.send(packets?);
                    }
                    drop(give);
                    Ok(taking.await?)
                })
            }
        }
    };
}

netring!(netring29, netring);
#[cfg(feature = "netring32")]
netring!(netring32, netring32);

#[cfg(feature = "libpcap")]
mod libpcap {
    use super::*;

    fn open(name: &str, progress: &Progress) -> Outcome<pcap::Capture<pcap::Active>> {
        let inactive = pcap::Capture::from_device(name)?.timeout(RETIRE_MS as i32).snaplen(65_535);
        let mut capture = inactive.buffer_size((BLOCK * BLOCKS) as i32).open()?;
        // Its wait ignores the timeout, and its loop does not end by itself.
        let (end, watched) = (capture.breakloop_handle(), progress.clone());
        std::thread::spawn(move || {
            watched.wait();
            end.breakloop();
        });
        Ok(capture)
    }

    pub(super) fn for_each(name: &str, progress: &Progress) -> Outcome<()> {
        let mut capture = open(name, progress)?;
        let mut count = 0;
        let ended = capture.for_each(None, |packet| {
            std::hint::black_box(touch(packet.data));
            count += 1;
            progress.set(count);
        });
        match ended {
            Ok(()) => Ok(()),
            Err(_) if progress.is_over() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn next(name: &str, progress: &Progress) -> Outcome<()> {
        let (mut capture, mut count) = (open(name, progress)?, 0);
        loop {
            match capture.next_packet() {
                Ok(packet) => {
                    std::hint::black_box(touch(packet.data));
                    count += 1;
                    progress.set(count);
                }
                Err(pcap::Error::TimeoutExpired) => {}
                Err(pcap::Error::NoMorePackets) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn afpacket(name: &str, progress: &Progress) -> Outcome<()> {
    use std::io::Read;
    let mut socket = ::afpacket::sync::RawPacketStream::new()?;
    socket.bind(name)?;
    socket.set_non_blocking()?;
    let mut buffer = [0; 2048];
    while !progress.is_over() {
        match socket.read(&mut buffer) {
            Ok(len) => {
                std::hint::black_box(touch(&buffer[..len]));
                progress.add(1);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_micros(50));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A program of its own; what it received is read off its last words.
fn program(program: &str, arguments: &[&str], progress: &Progress) -> Outcome<()> {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    progress.started(child.id());
    progress.wait();
    // SAFETY: a signal to our own child, which was not waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let words = String::from_utf8(child.wait_with_output()?.stderr)?;
    let told = |line: &str| -> Option<u64> {
        let line = line.to_lowercase();
        let is_count =
            line.contains("packets captured") || line.contains("packets received/dropped");
        let digits =
            |part: &str| part.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok();
        if !is_count {
            return None;
        }
        match line.split_once(": ") {
            Some((_, rest)) if line.contains("received/dropped") => {
                digits(rest.rsplit(": ").next()?.split('/').next()?)
            }
            Some((_, rest)) => digits(rest),
            None => digits(&line),
        }
    };
    progress.add(words.lines().filter_map(told).max().unwrap_or(0));
    Ok(())
}
