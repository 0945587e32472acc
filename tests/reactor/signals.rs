//! Interrupted system calls: waits go on, and nothing is lost.

use std::time::{Duration, Instant};

use ringtap::{AsyncCapture, Capture, executor, time};
use ringtap_lab::{Generator, Tally, Traffic, namespace};

const PATIENCE: Duration = Duration::from_secs(60);

#[ringtap_lab::test]
fn a_storm_of_signals_does_not_end_a_wait_early_or_lose_anything() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let builder = Capture::builder()
        .interface(&veth.right)
        .block_size(1 << 16)
        .block_count(256)
        .block_timeout_ms(5);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let plan = traffic.clone();
    let reader = std::thread::spawn(move || {
        let mut tally = Tally::new(&plan, 2_000);
        let mut capture = builder.clone().build().unwrap();
        ready.send(storms::this_thread()).unwrap();
        let start = Instant::now();
        while tally.received() < 1_000 && start.elapsed() < PATIENCE {
            if let Some(batch) = capture.next_batch_timeout(PATIENCE).unwrap() {
                batch.iter().for_each(|packet| tally.record(packet.data()));
            }
        }
        let start = Instant::now();
        assert!(capture.next_batch_timeout(Duration::from_millis(200)).unwrap().is_none());
        assert!(start.elapsed() >= Duration::from_millis(200), "the whole time");
        executor::block_on(async {
            let mut capture = AsyncCapture::new(capture).unwrap();
            ready.send(storms::this_thread()).unwrap();
            while tally.received() < 2_000 {
                let batch = time::timeout(PATIENCE, capture.next_batch()).await;
                let batch = batch.expect("frames come").unwrap().unwrap();
                batch.iter().for_each(|packet| tally.record(packet.data()));
            }
            let start = Instant::now();
            time::sleep(Duration::from_millis(200)).await;
            assert!(start.elapsed() >= Duration::from_millis(200), "the whole time");
        });
        tally.assert_complete();
    });
    let mut generator = Generator::new(&veth.left, &traffic);
    for _ in 0..2 {
        let target = is_ready.recv().unwrap();
        let storm = storms::storm(target);
        generator.paced(1_000, 10_000);
        std::thread::sleep(Duration::from_millis(300));
        storm.end();
    }
    reader.join().unwrap();
}

mod storms {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    extern "C" fn ignore(_: i32) {}

    /// The calling thread, which a signal now interrupts.
    pub(super) fn this_thread() -> libc::pid_t {
        // SAFETY: a C struct; all zero is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = ignore as *const () as usize; // without SA_RESTART
        // SAFETY: the handler does nothing.
        unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
        // SAFETY: no arguments.
        unsafe { libc::gettid() }
    }

    pub(super) struct Storm {
        stop: Arc<AtomicBool>,
        thread: std::thread::JoinHandle<()>,
    }

    /// Interrupts a thread about a thousand times a second.
    pub(super) fn storm(thread: libc::pid_t) -> Storm {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // SAFETY: no memory involved.
                unsafe {
                    libc::syscall(libc::SYS_tgkill, std::process::id(), thread, libc::SIGUSR1)
                };
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Storm { stop, thread }
    }

    impl Storm {
        pub(super) fn end(self) {
            self.stop.store(true, Ordering::Relaxed);
            self.thread.join().unwrap();
        }
    }
}
