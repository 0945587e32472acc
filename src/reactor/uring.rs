//! The only file that uses the io-uring crate: setting up a ring, pushing requests, entering, reaping.

#![allow(unsafe_code, reason = "pushes submissions, whose operands the kernel uses later")]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use super::enter::{Completion, Wait};
use super::fault::{Fault, Fruitless};
#[cfg(feature = "record")]
use super::file_op::FileRequest;
use super::ring_timer::Setting;
use super::token::{Answered, Token};
use super::warning;
use crate::options::{IoUringFeatures, ReactorOptions};
use crate::sys::{fork, memlock_retry};

/// A ring, entered only by the thread and process that created it.
pub(super) struct Uring {
    // Leaked in a forked child, and if the kernel may still use memory that its requests refer to.
    ring: ManuallyDrop<IoUring>,
    features: IoUringFeatures,
    /// The thread's registered descriptor for entering the ring, which saves the kernel a look-up.
    registered: Option<u32>,
    forks: u32,
    /// The duration of a timer that is being submitted. Its address stays the same until the ring is closed.
    ring_timer: ManuallyDrop<Box<Timespec>>,
    /// Whether completions signal a host's eventfd, except those of our own enters.
    is_hosted: bool,
    /// How often in a row the kernel has refused an enter without doing anything.
    fruitless: Fruitless,
}

/// How the kernel posts completions, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// When the ring is entered by the one thread that may do so.
    Deferred,
    /// When the thread enters the kernel anyway.
    Cooperative,
    /// Whatever the thread is doing.
    Interrupting,
}

impl Work {
    pub(super) const ALL: [Self; 3] = [Self::Deferred, Self::Cooperative, Self::Interrupting];

    pub(super) fn feature(self) -> IoUringFeatures {
        match self {
            Self::Deferred => IoUringFeatures::DEFERRED_WORK,
            Self::Cooperative => IoUringFeatures::COOPERATIVE_WORK,
            Self::Interrupting => IoUringFeatures::empty(),
        }
    }
}

/// Stands for an endless wait, if the call needs a limit.
const LONG: Duration = Duration::from_secs(3600);

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingFd {
    index: u32,
    resv: u32,
    fd: u64,
}

/// `IORING_REGISTER_RING_FDS` and its counterpart (linux/io_uring.h), since 5.18.
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

