//! Writing in a separate thread, so that a slow disk does not hold up a capture.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::sink::PacketSink;
use crate::error::{Error, Result, Step};
use crate::packet::Packet;
use crate::ring::batch::PacketBatch;

/// How long a dropped writer waits for its thread.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long written data may remain unflushed if nothing more arrives.
const IDLE: Duration = Duration::from_secs(1);

/// Hands packets to a thread that writes them, so that accepting packets never waits for the disk.
///
/// ```no_run
/// use ringtap::pcap::{BackgroundWriter, CaptureWriter, PacketSink};
///
/// # fn all(mut capture: ringtap::Capture) -> ringtap::Result<()> {
/// let file = CaptureWriter::create("a.pcapng")?;
/// let mut file = BackgroundWriter::spawn(file, 16 << 20)?;
/// while let Some(batch) = capture.next_batch() {
///     file.write_batch(&batch)?; // copied, or dropped and counted if 16 MiB are waiting
/// }
/// let (writer, stats) = file.finish()?;
/// println!("{} packets, {} dropped", stats.written, stats.dropped);
/// # Ok(())
/// # }
/// ```
///
/// On drop it writes what is waiting, for five seconds at most; [`finish`](Self::finish) takes as long as
/// needed.
#[derive(Debug)]
pub struct BackgroundWriter<S: PacketSink + Send + 'static> {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<S>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signals that there is something to write or that the writer was closed.
    work: Condvar,
    /// Signals that the thread has ended.
    done: Condvar,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<PacketBatch>,
    bytes: usize,
    is_closed: bool,
    is_done: bool,
    stats: BackgroundStats,
    /// The latest error that has not been reported yet.
    error: Option<Error>,
}

/// Counters of a [`BackgroundWriter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BackgroundStats {
    /// Packets handed over.
    pub taken: u64,
    /// Packets given to the sink.
    pub written: u64,
    /// Packets dropped because too much was waiting.
    pub dropped: u64,
    /// Number of failures of the sink.
    pub errors: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: PacketSink + Send + 'static> BackgroundWriter<S> {
    /// Starts a thread that writes to `sink`, with at most `max_bytes` bytes waiting for it.
    ///
    /// # Errors
    /// [`Error::Os`] if the thread cannot be started.
    pub fn spawn(sink: S, max_bytes: usize) -> Result<Self> {
        let state = Mutex::new(State::default());
        let (work, done) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state, work, done, max_bytes });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("ringtap-writer".to_owned());
        let thread = thread
            .spawn(move || {
                let _done = Done(&of_thread);
                write(&of_thread, sink)
            })
            .map_err(|error| Error::os(Step::SpawnThread, error))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands a batch over, copying it out of its ring if it is in one. Returns whether the batch was accepted;
    /// otherwise it is dropped and counted.
    ///
    /// # Errors
    /// The latest error of the sink since the last call, reported once; the batch is handed over all the same.
    /// If the thread has ended, which happens only if the sink panics, an error that says so; the batch is
    /// dropped and counted.
    pub fn write(&mut self, batch: PacketBatch) -> Result<bool> {
        let mut state = self.shared.lock();
        if state.is_done {
            state.stats.dropped += batch.len() as u64;
            return Err(Error::other("the writing thread has panicked"));
        }
        let is_taken = state.bytes < self.shared.max_bytes;
        match is_taken {
            true => {
                drop(state);
                let batch = batch.detach();
                state = self.shared.lock();
                state.stats.taken += batch.len() as u64;
                state.bytes += batch.memory();
                state.queue.push_back(batch);
                self.shared.work.notify_one();
            }
            false => state.stats.dropped += batch.len() as u64,
        }
        state.error.take().map_or(Ok(is_taken), Err)
    }

    /// Returns the counters so far.
    pub fn stats(&self) -> BackgroundStats {
        self.shared.lock().stats
    }

    /// Waits until everything is written, and returns the sink.
    ///
    /// # Errors
    /// The latest error that has not been reported yet; in this case the sink is dropped.
    pub fn finish(mut self) -> Result<(S, BackgroundStats)> {
        self.close();
        let Some(thread) = self.thread.take() else { unreachable!("it is joined once") };
        let sink = thread.join().map_err(|_| Error::other("the writing thread panicked"))?;
        let mut state = self.shared.lock();
        match state.error.take() {
            Some(error) => Err(error),
            None => Ok((sink, state.stats)),
        }
    }

    fn close(&self) {
        self.shared.lock().is_closed = true;
        self.shared.work.notify_one();
    }
}

impl<S: PacketSink + Send + 'static> PacketSink for BackgroundWriter<S> {
    /// Accepts a packet; many packets are better written as a batch.
    fn write_packet(&mut self, packet: &Packet<'_>) -> Result<()> {
        self.write(PacketBatch::of_packets(&[*packet])).map(drop)
    }

    fn write_batch(&mut self, batch: &PacketBatch) -> Result<()> {
        // Do not copy a batch that would be dropped.
        let mut state = self.shared.lock();
        if state.bytes >= self.shared.max_bytes && !state.is_done {
            state.stats.dropped += batch.len() as u64;
            return state.error.take().map_or(Ok(()), Err);
        }
        drop(state);
        self.write(batch.to_detached()).map(drop)
    }

    /// Does not wait: the thread flushes when it has nothing to write.
    fn flush(&mut self) -> Result<()> {
        self.shared.lock().error.take().map_or(Ok(()), Err)
    }
}

impl<S: PacketSink + Send + 'static> Drop for BackgroundWriter<S> {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.close();
        let until = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        while !state.is_done {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return; // the thread ends when the disk lets it
            }
            let waited = self.shared.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        let _ = thread.join();
    }
}

/// Signals the end of the thread, even by a panic.
struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.lock().is_done = true;
        self.0.done.notify_all();
    }
}

fn write<S: PacketSink>(shared: &Shared, mut sink: S) -> S {
    let mut is_flushed = true;
    let mut state = shared.lock();
    loop {
        if let Some(batch) = state.queue.pop_front() {
            state.bytes -= batch.memory();
            drop(state);
            let outcome = sink.write_batch(&batch);
            is_flushed = false;
            state = shared.lock();
            state.stats.written += batch.len() as u64;
            state.failed(outcome);
        } else if !is_flushed && state.is_closed {
            drop(state);
            let outcome = sink.flush();
            is_flushed = true;
            state = shared.lock();
            state.failed(outcome);
        } else if state.is_closed {
            return sink;
        } else {
            let left = |due: Instant| due.saturating_duration_since(Instant::now());
            let wait = sink.next_due().map_or(IDLE, |due| left(due).min(IDLE));
            let (now, timeout) = shared
                .work
                .wait_timeout_while(state, wait, |state| state.queue.is_empty() && !state.is_closed)
                .unwrap_or_else(PoisonError::into_inner);
            state = now;
            if timeout.timed_out() {
                drop(state);
                let ticked = sink.tick();
                let flushed = if is_flushed { Ok(()) } else { sink.flush() };
                is_flushed = true;
                state = shared.lock();
                state.failed(ticked);
                state.failed(flushed);
            }
        }
    }
}

impl State {
    fn failed(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.stats.errors += 1;
            self.error = Some(error);
        }
    }
}
