//! The flows of a shard: their records and, if that is asked for, what applications said in them.

use futures_util::StreamExt;
use ringtap::Result;
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::http::HttpConfig;
use ringtap::flow::{
    AppMessage, FlowConfig, FlowExt, FlowRecord, FlowRecords, FlowSource, FlowTable, MemoryPolicy,
    Protocols, ReassemblyConfig, SessionEvent, SessionStream,
};

use crate::record::{App, Heard};

/// Bytes that listening may hold in all shards: segments that wait for others, and heads that are not complete.
const HELD: usize = 128 << 20;

/// Flows of a stream of batches.
pub(crate) enum Tracked<St: FlowSource> {
    /// Without parsers, which would cost each packet a little even if they wanted nothing.
    Records(Box<FlowRecords<St, FiveTuple>>),
    Listening(Box<SessionStream<St, FiveTuple, (), AppMessage>>, Heard),
}

impl<St: FlowSource + Unpin> Tracked<St> {
    /// With applications listened to if this is one of `listening` shards.
    pub(crate) fn new(batches: St, config: FlowConfig, listening: Option<usize>) -> Self {
        let flows = batches.flow_stream(FiveTuple::bidirectional()).with_config(config);
        if let Some(shards) = listening {
            let held = ReassemblyConfig::new()
                .memory_cap(HELD / shards.max(1), MemoryPolicy::GiveUpOldest);
            let mut http = HttpConfig::default();
            http.heads_only = true;
            let sessions = flows.protocol_stream(Protocols::well_known_with(http));
            let sessions = sessions.with_reassembly(held).with_records();
            Self::Listening(Box::new(sessions), Heard::default())
        } else {
            Self::Records(Box::new(flows.into_records()))
        }
    }

    /// Waits for the next record. Cancel safe.
    pub(crate) async fn next(
        &mut self,
    ) -> Option<Result<(FlowRecord<FiveTupleKey>, Option<Box<App>>)>> {
        let (events, heard) = match self {
            Self::Records(records) => {
                return records.next().await.map(|record| Ok((record?, None)));
            }
            Self::Listening(events, heard) => (events, heard),
        };
        loop {
            match events.next().await? {
                Ok(SessionEvent::Application { key, message, .. }) => heard.hear(key, &message),
                Ok(SessionEvent::Record(record)) => {
                    let app = heard.of(&record);
                    return Some(Ok((record, app)));
                }
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    pub(crate) fn table(&self) -> &FlowTable<FiveTuple> {
        match self {
            Self::Records(records) => records.table(),
            Self::Listening(events, _) => events.table(),
        }
    }
}
