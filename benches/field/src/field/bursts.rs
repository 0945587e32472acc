//! Bursts that come while nobody reads: what a ring of some size holds of them.

use std::time::Duration;

use ringtap::capture::RingLayout;
use ringtap::{Capture, XdpSocket};
use ringtap_lab::Veth;
use ringtap_lab::generator::Sender;

use crate::harness::{Kind, Outcome, Table, compare};
use crate::offer::{Size, burst};
use crate::receive::{FRAME, RETIRE_MS};

/// Bytes of each ring.
const MEMORY: usize = 8 << 20;
const BLOCK: usize = 1 << 18;
/// Longer than a block is held back.
const SETTLE: Duration = Duration::from_millis(3 * RETIRE_MS as u64);

pub(crate) const BURSTS: [usize; 5] = [1_024, 4_096, 16_384, 32_768, 65_536];

/// Reads all that has been received, and gives the count.
type Read = Box<dyn FnMut() -> Outcome<u64>>;
type Opener = fn(&str) -> Outcome<Read>;

const WAYS: &[(&str, Kind, Opener)] = &[
    ("ringtap, blocks", Kind::Ours, |name| {
        let ring = Capture::builder().interface(name).block_size(BLOCK);
        let ring = ring.block_count(MEMORY / BLOCK).block_timeout_ms(RETIRE_MS);
        ours(ring.build()?)
    }),
    ("ringtap, frames", Kind::Ours, |name| {
        let ring = Capture::builder().interface(name).layout(RingLayout::Frames);
        ours(ring.frame_size(FRAME).block_size(1 << 16).block_count(MEMORY >> 16).build()?)
    }),
    ("ringtap, AF_XDP", Kind::Ours, |name| {
        let socket = XdpSocket::builder().interface(name).frame_size(FRAME as u32);
        let mut socket = socket.frame_count((MEMORY / FRAME) as u32).build_receiver()?;
        Ok(Box::new(move || {
            let mut count = 0;
            while let Some(batch) = socket.next_batch_timeout(SETTLE)? {
                count += batch.len() as u64;
            }
            Ok(count)
        }))
    }),
    ("netring 0.29", Kind::Peer, netring29),
    #[cfg(feature = "netring32")]
    ("netring 0.32", Kind::Peer, netring32),
    #[cfg(feature = "libpcap")]
    ("libpcap", Kind::Peer, libpcap),
];

pub(crate) fn table(veth: &Veth, rounds: usize) -> Table {
    let columns = &["lost % of 1,024", "of 4,096", "of 16,384", "of 32,768", "of 65,536"];
    let mut table = compare("Bursts", columns, WAYS, rounds, |open| {
        let mut read = open(&veth.right)?;
        let sender = Sender::open(&veth.left)?;
        let mut lost = |count: usize| -> Outcome<f64> {
            burst(&sender, Size::Imix, count)?;
            std::thread::sleep(SETTLE);
            Ok(100.0 * (1.0 - read()? as f64 / count as f64).max(0.0))
        };
        BURSTS.into_iter().map(&mut lost).collect()
    });
    table.note = Some(
        "IMIX at once, read only when all have come. Rings, or the UMEM, of 8 MiB; frames of 2 KiB where a frame has its own place."
            .into(),
    );
    table
}

fn ours(mut capture: Capture) -> Outcome<Read> {
    Ok(Box::new(move || {
        let mut count = 0;
        while let Some(batch) = capture.next_batch_timeout(SETTLE)? {
            count += batch.len() as u64;
        }
        Ok(count)
    }))
}

macro_rules! netring {
    ($name:ident, $krate:ident) => {
        fn $name(name: &str) -> Outcome<Read> {
            let ring = ::$krate::Capture::builder().interface(name).block_size(BLOCK);
            let ring = ring.block_count(MEMORY / BLOCK).block_timeout_ms(RETIRE_MS);
            let mut capture = ring.build()?;
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

netring!(netring29, netring);
#[cfg(feature = "netring32")]
netring!(netring32, netring32);

#[cfg(feature = "libpcap")]
fn libpcap(name: &str) -> Outcome<Read> {
    let inactive = pcap::Capture::from_device(name)?.timeout(RETIRE_MS as i32).snaplen(65_535);
    let mut capture = inactive.buffer_size(MEMORY as i32).open()?.setnonblock()?;
    Ok(Box::new(move || {
        let mut count = 0;
        loop {
            match capture.next_packet() {
                Ok(_) => count += 1,
                Err(pcap::Error::TimeoutExpired | pcap::Error::NoMorePackets) => return Ok(count),
                Err(error) => return Err(error.into()),
            }
        }
    }))
}
