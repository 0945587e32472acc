//! An adapter for a runtime of one's own, here the smallest there is: it polls what was woken, and sleeps in
//! a read of the reactor's eventfd. `docs/ASYNC_GUIDE.md` goes through it.
//! `cargo run --release --example own_runtime -- eth0`, or without arguments in the lab.

use std::cell::Cell;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ringtap::reactor::{Hosted, ReactorOptions, Watch};
use ringtap::shard::Runtime;
use ringtap::{AsyncCapture, Shards, time};
use ringtap_lab_wire::Stage;

/// What the runtime knows of the eventfd: whether a read of it has returned.
struct Event(Rc<Cell<bool>>);

impl Watch for Event {
    fn poll_edge(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // This runtime polls everything after a read; another would keep the waker.
        if self.0.replace(false) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// Says that something is to be polled.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

#[derive(Clone)]
struct OwnRuntime;

impl Runtime for OwnRuntime {
    fn run<F: Future>(&self, _core: Option<usize>, future: F) -> ringtap::Result<F::Output> {
        // Attach, …
        let (hosted, driver) = Hosted::attach(ReactorOptions::default())?;
        let event = hosted.event().try_clone_to_owned().map_err(ringtap::Error::other)?;
        let (mut event, signalled) = (File::from(event), Rc::new(Cell::new(false)));
        // … run the driver beside everything else, …
        let mut driver = pin!(driver.drive(Event(Rc::clone(&signalled))));
        let mut future = pin!(future);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        let mut cx = Context::from_waker(&waker);
        loop {
            while flag.0.swap(false, Ordering::AcqRel) {
                if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                    return Ok(output);
                }
                if let Poll::Ready(ended) = driver.as_mut().poll(&mut cx) {
                    ended?;
                }
            }
            // … and have the eventfd watched.
            event.read_exact(&mut [0; 8]).map_err(ringtap::Error::other)?;
            signalled.set(true);
            flag.0.store(true, Ordering::Release);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let interface = stage.interface().to_owned();
    OwnRuntime.run(None, async {
        let mut capture = AsyncCapture::open(&interface)?;
        let waited = time::timeout(Duration::from_millis(100), capture.next_batch()).await;
        println!("in 100 ms: {waited:?}");
        capture.close().await;
        Ok::<_, ringtap::Error>(())
    })??;

    let shards = Shards::builder().interface(stage.interface()).runtime(OwnRuntime);
    let shards = shards.spawn(|mut shard| async move {
        while shard.capture.next_batch().await?.is_some() {}
        Ok(())
    })?;
    let sent = stage.flood(Duration::from_secs(1)).finish();
    shards.stop();
    let total = shards.join()?.total();
    println!("{sent} sent, {total:?}");
    match stage.is_real() || sent == total.packets && sent == total.delivered + total.drops {
        true => Ok(()),
        false => Err("packets are not accounted for".into()),
    }
}
