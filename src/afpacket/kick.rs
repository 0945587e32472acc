//! Kicks, and what they come to: the ring says how far the kernel got, an errno only why not further.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::injector::Injector;
use crate::packet::Offload;
use crate::sys::packet_socket;
use crate::wait::{Judged, Stall};
use crate::{Error, Result, Step};

/// How long a frame with an offload may keep others from being sent.
const HOPELESS: Duration = Duration::from_millis(100);

impl Injector {
    /// One kick, if there is anything to hand over, and what it came to.
    pub(crate) fn kick(&mut self) -> Result<Judged> {
        self.ring.look();
        if self.ring.pending() == 0 {
            return Ok(Judged { stall: Stall::Done, has_progressed: false });
        }
        let answer = packet_socket::kick(self.socket.as_fd());
        self.judge(answer)
    }

    /// What a kick came to: the ring says how far the kernel got, `answer` only why not further.
    pub(crate) fn judge(&mut self, answer: io::Result<()>) -> Result<Judged> {
        self.stats.kicks += 1;
        let (before, refused) = (self.ring.pending(), self.ring.refused());
        self.ring.look();
        if self.ring.refused() > refused {
            self.learn_mtu();
        }
        let has_progressed = self.ring.pending() < before || self.gave_up(&answer, before);
        let stall = match self.ring.pending() {
            0 => Stall::Done,
            _ => self.stall_of(answer, has_progressed)?,
        };
        Ok(Judged { stall, has_progressed })
    }

    /// Whether the frame at the head was just refused, because the kernel would not take it for too long.
    ///
    /// One that the interface cannot split, or that is not what its offload says, is answered like a full
    /// queue, each time anew (`__dev_direct_xmit` and `__dev_queue_xmit`, net/core/dev.c).
    fn gave_up(&mut self, answer: &io::Result<()>, before: usize) -> bool {
        let is_full = matches!(
            answer.as_ref().map_err(io::Error::raw_os_error),
            Err(Some(libc::ENOBUFS | libc::ENOMEM))
        );
        let head = self.ring.head(Offload::LEN).and_then(|head| head.first_chunk());
        let has_offload = self.has_offloads && head.is_some_and(|&head| !is_plain(head));
        if !is_full || !has_offload || self.ring.pending() < before {
            self.stuck_since = None;
            return false;
        }
        let since = *self.stuck_since.get_or_insert_with(Instant::now);
        let is_hopeless = since.elapsed() > HOPELESS;
        if is_hopeless {
            self.stuck_since = None;
            self.ring.refuse_head();
        }
        is_hopeless
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
