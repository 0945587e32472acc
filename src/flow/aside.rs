//! What parsers say about themselves, besides their messages.
//!
//! flowscope's traits of parsers have no way to say how much memory a parser holds, or that it refused a message and
//! goes on. Parsers call these functions instead, from within their methods.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};

thread_local! {
    static HELD: Cell<Option<usize>> = const { Cell::new(None) };
    static IS_CUT_OFF: Cell<bool> = const { Cell::new(false) };
    static IS_OVER: Cell<bool> = const { Cell::new(false) };
    static IS_CONTENT: Cell<bool> = const { Cell::new(false) };
    static MISSING: Cell<u64> = const { Cell::new(0) };
    static HEEDS_GAPS: Cell<bool> = const { Cell::new(false) };
    static REFUSED: RefCell<Vec<Cow<'static, str>>> = const { RefCell::new(Vec::new()) };
}

/// Tells the stream that runs this parser how many bytes of memory the parser holds, in buffers and tables, for its
/// flow. Called by a parser from within one of its methods; the last call counts.
///
/// The memory of all parsers together counts in the limit of [`ReassemblyConfig`](super::ReassemblyConfig). A parser
/// that has never called this is assumed to hold the bytes that it was given since its last message, at most 256 KiB;
/// of one that has, the last value holds.
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

/// Tells the stream that runs this parser that it wants nothing more of its flow: its bytes are then no longer put
/// together. The end of the flow is told as always.
pub fn nothing_more_wanted() {
    IS_CONTENT.set(true);
}

/// Returns how many bytes are missing directly before those that the parser is being given, because they were lost.
///
/// A parser that calls this each time that it is given bytes is left to find its way behind a gap. Another one, if its
/// protocol is identified by first bytes, is replaced by a new one at the next segment that identifies it.
pub fn bytes_missing() -> u64 {
    HEEDS_GAPS.set(true);
    MISSING.get()
}

/// Returns whether the flow is over: a parser is told the time once more then, and tells what it still has to tell.
pub fn flow_is_over() -> bool {
    IS_OVER.get()
}

/// Runs `work`, which tells a parser of an end that was not seen.
pub(super) fn cutting_off<T>(work: impl FnOnce() -> T) -> T {
    IS_CUT_OFF.set(true);
    let done = work();
    IS_CUT_OFF.set(false);
    done
}

/// Runs `work`, which tells a parser the time when its flow is over.
pub(super) fn over<T>(work: impl FnOnce() -> T) -> T {
    IS_OVER.set(true);
    let done = work();
    IS_OVER.set(false);
    done
}

/// Runs `work`, which gives a parser bytes behind a gap.
pub(super) fn behind_gap<T>(missing: u64, work: impl FnOnce() -> T) -> T {
    MISSING.set(missing);
    let done = work();
    MISSING.set(0);
    done
}

/// Returns whether the parser asks how many bytes are missing.
pub(super) fn heeds_gaps() -> bool {
    HEEDS_GAPS.get()
}

pub(super) fn is_content() -> bool {
    IS_CONTENT.get()
}

/// Forgets what was said before, so that what is said from now on is the next parser's.
pub(super) fn listen() {
    HELD.set(None);
    MISSING.set(0);
    for flag in [&IS_CUT_OFF, &IS_OVER, &IS_CONTENT, &HEEDS_GAPS] {
        flag.set(false);
    }
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
