//! What parsers say about themselves, besides their messages.
//!
//! flowscope's traits of parsers have no way to say how much memory a parser holds, or that it refused a message and
//! goes on. Parsers call these functions instead, from within their methods.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};

thread_local! {
    static HELD: Cell<Option<usize>> = const { Cell::new(None) };
    static IS_CUT_OFF: Cell<bool> = const { Cell::new(false) };
    static REFUSED: RefCell<Vec<Cow<'static, str>>> = const { RefCell::new(Vec::new()) };
}

/// Tells the stream that runs this parser how many bytes of memory the parser holds, in buffers and tables, for its
/// flow. Called by a parser from within one of its methods; the last call counts.
///
/// The memory of all parsers together counts in the limit of [`ReassemblyConfig`](super::ReassemblyConfig). A parser
/// that never calls this is assumed to hold the bytes that it was given since its last message, at most 256 KiB.
pub fn parser_holds(bytes: usize) {
    HELD.set(Some(bytes));
}

/// Tells the stream that runs this parser that a message was refused, and why. The parser goes on with the next one.
///
/// It is delivered as a [`ParserError`](super::SessionEvent::ParserError) with
/// [`ParserFault::Refused`](super::ParserFault::Refused). At most 64 of one call are kept.
pub fn message_refused(reason: impl Into<Cow<'static, str>>) {
    REFUSED.with_borrow_mut(|all| {
        if all.len() < 64 {
            all.push(reason.into());
        }
    });
}

/// Returns whether the end that a parser is told of is not that of the stream: the flow ends because it is idle, was
/// reset, or its table has no room. To be called by a parser from within `fin_initiator` or `fin_responder`.
pub fn stream_is_cut_off() -> bool {
    IS_CUT_OFF.get()
}

/// Runs `work`, which tells a parser of an end that was not seen.
pub(super) fn cutting_off<T>(work: impl FnOnce() -> T) -> T {
    IS_CUT_OFF.set(true);
    let done = work();
    IS_CUT_OFF.set(false);
    done
}

/// Forgets what was said before, so that what is said from now on is the next parser's.
pub(super) fn listen() {
    HELD.set(None);
    IS_CUT_OFF.set(false);
    if REFUSED.with_borrow(|all| !all.is_empty()) {
        REFUSED.with_borrow_mut(Vec::clear);
    }
}

pub(super) fn held() -> Option<usize> {
    HELD.get()
}

/// Passes each refusal to `each`, in the order in which they were told.
pub(super) fn refused(mut each: impl FnMut(Cow<'static, str>)) {
    if REFUSED.with_borrow(|all| !all.is_empty()) {
        REFUSED.with_borrow_mut(|all| all.drain(..).for_each(&mut each));
    }
}
