//! What an enter waits for, and what it yields.

use std::time::Duration;

use super::token::Answered;

/// A completion, as the reactor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) answered: Answered,
    pub(super) result: i32,
    pub(super) more: bool,
}

/// How long an enter waits for a first completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Not at all.
    No,
    /// Until one comes, or for this long.
    AtMost(Option<Duration>),
    /// The same, but for at least `least` if anything comes in that time.
    Moderated { least: Duration, most: Option<Duration> },
    /// Until one comes, or the next deadline, which is so far away; the ring's own timer may stand for it.
    UntilDeadline(Duration),
}

impl Wait {
    /// The same wait, but not for longer than `limit`.
    pub(super) fn at_most(self, limit: Duration) -> Self {
        let sooner = |most: Option<Duration>| Some(most.map_or(limit, |most| most.min(limit)));
        match self {
            Self::No => Self::No,
            Self::AtMost(most) => Self::AtMost(sooner(most)),
            Self::UntilDeadline(most) => Self::AtMost(sooner(Some(most))),
            Self::Moderated { least, most } => {
                Self::Moderated { least: least.min(limit), most: sooner(most) }
            }
        }
    }
}
