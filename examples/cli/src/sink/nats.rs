//! NATS JetStream: a message a record, on a subject a sensor and shard.
//!
//! The identifier `sensor/shard/sequence` lets the server refuse what it has (within the stream's window of duplicates);
//! beyond that, the stream is asked for what it has whenever it is reached anew, and that is not sent.

use std::time::Duration;

use async_nats::header::{HeaderMap, NATS_MESSAGE_ID};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{self, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context};
use tokio::runtime::{Builder, Runtime};

use super::{Held, Outcome, Sink};
use crate::config::NatsConfig;
use crate::record::Record;

/// The longest that a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Records that a delivery may have beyond those that were asked for: the spool's frames are not split.
const CHUNK: u64 = 256;

pub(super) struct Nats {
    config: NatsConfig,
    sensor: String,
    runtime: Runtime,
    open: Option<(Context, Stream)>,
    scratch: Vec<u8>,
}

impl Nats {
    pub(super) fn new(config: &NatsConfig, sensor: String) -> Outcome<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let config = config.clone();
        Ok(Self { config, sensor, runtime, open: None, scratch: Vec::new() })
    }

    fn subject(&self, shard: u16) -> String {
        format!("{}.{}.{shard}", self.config.subject, self.sensor)
    }

    async fn connect(&self) -> Outcome<(Context, Stream)> {
        let options = async_nats::ConnectOptions::new().connection_timeout(PATIENCE);
        let servers: Vec<_> = self.config.servers.iter().map(String::as_str).collect();
        let mut context = jetstream::new(options.connect(servers).await?);
        context.set_timeout(PATIENCE);
        let config = stream::Config {
            name: self.config.stream.clone(),
            subjects: vec![format!("{}.>", self.config.subject)],
            num_replicas: self.config.replicas,
            duplicate_window: Duration::from_secs(self.config.duplicate_window_seconds),
            ..stream::Config::default()
        };
        let stream = context.get_or_create_stream(config).await?;
        Ok((context, stream))
    }

    /// What the stream has of a shard from a record on. Where servers went away in the middle of a delivery, some of it
    /// may be there and some before that not.
    async fn look_through(&self, stream: &Stream, shard: u16, from: u64) -> Outcome<Held> {
        let subject = self.subject(shard);
        let last = match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                return Ok(Held::default());
            }
            Err(error) => return Err(error.into()),
        };
        let end = number(&last)?;
        // So much was on its way at once, at most; all that is further back is there.
        let most = self.config.in_flight.max(1024) as u64 + CHUNK;
        if end + 1 == from || end + most < from {
            return Ok(Held::before(from)); // nothing of what comes now
        }
        let from = from.max(end.saturating_sub(2 * most));
        // Numbers rise with places in the stream but for records that were delivered late, which are behind some of
        // those that were delivered together with them.
        let early = from.saturating_sub(most);
        let (mut low, mut high) = (stream.cached_info().state.first_sequence, last.sequence);
        while low < high {
            let middle = low + (high - low) / 2;
            let there = stream.get_first_raw_message_by_subject(&subject, middle).await?;
            match number(&there)? < early {
                true => low = there.sequence + 1,
                false => high = middle,
            }
        }
        let mut held = Held::before(from);
        while low <= last.sequence {
            let there = stream.get_first_raw_message_by_subject(&subject, low).await?;
            held.more.insert(number(&there)?);
            low = there.sequence + 1;
        }
        Ok(held)
    }
}

/// Which record a message is.
fn number(message: &StreamMessage) -> Outcome<u64> {
    let id = message.headers.get(NATS_MESSAGE_ID).map(|id| id.as_str());
    let number = id.and_then(|id| id.rsplit('/').next()?.parse().ok());
    number.ok_or_else(|| format!("{} has messages of somebody else's", message.subject).into())
}

impl Sink for Nats {
    fn open(&mut self) -> Outcome<()> {
        self.open = None;
        let connecting = async { tokio::time::timeout(2 * PATIENCE, self.connect()).await };
        // What is before an @ is secret.
        let hosts = self.config.servers.iter().map(|of| of.rsplit('@').next().unwrap_or(of));
        let hosts = hosts.collect::<Vec<_>>().join(", ");
        let name = |error| format!("{hosts}: {error}");
        let reached = self.runtime.block_on(connecting).map_err(|_| name("no answer".into()))?;
        self.open = Some(reached.map_err(name)?);
        Ok(())
    }

    fn held(&mut self, first: &Record, _: bool) -> Outcome<Held> {
        let (shard, from) = (first.shard, first.sequence);
        let (_, stream) = self.open.as_ref().ok_or("it is not open")?;
        self.runtime.block_on(self.look_through(stream, shard, from))
    }

    fn deliver(&mut self, records: &[Record]) -> Outcome<usize> {
        let (context, _) = self.open.as_ref().ok_or("it is not open")?;
        let mut messages = Vec::with_capacity(records.len());
        for record in records {
            self.scratch.clear();
            record.write_json(&self.sensor, self.config.names, &mut self.scratch);
            let mut headers = HeaderMap::new();
            let id = format!("{}/{}/{}", self.sensor, record.shard, record.sequence);
            headers.insert(NATS_MESSAGE_ID, id);
            messages.push((self.subject(record.shard), headers, self.scratch.clone()));
        }
        self.runtime.block_on(async {
            let mut answers = Vec::with_capacity(messages.len());
            for (subject, headers, payload) in messages {
                let sending = context.publish_with_headers(subject, headers, payload.into());
                answers.push(tokio::time::timeout(PATIENCE, sending).await??);
            }
            let mut done = 0;
            for answer in answers {
                match answer.await {
                    Ok(_) => done += 1,
                    Err(error) if done == 0 => return Err(error.into()),
                    Err(_) => break, // the next delivery begins with it, and says so
                }
            }
            Ok(done)
        })
    }

    fn appetite(&self) -> (usize, Duration) {
        (self.config.in_flight, Duration::from_millis(20))
    }
}
