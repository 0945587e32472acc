//! What a busy capture leaves of its thread to the runtime that hosts it.
//!
//! `cargo run --release -p ringtap-bench-hosts --bin fairness [-- ROUNDS]`, without root. A TCP echo of the runtime's own
//! answers on the thread of a capture: beside no packets, beside a flood, and beside one whose every packet takes 5 µs, which
//! is more than the thread has. The ways take turns.

use std::cell::Cell;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use hdrhistogram::Histogram;
use ringtap::shard::Runtime;
use ringtap::{AsyncCapture, Capture, Packet, Result};
use ringtap_compio::Compio;
use ringtap_glommio::Glommio;
use ringtap_lab::{Generator, Namespace, Traffic, Veth, bootstrap};
use ringtap_monoio::Monoio;
use ringtap_smol::Smol;
use ringtap_tokio::Tokio;
use ringtap_tokio_uring::TokioUring;

const LENGTH: Duration = Duration::from_secs(2);
/// Time that each packet takes; `None` without packets.
const LOADS: [Option<Duration>; 3] = [None, Some(Duration::ZERO), Some(Duration::from_micros(5))];
const HOSTS: [&str; 7] =
    ["tokio", "tokio, any task", "tokio-uring", "smol", "glommio", "compio", "monoio"];

type Times = Histogram<u64>;

/// The length of every question and answer.
const MESSAGE: usize = 64;

async fn tokio_echo(address: Sender<SocketAddr>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    address.send(listener.local_addr().expect("bound")).expect("it is waited for");
    tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.set_nodelay(true).expect("TCP");
        let mut bytes = [0; MESSAGE];
        while stream.read_exact(&mut bytes).await.is_ok() {
            stream.write_all(&bytes).await.expect("the client reads");
        }
    });
}

async fn glommio_echo(address: Sender<SocketAddr>) {
    let listener = glommio::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    address.send(listener.local_addr().expect("bound")).expect("it is waited for");
    glommio::spawn_local(async move {
        let mut stream = listener.accept().await.expect("a client");
        stream.set_nodelay(true).expect("TCP");
        let mut bytes = [0; MESSAGE];
        while stream.read_exact(&mut bytes).await.is_ok() {
            stream.write_all(&bytes).await.expect("the client reads");
        }
    })
    .detach();
}

async fn smol_echo(address: Sender<SocketAddr>) {
    let listener =
        async_io::Async::<std::net::TcpListener>::bind(([127, 0, 0, 1], 0)).expect("a port");
    address.send(listener.get_ref().local_addr().expect("bound")).expect("it is waited for");
    ringtap_smol::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.get_ref().set_nodelay(true).expect("TCP");
        let mut bytes = [0; MESSAGE];
        while stream.read_exact(&mut bytes).await.is_ok() {
            stream.write_all(&bytes).await.expect("the client reads");
        }
    })
    .detach();
}

async fn compio_echo(address: Sender<SocketAddr>) {
    use compio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = compio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    address.send(listener.local_addr().expect("bound")).expect("it is waited for");
    compio::runtime::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut bytes = vec![0; MESSAGE];
        loop {
            let (read, filled) = stream.read_exact(bytes).await.into();
            if read.is_err() {
                return;
            }
            let (written, sent) = stream.write_all(filled).await.into();
            written.expect("the client reads");
            bytes = sent;
        }
    })
    .detach();
}

async fn monoio_echo(address: Sender<SocketAddr>) {
    use monoio::io::{AsyncReadRentExt, AsyncWriteRentExt};
    let listener = monoio::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    address.send(listener.local_addr().expect("bound")).expect("it is waited for");
    monoio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut bytes = vec![0; MESSAGE];
        loop {
            let (read, filled) = stream.read_exact(bytes).await;
            if read.is_err() {
                return;
            }
            let (written, sent) = stream.write_all(filled).await;
            written.expect("the client reads");
            bytes = sent;
        }
    });
}

/// Packets handled, and the time that this took.
type Handled = (u64, Duration);

/// Handles packets on this thread until the capture is stopped, after the echo has begun.
async fn host(capture: Capture, echo: impl Future<Output = ()>, work: Duration) -> Result<Handled> {
    echo.await;
    let mut capture = AsyncCapture::new(capture)?;
    let count = Rc::new(Cell::new(0));
    let counter = Rc::clone(&count);
    let each = move |_: Packet<'_>| {
        counter.set(counter.get() + 1);
        let since = Instant::now();
        while since.elapsed() < work {
            std::hint::spin_loop();
        }
    };
    let began = Instant::now();
    capture.for_each_packet(each).await?;
    Ok((count.get(), began.elapsed())) // with what was left in the ring
}

