//! Runs a shard on each core with glommio; shard N answers with its counts on TCP port 7100 + N.
//!
//! ```sh
//! cargo run --release -p ringtap-glommio --example glommio_shards -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- glommio_shards` tries it on generated traffic, without root.
//! It needs the crates `ctrlc`, `futures-util`, `glommio` and `ringtap-glommio` besides ringtap.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use futures_util::AsyncWriteExt;
use glommio::net::TcpListener;
use ringtap::fanout::FanoutMode;
use ringtap::shard::Source;
use ringtap::{Capture, Error, Result, Shards};
use ringtap_glommio::Glommio;

#[derive(Default)]
struct Counts {
    packets: Cell<u64>,
    flows: RefCell<HashSet<u32>>,
}

async fn answer(listener: TcpListener, counts: Rc<Counts>) -> Result<()> {
    loop {
        let mut client = listener.accept().await.map_err(ringtap_glommio::error)?;
        let (packets, flows) = (counts.packets.get(), counts.flows.borrow().len());
        let answer = format!("{packets} packets, {flows} flow hashes\n");
        client.write_all(answer.as_bytes()).await.map_err(Error::other)?;
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: glommio_shards INTERFACE")?;
    let shards = Shards::builder()
        .interface(&interface)
        .source(Source::Fanout(FanoutMode::Hash))
        .capture(Capture::builder().block_timeout_ms(10))
        .runtime(Glommio::default())
        .spawn(|mut shard| async move {
            let counts = Rc::new(Counts::default());
            let port = 7100 + shard.index() as u16;
            let shown = Rc::clone(&counts);
            let listener =
                TcpListener::bind(("127.0.0.1", port)).map_err(ringtap_glommio::error)?;
            let answering = glommio::spawn_local(async move {
                if let Err(error) = answer(listener, shown).await {
                    eprintln!("port {port}: {error}");
                }
            });
            while let Some(batch) = shard.capture.next_batch().await? {
                counts.packets.set(counts.packets.get() + batch.len() as u64);
                let hashes = batch.iter().filter_map(|packet| packet.rxhash());
                counts.flows.borrow_mut().extend(hashes);
            }
            answering.cancel().await;
            Ok(())
        })?;
    let stop = shards.stop_handle();
    ctrlc::set_handler(move || stop.stop())?;
    println!("capturing on {interface} with {} shards", shards.len());
    let total = shards.join()?.total();
    println!("{} packets captured, {} dropped", total.delivered, total.drops);
    Ok(())
}
