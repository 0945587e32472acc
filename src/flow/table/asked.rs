//! A table that is asked for its flows.

use flowscope::{FlowExtractor, FlowStats};

use super::FlowTable;
use crate::flow::board::{self, FlowSnapshot, Seat};

impl<E: FlowExtractor, S: Send + 'static> FlowTable<E, S> {
    /// Gives it a place where it is asked for its flows.
    pub(in crate::flow) fn sit_down(&mut self, seat: Seat<E::Key>) {
        self.seat = Some(seat);
    }

    /// Whether somebody may ask while no packet comes.
    pub(in crate::flow) fn may_be_asked(&self) -> bool {
        self.seat.is_some()
    }

    /// Says how many flows there were, for good.
    pub(super) fn stand_up(&mut self) {
        if let Some(seat) = self.seat.take() {
            seat.answer(self.count(Vec::new()), true);
        }
    }

    fn count(&self, top: Vec<(E::Key, FlowStats)>) -> FlowSnapshot<E::Key> {
        let (active, tracker) = (self.tracker.flow_count(), self.stats());
        FlowSnapshot { active, tracker, late_packets: self.closed.late(), top }
    }

    #[inline]
    pub(super) fn answer(&mut self) {
        if let Some(seat) = &mut self.seat
            && let Some(most) = seat.question()
        {
            let flows = self.tracker.flows().map(|(key, entry)| (key, &entry.stats));
            let top = board::top(flows, most);
            if let Some(seat) = &self.seat {
                seat.answer(self.count(top), false);
            }
        }
    }
}
