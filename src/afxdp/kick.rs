//! Kicks, and what they come to: the rings say how far the kernel got, an errno only why not further.

use std::io;
use std::time::Instant;

use super::sender::XdpSender;
use crate::error::{Error, Result, Step};
use crate::sys::packet_socket;
use crate::wait::{Backoff, KickOutcome, Stall};

impl XdpSender {
    /// One kick, if there is anything to hand over, and what it came to.
    pub(crate) fn kick(&mut self) -> Result<KickOutcome> {
        if self.tx.outstanding() == 0 {
            let has_progressed = self.reclaim() > 0;
            return Ok(KickOutcome { stall: Stall::Done, has_progressed });
        }
        let is_awake = self.options.is_told_to_kick && !self.tx.ring().needs_wakeup();
        if is_awake {
            return self.judge(Ok(()));
        }
        let answer = packet_socket::kick(self.bound.fd());
        self.count_kick();
        self.judge(answer)
    }

    pub(crate) fn count_kick(&self) {
        self.bound.figures.kicks.add(1);
    }

    /// What a kick came to: the rings say how far the kernel got, `answer` only why not further.
    pub(crate) fn judge(&mut self, answer: io::Result<()>) -> Result<KickOutcome> {
        let before = self.tx.known_outstanding();
        let left = self.tx.outstanding();
        let has_moved = left < before;
        let mut has_progressed = (self.reclaim() > 0) | has_moved;
        let errno = answer.as_ref().map_err(io::Error::raw_os_error).err().flatten();
        if errno == Some(libc::EBUSY) {
            // Completed, and not sent: too long for the far end, or no carrier (`xsk_generic_xmit`).
            self.bound.figures.send_failed.add(1);
            has_progressed = true;
        }
        let stall = match (left, errno) {
            (0, _) => Stall::Done,
            (_, Some(libc::ENETDOWN)) => Stall::Link,
            (_, None | Some(libc::EAGAIN | libc::EINTR | libc::EBUSY)) if has_progressed => {
                Stall::Again
            }
            (_, None | Some(libc::EAGAIN | libc::EINTR | libc::EBUSY)) => Stall::Buffer,
            (_, Some(libc::ENOBUFS | libc::ENOMEM)) => Stall::Queue,
            _ if has_moved => Stall::Again,
            (_, Some(errno)) => {
                self.bound.check_link()?; // ENXIO is said of an interface that is gone, and by some drivers
                let wants_program = matches!(errno, libc::EINVAL | libc::ENXIO)
                    && self.bound.is_zerocopy
                    && self.bound.program.is_none();
                let step = if wants_program { Step::KickWithoutProgram } else { Step::Kick };
                return Err(self.bound.failed(step, io::Error::from_raw_os_error(errno)));
            }
        };
        Ok(KickOutcome { stall, has_progressed })
    }

    /// Kicks and waits until `is_so`: whether it is, in time.
    pub(super) fn press(
        &mut self,
        is_so: impl Fn(&mut Self) -> bool,
        deadline: Option<Instant>,
    ) -> Result<bool> {
        let mut backoff = Backoff::new();
        while !is_so(self) {
            let KickOutcome { stall, has_progressed } = self.kick()?;
            if has_progressed {
                backoff = Backoff::new();
            }
            if is_so(self) {
                break;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            match stall {
                Stall::Link => return Err(Error::LinkDown { name: self.bound.name.clone() }),
                Stall::Again => {}
                // Nothing reports a completion.
                Stall::Done | Stall::Buffer | Stall::Queue => backoff.sleep(),
            }
        }
        Ok(true)
    }
}
