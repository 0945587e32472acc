//! Streams consumed by futures, one for each direction of a connection.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use flowscope::{EndReason, FlowExtractor, FlowSide, L4Proto, Orientation};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::bytes::StreamBytes;
use super::connections::Connections;
use super::consumer::{Consumer, Data, End, Of, Wanted};
use super::conversations::Conversation;
use super::event::FlowEvent;
use super::pump::FlowSource;
use super::queue::{Backlog, BacklogPolicy, FlowChunk, Inlet, Inlets, Queue};
use super::stream::{FlowStream, Flows};

/// An asynchronous consumer of the bytes of one direction of a connection.
///
/// Each call is awaited before the next. While one reassembler waits, others continue, and packets are still
/// processed; bytes that arrive for it in the meantime are queued, up to a limit
/// ([`ReassembledStream::with_backlog`]).
pub trait AsyncReassembler: 'static {
    /// Accepts the next bytes. They hold a part of the ring until they are dropped or
    /// [detached](StreamBytes::detach).
    fn data(&mut self, bytes: StreamBytes) -> impl Future<Output = ()>;

    /// Reports that `bytes` bytes are missing here.
    fn gap(&mut self, bytes: u64) -> impl Future<Output = ()>;

    /// Reports the end of the stream. It is called exactly once, even if the stream of flows is dropped
    /// ([`EndReason::ForceClosed`]).
    fn close(self, reason: EndReason);
}

type Running = Pin<Box<dyn Future<Output = ()>>>;
type Make<K> = Box<dyn FnMut(&K, FlowSide, Queue) -> Running>;

/// Passes streams to futures, and runs the futures.
#[expect(missing_debug_implementations, reason = "users name it only by aliases")]
pub struct Reassemblers<K> {
    make: Make<K>,
    inlets: Inlets,
    running: FuturesUnordered<Running>,
}

impl<K: Clone> Consumer<K> for Reassemblers<K> {
    type Event = FlowEvent<K>;
    /// The queues of the initiator and the responder, created when their first bytes arrive.
    type Flow = [Option<Inlet>; 2];

    fn begin(
        &mut self,
        _: Of<'_, K>,
        _: Orientation,
        l4: Option<L4Proto>,
        _: &mut VecDeque<FlowEvent<K>>,
    ) -> Option<Self::Flow> {
        (l4 == Some(L4Proto::Tcp)).then_some([None, None])
    }

    fn data(
        &mut self,
        of: Of<'_, K>,
        flow: &mut Self::Flow,
        data: Data<'_>,
        _: &mut VecDeque<FlowEvent<K>>,
    ) -> Wanted {
        let place = match of.side {
            FlowSide::Initiator => &mut flow[0],
            FlowSide::Responder => &mut flow[1],
        };
        if place.is_none() && matches!(data, Data::Fin) {
            return Wanted::More;
        }
        let inlet = place.get_or_insert_with(|| {
            let inlet = Inlet::new();
            self.running.push((self.make)(of.key, of.side, inlet.queue.other()));
            inlet
        });
        match self.inlets.put(inlet, of.side, data) {
            // A reassembler stays until it is closed.
            Wanted::Nothing => Wanted::More,
            wanted => wanted,
        }
    }

    fn end(&mut self, _: &K, flow: Self::Flow, end: End, _: &mut VecDeque<FlowEvent<K>>) {
        flow.iter().flatten().for_each(|inlet| inlet.queue.end(end.reason));
    }

    fn told(&mut self, event: &FlowEvent<K>, events: &mut VecDeque<FlowEvent<K>>) {
        events.push_back(event.clone());
    }

    fn batch_done(&mut self) {
        self.inlets.batch_done();
    }

    fn wants_turn(&self) -> bool {
        self.inlets.wants_turn()
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {}
        self.inlets.poll_ready(cx)
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.batch_done();
        while let Some(()) = std::task::ready!(self.running.poll_next_unpin(cx)) {}
        Poll::Ready(())
    }
}

/// Closes a reassembler even if its future is dropped.
struct Closing<R: AsyncReassembler> {
    reassembler: Option<R>,
    queue: Queue,
}

