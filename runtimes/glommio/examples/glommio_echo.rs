//! An echo server with a thread a core, each of which also captures the server's own connections.
//!
//! ```sh
//! cargo run --release -p ringtap-glommio --example glommio_echo -- eth0 0.0.0.0:7100
//! ```
//!
//! `cargo run --release --bin lab -- glommio_echo` tries it on generated traffic, without root.
//! It needs the crates `ctrlc`, `futures-util`, `glommio` and `ringtap-glommio` besides ringtap.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use ringtap::fanout::FanoutMode;
use ringtap::packet::Tunnels;
use ringtap::shard::{Shard, Source};
use ringtap::{BpfFilter, Capture, Result, Shards};
use ringtap_glommio::Glommio;

/// What all shards have done, added up when they end.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
static ECHOED: AtomicU64 = AtomicU64::new(0);
static CAPTURED: AtomicU64 = AtomicU64::new(0);

/// What one shard has served.
#[derive(Default)]
struct Served {
    connections: Cell<u64>,
    bytes: Cell<u64>,
}

async fn echo(mut client: TcpStream, served: Rc<Served>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    served.connections.set(served.connections.get() + 1);
    let mut bytes = [0; 4096];
    loop {
        let len = client.read(&mut bytes).await?;
        if len == 0 {
            return Ok(());
        }
        client.write_all(&bytes[..len]).await?;
        served.bytes.set(served.bytes.get() + len as u64);
    }
}

async fn serve(listener: TcpListener, served: Rc<Served>) -> Result<()> {
    loop {
        let client = listener.accept().await.map_err(ringtap_glommio::error)?;
        let echoing = echo(client, Rc::clone(&served));
        let report = async move {
            match echoing.await {
                Err(error) if error.kind() != ErrorKind::ConnectionReset => eprintln!("{error}"),
                _ => {}
            }
        };
        glommio::spawn_local(report).detach();
    }
}

/// Serves, and counts the clients whose first packet is captured, until the shards are stopped.
async fn run(mut shard: Shard, address: SocketAddrV4) -> Result<()> {
    // All shards listen on one port (SO_REUSEPORT): the kernel deals the connections out to them.
    let listener = TcpListener::bind(address).map_err(ringtap_glommio::error)?;
    let served = Rc::new(Served::default());
    let serving = glommio::spawn_local(serve(listener, Rc::clone(&served)));
    let mut clients = HashSet::new(); // a first packet may be sent again
    while let Some(batch) = shard.capture.next_batch().await? {
        let layers = batch.iter().filter_map(|packet| packet.layers(Tunnels::Outer));
        clients.extend(layers.map(|layers| (layers.source(), layers.ports())));
    }
    if let Some(ended) = serving.cancel().await {
        ended?;
    }
    CONNECTIONS.fetch_add(served.connections.get(), Relaxed);
    ECHOED.fetch_add(served.bytes.get(), Relaxed);
    CAPTURED.fetch_add(clients.len() as u64, Relaxed);
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, interface, address] = &arguments[..] else {
        return Err("usage: glommio_echo INTERFACE ADDRESS:PORT".into());
    };
    let address: SocketAddrV4 = address.parse()?;
    let port = address.port();
    let opening = format!("tcp dst port {port} and tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn");
    let opening: BpfFilter = opening.parse().map_err(|error| format!("{error}"))?;
    let options = Capture::builder().block_timeout_ms(10).filter(opening).ignore_outgoing(true);
    let shards = Shards::builder()
        .interface(interface)
        .source(Source::Fanout(FanoutMode::Hash))
        .capture(options)
        .runtime(Glommio::default())
        .spawn(move |shard| run(shard, address))?;
    let stop = shards.stop_handle();
    ctrlc::set_handler(move || stop.stop())?;
    println!("echoing on {address} with {} shards, and capturing on {interface}", shards.len());
    let dropped = shards.join()?.total().drops;
    let [served, echoed, captured] =
        [&CONNECTIONS, &ECHOED, &CAPTURED].map(|sum| sum.load(Relaxed));
    println!("{served} connections, {echoed} bytes echoed; {captured} captured, {dropped} dropped");
    Ok(())
}
