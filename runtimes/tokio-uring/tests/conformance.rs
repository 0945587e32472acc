//! The suite, on tokio-uring.

use std::future::Future;

use ringtap_conformance::Host;
use ringtap_tokio_uring::TokioUring;

#[derive(Debug, Clone, Copy, Default)]
struct OnTokioUring(TokioUring);

impl ringtap::shard::Runtime for OnTokioUring {
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> ringtap::Result<F::Output> {
        self.0.run(core, future)
    }
}

impl Host for OnTokioUring {
    fn spawn(future: impl Future<Output = ()> + 'static) {
        tokio_uring::spawn(future);
    }

    /// Writes a file and reads it back.
    async fn own_io(rounds: u32) {
        let directory = ringtap_lab::Directory::new();
        let path = directory.path().join("file");
        let file = tokio_uring::fs::OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(true)
            .open(&path)
            .await
            .unwrap();
        for round in 0..u64::from(rounds) {
            let written = file.write_at(round.to_be_bytes().to_vec(), 8 * round).submit().await;
            assert_eq!(written.0.unwrap(), 8);
            let (read, bytes) = file.read_at(vec![0; 8], 8 * round).await;
            assert_eq!((read.unwrap(), bytes), (8, round.to_be_bytes().to_vec()));
        }
        file.close().await.unwrap();
    }

    fn attach_again() -> Option<ringtap::Error> {
        Some(ringtap_tokio_uring::attach().unwrap_err())
    }
}

ringtap_lab::test_binary!();
ringtap_conformance::suite!(OnTokioUring);

#[ringtap_lab::test]
fn outside_of_it_attaching_is_an_error_that_says_so() {
    let error = ringtap_tokio_uring::attach().unwrap_err();
    assert!(error.to_string().contains("tokio_uring::start"), "{error}");
}