/// Measures a capture that any task may own in the same way.
async fn host_any_task(
    capture: Capture,
    echo: impl Future<Output = ()>,
    work: Duration,
) -> Result<Handled> {
    echo.await;
    let mut capture = ringtap_tokio::Capture::new(capture)?;
    let began = Instant::now();
    let counting = tokio::spawn(async move {
        let mut count = 0;
        let each = |_: Packet<'_>| {
            count += 1;
            let since = Instant::now();
            while since.elapsed() < work {
                std::hint::spin_loop();
            }
        };
        capture.for_each_packet(each).await.map(|()| count)
    });
    Ok((counting.await.expect("no panic")?, began.elapsed()))
}

fn run(
    way: &str,
    capture: Capture,
    address: Sender<SocketAddr>,
    work: Duration,
) -> Result<Handled> {
    match way {
        "tokio" => Tokio::default().run(None, host(capture, tokio_echo(address), work))?,
        "tokio, any task" => {
            Tokio::default().run(None, host_any_task(capture, tokio_echo(address), work))?
        }
        "tokio-uring" => {
            TokioUring::default().run(None, host(capture, tokio_echo(address), work))?
        }
        "smol" => Smol::default().run(None, host(capture, smol_echo(address), work))?,
        "compio" => Compio::default().run(None, host(capture, compio_echo(address), work))?,
        "monoio" => Monoio::default().run(None, host(capture, monoio_echo(address), work))?,
        _ => Glommio::default().run(None, host(capture, glommio_echo(address), work))?,
    }
}

/// Asks the echo for [`LENGTH`]. Returns the times to the answers in nanoseconds.
fn ask(address: SocketAddr) -> Times {
    let mut times = Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("legal bounds");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("TCP");
    let (began, mut bytes) = (Instant::now(), [7; MESSAGE]);
    while began.elapsed() < LENGTH {
        let asked = Instant::now();
        stream.write_all(&bytes).expect("the echo reads");
        stream.read_exact(&mut bytes).expect("the echo answers");
        times.record(asked.elapsed().as_nanos() as u64).expect("less than ten minutes");
    }
    times
}

/// Returns the times of the echo, and what was handled beside it.
fn measure(way: &str, veth: &Veth, load: Option<Duration>) -> Result<(Times, Handled)> {
    let mut capture = Capture::builder().interface(&veth.right).ignore_outgoing(true).build()?;
    let stop = capture.stop_handle()?;
    let (address, of_echo) = mpsc::channel();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work = load.unwrap_or_default();
        let hosting = scope.spawn(move || run(way, capture, address, work));
        let address = of_echo.recv().expect("the echo begins");
        if load.is_some() {
            scope.spawn(|| {
                let mut generator = Generator::new(&veth.left, &Traffic::default());
                while !is_over.load(Ordering::Relaxed) {
                    generator.flood(100);
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
        }
        let times = ask(address);
        is_over.store(true, Ordering::Relaxed);
        stop.stop();
        Ok((times, hosting.join().expect("no panic")?))
    })
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    bootstrap::enter()?;
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse())?;
    let namespace = Namespace::enter()?;
    namespace.loopback_up();
    let mut all = HOSTS.map(|_| LOADS.map(|_| (Vec::new(), (0, Duration::ZERO))));
    for round in 0..rounds as usize {
        for step in 0..HOSTS.len() {
            let at = (step + round) % HOSTS.len();
            for (load, (times, (packets, time))) in LOADS.iter().zip(&mut all[at]) {
                let (measured, handled): (Times, Handled) =
                    measure(HOSTS[at], &namespace.veth(), *load)?;
                times.push(measured);
                *packets += handled.0;
                *time += handled.1;
            }
        }
    }
    println!("{rounds} rounds of {LENGTH:?}; median of the rounds (worst of all)");
    println!(
        "{:<16} {:>12} {:>10} {:>10} {:>20} {:>12}",
        "host", "a packet", "p50 µs", "p99 µs", "longest µs", "packets/s"
    );
    for (host, loads) in HOSTS.iter().zip(all) {
        for (load, (times, (packets, time))) in LOADS.iter().zip(loads) {
            let of = |value: fn(&Times) -> u64| {
                let mut values: Vec<_> = times.iter().map(value).collect();
                values.sort_unstable();
                let micros = |nanos: u64| nanos as f64 / 1000.0;
                (micros(values[values.len() / 2]), micros(values[values.len() - 1]))
            };
            let load = load.map_or("none".to_owned(), |load| format!("{load:?}"));
            let longest = of(Times::max);
            println!(
                "{host:<16} {load:>12} {:>10.0} {:>10.0} {:>10.0} ({:>6.0}) {:>12.0}",
                of(|times| times.value_at_quantile(0.5)).0,
                of(|times| times.value_at_quantile(0.99)).0,
                longest.0,
                longest.1,
                packets as f64 / time.as_secs_f64(),
            );
        }
    }
    Ok(())
}
