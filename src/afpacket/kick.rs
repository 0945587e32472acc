//! Kicks, and what they come to: the ring says how far the kernel got, an errno only why not further.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::injector::Injector;
use crate::error::{Error, Result, Step};
use crate::packet::Offload;
use crate::ring::slot::Progress;
use crate::sys::packet_socket;
use crate::wait::{KickOutcome, Stall};

/// How long a frame may block others if it is probably refused for what it is: it has an offload, or is at least as long
/// as a refused one.
const HOPELESS: Duration = Duration::from_millis(100);
/// How much longer one may where frames before it are still under way: the queue may be that slow.
const UNDER_WAY: u32 = 10;
/// How long a length is remembered that was refused.
const REMEMBERED: Duration = Duration::from_secs(10);

/// For how long the frame at the head was not taken, and what that says of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadPatience {
    /// How long a frame may keep others from being sent.
    most: Duration,
    /// How long the frame at the head was asked for in vain, and when it was last.
    stuck: Option<(Duration, Instant)>,
    /// Progress at the last look; other looks at the ring in between are not missed.
    last: Progress,
    /// Length of the frame just given up. It was at fault if the next one is taken at once.
    suspect: Option<usize>,
    /// The least length that was refused for what it is, and when.
    hopeless: Option<(usize, Instant)>,
}

/// Of the time between two kicks, so much counts: nobody asked in the rest of it.
const COUNTED: Duration = Duration::from_millis(50);

impl HeadPatience {
    pub(super) fn new(most: Duration) -> Self {
        let last = Progress::default();
        Self { most, stuck: None, last, suspect: None, hopeless: None }
    }

    /// Another frame is at the head now, or the queue was not what kept it there.
    fn forget(&mut self) {
        (self.stuck, self.suspect) = (None, None);
    }

    /// Notes how far the kernel has come: whether it took a frame.
    fn look(&mut self, progress: Progress) -> bool {
        let last = std::mem::replace(&mut self.last, progress);
        if progress != last {
            self.stuck = None; // it took one, or one of those under way was sent: the queue drains
        }
        if progress.handed == last.handed {
            return false;
        }
        if let Some(len) = self.suspect.take() {
            let least = self.hopeless_from().map_or(len, |known| known.min(len));
            self.hopeless = Some((least, Instant::now()));
        }
        true
    }

    /// The least length that was refused for what it is, not long ago.
    fn hopeless_from(&self) -> Option<usize> {
        self.hopeless.filter(|(_, when)| when.elapsed() < REMEMBERED).map(|(least, _)| least)
    }

    /// Whether a frame of this length has blocked the ring for too long, with `under_way` frames before it.
    fn note_refusal(&mut self, len: usize, has_offload: bool, under_way: usize) -> bool {
        self.suspect = None; // the frame behind it did not go either: the queue is full
        let now = Instant::now();
        let waited = self.stuck.map_or(Duration::ZERO, |(waited, asked)| {
            waited + now.duration_since(asked).min(COUNTED)
        });
        self.stuck = Some((waited, now));
        let is_known = self.hopeless_from().is_some_and(|least| len >= least);
        let most = match under_way {
            _ if has_offload || is_known => HOPELESS.min(self.most),
            0 => self.most,
            _ => self.most.saturating_mul(UNDER_WAY),
        };
        waited > most
    }

    /// The frame was given up; what that says of its length shows if there is one behind it.
    fn gave_up(&mut self, suspect: Option<usize>) {
        (self.stuck, self.suspect) = (None, suspect);
    }
}

impl Injector {
    /// One kick, if there is anything to hand over, and what it came to.
    pub(crate) fn kick(&mut self) -> Result<KickOutcome> {
        self.ring.look();
        if self.ring.pending() == 0 {
            return Ok(KickOutcome { stall: Stall::Done, has_progressed: false });
        }
        let answer = packet_socket::kick(self.socket.as_fd());
        self.judge(answer)
    }

    /// What a kick came to: the ring says how far the kernel got, `answer` only why not further.
    pub(crate) fn judge(&mut self, answer: io::Result<()>) -> Result<KickOutcome> {
        self.stats.kicks += 1;
        let (before, refused) = (self.ring.pending(), self.ring.refused());
        self.ring.look();
        if self.ring.refused() > refused {
            self.learn_mtu();
            self.patience.forget();
        }
        let has_given_up = self.gave_up(&answer, before);
        let mut has_progressed = has_given_up || self.ring.pending() < before;
        let mut stall = match self.ring.pending() {
            0 => Stall::Done,
            _ => self.stall_of(answer, has_progressed)?,
        };
        if stall == Stall::Link && self.drops_when_down {
            self.ring.discard();
            self.patience.forget();
            (stall, has_progressed) = (Stall::Done, true);
        }
        self.share_stats();
        Ok(KickOutcome { stall, has_progressed })
    }

    /// Whether the frame at the head was just refused, because the kernel would not take it for too long, or ever.
    ///
    /// One that the interface cannot split, that is not what its offload says (`__dev_direct_xmit` and
    /// `__dev_queue_xmit`, net/core/dev.c), or that the driver drops (veth, where the far end's MTU is smaller) is
    /// answered like a full queue, each time anew, and stays at the head (`tpacket_snd`, net/packet/af_packet.c). Some kernels
    /// (6.12.117) say EINVAL of one that is not what its offload says, and leave it there too.
    fn gave_up(&mut self, answer: &io::Result<()>, before: usize) -> bool {
        let errno = answer.as_ref().map_err(io::Error::raw_os_error).err().flatten();
        if self.patience.look(self.ring.progress()) || self.ring.pending() < before {
            return false;
        }
        let head = self.ring.head(Offload::LEN).and_then(|head| head.first_chunk());
        let has_offload = self.has_offloads && head.is_some_and(|&head| !is_plain(head));
        if has_offload && errno == Some(libc::EINVAL) {
            self.ring.refuse_head();
            self.patience.forget();
            return true;
        }
        let is_full = matches!(errno, Some(libc::ENOBUFS | libc::ENOMEM));
        let Some(len) = self.ring.head_len().filter(|_| is_full) else {
            self.patience.forget();
            return false;
        };
        let under_way = self.ring.in_use() - self.ring.pending();
        let is_over = self.patience.note_refusal(len, has_offload, under_way);
        if is_over {
            self.ring.refuse_head();
            let is_telling = !has_offload && self.ring.pending() > 0;
            self.patience.gave_up(is_telling.then_some(len));
        }
        is_over
    }

    /// Why frames are left.
    fn stall_of(&mut self, answer: io::Result<()>, has_progressed: bool) -> Result<Stall> {
        let Err(error) = answer else {
            return Ok(if has_progressed { Stall::Again } else { Stall::Buffer });
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => {
                self.stats.buffer_full += 1;
                Ok(Stall::Buffer)
            }
            Some(libc::ENOBUFS | libc::ENOMEM) => {
                self.stats.queue_full += 1;
                Ok(Stall::Queue)
            }
            Some(libc::ENETDOWN) => Ok(Stall::Link),
            Some(libc::ENXIO | libc::ENODEV) => {
                Err(Error::InterfaceGone { name: self.name.clone() })
            }
            // Frames were refused, and taken out of the line.
            _ if has_progressed => Ok(Stall::Again),
            _ => Err(Error::os(Step::Kick, error).of(&self.name)),
        }
    }
}

/// Whether an offload's header asks for nothing.
fn is_plain(header: [u8; Offload::LEN]) -> bool {
    Offload::read(&header) == Offload::NONE
}
