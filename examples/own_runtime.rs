//! Runs shards on a runtime of your own, here a minimal one, which docs/ASYNC_GUIDE.md explains.
//!
//! ```sh
//! cargo run --release --example own_runtime -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- own_runtime` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use std::cell::Cell;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use ringtap::Shards;
use ringtap::reactor::{Hosted, ReactorOptions, Watch};
use ringtap::shard::Runtime;

/// Whether a read of the eventfd has returned.
struct Event(Rc<Cell<bool>>);

impl Watch for Event {
    fn poll_edge(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // This runtime polls everything after a read; another would keep the waker.
        if self.0.replace(false) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// Whether something must be polled.
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
        // Attach, ...
        let (hosted, driver) = Hosted::attach(ReactorOptions::default())?;
        let event = hosted.event().try_clone_to_owned().map_err(ringtap::Error::other)?;
        let (mut event, signalled) = (File::from(event), Rc::new(Cell::new(false)));
        // ... run the driver beside everything else, ...
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
            // ... and wait for the eventfd.
            event.read_exact(&mut [0; 8]).map_err(ringtap::Error::other)?;
            signalled.set(true);
            flag.0.store(true, Ordering::Release);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: own_runtime INTERFACE")?;
    let shards = Shards::builder().interface(&interface).runtime(OwnRuntime);
    let shards = shards.spawn(|mut shard| async move {
        while shard.capture.next_batch().await?.is_some() {}
        Ok(())
    })?;
    let stop = shards.stop_handle();
    ctrlc::set_handler(move || stop.stop())?;
    println!("capturing on {interface}");
    println!("{:?}", shards.join()?.total());
    Ok(())
}
