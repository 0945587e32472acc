//! Where an example plays: a real interface if one is named, else a namespace with traffic in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::generator::Sender;
use crate::{Generator, Namespace, Traffic, Veth, bootstrap, talk};

/// An interface to capture on, and, in the lab, the traffic that is seen there.
#[derive(Debug)]
pub struct Stage {
    interface: String,
    lab: Option<Lab>,
}

#[derive(Debug)]
struct Lab {
    veth: Veth,
    namespace: Namespace,
}

/// Traffic under way; from [`Stage::flood`] and [`Stage::pace`]. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stage {
    /// The named interface, or else a veth pair in a namespace of our own. Call it first in `main`:
    /// entering a namespace without root needs a process with one thread.
    ///
    /// # Errors
    /// Why there can be no namespace.
    pub fn open(interface: Option<String>) -> Result<Self, String> {
        if let Some(interface) = interface {
            return Ok(Self { interface, lab: None });
        }
        let stage = Self::in_the_lab()?;
        println!(
            "no interface named: capturing on {}, in a network namespace of my own",
            stage.interface
        );
        Ok(stage)
    }

    /// A veth pair in a namespace of our own, which the calling thread is in until this is dropped.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn in_the_lab() -> Result<Self, String> {
        bootstrap::enter()?;
        let namespace = Namespace::enter()?;
        let veth = namespace.veth_with_queues(4);
        Ok(Self { interface: veth.right.clone(), lab: Some(Lab { veth, namespace }) })
    }

    /// The interface to capture on.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The interface to send on: in the lab, the other end, so that what is sent arrives on
    /// [`interface`](Self::interface).
    pub fn sending_interface(&self) -> &str {
        self.lab.as_ref().map_or(&self.interface, |lab| &lab.veth.left)
    }

    /// Whether traffic has to be waited for: there is no lab to make it.
    pub fn is_real(&self) -> bool {
        self.lab.is_none()
    }

    /// In the lab, floods for this long; on a real interface, lets that time pass.
    pub fn flood(&self, time: Duration) -> Running {
        self.run(time, |generator| generator.flood(1024))
    }

    /// In the lab, sends about `rate` frames a second for this long; on a real interface, lets
    /// that time pass.
    pub fn pace(&self, time: Duration, rate: u64) -> Running {
        self.run(time, move |generator| generator.paced(rate.div_ceil(20), rate))
    }

    /// In the lab, has so many hosts visit a server, each once: they ask for its name, get a page and say hello by TLS
    /// (18 frames). On a real interface, lets ten seconds pass.
    pub fn talk(&self, visits: u32) -> Running {
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&sent), Arc::clone(&stop));
        let left = self.lab.as_ref().map(|lab| lab.veth.left.clone());
        let thread = std::thread::spawn(move || {
            let Some(left) = left else {
                for _ in 0..500 {
                    std::thread::sleep(Duration::from_millis(20));
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                }
                return;
            };
            let sender = Sender::open(&left).expect("the lab's interface is there");
            for number in 0..visits {
                let frames = talk::visit(number);
                sender.send_all(&frames).expect("a packet socket sends");
                counter.fetch_add(frames.len() as u64, Ordering::Relaxed);
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if number % 16 == 15 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Running { sent, stop, thread: Some(thread) }
    }

    /// In the lab, brings the loopback up, so that an example can talk to itself.
    pub fn set_loopback_up(&self) {
        if let Some(lab) = &self.lab {
            lab.namespace.loopback_up();
        }
    }

    /// In the lab, frames that were sent and lost before any tap could see them.
    pub fn lost(&self) -> u64 {
        self.lab.as_ref().map_or(0, |lab| lab.veth.lost())
    }

    fn run(&self, time: Duration, step: impl Fn(&mut Generator) + Send + 'static) -> Running {
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&sent), Arc::clone(&stop));
        let traffic = Traffic { len: 128, flows: 64, both_directions: true, ..Traffic::default() };
        let left = self.lab.as_ref().map(|lab| lab.veth.left.clone());
        let thread = std::thread::spawn(move || {
            let end = std::time::Instant::now() + time;
            let mut generator = left.map(|left| Generator::new(&left, &traffic));
            while std::time::Instant::now() < end && !stopped.load(Ordering::Relaxed) {
                match &mut generator {
                    Some(generator) => {
                        step(generator);
                        counter.store(generator.sent(), Ordering::Relaxed);
                    }
                    None => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Running { sent, stop, thread: Some(thread) }
    }
}

impl Running {
    /// Whether the time is not up yet.
    pub fn is_under_way(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Frames sent so far; 0 on a real interface.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; frames sent.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the end; frames sent.
    pub fn finish(mut self) -> u64 {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the generator does not panic");
        }
        self.sent()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
