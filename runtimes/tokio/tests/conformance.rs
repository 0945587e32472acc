//! The suite, on tokio.

use std::future::Future;
use std::time::Duration;

use ringtap::reactor::{Coalesce, IoUringFeatures, ReactorOptions};
use ringtap_conformance::Host;
use ringtap_tokio::Tokio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const INTERVAL: Duration = Duration::from_micros(200);

macro_rules! hosts {
    ($($host:ident $module:ident $options:expr;)*) => { $(
        #[derive(Debug, Clone, Copy, Default)]
        struct $host;

        impl ringtap::shard::Runtime for $host {
            fn run<F: Future>(&self, core: Option<usize>, future: F) -> ringtap::Result<F::Output> {
                Tokio::new($options).run(core, future)
            }
        }

        impl Host for $host {
            fn spawn(future: impl Future<Output = ()> + 'static) {
                tokio::task::spawn_local(future);
            }

            async fn own_io(rounds: u32) {
                echo(rounds).await;
            }

            fn attach_again() -> Option<ringtap::Error> {
                Some(ringtap_tokio::attach().unwrap_err())
            }
        }

        mod $module {
            use super::$host;

            ringtap_conformance::suite!($host);
        }
    )* };
}

hosts! {
    Plain plain ReactorOptions::new();
    Fixed moderated ReactorOptions::new().coalesce(Coalesce::Fixed(INTERVAL));
    Adaptive adaptive ReactorOptions::new().coalesce(Coalesce::Adaptive { max: INTERVAL });
    Undeferred where_deferred_work_does_not_signal
        ReactorOptions::new().without(IoUringFeatures::DEFERRED_WORK);
    Oldest with_nothing_newer_than_it_must_be ReactorOptions::new().without(IoUringFeatures::all());
}

/// Echoes over TCP.
async fn echo(rounds: u32) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 4];
        while stream.read_exact(&mut bytes).await.is_ok() {
            stream.write_all(&bytes).await.unwrap();
        }
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    for round in 0..rounds {
        stream.write_all(&round.to_be_bytes()).await.unwrap();
        assert_eq!(stream.read_u32().await.unwrap(), round);
    }
    drop(stream);
    server.await.unwrap();
}

ringtap_lab::test_binary!();

#[ringtap_lab::test]
fn outside_of_a_runtime_attaching_is_an_error_that_says_so() {
    let error = ringtap_tokio::attach().unwrap_err();
    assert!(error.to_string().contains("no tokio runtime is entered"), "{error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(async { ringtap_tokio::attach().unwrap_err() });
    assert!(error.to_string().contains("LocalSet"), "{error}");
}

#[ringtap_lab::test]
fn batches_are_consumed_by_tasks_of_a_runtime_with_many_threads() {
    let Some(net) = ringtap_lab::namespace() else { return };
    let veth = net.veth();
    let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let capture = ringtap::Capture::builder().interface(&veth.right).block_timeout_ms(5);
    let capture = capture.block_size(1 << 16).block_count(64).build().unwrap();
    let total: usize = ringtap::shard::Runtime::run(&Tokio::default(), None, async {
        let mut capture = ringtap::AsyncCapture::new(capture).unwrap();
        ringtap_lab::Generator::new(&veth.left, &ringtap_lab::Traffic::default()).flood(1000);
        let mut total = 0;
        while total < 1000 {
            let batch = capture.next_batch().await.unwrap().unwrap();
            total += workers.spawn(async move { batch.iter().count() }).await.unwrap();
        }
        total
    })
    .unwrap();
    assert_eq!(total, 1000);
}

#[ringtap_lab::test]
fn a_spawned_task_of_a_runtime_with_many_threads_captures() {
    let Some(net) = ringtap_lab::namespace() else { return };
    let veth = net.veth();
    let capture = ringtap::Capture::builder().interface(&veth.right).block_timeout_ms(5);
    let capture = ringtap::channel::ChannelCapture::builder(capture).build().unwrap();
    let stop = capture.stop_handle();
    let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let task = workers.spawn(async move {
        let mut total = 0;
        while let Some(batch) = capture.next_batch().await? {
            total += batch.len();
            tokio::task::yield_now().await; // it may go on in the other thread
        }
        Ok::<_, ringtap::Error>(total)
    });
    let mut generator = ringtap_lab::Generator::new(&veth.left, &ringtap_lab::Traffic::default());
    for _ in 0..10 {
        generator.flood(1000);
        std::thread::sleep(Duration::from_millis(2));
    }
    stop.stop();
    assert_eq!(workers.block_on(task).unwrap().unwrap(), 10_000);
}
