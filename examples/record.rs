//! Records an interface to disk, a file series for each core.
//!
//! ```sh
//! cargo run --release --features record --example record -- eth0 /var/spool/capture
//! ```
//!
//! `cargo run --release --bin lab -- record` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use std::sync::mpsc;

use ringtap::pcap::FileInterface;
use ringtap::record::{OnDiskError, Recorder};
use ringtap::{Capture, Shards};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(interface), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: record INTERFACE FOLDER".into());
    };
    let (sender, ended) = mpsc::channel();
    let name = interface.clone();
    let shards = Shards::builder()
        .interface(&interface)
        // Packets are placed so that they can be written from where they lie.
        .capture(Capture::builder().for_recording(true))
        .spawn(move |mut shard| {
            let files = Recorder::builder(&folder, format!("shard{}", shard.index()))
                .interface(FileInterface::ethernet(&name))
                .max_bytes(1 << 30)
                .keep_bytes(100 << 30)
                // A full disk loses packets, which are counted, until there is room again.
                .on_error(OnDiskError::DropAndRetry);
            let sender = sender.clone();
            async move {
                let mut recorder = files.build()?;
                recorder.record(&mut shard.capture).await?;
                let _ = sender.send(recorder.finish().await?);
                Ok(())
            }
        })?;
    let stop = shards.stop_handle();
    ctrlc::set_handler(move || stop.stop())?;
    println!("recording {interface}");
    let dropped = shards.join()?.total().drops;
    let (mut written, mut lost, mut files) = (0, 0, 0);
    for stats in ended.try_iter() {
        written += stats.written;
        lost += stats.lost;
        files += stats.files;
    }
    println!("{written} packets in {files} files, {lost} lost, {dropped} dropped");
    Ok(())
}
