//! TCP connections as streams of the bytes of both sides.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use flowscope::{EndReason, FlowExtractor, L4Proto, Orientation};
use futures_core::Stream;

use super::connections::Connections;
use super::consumer::{Consumer, Data, End, Of, Wanted};
use super::pump::FlowSource;
use super::queue::{Backlog, BacklogPolicy, FlowChunk, Inlet, Inlets, Queue};
use super::stream::{FlowStream, Flows};

/// A TCP connection; from [`Conversations`].
///
/// It can be moved to another task or thread, but the stream of conversations must still be polled, as polling
/// it delivers the bytes. Dropping a conversation discards the rest of the connection.
#[derive(Debug)]
pub struct Conversation<K> {
    key: K,
    queue: Queue,
    has_ended: bool,
}

impl<K> Conversation<K> {
    pub(super) fn new(key: K, queue: Queue) -> Self {
        Self { key, queue, has_ended: false }
    }

    /// Returns the key of the flow.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Waits for the next chunk. Returns `None` after [`FlowChunk::Closed`]. Cancel safe.
    pub async fn next_chunk(&mut self) -> Option<FlowChunk> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Polls for the next chunk, like [`next_chunk`](Self::next_chunk); for hand-written futures.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<FlowChunk>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        self.queue.poll_pop(cx).map(|chunk| {
            Some(chunk.unwrap_or_else(|| {
                self.has_ended = true;
                let reason = self.queue.ended();
                FlowChunk::Closed(reason.unwrap_or(EndReason::ForceClosed))
            }))
        })
    }
}

impl<K: Unpin> Stream for Conversation<K> {
    type Item = FlowChunk;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_chunk(cx)
    }
}

impl<K> Drop for Conversation<K> {
    fn drop(&mut self) {
        self.queue.leave();
    }
}

/// The consumer that produces conversations.
#[expect(missing_debug_implementations, reason = "users name it only by aliases")]
pub struct Talking(Inlets);

/// A conversation in progress.
#[expect(missing_debug_implementations, reason = "users cannot name it")]
pub struct Talk {
    inlet: Inlet,
    /// The queue of the conversation, until its first bytes arrive; it is only announced then.
    outlet: Option<Queue>,
}

impl<K: Clone> Consumer<K> for Talking {
    type Event = Conversation<K>;
    type Flow = Talk;

    fn begin(
        &mut self,
        _: Of<'_, K>,
        _: Orientation,
        l4: Option<L4Proto>,
        _: &mut VecDeque<Conversation<K>>,
    ) -> Option<Talk> {
        let inlet = (l4 == Some(L4Proto::Tcp)).then(Inlet::new)?;
        let outlet = Some(inlet.queue.other());
        Some(Talk { inlet, outlet })
    }

    fn data(
        &mut self,
        of: Of<'_, K>,
        flow: &mut Talk,
        data: Data<'_>,
        events: &mut VecDeque<Conversation<K>>,
    ) -> Wanted {
        if let Some(queue) = flow.outlet.take_if(|_| !matches!(data, Data::Fin)) {
            let key = of.key.clone();
            events.push_back(Conversation::new(key, queue));
        }
        self.0.put(&mut flow.inlet, of.side, data)
    }

    fn end(&mut self, _: &K, flow: Talk, end: End, _: &mut VecDeque<Conversation<K>>) {
        flow.inlet.queue.end(end.reason);
    }

    fn batch_done(&mut self) {
        self.0.batch_done();
    }

    fn wants_turn(&self) -> bool {
        self.0.wants_turn()
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_ready(cx)
    }
}

/// A stream of TCP connections, each delivered when its first bytes arrive; from
/// [`FlowStream::into_conversations`].
///
/// ```no_run
/// use futures_util::StreamExt;
/// use ringtap::flow::{FlowChunk, FlowExt, extract::FiveTuple};
/// use ringtap::{AsyncCapture, executor};
///
/// # fn main() -> ringtap::Result<()> {
/// executor::block_on(async {
///     let flows = AsyncCapture::open("eth0")?.flow_stream(FiveTuple::bidirectional());
///     let mut conversations = flows.into_conversations();
///     while let Some(conversation) = conversations.next().await {
///         let mut conversation = conversation?;
///         executor::spawn_local(async move {
///             while let Some(chunk) = conversation.next_chunk().await {
///                 if let FlowChunk::Initiator(bytes) = chunk {
///                     println!("{:?}: {} bytes", conversation.key(), bytes.len());
///                 }
///             }
///         })
///         .detach();
///     }
///     Ok(())
/// })
/// # }
/// ```
///
/// A conversation that is read slowly delays only itself, up to the number of bytes that may wait for it
/// ([`with_backlog`](Self::with_backlog)). Bytes are not copied unless they are still unread when the
/// processing of their batch ends.
pub type Conversations<St, E, S = ()> = Flows<St, Connections<E, S, Talking>>;

impl<St: FlowSource, E: FlowExtractor, S: Send + 'static> FlowStream<St, E, S> {
    /// Turns the stream into one of TCP connections, each with the bytes of both sides. Options and the states
    /// of flows are kept.
    pub fn into_conversations(self) -> Conversations<St, E, S> {
        let talking = Talking(Inlets::new());
        self.into_flows(|table| Connections::new(table, talking))
    }
}

impl<St: FlowSource, E: FlowExtractor, S: Send + 'static> Conversations<St, E, S> {
    /// Sets how many bytes of a conversation may wait to be read, and what happens beyond that. Default: 1 MiB,
    /// then a gap.
    #[must_use]
    pub fn with_backlog(mut self, bytes: usize, policy: BacklogPolicy) -> Self {
        self.pump.intake.consumer.0.backlog = Backlog { cap: bytes, policy };
        self
    }
}
