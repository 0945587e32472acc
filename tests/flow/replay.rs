//! Captures played over a wire to shards.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringtap::fanout::FanoutMode;
use ringtap::shard::{Cores, Source};
use ringtap::{AsyncCapture, Capture, Shards};
use ringtap_lab::generator::Sender;
use ringtap_lab::{namespace, pcap, skip};

const PATIENCE: Duration = Duration::from_secs(60);

/// Captures whose packets a hash puts on several shards: later fragments have no ports
/// ([`FanoutFlags::DEFRAG`](ringtap::fanout::FanoutFlags) is for those), and in tunnels the kernel looks at the inner packet.
/// Labels of MPLS are all it takes of a frame behind them.
const SPREAD: [&str; 4] = [
    "pcappp-frag-ip4_fragments.pcap",
    "tcpdump-tunnel-various_gre.pcap",
    "arkime-mpls-mpls-basic.pcap",
    "zeek-mpls-mixed-vlan-mpls.pcap",
];

/// The captures of Ethernet whose packets can be sent again, each with the numbers of shards that it is played to; `None`,
/// said loudly, where they are not beside the repository.
pub(crate) fn captures() -> Option<Vec<(PathBuf, &'static [usize])>> {
    let Some(directory) = pcap::directory() else {
        skip("no captures beside the repository");
        return None;
    };
    let table = std::fs::read_to_string(directory.join("CONSENSUS.tsv")).unwrap();
    let names = table.lines().skip(1).filter_map(|line| line.split('\t').next());
    let all = names.filter_map(|name| {
        let path = directory.join(name);
        let (link, packets) = pcap::packets(&path)?;
        let can_be_sent = |(data, wire): &pcap::Recorded| {
            (14..=9_000).contains(&data.len()) && data.len() == *wire as usize
        };
        let is_whole = link == 1 && !packets.is_empty() && packets.iter().all(can_be_sent);
        let counts: &[usize] = if SPREAD.contains(&name) { &[1] } else { &[1, 2, 4] };
        is_whole.then_some((path, counts))
    });
    Some(all.collect())
}

/// Plays a file to so many shards, each of which makes something of its share: what they made; `None`, said loudly, where
/// there is no wire.
pub(crate) fn onto_shards<T, F>(
    path: &Path,
    count: usize,
    work: impl Fn(AsyncCapture) -> F + Send + Sync + 'static,
) -> Option<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = ringtap::Result<T>> + 'static,
{
    frames_onto_shards(&pcap::ethernet_frames(path), count, (FanoutMode::Hash, false), work)
}

/// As [`onto_shards`], with these frames, and with another fanout mode than by hash; `is_sent` is for shards on the
/// interface that the frames are sent through.
#[allow(dead_code, reason = "not every test binary asks")]
pub(crate) fn frames_onto_shards<T, F>(
    frames: &[Vec<u8>],
    count: usize,
    (mode, is_sent): (FanoutMode, bool),
    work: impl Fn(AsyncCapture) -> F + Send + Sync + 'static,
) -> Option<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = ringtap::Result<T>> + 'static,
{
    let net = namespace()?;
    let veth = net.veth();
    veth.set_mtu(9_000);
    let interface = if is_sent { &veth.left } else { &veth.right };
    let capture = Capture::builder().interface(interface).block_timeout_ms(5);
    let capture = capture.block_size(1 << 18).block_count(64).ignore_outgoing(!is_sent);
    // Files have tags in their packets.
    let capture = capture.vlan_reinsert(true);
    let all = Arc::new(Mutex::new(Vec::new()));
    let (into, work) = (Arc::clone(&all), Arc::new(work));
    let source = Source::Fanout(mode);
    let shards = Shards::builder()
        .capture(capture)
        .source(source)
        .cores(Cores::Unpinned)
        .shards(count)
        .spawn(move |shard| {
            let (into, work) = (Arc::clone(&into), Arc::clone(&work));
            async move {
                let made = work(shard.capture).await?;
                into.lock().unwrap().push(made);
                Ok(())
            }
        })
        .unwrap();
    let sender = Sender::open(&veth.left).unwrap();
    let began = Instant::now();
    for (number, frames) in frames.chunks(100).enumerate() {
        sender.send_all(frames).unwrap();
        let sent = (100 * number + frames.len()) as u64;
        while shards.stats().unwrap().total().delivered < sent {
            assert!(began.elapsed() < PATIENCE, "{sent} frames, {count} shards");
            std::thread::yield_now();
        }
    }
    shards.stop();
    shards.join().unwrap();
    let all = std::mem::take(&mut *all.lock().unwrap());
    Some(all)
}
