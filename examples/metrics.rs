//! Serves what shards count at `/metrics`, for Prometheus.
//! `cargo run --example metrics -- eth0 127.0.0.1:9100`, or without arguments in the lab, where it asks itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ringtap::Shards;
use ringtap::metrics::{Exposition, Measured};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let shards =
        Shards::builder().interface(stage.interface()).shards(2).spawn(|mut shard| async move {
            while shard.capture.next_batch().await?.is_some() {}
            Ok(())
        })?;
    if stage.is_real() {
        let address = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:9100".to_owned());
        let listener = TcpListener::bind(&address)?;
        println!("http://{address}/metrics");
        for connection in listener.incoming() {
            // Who hangs up early is no reason to stop.
            let _ = serve(connection?, stage.interface(), &shards);
        }
    }
    stage.set_loopback_up();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let traffic = stage.pace(Duration::from_secs(1), 20_000);
    std::thread::sleep(Duration::from_secs(1));
    let asking = std::thread::spawn(move || -> std::io::Result<String> {
        let mut connection = TcpStream::connect(address)?;
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: me\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    });
    serve(listener.accept()?.0, stage.interface(), &shards)?;
    println!("{}", asking.join().expect("it does not panic")?);
    drop(traffic);
    shards.stop();
    shards.join()?;
    Ok(())
}

fn serve(
    mut connection: TcpStream,
    interface: &str,
    shards: &Shards,
) -> Result<(), Box<dyn std::error::Error>> {
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = String::new();
    BufReader::new(&connection).read_line(&mut request)?;
    let (status, body) = match request.starts_with("GET /metrics ") {
        true => {
            let mut exposition = Exposition::new();
            exposition.add(&[("interface", interface)], &shards.stats()?.samples());
            ("200 OK", exposition.finish())
        }
        false => ("404 Not Found", "only /metrics is here\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes())?;
    connection.write_all(body.as_bytes())?;
    Ok(())
}
