//! Sends the frames of a [`Traffic`] through a plain packet socket, many to a system call.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::traffic::{Traffic, now};
use crate::{limits, link};

/// Frames to a system call.
const BATCH: usize = 64;
/// How long nothing may arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many frames a test sends: `usual`, or what RINGTAP_FRAMES says. In an emulator that is few, so the most that any test
/// sends; on a machine that has a night, it is what tests of a million send.
///
/// # Panics
/// Where the variable is no number.
pub fn frames(usual: u64) -> u64 {
    let Ok(text) = std::env::var("RINGTAP_FRAMES") else { return usual };
    let named = text.parse().unwrap_or_else(|_| panic!("RINGTAP_FRAMES is {text:?}, no number"));
    if usual < 1_000_000 { usual.min(named) } else { named }
}

/// How many frames have arrived: whoever receives counts here, and [`Generator::in_step`] sends no faster.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<AtomicU64>);

impl Pace {
    /// Counts frames that have arrived.
    pub fn count(&self, frames: usize) {
        self.0.fetch_add(frames as u64, Ordering::Relaxed);
    }

    /// Those that have.
    pub fn received(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A sender of numbered frames.
#[derive(Debug)]
pub struct Generator {
    sender: Sender,
    traffic: Traffic,
    /// A template for each flow and direction: those of the flows, then those of their answers.
    templates: Vec<Vec<u8>>,
    batch: Vec<Vec<u8>>,
    next: u64,
    /// Where it sends from, so that the kernel keeps the order (see [`limits::stay_on_this_core`]).
    core: usize,
}

impl Generator {
    /// A generator into interface `name` of the calling thread's namespace.
    ///
    /// # Panics
    /// Where no packet socket can be had on it: the lab is there to have one; and for frames of
    /// varied lengths, which it does not make.
    pub fn new(name: &str, traffic: &Traffic) -> Self {
        assert!(!traffic.varied, "the generator sends frames of one length");
        let sender =
            Sender::open(name).unwrap_or_else(|error| panic!("sending on {name}: {error}"));
        let templates = [false, true]
            .into_iter()
            .flat_map(|is_answer| (0..traffic.flows).map(move |flow| (flow, is_answer)))
            .map(|(flow, is_answer)| traffic.template(flow, is_answer, traffic.len))
            .collect();
        let batch = vec![vec![0; traffic.frame_len()]; BATCH];
        let core = limits::this_core();
        Self { sender, traffic: traffic.clone(), templates, batch, next: 0, core }
    }

    /// Frames sent so far.
    pub fn sent(&self) -> u64 {
        self.next
    }

    /// Sends `count` frames as fast as they go.
    ///
    /// # Panics
    /// Where sending fails for another reason than a full queue.
    pub fn flood(&mut self, count: u64) {
        let end = self.next + count;
        while self.next < end {
            self.send_some((end - self.next).min(BATCH as u64) as usize);
        }
    }

    /// Sends bursts of `burst` frames with a pause between them, `count` in all.
    ///
    /// # Panics
    /// As [`flood`](Self::flood).
    pub fn bursts(&mut self, count: u64, burst: u64, pause: Duration) {
        let end = self.next + count;
        while self.next < end {
            self.flood(burst.min(end - self.next));
            std::thread::sleep(pause);
        }
    }

    /// Sends `count` frames with no more under way than any ring and queue has room for: none is lost, however slow the
    /// machine is.
    ///
    /// # Panics
    /// As [`flood`](Self::flood); where nothing more arrives.
    pub fn in_step(&mut self, count: u64, pace: &Pace) {
        /// Fewer than the least ring of a profile has frames, and than a core's backlog takes.
        const AHEAD: u64 = 400;
        let end = self.next + count;
        let mut last = (pace.received(), Instant::now());
        while self.next < end {
            let received = pace.received();
            if received != last.0 {
                last = (received, Instant::now());
            }
            let room = (received + AHEAD).saturating_sub(self.next);
            if room == 0 {
                assert!(last.1.elapsed() < PATIENCE, "{received} of {} arrived", self.next);
                std::thread::sleep(Duration::from_micros(100));
            } else {
                self.flood(room.min(end - self.next).min(BATCH as u64));
            }
        }
    }

    /// Sends `count` frames, about `rate` a second.
    ///
    /// # Panics
    /// As [`flood`](Self::flood).
    pub fn paced(&mut self, count: u64, rate: u64) {
        let start = Instant::now();
        let first = self.next;
        while self.next - first < count {
            let due = (start.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
            let due = due.min(count) - (self.next - first);
            if due == 0 {
                let next = (self.next - first + 1) * 1_000_000_000 / rate;
                std::thread::sleep(Duration::from_nanos(next).saturating_sub(start.elapsed()));
            } else {
                self.flood(due);
            }
        }
    }

    fn send_some(&mut self, count: usize) {
        let stamp = now();
        for (number, frame) in (self.next..).zip(&mut self.batch[..count]) {
            let flow = self.traffic.flow(number);
            let side = if self.traffic.is_answer(number) { self.traffic.flows } else { 0 };
            frame.copy_from_slice(&self.templates[(side + flow) as usize]);
            self.traffic.fill(frame, number, stamp);
        }
        let _here = limits::OnCore::new(self.core);
        self.sender.send_all(&self.batch[..count]).expect("a packet socket sends");
        self.next += count as u64;
    }
}

/// A plain packet socket to send frames through.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// Opens one on interface `name`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(name: &str) -> io::Result<Self> {
        let index = link::index(name)?;
        // SAFETY: no memory involved.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a C struct of integers.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index as i32;
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is readable for its length.
        let bound = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket })
    }

    /// Sends all frames, in order, waiting where a queue is full.
    ///
    /// # Errors
    /// The kernel's, other than a full queue.
    pub fn send_all<F: AsRef<[u8]>>(&self, frames: &[F]) -> io::Result<()> {
        for frames in frames.chunks(BATCH) {
            let mut sent = 0;
            while sent < frames.len() {
                match self.send_some(&frames[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) => match error.raw_os_error() {
                        Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR) => {
                            std::thread::sleep(Duration::from_micros(50));
                        }
                        _ => return Err(error),
                    },
                }
            }
        }
        Ok(())
    }

    fn send_some<F: AsRef<[u8]>>(&self, frames: &[F]) -> io::Result<usize> {
        // SAFETY: C structs of integers and pointers; null and zero are valid.
        let mut vectors: [libc::iovec; BATCH] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for ((frame, vector), message) in frames.iter().zip(&mut vectors).zip(&mut messages) {
            let bytes = frame.as_ref();
            vector.iov_base = bytes.as_ptr().cast_mut().cast();
            vector.iov_len = bytes.len();
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
        }
        let count = frames.len().min(BATCH) as u32;
        // SAFETY: `count` messages are set up; their vectors and frames outlive the call.
        let sent =
            unsafe { libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}
