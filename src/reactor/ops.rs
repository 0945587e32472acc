//! The bounded slab of ops: slots, their generations, and their waiters.

use std::fmt;
#[cfg(feature = "record")]
use std::io;
use std::os::fd::RawFd;
use std::rc::Weak;
use std::task::Waker;
use std::time::Duration;

use super::deadlines::DeadlineId;
#[cfg(feature = "record")]
use super::file_op::{FileOp, told};
use super::op::Op;
use super::token::Token;

/// All ops of a reactor. Never grows.
#[derive(Debug)]
pub(super) struct Ops {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

/// The request made to the kernel for a descriptor.
pub(super) enum Kind {
    /// A multishot poll for these events.
    Poll(u32),
    /// Kicks: the port to ask about their outcome, and whether a task awaits the next kick's answer.
    Kick { port: Weak<dyn OnKick>, is_awaited: bool },
    /// An operation on a file.
    #[cfg(feature = "record")]
    File(FileOp),
    /// The result of such an operation, until its owner takes it.
    #[cfg(feature = "record")]
    Done(Option<io::Result<u32>>),
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poll(events) => write!(f, "Poll({events:#x})"),
            Self::Kick { is_awaited, .. } => write!(f, "Kick(awaited: {is_awaited})"),
            #[cfg(feature = "record")]
            Self::File(op) => write!(f, "File({op:?})"),
            #[cfg(feature = "record")]
            Self::Done(done) => write!(f, "Done({done:?})"),
        }
    }
}

/// A registered descriptor.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) op: Op,
    pub(super) fd: RawFd,
    pub(super) kind: Kind,
    pub(super) waker: Option<Waker>,
    /// Its entry in the reactor's `delayed`, if it is armed later.
    pub(super) delay: Option<DeadlineId>,
}

#[cfg(feature = "record")]
impl Entry {
    /// Ends an operation on a file with what the kernel has answered. Returns false if this is something else.
    pub(super) fn end_file(&mut self, result: i32) -> bool {
        let Kind::File(_) = self.kind else { return false };
        let Kind::File(op) = std::mem::replace(&mut self.kind, Kind::Done(None)) else {
            return false;
        };
        self.op.take(); // the result is not readiness
        drop(op); // nothing in it has code of a user's
        self.kind = Kind::Done(Some(told(result)));
        true
    }

    /// Disposes of what the kernel has answered to an operation that nobody waits for.
    pub(super) fn discard_file(&self, result: i32) {
        if let Kind::File(op) = &self.kind {
            op.discard(result);
        }
    }

    /// Leaks what an operation owns, which the kernel may still use although nothing will be heard from it.
    pub(super) fn lose_file(&mut self) {
        if let Kind::File(_) = self.kind {
            std::mem::forget(std::mem::replace(
                &mut self.kind,
                Kind::Done(Some(told(-libc::ECANCELED))),
            ));
        }
    }
}

impl Ops {
    pub(super) fn new(limit: usize) -> Self {
        let slots = (0..limit).map(|_| Slot { generation: 0, entry: None }).collect();
        Self { slots, free: (0..limit as u32).rev().collect() }
    }

    pub(super) fn limit(&self) -> usize {
        self.slots.len()
    }

    /// Returns the number of slots in use.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a slot for a descriptor; returns `None` if all are in use.
    pub(super) fn insert(&mut self, fd: RawFd, kind: Kind) -> Option<Token> {
        let slot = self.free.pop()?;
        let place = &mut self.slots[slot as usize];
        place.entry = Some(Entry { op: Op::default(), fd, kind, waker: None, delay: None });
        Some(Token::new(slot, place.generation))
    }

    /// Returns the op that a token names, unless it has been freed.
    pub(super) fn get(&mut self, token: Token) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(token.slot())?;
        if slot.generation == token.generation() { slot.entry.as_mut() } else { None }
    }

    /// Frees the slot; from now on the token names nothing.
    pub(super) fn remove(&mut self, token: Token) -> Option<Entry> {
        let slot = self.slots.get_mut(token.slot())?;
        if slot.generation != token.generation() {
            return None;
        }
        let entry = slot.entry.take()?;
        slot.generation = token.next_generation();
        self.free.push(token.slot() as u32);
        Some(entry)
    }

    /// Returns the tokens of all ops.
    pub(super) fn all(&self) -> Vec<Token> {
        self.named(|_| true)
    }

    /// Returns whether the kernel knows any op.
    pub(super) fn are_in_flight(&self) -> bool {
        let mut entries = self.slots.iter().filter_map(|place| place.entry.as_ref());
        entries.any(|entry| entry.op.is_in_flight())
    }

    /// Returns the tokens of all ops that the kernel knows.
    pub(super) fn in_flight(&self) -> Vec<Token> {
        self.named(|entry| entry.op.is_in_flight())
    }

    fn named(&self, is_meant: impl Fn(&Entry) -> bool) -> Vec<Token> {
        let named = self.slots.iter().enumerate().filter_map(|(slot, place)| {
            let entry = place.entry.as_ref()?;
            is_meant(entry).then(|| Token::new(slot as u32, place.generation))
        });
        named.collect()
    }

    pub(super) fn for_each(&mut self, mut visit: impl FnMut(Token, &mut Entry)) {
        let used = self.len();
        let places = self.slots.iter_mut().enumerate();
        let entries = places.filter_map(|(slot, place)| {
            let token = Token::new(slot as u32, place.generation);
            Some((token, place.entry.as_mut()?))
        });
        // Low slots are taken first, so the end of a large slab is rarely visited.
        entries.take(used).for_each(|(token, entry)| visit(token, entry));
    }
}

/// A port with a transmit ring, as the reactor sees it.
pub(crate) trait OnKick {
    /// Records the answer to a kick, 0 or an errno; returns what to do next and which task to wake. Does not
    /// wake any task itself: the port is borrowed meanwhile, and a waker may do anything.
    fn kicked(&self, errno: i32) -> AfterKick;
}

/// The consequences of a kick's answer.
#[derive(Debug)]
pub(crate) struct AfterKick {
    pub(crate) next: Next,
    /// The task to wake.
    pub(crate) waiter: Option<Waker>,
}

/// The time of the next kick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// When the port is next marked.
    Rest,
    /// In the next turn.
    Kick,
    /// After this time.
    KickAfter(Duration),
}

/// The answer to a kick, to be passed to the port once the borrow has ended.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) token: Token,
    pub(super) port: Weak<dyn OnKick>,
    pub(super) errno: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slab_is_bounded_and_a_freed_token_names_nothing() {
        let mut ops = Ops::new(2);
        let first = ops.insert(3, Kind::Poll(1)).unwrap();
        let second = ops.insert(4, Kind::Poll(1)).unwrap();
        assert!(ops.insert(5, Kind::Poll(1)).is_none());
        assert!(ops.remove(first).is_some());
        assert!(ops.remove(first).is_none());
        let third = ops.insert(5, Kind::Poll(1)).unwrap();
        assert_eq!(third.slot(), first.slot());
        assert!(ops.get(first).is_none(), "the generation has moved on");
        assert!(ops.get(second).is_some() && ops.get(third).is_some());
        let mut count = 0;
        ops.for_each(|_, _| count += 1);
        assert_eq!(count, 2);
        assert!(ops.in_flight().is_empty());
    }
}
