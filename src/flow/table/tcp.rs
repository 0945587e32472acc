//! The state of a TCP connection, each direction by itself.

use flowscope::{EndReason, FlowState};

use super::entry::{Entry, flag};
use crate::packet::TcpHeader;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Bytes that a side may have sent before its SYN comes once more.
const LATE: u64 = 1 << 20;

/// What a segment did to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Effect {
    /// The handshake is complete with it.
    pub(super) is_established: bool,
    /// The connection has ended with it, and nothing more of it can be under way.
    pub(super) end: Option<EndReason>,
    /// The connection ends sooner than before, if nothing more comes.
    pub(super) is_ending: bool,
}

/// Whether a segment is the answer to a SYN.
#[inline]
pub(super) fn is_answer(header: &TcpHeader) -> bool {
    header.flags & (SYN | ACK) == SYN | ACK
}

impl<K> Entry<K> {
    /// Whether a segment opens another connection between the same ports: a SYN whose number is not that of this
    /// connection's SYN.
    #[inline]
    pub(super) fn is_another(&self, side: usize, header: &TcpHeader) -> bool {
        header.flags & (SYN | RST) == SYN && self.is_other_syn(side, header)
    }

    #[cold]
    fn is_other_syn(&self, side: usize, header: &TcpHeader) -> bool {
        let is_closed = self.has(flag::CLOSED);
        if header.flags & ACK != 0 && !is_closed {
            return false;
        }
        if !self.has(flag::SEEN << side) {
            // It was lost or overtaken, unless all is over.
            return is_closed;
        }
        // As many bytes may be between its number and the last one as were sent since, for a SYN that comes late. Numbers of
        // new connections are ahead of those of fast uploads, too.
        let since = self.next[side].wrapping_sub(header.seq.wrapping_add(1));
        u64::from(since) > self.octets[side].min(LATE)
    }

    /// Takes in a segment of a side with `len` bytes of payload.
    #[inline]
    pub(super) fn segment(&mut self, side: usize, header: &TcpHeader, len: u32) -> Effect {
        let before = self.flags;
        let is_plain = header.flags & (SYN | FIN | RST) == 0;
        let extent = len + u32::from(header.flags & SYN != 0) + u32::from(header.flags & FIN != 0);
        let end = header.seq.wrapping_add(extent);
        let is_known = before & (flag::SEEN << side) != 0;
        let ahead = end.wrapping_sub(self.next[side]) as i32;
        if !is_known || ahead > 0 {
            self.next[side] = end;
            self.flags |= flag::SEEN << side;
        }
        let is_again = is_known && len > 0 && ahead <= 0;
        let is_responder = side == 1;
        if len > 0 {
            self.history.note(if is_again { b't' } else { b'd' }, is_responder);
        } else if is_plain {
            self.history.note(b'a', is_responder);
        }
        if header.window == 0 && header.flags & RST == 0 {
            self.history.note(b'w', is_responder);
        }
        let is_settled = flag::ESTABLISHED;
        if is_plain
            && before & (is_settled | ((flag::FIN | flag::RESET) * flag::BOTH)) == is_settled
        {
            return Effect::default();
        }
        self.change(side, header, before)
    }

    /// The opening and the end of a connection.
    #[cold]
    fn change(&mut self, side: usize, header: &TcpHeader, before: u16) -> Effect {
        let (other, is_responder) = (1 - side, side == 1);
        let [fin, syn, rst, ack] = [FIN, SYN, RST, ACK].map(|bit| header.flags & bit != 0);
        if syn && (fin || rst) {
            self.history.note(b'q', is_responder);
        } else if syn {
            self.history.note(if ack { b'h' } else { b's' }, is_responder);
        }
        if syn {
            self.flags |= flag::SYN << side;
        }
        if fin {
            self.history.note(b'f', is_responder);
            self.flags |= flag::FIN << side;
        }
        if rst {
            self.history.note(b'r', is_responder);
            self.flags |= flag::RESET << side;
        }
        let has_fin = self.has(flag::FIN << other);
        if ack && has_fin && header.ack == self.next[other] {
            self.flags |= flag::ACKED << other;
        }
        // One of the two SYNs may be missing: it came before the capture began, or was lost to it.
        let is_open = side == 0
            && ack
            && !(syn || rst)
            && self.have_both(flag::SEEN)
            && self.has(flag::SYN * flag::BOTH);
        if is_open {
            self.flags |= flag::ESTABLISHED;
        }
        self.state = self.state_now();
        let changed = self.flags & !before;
        Effect {
            is_established: changed & flag::ESTABLISHED != 0,
            end: self.end_now(rst),
            is_ending: changed & ((flag::FIN | flag::ACKED | flag::RESET) * flag::BOTH) != 0,
        }
    }

    fn end_now(&self, is_reset: bool) -> Option<EndReason> {
        // After a reset of an open connection, what the other side has sent meanwhile may still come, and more resets
        // for each of its segments.
        let was_open = self.have_both(flag::SEEN) && !self.is_opening();
        (is_reset && !was_open).then_some(EndReason::Rst)
    }

