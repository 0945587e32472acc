//! Captures played over a wire to shards.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringtap::{AsyncCapture, Capture, Cores, Shards};
use ringtap_lab::generator::Sender;
use ringtap_lab::{namespace, pcap};

const PATIENCE: Duration = Duration::from_secs(20);

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
    let frames = pcap::ethernet_frames(path);
    let net = namespace()?;
    let veth = net.veth();
    veth.set_mtu(9_000);
    let capture = Capture::builder().interface(&veth.right).block_timeout_ms(5);
    let capture = capture.block_size(1 << 18).block_count(64).ignore_outgoing(true);
    let all = Arc::new(Mutex::new(Vec::new()));
    let (into, work) = (Arc::clone(&all), Arc::new(work));
    let shards = Shards::builder()
        .capture(capture)
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
            assert!(began.elapsed() < PATIENCE, "{} {count}", path.display());
            std::thread::yield_now();
        }
    }
    shards.stop();
    shards.join().unwrap();
    let all = std::mem::take(&mut *all.lock().unwrap());
    Some(all)
}
