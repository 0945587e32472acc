//! The queries of a flow that have no response yet.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use flowscope::Timestamp as FlowTime;

use super::message::DnsContent;

/// What a response must have in common with its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) id: u16,
    /// Whether the responder of the flow has asked.
    pub(super) is_responders: bool,
}

#[derive(Debug, Clone)]
struct Query {
    name: Name,
    /// Hash of the first question, if there is one.
    question: Option<u64>,
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
    places: HashMap<Name, u64, ahash::RandomState>,
    /// Bytes of memory behind the contents.
    contents: usize,
}

/// Rough memory of a query that waits, without its content.
const MEMORY: usize = size_of::<Option<Query>>() + 24;

impl Pending {
    /// Takes in a query. The oldest one goes if there are more than `most`.
    pub(super) fn ask(
        &mut self,
        name: Name,
        question: Option<u64>,
        at: FlowTime,
        content: Option<Box<DnsContent>>,
        most: usize,
    ) {
        // A query sent again is the first one still.
        if most == 0 || self.waiting(name).is_some_and(|query| query.question == question) {
            return;
        }
        while self.places.len() >= most {
            self.pop();
        }
        if self.queries.len() >= 2 * most.max(8) {
            self.close_up();
        }
        self.contents += content.as_ref().map_or(0, |content| content.held());
        self.places.insert(name, self.first + self.queries.len() as u64);
        self.queries.push_back(Some(Query { name, question, at, content }));
    }

    fn waiting(&self, name: Name) -> Option<&Query> {
        let place = usize::try_from(self.places.get(&name)? - self.first).ok()?;
        self.queries.get(place)?.as_ref()
    }

    /// Returns the time of the query that a response is to.
    pub(super) fn answer(&mut self, name: Name, question: Option<u64>) -> Option<FlowTime> {
        // Responses to queries that nobody could read have no question.
        let is_its = |query: &Query| question.is_none() || query.question == question;
        self.waiting(name).filter(|query| is_its(query))?;
        let place = self.places.remove(&name)? - self.first;
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
        let is_due = |query: &Query| now.saturating_sub(query.at) > timeout;
        while self.queries.front().is_some_and(|first| first.as_ref().is_none_or(is_due)) {
            self.pop().into_iter().for_each(&mut each);
        }
    }

    /// Removes all queries, and passes on their contents.
    pub(super) fn end(&mut self, mut each: impl FnMut(Box<DnsContent>)) {
        while !self.queries.is_empty() {
            self.pop().into_iter().for_each(&mut each);
        }
        *self = Self::default();
    }

    fn pop(&mut self) -> Option<Box<DnsContent>> {
        let query = self.queries.pop_front()?;
        let place = self.first;
        self.first += 1;
        let query = query?;
        // Another query may have taken its name.
        if self.places.get(&query.name) == Some(&place) {
            self.places.remove(&query.name);
        }
        self.contents -= query.content.as_ref().map_or(0, |content| content.held());
        query.content
    }

    /// Removes the empty places behind a query that waits for long.
    fn close_up(&mut self) {
        self.queries.retain(Option::is_some);
        self.places.clear();
        for (place, query) in self.queries.iter().flatten().enumerate() {
            self.places.insert(query.name, self.first + place as u64);
        }
    }

    /// Returns the bytes of memory held.
    pub(super) fn held(&self) -> usize {
        if self.queries.is_empty() { 0 } else { self.queries.capacity() * MEMORY + self.contents }
    }
}
