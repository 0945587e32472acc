//! The suite, on glommio.

use std::future::Future;

use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::net::{TcpListener, TcpStream};
use ringtap_conformance::Host;
use ringtap_glommio::Glommio;

#[derive(Debug, Clone, Copy, Default)]
struct OnGlommio(Glommio);

impl ringtap::shard::Runtime for OnGlommio {
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> ringtap::Result<F::Output> {
        self.0.run(core, future)
    }
}

impl Host for OnGlommio {
    fn spawn(future: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(future).detach();
    }

    /// Echoes over TCP.
    async fn own_io(rounds: u32) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = glommio::spawn_local(async move {
            let mut stream = listener.accept().await.unwrap();
            let mut bytes = [0; 4];
            while stream.read_exact(&mut bytes).await.is_ok() {
                stream.write_all(&bytes).await.unwrap();
            }
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        for round in 0..rounds {
            stream.write_all(&round.to_be_bytes()).await.unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, round.to_be_bytes());
        }
        drop(stream);
        server.await;
    }

    fn attach_again() -> Option<ringtap::Error> {
        Some(ringtap_glommio::attach().unwrap_err())
    }
}

ringtap_lab::test_binary!();
ringtap_conformance::suite!(OnGlommio);
