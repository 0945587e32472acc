//! The suite, on monoio.

use std::future::Future;

use monoio::io::{AsyncReadRentExt, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use ringtap_conformance::Host;
use ringtap_monoio::Monoio;

#[derive(Debug, Clone, Copy, Default)]
struct OnMonoio(Monoio);

impl ringtap::shard::Runtime for OnMonoio {
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> ringtap::Result<F::Output> {
        self.0.run(core, future)
    }
}

impl Host for OnMonoio {
    fn spawn(future: impl Future<Output = ()> + 'static) {
        monoio::spawn(future);
    }

    /// Echoes over TCP.
    async fn own_io(rounds: u32) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = monoio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            loop {
                let (read, bytes) = stream.read_exact(vec![0; 4]).await;
                if read.is_err() {
                    return;
                }
                stream.write_all(bytes).await.0.unwrap();
            }
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        for round in 0..rounds {
            stream.write_all(round.to_be_bytes().to_vec()).await.0.unwrap();
            let (read, bytes) = stream.read_exact(vec![0; 4]).await;
            read.unwrap();
            assert_eq!(bytes, round.to_be_bytes());
        }
        drop(stream);
        server.await;
    }

    fn attach_again() -> Option<ringtap::Error> {
        Some(ringtap_monoio::attach().unwrap_err())
    }
}

ringtap_lab::test_binary!();
ringtap_conformance::suite!(OnMonoio);
