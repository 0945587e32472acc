//! The suite, on glommio.

use std::future::Future;

use glommio::channels::local_channel;
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

    /// Echoes through two channels.
    async fn own_io(rounds: u32) {
        let (question, questions) = local_channel::new_bounded(1);
        let (answer, answers) = local_channel::new_bounded(1);
        let echo = glommio::spawn_local(async move {
            while let Some(round) = questions.recv().await {
                answer.send(round).await.unwrap();
            }
        });
        for round in 0..rounds {
            question.send(round).await.unwrap();
            assert_eq!(answers.recv().await, Some(round));
        }
        drop(question);
        echo.await;
    }

    fn attach_again() -> Option<ringtap::Error> {
        Some(ringtap_glommio::attach().unwrap_err())
    }
}

ringtap_lab::test_binary!();
ringtap_conformance::suite!(OnGlommio);
