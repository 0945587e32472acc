//! The queries of a flow that have no response yet.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use flowscope::Timestamp as FlowTime;

use super::message::DnsContent;

#[derive(Debug, Clone)]
struct Query {
    id: u16,
    at: FlowTime,
    /// Kept if it is told that a query had no response.
    content: Option<Box<DnsContent>>,
}

/// Queries in the order in which they came, found by their number.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    /// A query that was answered leaves its place empty.
    queries: VecDeque<Option<Query>>,
    /// Number of the first place of `queries`, counted from the first query of the flow.
    first: u64,
    places: HashMap<u16, u64, ahash::RandomState>,
    /// Bytes of memory behind the contents.
    contents: usize,
}

/// Rough memory of a query that waits, without its content.
const MEMORY: usize = size_of::<Option<Query>>() + 16;

impl Pending {
    /// Takes in a query. The oldest one goes if there are more than `most`.
    pub(super) fn ask(
        &mut self,
        id: u16,
        at: FlowTime,
        content: Option<Box<DnsContent>>,
        most: usize,
    ) {
        // A query sent again is the first one still.
        if most == 0 || self.places.contains_key(&id) {
            return;
        }
        while self.places.len() >= most {
            self.pop();
        }
        self.contents += content.as_ref().map_or(0, |content| content.held());
        self.places.insert(id, self.first + self.queries.len() as u64);
        self.queries.push_back(Some(Query { id, at, content }));
    }

    /// Returns the time of the query that a response with this number is to.
    pub(super) fn answer(&mut self, id: u16) -> Option<FlowTime> {
        let place = self.places.remove(&id)? - self.first;
        let query = self.queries.get_mut(usize::try_from(place).ok()?)?.take()?;
        self.contents -= query.content.as_ref().map_or(0, |content| content.held());
        while let Some(None) = self.queries.front() {
            self.queries.pop_front();
            self.first += 1;
        }
        Some(query.at)
    }

    /// Removes the queries that are older than `timeout`, and passes on their contents.
    pub(super) fn expire(
        &mut self,
        now: FlowTime,
        timeout: Duration,
        mut each: impl FnMut(Box<DnsContent>),
    ) {
        let now = now.to_duration();
        while let Some(first) = self.queries.front()
            && first
                .as_ref()
                .is_none_or(|query| now.saturating_sub(query.at.to_duration()) > timeout)
        {
            self.pop().into_iter().for_each(&mut each);
        }
    }

    fn pop(&mut self) -> Option<Box<DnsContent>> {
        let query = self.queries.pop_front()?;
        self.first += 1;
        let query = query?;
        self.places.remove(&query.id);
        self.contents -= query.content.as_ref().map_or(0, |content| content.held());
        query.content
    }

    /// Returns the bytes of memory held.
    pub(super) fn held(&self) -> usize {
        self.queries.capacity() * MEMORY + self.contents
    }
}
