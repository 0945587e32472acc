//! A shard a core on glommio; each counts flows and answers on a TCP port with its figures:
//! `cargo run --release -p ringtap-glommio --example glommio_shards -- eth0`, or without arguments in the
//! lab. Shard N answers on port 7100 + N of the loopback.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{AsyncWriteExt, StreamExt};
use glommio::net::TcpListener;
use ringtap::fanout::FanoutMode;
use ringtap::shard::Source;
use ringtap::{Capture, Shards};
use ringtap_glommio::Glommio;
use ringtap_lab::{Stage, link};

#[derive(Default)]
struct Figures {
    packets: Cell<u64>,
    flows: RefCell<HashSet<u32>>,
}

async fn answer(port: u16, figures: Rc<Figures>) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    loop {
        let mut stream = listener.accept().await.map_err(|error| error.to_string())?;
        let (packets, flows) = (figures.packets.get(), figures.flows.borrow().len());
        stream.write_all(format!("{packets} packets, {flows} flow hashes\n").as_bytes()).await?;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    if !stage.is_real() {
        link::set_up("lo", true)?;
    }
    let shards = Shards::builder()
        .interface(stage.interface())
        .source(Source::Fanout(FanoutMode::Hash))
        .capture(Capture::builder().block_timeout_ms(10))
        .runtime(Glommio::default())
        .spawn(|mut shard| async move {
            let figures = Rc::new(Figures::default());
            let port = 7100 + shard.index() as u16;
            let asked = Rc::clone(&figures);
            let answering = glommio::spawn_local(async move {
                if let Err(error) = answer(port, asked).await {
                    eprintln!("port {port}: {error}");
                }
            });
            while let Some(batch) = shard.capture.next().await {
                let batch = batch?;
                let mut flows = figures.flows.borrow_mut();
                figures.packets.set(figures.packets.get() + batch.len() as u64);
                flows.extend(batch.iter().filter_map(|packet| packet.rxhash()));
            }
            answering.cancel().await;
            Ok(())
        })?;

    let sending = stage.flood(Duration::from_secs(2));
    while sending.is_under_way() {
        std::thread::sleep(Duration::from_millis(500));
        for shard in 0..shards.len() {
            let mut line = String::new();
            let stream = std::net::TcpStream::connect(("127.0.0.1", 7100 + shard as u16));
            match stream
                .and_then(|mut stream| std::io::Read::read_to_string(&mut stream, &mut line))
            {
                Ok(_) => print!("shard {shard} says: {line}"),
                Err(error) => println!("shard {shard} does not answer: {error}"),
            }
        }
    }
    let sent = sending.finish();
    shards.stop();
    let total = shards.join()?.total();
    println!("sent {sent}, captured {}, dropped {}", total.delivered, total.drops);
    match sent == total.delivered + total.drops {
        true => Ok(()),
        false => Err("packets are not accounted for".into()),
    }
}
