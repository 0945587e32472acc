//! Requests for the next enter.

use std::collections::VecDeque;

use super::token::Token;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Arm(Token),
    Cancel(Token),
}

impl Request {
    pub(super) fn token(self) -> Token {
        match self {
            Self::Arm(token) | Self::Cancel(token) => token,
        }
    }
}

/// The queued requests: at most an arm and a cancel for each op, and those of ops that were freed since. The
/// latter are skipped when they are pushed, and swept out before they are most of the queue: to look for them
/// at each free would make the end of many sockets quadratic.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    requests: VecDeque<Request>,
    /// Requests that were looked at, for the test of growth.
    #[cfg(test)]
    steps: usize,
}

/// A number of requests of freed ops that is not worth a sweep.
const SLACK: usize = 16;

impl Backlog {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let mut backlog = Self::default();
        backlog.requests.reserve(capacity);
        backlog
    }

    pub(super) fn push(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn front(&self) -> Option<Request> {
        self.requests.front().copied()
    }

    pub(super) fn pop(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.requests.clear();
    }

    pub(super) fn retain(&mut self, mut is_meant: impl FnMut(Request) -> bool) {
        #[cfg(test)]
        {
            self.steps += self.requests.len();
        }
        self.requests.retain(|&request| is_meant(request));
    }

    /// Forgets the requests of a freed op, now or later. `is_known` says whether a token names one of the
    /// `count` ops that are left.
    pub(super) fn forget(
        &mut self,
        freed: Token,
        count: usize,
        mut is_known: impl FnMut(Token) -> bool,
    ) {
        // Most often it is the newest: a socket that was opened, polled once, and dropped.
        while self.requests.back().is_some_and(|newest| newest.token() == freed) {
            self.requests.pop_back();
        }
        if self.requests.len() > 4 * count + SLACK {
            self.retain(|request| is_known(request.token()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_freed_ops_do_not_pile_up_nor_take_quadratic_time() {
        let mut backlog = Backlog::default();
        let count = 10_000_u32;
        let token = |slot| Token::new(slot, 0);
        (0..count).for_each(|slot| backlog.push(Request::Arm(token(slot))));
        // Oldest first, so that none is the newest but the last.
        for slot in 0..count {
            let is_known = |known: Token| known.slot() > slot as usize;
            backlog.forget(token(slot), (count - slot - 1) as usize, is_known);
            let left = (count - slot - 1) as usize;
            assert!(backlog.requests.len() <= 4 * left + SLACK);
        }
        assert!(backlog.steps <= 2 * count as usize, "{}", backlog.steps);
    }

    #[test]
    fn what_is_left_goes_out_in_order() {
        let mut backlog = Backlog::default();
        let [first, second] = [0, 1].map(|slot| Token::new(slot, 0));
        backlog.push(Request::Arm(first));
        backlog.push(Request::Arm(second));
        backlog.push(Request::Cancel(second));
        backlog.forget(second, 1, |token| token == first);
        backlog.push(Request::Cancel(first));
        assert_eq!(backlog.front(), Some(Request::Arm(first)));
        let requests: Vec<_> = std::iter::from_fn(|| backlog.pop()).collect();
        assert_eq!(requests, [Request::Arm(first), Request::Cancel(first)]);
    }
}
