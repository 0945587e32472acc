//! What a busy capture leaves of its thread to the host's own I/O.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringtap::{AsyncCapture, Capture, Packet, Result};
use ringtap_lab::{Generator, Namespace, Traffic};

use crate::echo::{self, Address};
use crate::way::Way;
use crate::{Times, spread};

/// The time that each packet takes; `None` without packets.
pub(crate) const LOADS: [Option<Duration>; 3] =
    [None, Some(Duration::ZERO), Some(Duration::from_micros(5))];

/// Packets handled, and the time that this took.
type Handled = (u64, Duration);

/// The rounds of a host under one load.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    times: Vec<Times>,
    packets: u64,
    time: Duration,
}

impl Rounds {
    /// The median of the rounds, the least and the most of a quantile in microseconds.
    pub(crate) fn micros(&self, quantile: f64) -> (f64, f64, f64) {
        let values =
            self.times.iter().map(|times| times.value_at_quantile(quantile) as f64 / 1000.0);
        spread(&values.collect::<Vec<_>>())
    }

    pub(crate) fn packets_per_second(&self) -> f64 {
        self.packets as f64 / self.time.as_secs_f64()
    }

    /// Measures once more.
    pub(crate) fn measure(
        &mut self,
        way: Way,
        net: &Namespace,
        load: Option<Duration>,
    ) -> Result<()> {
        let (veth, link) = (net.veth(), net.veth());
        let mut capture =
            Capture::builder().interface(&veth.right).ignore_outgoing(true).build()?;
        let stop = capture.stop_handle()?;
        let (told, of_echo) = mpsc::channel();
        let is_over = AtomicBool::new(false);
        let links = [link.left.clone(), link.right.clone()];
        let (times, handled) = std::thread::scope(|scope| {
            let work = load.unwrap_or_default();
            let hosting = scope.spawn(move || host(way, capture, links, told, work));
            let address = of_echo.recv().expect("the echo begins");
            if load.is_some() {
                scope.spawn(|| {
                    let mut generator = Generator::new(&veth.left, &Traffic::default());
                    while !is_over.load(Ordering::Relaxed) {
                        generator.flood(100);
                        std::thread::sleep(Duration::from_micros(100));
                    }
                });
            }
            let times = echo::ask(&address);
            is_over.store(true, Ordering::Relaxed);
            stop.stop();
            (times, hosting.join().expect("no panic"))
        });
        let (packets, time) = handled?;
        self.times.push(times?);
        self.packets += packets;
        self.time += time;
        Ok(())
    }
}

/// Handles packets on this thread until the capture is stopped, after the echo has begun.
fn host(
    way: Way,
    capture: Capture,
    links: [String; 2],
    told: mpsc::Sender<Address>,
    work: Duration,
) -> Result<Handled> {
    way.run(async move {
        echo::begin(way, links, told).await?;
        let began = Instant::now();
        let count = match way {
            Way::AnyTask => in_any_task(capture, work).await?,
            _ => {
                let count = Rc::new(Cell::new(0));
                let counter = Rc::clone(&count);
                let each = move |_: Packet<'_>| {
                    counter.set(counter.get() + 1);
                    spin(work);
                };
                AsyncCapture::new(capture)?.for_each_packet(each).await?;
                count.get()
            }
        };
        Ok((count, began.elapsed())) // with what was left in the ring
    })?
}

async fn in_any_task(capture: Capture, work: Duration) -> Result<u64> {
    let mut capture = ringtap_tokio::Capture::new(capture)?;
    let counting = tokio::spawn(async move {
        let mut count = 0;
        let each = |_: Packet<'_>| {
            count += 1;
            spin(work);
        };
        capture.for_each_packet(each).await.map(|()| count)
    });
    counting.await.expect("no panic")
}

fn spin(work: Duration) {
    let since = Instant::now();
    while since.elapsed() < work {
        std::hint::spin_loop();
    }
}
