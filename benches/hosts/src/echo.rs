//! The host's own I/O: an echo on the thread of a capture, and somebody who asks it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use ringtap::capture::RingLayout;
use ringtap::{AsyncCapture, AsyncInjector, Capture, Injector, Result};

use crate::way::Way;
use crate::{Times, no_times};

/// How long the echo is asked.
pub(crate) const LENGTH: Duration = Duration::from_secs(2);
/// The length of every question and answer.
const MESSAGE: usize = 64;

/// Where an echo answers.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    /// Frames that arrive at the other end of this interface.
    Link(String),
}

/// Begins to echo on this thread, over the host's own TCP; over frames on `link` where the host has no I/O.
pub(crate) async fn begin(way: Way, links: [String; 2], told: Sender<Address>) -> Result<()> {
    let (tell, [asking, answering]) =
        (|address| told.send(Address::Tcp(address)).expect("it is waited for"), links);
    match way {
        Way::Tokio | Way::AnyTask | Way::TokioUring => tokio_echo(tell).await,
        Way::Smol => smol_echo(tell),
        Way::Glommio => glommio_echo(tell),
        Way::Compio => compio_echo(tell).await,
        Way::Monoio => monoio_echo(tell),
        Way::Blocking | Way::BuiltIn | Way::NoIo => {
            frame_echo(way, &answering)?;
            told.send(Address::Link(asking)).expect("it is waited for");
        }
    }
    Ok(())
}

fn small(interface: &str) -> Result<Capture> {
    let options = Capture::builder().interface(interface).layout(RingLayout::Frames);
    options.block_size(1 << 16).block_count(16).ignore_outgoing(true).build()
}

async fn tokio_echo(tell: impl FnOnce(SocketAddr)) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    tell(listener.local_addr().expect("bound"));
    tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.set_nodelay(true).expect("TCP");
        let mut bytes = [0; MESSAGE];
        while stream.read_exact(&mut bytes).await.is_ok() {
            stream.write_all(&bytes).await.expect("the client reads");
        }
    });
}

fn glommio_echo(tell: impl FnOnce(SocketAddr)) {
    let listener = glommio::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    tell(listener.local_addr().expect("bound"));
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

fn smol_echo(tell: impl FnOnce(SocketAddr)) {
    let listener =
        async_io::Async::<std::net::TcpListener>::bind(([127, 0, 0, 1], 0)).expect("a port");
    tell(listener.get_ref().local_addr().expect("bound"));
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

async fn compio_echo(tell: impl FnOnce(SocketAddr)) {
    use compio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = compio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    tell(listener.local_addr().expect("bound"));
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

fn monoio_echo(tell: impl FnOnce(SocketAddr)) {
    use monoio::io::{AsyncReadRentExt, AsyncWriteRentExt};
    let listener = monoio::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    tell(listener.local_addr().expect("bound"));
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

/// Sends each frame back.
fn frame_echo(way: Way, interface: &str) -> Result<()> {
    let (mut capture, mut injector) =
        (AsyncCapture::new(small(interface)?)?, AsyncInjector::open(interface)?);
    let echoing = async move {
        while let Ok(Some(batch)) = capture.next_batch().await {
            for packet in &batch {
                injector.send(packet.data()).await.expect("a frame fits");
            }
        }
    };
    match way {
        Way::BuiltIn => ringtap::executor::spawn_local(echoing).detach(),
        _ => crate::way::beside(echoing),
    }
    Ok(())
}

/// Asks the echo for [`LENGTH`]. Returns the times to the answers in nanoseconds.
pub(crate) fn ask(address: &Address) -> Result<Times> {
    let mut asker: Box<dyn FnMut() -> Result<()>> = match address {
        Address::Tcp(address) => {
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.set_nodelay(true).expect("TCP");
            let mut bytes = [7; MESSAGE];
            Box::new(move || {
                stream.write_all(&bytes).expect("the echo reads");
                stream.read_exact(&mut bytes).expect("the echo answers");
                Ok(())
            })
        }
        Address::Link(interface) => {
            let (mut capture, mut injector) = (small(interface)?, Injector::open(interface)?);
            Box::new(move || {
                injector.send(&[7; MESSAGE])?;
                injector.flush()?;
                while capture.next_batch_timeout(Duration::from_secs(600))?.is_none() {}
                Ok(())
            })
        }
    };
    let (began, mut times) = (Instant::now(), no_times());
    while began.elapsed() < LENGTH {
        let asked = Instant::now();
        asker()?;
        times.record(asked.elapsed().as_nanos() as u64).expect("less than ten minutes");
    }
    Ok(times)
}