impl Uring {
    /// Sets up a ring that posts completions as `work` says, and signals `event`, if given. Fails with EINVAL
    /// if the kernel lacks that mode. Kernel features are found by asking, never from the version:
    /// distributions backport, and containers forbid.
    pub(super) fn with(
        options: &ReactorOptions,
        work: Work,
        event: Option<RawFd>,
    ) -> io::Result<Self> {
        let forks = fork::generation();
        let (ring, is_restricted) = open(options, work, event)?;
        let params = ring.params();
        // Timeouts came with EXT_ARG in 5.11. Multishot polls have no flag; they came in 5.13 together with
        // resource tagging.
        if !params.is_feature_ext_arg() || !params.is_feature_resource_tagging() {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let mut features = work.feature();
        features.set(IoUringFeatures::RESTRICTED, is_restricted);
        features.set(IoUringFeatures::SILENT_KICKS, params.is_feature_skip_cqe_on_success());
        features.set(IoUringFeatures::LEAST_WAITS, params.is_feature_min_timeout());
        features.set(IoUringFeatures::NO_IO_WAIT, params.is_feature_no_iowait());
        let registers = options.allowed().contains(IoUringFeatures::REGISTERED_RING);
        let registered = if registers { register(ring.as_raw_fd()) } else { None };
        features.set(IoUringFeatures::REGISTERED_RING, registered.is_some());
        let (ring, ring_timer) = (ManuallyDrop::new(ring), ManuallyDrop::default());
        let (is_hosted, fruitless) = (event.is_some(), Fruitless::default());
        let features = features & options.allowed();
        Ok(Self { ring, features, registered, forks, ring_timer, is_hosted, fruitless })
    }

    /// Returns the io_uring features in use.
    pub(super) fn features(&self) -> IoUringFeatures {
        self.features
    }

    /// Returns whether the kernel has yet to take queued requests.
    pub(super) fn has_queued(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Returns whether there is no room for another request until the next enter.
    pub(super) fn is_full(&mut self) -> bool {
        self.ring.submission().is_full()
    }

    /// Queues a poll. The submission ring must not be full.
    pub(super) fn push_poll(&mut self, fd: RawFd, events: u32, token: Token, is_multishot: bool) {
        let entry = opcode::PollAdd::new(Fd(fd), events).multi(is_multishot).build();
        self.push(&entry.user_data(Answered::Op(token).to_user_data()));
    }

    /// Queues a kick: a non-blocking send of no bytes. A silent kick posts a completion only if it fails
    /// (5.17; before, always). The submission ring must not be full.
    pub(super) fn push_kick(&mut self, fd: RawFd, token: Token, is_silent: bool) {
        let entry = opcode::Send::new(Fd(fd), std::ptr::null(), 0).flags(libc::MSG_DONTWAIT);
        let entry = entry.build().user_data(Answered::Op(token).to_user_data());
        let entry = if is_silent { self.silent(entry) } else { entry };
        self.push(&entry);
    }

    /// Makes a request post a completion only if it fails, as far as the kernel supports that: a completion
    /// would end the very sleep that the request is submitted with.
    fn silent(&self, entry: squeue::Entry) -> squeue::Entry {
        if self.features.contains(IoUringFeatures::SILENT_KICKS) {
            entry.flags(squeue::Flags::SKIP_SUCCESS)
        } else {
            entry
        }
    }

    /// Queues the cancellation of an op. The submission ring must not be full.
    pub(super) fn push_cancel(&mut self, token: Token) {
        let op = Answered::Op(token).to_user_data();
        let entry = opcode::AsyncCancel::new(op).build();
        self.push(&entry.user_data(Answered::Cancel(token).to_user_data()));
    }

    /// Queues the timer, or moves it to an earlier time. The submission ring must not be full.
    pub(super) fn push_ring_timer(&mut self, setting: Setting, time: Duration) {
        **self.ring_timer = Timespec::from(time);
        let ring_timer = Answered::RingTimer.to_user_data();
        let entry = match setting {
            Setting::New => {
                opcode::Timeout::new(&raw const **self.ring_timer).build().user_data(ring_timer)
            }
            Setting::Earlier => {
                let update =
                    opcode::TimeoutUpdate::new(ring_timer, &raw const **self.ring_timer).build();
                self.silent(update.user_data(Answered::RingTimerUpdate.to_user_data()))
            }
        };
        self.push(&entry);
    }

    /// Queues an operation on a file. The submission ring must not be full. The caller keeps what the request refers to
    /// until its completion, or for ever.
    #[cfg(feature = "record")]
    pub(super) fn push_file(&mut self, request: FileRequest<'_>, token: Token) {
        use io_uring::types::FsyncFlags;

        use crate::sys::file::MODE;
        let entry = match request {
            FileRequest::Write { file, offset, bytes } => {
                let write = opcode::Write::new(Fd(file), bytes.as_ptr(), bytes.len() as u32);
                write.offset(offset).build()
            }
            FileRequest::Reserve { file, len } => {
                let reserve = opcode::Fallocate::new(Fd(file), len);
                reserve.mode(libc::FALLOC_FL_KEEP_SIZE).build()
            }
            FileRequest::Sync { file } => {
                opcode::Fsync::new(Fd(file)).flags(FsyncFlags::DATASYNC).build()
            }
            FileRequest::Create { path, flags } => {
                let here = Fd(libc::AT_FDCWD);
                opcode::OpenAt::new(here, path.as_ptr()).flags(flags).mode(MODE).build()
            }
            FileRequest::Remove { path } => {
                opcode::UnlinkAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).build()
            }
            FileRequest::Close { file } => opcode::Close::new(Fd(file)).build(),
        };
        self.push(&entry.user_data(Answered::Op(token).to_user_data()));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: a poll, a cancel and a send of no bytes refer to no memory of ours, and a timer refers to a
        // box that lives until the ring is closed and that the kernel reads only when it takes the request. What
        // an operation on a file refers to is in its entry of `Ops`, which is freed by its completion and leaked
        // if there is none. A descriptor that was closed meanwhile is an error of the request, not of memory.
        let pushed = unsafe { self.ring.submission().push(entry) };
        assert!(pushed.is_ok(), "the reactor asks `is_full` first");
    }

    /// Returns whether a turn has to enter: a request is queued, or the kernel has work for this thread.
    pub(super) fn needs_enter(&mut self) -> bool {
        let submission = self.ring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    /// Returns whether the kernel has completions for this thread that it will post with the next enter.
    pub(super) fn is_announced(&mut self) -> bool {
        self.ring.submission().taskrun()
    }

    pub(super) fn has_overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Submits queued requests and, if asked, waits for a completion.
    ///
    /// A wait that ended early (time, a signal, a full completion ring) is not an error: the caller reaps and
    /// looks again.
    pub(super) fn enter(&mut self, wait: Wait) -> Result<(), Fault> {
        let entered = match wait {
            Wait::No if self.is_hosted => self.submit_unheard(),
            Wait::No => self.submit(),
            Wait::AtMost(limit) => self.enter_for(1, limit),
            Wait::UntilDeadline(limit) => self.enter_for(1, Some(limit)),
            Wait::Moderated { least, most } => self.enter_moderated(least, most),
        };
        let errno = match entered {
            Ok(()) => None,
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME) => None,
                Some(errno @ (libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Some(errno),
                errno => return Err(Fault::Enter(errno.unwrap_or(libc::EIO))),
            },
        };
        match errno {
            Some(errno) if self.ring.completion().is_empty() => self.refused(errno),
            _ => {
                self.fruitless = Fruitless::default();
                Ok(())
            }
        }
    }

    /// Handles a refusal: the kernel has done nothing and says that it may do so later, because of a signal
    /// or a shortage of memory. A system call filter, however, can refuse for ever.
    fn refused(&mut self, errno: i32) -> Result<(), Fault> {
        if !self.fruitless.count_refusal() {
            return Ok(()); // a signal
        }
        // An enter that does not wait: no signal ends it, and queued requests are taken if there is memory.
        if self.submit().is_ok() {
            self.fruitless = Fruitless::default();
            return Ok(());
        }
        match self.fruitless.pause(self.is_hosted) {
            Some(pause) => {
                std::thread::sleep(pause);
                Ok(())
            }
            None => Err(Fault::Enter(errno)),
        }
    }

    /// Submits without being signalled for requests that complete in this very call: the caller reaps them.
    ///
    /// Completions posted between the two changes of the flag signal nothing. The reap that follows sees
    /// them, but work that is only announced (`SQ_TASKRUN`) must be looked for once more after it.
    fn submit_unheard(&mut self) -> io::Result<()> {
        self.ring.completion().disable_eventfd();
        let entered = self.submit();
        self.ring.completion().enable_eventfd();
        // The flag is cleared before that look: the kernel reads the flag after it has announced its work.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        entered
    }

    fn submit(&mut self) -> io::Result<()> {
        self.enter_ring(0, None)
    }

    /// Waits for `want` completions, for at most `limit`.
    fn enter_for(&mut self, want: u32, limit: Option<Duration>) -> io::Result<()> {
        let Some(limit) = limit else { return self.enter_ring(want, None) };
        let timespec = Timespec::from(limit);
        self.enter_ring(want, Some(&SubmitArgs::new().timespec(&timespec)))
    }

    /// Makes the system call: submits queued requests and waits for `want` completions.
    fn enter_ring(&mut self, want: u32, arg: Option<&SubmitArgs<'_, '_>>) -> io::Result<()> {
        let submission = self.ring.submission();
        let queued = submission.len() as u32;
        // The kernel posts deferred completions only if it is asked for events.
        let is_asking = want > 0 || submission.taskrun() || submission.cq_overflow();
        drop(submission); // from here on the kernel sees the tail
        let mut flags = EnterFlags::empty();
        flags.set(EnterFlags::GETEVENTS, is_asking);
        flags.set(EnterFlags::EXT_ARG, arg.is_some());
        flags.set(EnterFlags::REGISTERED_RING, self.registered.is_some());
        // Waiting for packets is not waiting for a disk, but would count as such in the load and in PSI
        // (6.15).
        let is_idle = want > 0 && self.features.contains(IoUringFeatures::NO_IO_WAIT);
        flags.set(EnterFlags::NO_IOWAIT, is_idle);
        let ring = self.registered.map_or(self.ring.as_raw_fd(), |index| index as i32);
        let len = arg.map_or(0, |_| size_of::<SubmitArgs<'_, '_>>());
        let arg = arg.map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the flags announce an argument of this layout and length if there is one; it and its
        // timespec live until the call returns. Queued requests are sound, as `push` says.
        let result = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, ring, queued, want, flags.bits(), arg, len)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits in one enter: asks for more completions than will arrive and waits `least` for them; after that,
    /// one completion is enough, until `most` (6.12).
    fn enter_moderated(&mut self, least: Duration, most: Option<Duration>) -> io::Result<()> {
        let many = self.ring.params().cq_entries();
        if !self.features.contains(IoUringFeatures::LEAST_WAITS) {
            return self.enter_twice(many, least, most);
        }
        // Without a general timeout the kernel ends the wait after the minimum time, with or without events
        // (`io_cqring_min_timer_wakeup`, io_uring/io_uring.c).
        let timespec = Timespec::from(most.unwrap_or(LONG));
        // Rounded up: with 0 the kernel would wait for all requested completions.
        let min_wait = u32::try_from(least.as_micros() + 1).unwrap_or(u32::MAX);
        self.enter_ring(many, Some(&SubmitArgs::new().min_wait_usec(min_wait).timespec(&timespec)))
    }

    /// Does the same on kernels before 6.12: waits for more completions than will arrive and, if there were
    /// none, waits for the first.
    fn enter_twice(
        &mut self,
        many: u32,
        least: Duration,
        most: Option<Duration>,
    ) -> io::Result<()> {
        match self.enter_for(many, Some(least)) {
            Err(error) if error.raw_os_error() != Some(libc::ETIME) => Err(error),
            _ if !self.ring.completion().is_empty() => Ok(()),
            _ => self.enter_for(1, most.map(|most| most.saturating_sub(least))),
        }
    }

    /// Returns the completions available now.
    pub(super) fn reap(&mut self) -> impl Iterator<Item = Completion> {
        self.ring.completion().map(|entry| Completion {
            answered: Answered::from_user_data(entry.user_data()),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
        })
    }

    /// Returns whether this process is a forked child, which does not own the ring.
    pub(super) fn is_foreign(&self) -> bool {
        self.forks != fork::generation()
    }

    /// Closes the ring: the kernel cancels pending requests and releases the ring in its own time.
    pub(super) fn close(mut self) {
        if !self.is_foreign() {
            if let Some(index) = self.registered
                && let Err(error) = unregister(self.ring.as_raw_fd(), index)
            {
                warning::ring_is_kept(&error);
            }
            // SAFETY: `self` is consumed, so the ring is not used any more.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
            // SAFETY: neither is the box, which no request of a closed ring refers to: the kernel has copied
            // it.
            unsafe { ManuallyDrop::drop(&mut self.ring_timer) };
        }
        // A child leaks the ring: it did not inherit the mapping, and another mapping may have its address
        // now.
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("forks", &self.forks).finish_non_exhaustive()
    }
}

/// Registers a ring's descriptor with this thread, which must be the only one to enter it. Returns `None` if
/// the kernel does not support that, or if the thread already has the maximum number.
fn register(ring: RawFd) -> Option<u32> {
    let mut update = RingFd { index: u32::MAX, resv: 0, fd: ring as u64 };
    // SAFETY: the update is readable and writable; the kernel writes the index it has found.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_RING_FDS, &raw mut update, 1)
    };
    (done == 1).then_some(update.index)
}

/// Unregisters a ring from the thread, which would otherwise keep it open until the thread ends.
fn unregister(ring: RawFd, index: u32) -> io::Result<()> {
    let update = RingFd { index, resv: 0, fd: 0 };
    // SAFETY: the update is readable.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring, UNREGISTER_RING_FDS, &raw const update, 1)
    };
    if done == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens a ring that signals `event`, if given, and returns whether it is restricted. Where that is refused, such as by a
/// seccomp profile without io_uring_register, the ring is an ordinary one.
fn open(options: &ReactorOptions, work: Work, event: Option<RawFd>) -> io::Result<(IoUring, bool)> {
    let new = |restricts: bool| {
        let is_disabled = restricts; // so that it can be restricted first
        let build = || build(options, work, is_disabled);
        let ring = memlock_retry::patiently(libc::ENOMEM, build)?;
        if let Some(event) = event {
            ring.submitter().register_eventfd(event)?;
        }
        if restricts {
            restrict(&ring)?;
            ring.submitter().register_enable_rings()?;
        }
        Ok((ring, restricts))
    };
    let restricts = options.allowed().contains(IoUringFeatures::RESTRICTED);
    if restricts && let Ok(restricted) = new(true) { Ok(restricted) } else { new(false) }
}

/// Makes a ring that is still disabled refuse everything but what this file requests of it.
fn restrict(ring: &IoUring) -> io::Result<()> {
    let requests = [
        opcode::PollAdd::CODE,
        opcode::Send::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Timeout::CODE,
        opcode::TimeoutUpdate::CODE,
        #[cfg(feature = "record")]
        opcode::Write::CODE,
        #[cfg(feature = "record")]
        opcode::Fallocate::CODE,
        #[cfg(feature = "record")]
        opcode::Fsync::CODE,
        #[cfg(feature = "record")]
        opcode::OpenAt::CODE,
        #[cfg(feature = "record")]
        opcode::UnlinkAt::CODE,
        #[cfg(feature = "record")]
        opcode::Close::CODE,
    ];
    let registrations = [REGISTER_RING_FDS, UNREGISTER_RING_FDS].map(|op| op as u8);
    let mut allowed: Vec<_> = requests.map(Restriction::sqe_op).into_iter().collect();
    allowed.push(Restriction::sqe_flags_allowed(squeue::Flags::SKIP_SUCCESS.bits()));
    let requests = allowed.len();
    allowed.extend(registrations.map(Restriction::register_op));
    let submitter = ring.submitter();
    // Before Linux 5.18, those registrations do not exist, and are no restriction.
    submitter.register_restrictions(&mut allowed).or_else(|error| {
        let is_unknown = error.raw_os_error() == Some(libc::EINVAL);
        match is_unknown {
            true => submitter.register_restrictions(&mut allowed[..requests]),
            false => Err(error),
        }
    })
}

fn build(options: &ReactorOptions, work: Work, is_disabled: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_cqsize(options.cq_size());
    if is_disabled {
        builder.setup_r_disabled();
    }
    match work {
        Work::Deferred => {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            builder.setup_submit_all();
        }
        Work::Cooperative => {
            builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
        }
        Work::Interrupting => {}
    }
    builder.build(options.sq_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a ring answers to a request that does nothing, which no reactor makes.
    fn answer_to_nop(options: &ReactorOptions) -> io::Result<(IoUringFeatures, i32)> {
        let mut uring = Uring::with(options, Work::Interrupting, None)?;
        uring.push(&opcode::Nop::new().build().user_data(7));
        uring.ring.submit_and_wait(1)?;
        let answer = uring.ring.completion().next().map(|entry| entry.result());
        Ok((uring.features(), answer.unwrap_or(i32::MIN)))
    }

    #[test]
    #[cfg_attr(miri, ignore = "no system calls")]
    fn a_ring_refuses_what_no_reactor_asks_for() {
        let options = ReactorOptions::new();
        let (features, answer) = match answer_to_nop(&options) {
            Ok(answered) => answered,
            Err(error) => return eprintln!("NOT RUN: no io_uring here: {error}"),
        };
        assert!(features.contains(IoUringFeatures::RESTRICTED));
        assert_eq!(answer, -libc::EACCES);
        let (features, answer) =
            answer_to_nop(&options.without(IoUringFeatures::RESTRICTED)).unwrap();
        assert!(!features.contains(IoUringFeatures::RESTRICTED));
        assert_eq!(answer, 0, "the control: an ordinary ring does it");
    }
}
