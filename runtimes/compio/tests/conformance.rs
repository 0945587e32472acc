//! The suite, on compio.

use std::future::Future;

use compio::io::{AsyncReadExt, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use ringtap_compio::Compio;
use ringtap_conformance::Host;

#[derive(Debug, Clone, Copy, Default)]
struct OnCompio(Compio);

impl ringtap::shard::Runtime for OnCompio {
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> ringtap::Result<F::Output> {
        self.0.run(core, future)
    }
}

impl Host for OnCompio {
    fn spawn(future: impl Future<Output = ()> + 'static) {
        compio::runtime::spawn(future).detach();
    }

    /// Echoes over TCP.
    async fn own_io(rounds: u32) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = compio::runtime::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            loop {
                let (read, bytes) = stream.read_exact([0; 4]).await.into();
                if read.is_err() {
                    return;
                }
                stream.write_all(bytes).await.unwrap();
            }
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        for round in 0..rounds {
            stream.write_all(round.to_be_bytes()).await.unwrap();
            let (read, bytes) = stream.read_exact([0; 4]).await.into();
            read.unwrap();
            assert_eq!(bytes, round.to_be_bytes());
        }
        drop(stream);
        server.await.unwrap();
    }

    fn attach_again() -> Option<ringtap::Error> {
        Some(ringtap_compio::attach().unwrap_err())
    }
}

ringtap_lab::test_binary!();
ringtap_conformance::suite!(OnCompio);
