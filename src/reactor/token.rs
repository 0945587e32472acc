//! The token that names an op: its slot and the slot's generation, packed into an io_uring `user_data`.

/// Names an op. The token of an op that has ended names nothing, since its generation is past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    slot: u32,
    generation: u32,
}

/// The request that a completion answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The op itself.
    Op(Token),
    /// The request to cancel the op.
    Cancel(Token),
    /// The ring's timer.
    RingTimer,
    /// The request to make the timer go off earlier.
    RingTimerUpdate,
}

const CANCEL: u64 = 1 << 63;
/// Values that no slot has.
const RING_TIMER: u64 = u64::MAX;
const RING_TIMER_UPDATE: u64 = u64::MAX - 1;
/// Generations wrap at 31 bits; the top bit of `user_data` distinguishes cancels from ops.
const GENERATIONS: u32 = (1 << 31) - 1;

impl Token {
    pub(super) fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation: generation & GENERATIONS }
    }

    pub(super) fn slot(self) -> usize {
        self.slot as usize
    }

    pub(super) fn generation(self) -> u32 {
        self.generation
    }

    /// Returns the generation after this one.
    pub(super) fn next_generation(self) -> u32 {
        (self.generation + 1) & GENERATIONS
    }
}

impl Answered {
    pub(super) fn to_user_data(self) -> u64 {
        let (token, flag) = match self {
            Self::Op(token) => (token, 0),
            Self::Cancel(token) => (token, CANCEL),
            Self::RingTimer => return RING_TIMER,
            Self::RingTimerUpdate => return RING_TIMER_UPDATE,
        };
        flag | u64::from(token.generation) << 32 | u64::from(token.slot)
    }

    pub(super) fn from_user_data(data: u64) -> Self {
        match data {
            RING_TIMER => return Self::RingTimer,
            RING_TIMER_UPDATE => return Self::RingTimerUpdate,
            _ => {}
        }
        let token = Token::new(data as u32, (data >> 32) as u32);
        if data & CANCEL == 0 { Self::Op(token) } else { Self::Cancel(token) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_says_which_op_and_whether_it_is_the_cancel() {
        for generation in [0, 1, GENERATIONS] {
            for slot in [0, 7, 1 << 16] {
                let token = Token::new(slot, generation);
                for answered in [Answered::Op(token), Answered::Cancel(token)] {
                    assert_eq!(Answered::from_user_data(answered.to_user_data()), answered);
                }
            }
        }
    }

    #[test]
    fn the_timer_is_nobodys_op() {
        for answered in [Answered::RingTimer, Answered::RingTimerUpdate] {
            assert_eq!(Answered::from_user_data(answered.to_user_data()), answered);
        }
    }

    #[test]
    fn generations_wrap_without_reaching_the_cancel_bit() {
        let last = Token::new(3, GENERATIONS);
        assert_eq!(last.next_generation(), 0);
        assert_eq!(Token::new(3, u32::MAX).generation(), GENERATIONS);
    }
}