impl<R: AsyncReassembler> Drop for Closing<R> {
    fn drop(&mut self) {
        if let Some(reassembler) = self.reassembler.take() {
            reassembler.close(self.queue.ended().unwrap_or(EndReason::ForceClosed));
        }
        self.queue.leave();
    }
}

async fn run<R: AsyncReassembler>(reassembler: R, queue: Queue) {
    let mut closing = Closing { reassembler: Some(reassembler), queue };
    while let Some(chunk) = poll_fn(|cx| closing.queue.poll_pop(cx)).await {
        let Some(reassembler) = &mut closing.reassembler else { return };
        match chunk {
            FlowChunk::Initiator(bytes) | FlowChunk::Responder(bytes) => {
                reassembler.data(bytes).await;
            }
            FlowChunk::Gap { bytes, .. } => reassembler.gap(bytes).await,
            FlowChunk::Closed(_) => return,
        }
    }
}

/// A stream of flows whose bytes are passed to reassemblers; from [`FlowStream::with_async_reassembler`].
///
/// It delivers the same events as the stream of flows. Polling it runs the reassemblers on the current thread;
/// when it ends, all reassemblers have been closed.
pub type ReassembledStream<St, E, S = ()> =
    Flows<St, Connections<E, S, Reassemblers<<E as FlowExtractor>::Key>>>;

impl<St: FlowSource, E: FlowExtractor, S: Send + 'static> FlowStream<St, E, S> {
    /// Passes the bytes of each direction of each TCP connection to its own reassembler, which `factory`
    /// creates when the first bytes arrive. Options and the states of flows are kept.
    pub fn with_async_reassembler<R: AsyncReassembler>(
        self,
        mut factory: impl FnMut(&E::Key, FlowSide) -> R + 'static,
    ) -> ReassembledStream<St, E, S> {
        let make =
            move |key: &E::Key, side, queue| Box::pin(run(factory(key, side), queue)) as Running;
        let (make, running) = (Box::new(make), FuturesUnordered::new());
        let reassemblers = Reassemblers { make, inlets: Inlets::new(), running };
        self.into_flows(|table| Connections::new(table, reassemblers))
    }
}

impl<St: FlowSource, E: FlowExtractor, S: Send + 'static> ReassembledStream<St, E, S> {
    /// Sets how many bytes of a direction may wait for its reassembler, and what happens beyond that. Default:
    /// 1 MiB, then a gap.
    #[must_use]
    pub fn with_backlog(mut self, bytes: usize, policy: BacklogPolicy) -> Self {
        self.pump.intake.consumer.inlets.backlog = Backlog { cap: bytes, policy };
        self
    }
}

/// A reassembler that sends the bytes of a direction through a channel; from [`channel_factory`].
#[derive(Debug)]
pub struct ChannelReassembler {
    side: FlowSide,
    queue: Queue,
    capacity: usize,
}

impl AsyncReassembler for ChannelReassembler {
    async fn data(&mut self, mut bytes: StreamBytes) {
        poll_fn(|cx| self.queue.poll_room(self.capacity, cx)).await;
        bytes.detach(); // a slow receiver must not hold part of the ring
        let len = bytes.len();
        let chunk = match self.side {
            FlowSide::Initiator => FlowChunk::Initiator(bytes),
            FlowSide::Responder => FlowChunk::Responder(bytes),
        };
        self.queue.push(chunk, len);
    }

    async fn gap(&mut self, bytes: u64) {
        self.queue.push(FlowChunk::Gap { side: self.side, bytes }, 0);
    }

    fn close(self, reason: EndReason) {
        self.queue.end(reason);
    }
}

/// Returns a factory for [`FlowStream::with_async_reassembler`] that passes the receiving end of a channel to
/// `receive` for each direction of a connection. Use it for tasks and threads that consume bytes at their own
/// pace. The channel has room for `capacity` bytes; if it is full, that direction waits. Bytes are copied into
/// the channel.
pub fn channel_factory<K: Clone + 'static>(
    capacity: usize,
    mut receive: impl FnMut(Conversation<(K, FlowSide)>) + 'static,
) -> impl FnMut(&K, FlowSide) -> ChannelReassembler + 'static {
    move |key, side| {
        let queue = Queue::new();
        receive(Conversation::new((key.clone(), side), queue.other()));
        ChannelReassembler { side, queue, capacity: capacity.max(1) }
    }
}
