//! The wait mode of an enter, and the completions it yields.

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
    /// No wait.
    No,
    /// Until a completion arrives, or for this long.
    AtMost(Option<Duration>),
    /// As `AtMost`, but for at least `least` if anything arrives in that time.
    Moderated { least: Duration, most: Option<Duration> },
    /// Until a completion arrives, or until the next deadline, which is this far away; the ring's own timer
    /// may take the place of that limit.
    UntilDeadline(Duration),
}

impl Wait {
    /// Returns this wait limited to `limit`.
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