    fn state_now(&self) -> FlowState {
        if self.has(flag::RESET * flag::BOTH) {
            FlowState::Reset
        } else if self.have_both(flag::ACKED) {
            FlowState::Closed
        } else if self.have_both(flag::FIN) {
            FlowState::ClosingTcp
        } else if self.has(flag::FIN * flag::BOTH) {
            FlowState::FinWait
        } else if self.has(flag::ESTABLISHED) {
            FlowState::Established
        } else if self.have_both(flag::SYN) {
            FlowState::SynReceived
        } else if self.has(flag::SYN * flag::BOTH) {
            FlowState::SynSent
        } else {
            FlowState::Active
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection, and what each segment does to it: side, flags, sequence number, acknowledgement, length.
    fn run(segments: &[(usize, &str, u32, u32, u32)]) -> (Entry<u8>, Vec<Effect>) {
        let mut entry = Entry::new(1, Some(flowscope::L4Proto::Tcp), false, 0);
        let each = |&(side, text, seq, ack, len): &(usize, &str, u32, u32, u32)| {
            let flags = text.chars().map(|flag| match flag {
                'S' => SYN,
                'F' => FIN,
                'R' => RST,
                _ => ACK,
            });
            let header = TcpHeader { seq, ack, window: 1, flags: flags.sum() };
            entry.octets[side] += u64::from(len) + 40;
            entry.segment(side, &header, len)
        };
        let effects = segments.iter().map(each).collect();
        (entry, effects)
    }

    const OPENED: [(usize, &str, u32, u32, u32); 3] =
        [(0, "S", 99, 0, 0), (1, "SA", 499, 100, 0), (0, "A", 100, 500, 0)];

    fn after(more: &[(usize, &str, u32, u32, u32)]) -> (Entry<u8>, Vec<Effect>) {
        run(&[&OPENED, more].concat())
    }

    #[test]
    fn a_connection_is_opened_and_closed_by_both_sides() {
        let (entry, effects) = after(&[
            (0, "A", 100, 500, 10),
            (1, "A", 500, 110, 0),
            (1, "FA", 500, 110, 0),
            (0, "FA", 110, 501, 0),
            (1, "A", 501, 111, 0),
        ]);
        let established: Vec<_> = effects.iter().map(|effect| effect.is_established).collect();
        assert_eq!(established[..4], [false, false, true, false]);
        assert!(effects.iter().all(|effect| effect.end.is_none()) && entry.is_closing());
        assert_eq!(
            (entry.history.to_string(), entry.state),
            ("ShADafF".to_owned(), FlowState::Closed)
        );
    }

    #[test]
    fn a_fin_said_twice_closes_one_direction_and_data_goes_on() {
        let (entry, effects) = after(&[
            (1, "FA", 500, 100, 0),
            (1, "FA", 500, 100, 0),
            (0, "A", 100, 501, 100),
            (1, "A", 501, 200, 0),
            (0, "A", 200, 501, 100),
        ]);
        assert!(effects.iter().all(|effect| effect.end.is_none()));
        assert_eq!(entry.state, FlowState::FinWait);
    }

    #[test]
    fn data_behind_the_other_sides_reset_is_still_the_connections() {
        let (entry, effects) = after(&[(0, "R", 100, 0, 0), (1, "A", 500, 100, 50)]);
        assert!(effects.iter().all(|effect| effect.end.is_none()) && effects[3].is_ending);
        assert_eq!(
            (entry.reason(), entry.history.to_string()),
            (EndReason::Rst, "ShARd".to_owned())
        );
        // Nobody waits for a connection that was refused.
        let (_, refused) = run(&[(0, "S", 99, 0, 0), (1, "RA", 0, 100, 0)]);
        assert_eq!(refused[1].end, Some(EndReason::Rst));
        // Resets answer each segment that comes behind a FIN.
        let (entry, both) = after(&[(1, "FA", 500, 100, 0), (0, "R", 100, 0, 0)]);
        assert!(both[4].end.is_none() && entry.is_closing());
        // Of this one, the capture has the answer to the SYN only.
        let opened = [(1, "SA", 499, 100, 0), (0, "A", 100, 500, 5), (1, "R", 500, 0, 0)];
        let (_, effects) = run(&opened);
        assert!(effects[1].is_established && effects[2].end.is_none());
    }

    #[test]
    fn a_connection_is_established_though_one_of_its_syns_was_not_captured() {
        let (entry, effects) = run(&[
            (0, "S", 99, 0, 0),
            (0, "A", 100, 500, 5),
            (1, "A", 500, 105, 9),
            (0, "A", 105, 509, 0),
        ]);
        assert!(effects[3].is_established && !entry.is_opening());
        assert_eq!(entry.state, FlowState::Established);
        // Of which only one side was captured, nobody knows it.
        let (entry, _) = run(&[(0, "S", 99, 0, 0), (0, "A", 100, 500, 5), (0, "A", 105, 509, 0)]);
        assert_eq!(entry.state, FlowState::SynSent);
    }

    #[test]
    fn a_syn_ahead_of_a_fast_upload_is_of_another_connection() {
        let (mut entry, _) = after(&[(0, "A", 100, 500, 1000)]);
        (entry.next[0], entry.octets[0]) = (210_000_100, 215_000_000);
        let syn = |seq| TcpHeader { seq, ack: 0, window: 1, flags: SYN };
        assert!(entry.is_another(0, &syn(100_000_099)));
    }

    #[test]
    fn a_syn_with_a_number_of_its_own_is_of_another_connection() {
        let (entry, _) = after(&[(0, "A", 100, 500, 1000)]);
        let syn = |seq| TcpHeader { seq, ack: 0, window: 1, flags: SYN };
        assert!(!entry.is_another(0, &syn(99)), "sent again, or late");
        for seq in [98_u32.wrapping_sub(1000), 5_000, 99 + (1 << 31)] {
            assert!(entry.is_another(0, &syn(seq)), "{seq}");
        }
        assert!(!entry.is_another(0, &TcpHeader { flags: SYN | ACK, ..syn(5_000) }));
        let (reordered, _) = run(&[(1, "SA", 499, 100, 0)]);
        assert!(!reordered.is_another(0, &syn(99)), "overtaken by its answer");
    }
}
