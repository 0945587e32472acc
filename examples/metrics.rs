//! Serves the counters of shards to Prometheus, at `/metrics`.
//!
//! ```sh
//! cargo run --release --example metrics -- eth0 127.0.0.1:9100
//! ```
//!
//! `cargo run --release --bin lab -- metrics` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ringtap::Shards;
use ringtap::metrics::{Exposition, Measured};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: metrics INTERFACE [ADDRESS]")?;
    let address = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:9100".to_owned());
    let shards =
        Shards::builder().interface(&interface).shards(2).spawn(|mut shard| async move {
            while shard.capture.next_batch().await?.is_some() {}
            Ok(())
        })?;
    let (shards, listener) = (Arc::new(shards), TcpListener::bind(&address)?);
    let (interrupt, interrupted) = mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = interrupt.send(());
    })?;
    println!("capturing on {interface}; the counters are at http://{address}/metrics");

    let serving = Arc::clone(&shards);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            if let Err(error) = connection.and_then(|mut it| serve(&mut it, &interface, &serving)) {
                eprintln!("{error}");
            }
        }
    });
    interrupted.recv()?;
    println!("{:?}", shards.stats()?.total());
    Ok(())
}

fn serve(connection: &mut TcpStream, interface: &str, shards: &Shards) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = String::new();
    BufReader::new(&*connection).read_line(&mut request)?;
    let (status, body) = if request.starts_with("GET /metrics ") {
        let samples = shards.stats().map_err(std::io::Error::other)?.samples();
        let mut exposition = Exposition::new();
        exposition.add(&[("interface", interface)], &samples);
        ("200 OK", exposition.finish())
    } else {
        ("404 Not Found", "only /metrics is here\n".to_owned())
    };
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len(),
    )
}
