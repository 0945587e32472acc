//! The suite, on smol.

use std::future::Future;
use std::net::{TcpListener, TcpStream};

use async_executor::LocalExecutor;
use async_io::Async;
use futures_util::{AsyncReadExt, AsyncWriteExt};
use ringtap_conformance::Host;
use ringtap_smol::{Smol, spawn_local};

#[derive(Debug, Clone, Copy, Default)]
struct OnSmol(Smol);

impl ringtap::shard::Runtime for OnSmol {
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> ringtap::Result<F::Output> {
        self.0.run(core, future)
    }
}

impl Host for OnSmol {
    fn spawn(future: impl Future<Output = ()> + 'static) {
        spawn_local(future).detach();
    }

    /// Echoes over TCP.
    async fn own_io(rounds: u32) {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
        let address = listener.get_ref().local_addr().unwrap();
        let server = spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4];
            while stream.read_exact(&mut bytes).await.is_ok() {
                stream.write_all(&bytes).await.unwrap();
            }
        });
        let mut client = Async::<TcpStream>::connect(address).await.unwrap();
        for round in 0..rounds {
            client.write_all(&round.to_be_bytes()).await.unwrap();
            let mut bytes = [0; 4];
            client.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, round.to_be_bytes());
        }
        drop(client);
        server.await;
    }

    fn attach_again() -> Option<ringtap::Error> {
        Some(ringtap_smol::attach(&LocalExecutor::new()).unwrap_err())
    }
}

ringtap_lab::test_binary!();
ringtap_conformance::suite!(OnSmol);

#[ringtap_lab::test(should_panic = "inside of `Smol::run`")]
fn spawning_outside_of_it_says_so() {
    let _never = spawn_local(async {});
}
