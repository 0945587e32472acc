//! A table that is asked for its flows.

use flowscope::{FlowExtractor, FlowStats};

use super::FlowTable;
use crate::flow::shard_query::{self, FlowSnapshot, ShardResponder};

impl<E: FlowExtractor, S: Send + 'static> FlowTable<E, S> {
    /// Gives it a place where it is asked for its flows.
    pub(in crate::flow) fn set_responder(&mut self, responder: ShardResponder<E::Key>) {
        self.responder = Some(responder);
    }

    /// Whether somebody may ask while no packet comes.
    pub(in crate::flow) fn may_be_asked(&self) -> bool {
        self.responder.is_some()
    }

    /// Says how many flows there were, for good.
    pub(super) fn stand_up(&mut self) {
        if let Some(responder) = self.responder.take() {
            responder.answer(self.count(Vec::new()), true);
        }
    }

    fn count(&self, top: Vec<(E::Key, FlowStats)>) -> FlowSnapshot<E::Key> {
        let (active, tracker) = (self.tracker.flow_count(), self.stats());
        FlowSnapshot { active, tracker, late_packets: self.closed.late(), top }
    }

    #[inline]
    pub(super) fn answer(&mut self) {
        if let Some(responder) = &mut self.responder
            && let Some(most) = responder.question()
        {
            let flows = self.tracker.flows().map(|(key, entry)| (key, &entry.stats));
            let top = shard_query::top(flows, most);
            if let Some(responder) = &self.responder {
                responder.answer(self.count(top), false);
            }
        }
    }
}
