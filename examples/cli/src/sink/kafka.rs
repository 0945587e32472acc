//! Kafka: messages of one record or of some, each a line, whose key is `SENSOR/SHARD`, in transactions.
//!
//! A delivery is a transaction: consumers that read what is committed (`isolation.level=read_committed`) see all of it or nothing.
//! The transactional identifier is the sensor's, so the brokers refuse what a predecessor of this process has still on its way. The
//! records of a shard are in one partition, in order; whenever the brokers are reached anew, the end of that partition is searched
//! for the last record of the shard, and what is there is not sent again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::{Held, Outcome, Sink};
use crate::config::KafkaConfig;
use crate::record::{Record, Which};

/// The longest that brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that a transaction, of any sensor, may hold up those who read what is committed.
const TRANSACTION: Duration = Duration::from_secs(30);
/// Records of a transaction, at most.
const MOST: usize = 131_072;
/// Successful transactions in a row after which the next may have twice as many records.
const STREAK: u32 = 8;
/// Bytes of a message that are not exceeded by more than a record: brokers take a megabyte.
const MESSAGE: usize = 512 << 10;
/// How far from its end a partition is searched at first; then eight times as far, and so on.
const NEAR: i64 = 8192;

pub(super) struct Kafka {
    config: KafkaConfig,
    sensor: String,
    /// Lanes have transactions of their own.
    lane: u16,
    open: Option<Open>,
    /// Messages that are not full, by shard.
    begun: BTreeMap<u16, Begun>,
    /// Records of the next transaction, at most: fewer where one has failed, which may have been too long for the time it may take,
    /// or have had a message too long for the topic.
    most: usize,
    /// Transactions that were taken since there were as many.
    streak: u32,
}

/// Lines of a message, and how many there are.
#[derive(Debug, Default)]
struct Begun {
    lines: Vec<u8>,
    records: usize,
}

struct Open {
    producer: BaseProducer,
    /// Partitions of the topic.
    partitions: i32,
}

impl Kafka {
    pub(super) fn new(config: &KafkaConfig, sensor: String, lane: u16) -> Outcome<Self> {
        let config = config.clone();
        let begun = BTreeMap::new();
        let kafka = Self { config, sensor, lane, open: None, begun, most: MOST, streak: 0 };
        // Properties that there are not are refused at once.
        kafka.producing().create_native_config().map_err(told)?;
        Ok(kafka)
    }

    /// What all clients have in common.
    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.config.brokers.join(","));
        client.set("client.id", format!("ringtap-{}", self.sensor));
        for (name, value) in self.config.properties.reveal() {
            client.set(name, value);
        }
        client
    }

    fn producing(&self) -> ClientConfig {
        let mut client = self.client();
        let (topic, sensor) = (&self.config.topic, &self.sensor);
        let id = match self.lane {
            0 => format!("ringtap.{topic}.{sensor}"),
            lane => format!("ringtap.{topic}.{sensor}.{lane}"),
        };
        client.set("transactional.id", id);
        client.set("transaction.timeout.ms", TRANSACTION.as_millis().to_string());
        for (name, value) in [("compression.type", "lz4"), ("linger.ms", "5")] {
            if !self.config.properties.reveal().contains_key(name) {
                client.set(name, value);
            }
        }
        client
    }

    /// A consumer that belongs to no group; with what is committed alone, or with all.
    fn consuming(&self, isolation: &str) -> Outcome<BaseConsumer> {
        let mut client = self.client();
        client.set("group.id", format!("ringtap.{}", self.sensor)); // the library asks for one
        client.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        Ok(client.set("isolation.level", isolation).create().map_err(told)?)
    }

    /// The key of a shard's records, and where they go.
    fn place(&self, shard: u16, partitions: i32) -> (String, i32) {
        let key = format!("{}/{shard}", self.sensor);
        let partition = crc32fast::hash(key.as_bytes()) % partitions.max(1) as u32;
        (key, partition as i32)
    }

    fn connect(&self) -> Outcome<Open> {
        let producer: BaseProducer = self.producing().create().map_err(told)?;
        producer.init_transactions(PATIENCE)?;
        let topic = &self.config.topic;
        let metadata = producer.client().fetch_metadata(Some(topic), PATIENCE)?;
        let of_topic = metadata.topics().first().ok_or("the brokers say nothing of the topic")?;
        let partitions = of_topic.partitions().len() as i32;
        if partitions == 0 {
            let why = of_topic.error().map(|error| RDKafkaErrorCode::from(error).to_string());
            let why = why.unwrap_or_else(|| "it has no partitions".to_owned());
            return Err(format!("topic {topic}: {why}").into());
        }
        Ok(Open { producer, partitions })
    }

    /// Searches a partition backwards for the last record with this key: all of it, or what is near its end. Returns its number.
    fn last_of(&self, partition: i32, key: &str, is_all: bool) -> Outcome<Option<u64>> {
        let topic = &self.config.topic;
        let all = self.consuming("read_uncommitted")?;
        let (low, end) = all.fetch_watermarks(topic, partition, PATIENCE)?;
        let consumer = self.consuming("read_committed")?;
        // Transactions of others that are open hide what was committed behind them.
        let begin = Instant::now();
        while consumer.fetch_watermarks(topic, partition, PATIENCE)?.1 < end {
            if begin.elapsed() > TRANSACTION + PATIENCE {
                return Err(format!("a transaction in partition {partition} does not end").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let (mut until, mut far) = (end, NEAR);
        while until > low {
            let from = low.max(end - far);
            let found = self.search(&consumer, (partition, from, until), key)?;
            if found.is_some() || !is_all {
                return Ok(found);
            }
            until = from;
            far = far.saturating_mul(8);
        }
        Ok(None)
    }

    /// Reads a part of a partition. Returns the number of its last record with this key.
    fn search(
        &self,
        consumer: &BaseConsumer,
        (partition, from, until): (i32, i64, i64),
        key: &str,
    ) -> Outcome<Option<u64>> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.config.topic, partition, Offset::Offset(from))?;
        consumer.assign(&list)?;
        let mut found = None;
        let mut heard = Instant::now();
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if message.offset() >= until {
                        return Ok(found);
                    }
                    if message.key() == Some(key.as_bytes()) {
                        let lines = message.payload().unwrap_or_default();
                        let which =
                            lines.rsplit(|byte| *byte == b'\n').next().and_then(Which::read);
                        let which = which
                            .ok_or_else(|| format!("{key} has messages of somebody else's"))?;
                        found = Some(which.sequence);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
                Some(Err(error)) if heard.elapsed() > PATIENCE => return Err(error.into()),
                None if heard.elapsed() > PATIENCE => return Err("no answer".into()),
                Some(Err(_)) | None => {}
            }
        }
    }

    fn send(&self, records: &[Record], begun: &mut BTreeMap<u16, Begun>) -> Outcome<()> {
        let open = self.open.as_ref().ok_or("it is not open")?;
        let allowed = self.config.properties.reveal().get("message.max.bytes");
        let allowed = allowed.and_then(|bytes| bytes.parse().ok()).unwrap_or(usize::MAX);
        let message = MESSAGE.min(allowed / 2);
        open.producer.begin_transaction()?;
        for record in records {
            let Begun { lines, records } = begun.entry(record.shard).or_default();
            if !lines.is_empty() {
                lines.push(b'\n');
            }
            record.write_json(&self.sensor, self.config.names, lines);
            *records += 1;
            if *records >= self.config.records || lines.len() >= message {
                self.put(open, record.shard, lines)?;
                lines.clear();
                *records = 0;
            }
        }
        for (shard, Begun { lines, .. }) in begun.iter().filter(|(_, begun)| begun.records > 0) {
            self.put(open, *shard, lines)?;
        }
        open.producer.commit_transaction(TRANSACTION)?;
        Ok(())
    }

    /// Puts a message into the queue.
    fn put(&self, Open { producer, partitions }: &Open, shard: u16, lines: &[u8]) -> Outcome<()> {
        let (key, partition) = self.place(shard, *partitions);
        let message = BaseRecord::to(&self.config.topic).partition(partition);
        let mut message = message.key(key.as_str()).payload(lines);
        let begin = Instant::now();
        while let Err((error, again)) = producer.send(message) {
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !is_full || begin.elapsed() > PATIENCE {
                return Err(error.into());
            }
            producer.poll(Duration::from_millis(10));
            message = again;
        }
        Ok(())
    }
}

/// What an error says, without the value of a property, which may be a password.
pub(crate) fn told(error: KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => {
            format!("the property {name} is refused: there is none, or it has no such value")
        }
        error => error.to_string(),
    }
}

impl Sink for Kafka {
    fn open(&mut self) -> Outcome<()> {
        self.open = None;
        let brokers = self.config.brokers.join(", ");
        self.open = Some(self.connect().map_err(|error| format!("{brokers}: {error}"))?);
        Ok(())
    }

    fn held(&mut self, first: &Record, is_in_doubt: bool) -> Outcome<Held> {
        let partitions = self.open.as_ref().ok_or("it is not open")?.partitions;
        let (key, partition) = self.place(first.shard, partitions);
        // What nobody can have sent is looked for near the end only: records of another spool are found there.
        let last = self.last_of(partition, &key, is_in_doubt)?;
        Ok(Held::before(last.map_or(first.sequence, |last| (last + 1).max(first.sequence))))
    }

    fn deliver(&mut self, records: &[Record]) -> Outcome<usize> {
        let mut begun = std::mem::take(&mut self.begun);
        let sent = self.send(records, &mut begun);
        // Its memory is kept, and nothing of what may be sent again.
        for Begun { lines, records } in begun.values_mut() {
            lines.clear();
            *records = 0;
        }
        self.begun = begun;
        if let Err(error) = sent {
            (self.most, self.streak) = ((records.len() / 2).max(1), 0);
            return Err(error);
        }
        self.streak += 1;
        if self.streak == STREAK {
            (self.most, self.streak) = ((2 * self.most).min(MOST), 0);
        }
        Ok(records.len())
    }

    fn appetite(&self) -> (usize, Duration) {
        (self.most, Duration::from_millis(20)) // a transaction takes a few answers, however much is in it
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SinkConfig;
    use crate::record::Body;
    use crate::record::tests::flow;

    #[test]
    fn what_was_not_taken_is_tried_in_halves() {
        let Ok(SinkConfig::Kafka(config)) = "kafka:127.0.0.1:9".parse() else { panic!("it is") };
        let mut kafka = Kafka::new(&config, "s".to_owned(), 0).unwrap();
        let record = |sequence| Record { shard: 0, sequence, body: Body::Flow(flow(1)) };
        let records: Vec<_> = (0..100).map(record).collect();
        assert_eq!(kafka.appetite().0, MOST);
        for most in [50, 25, 12, 6, 3, 1, 1] {
            let some = records.len().min(kafka.appetite().0);
            kafka.deliver(&records[..some]).unwrap_err(); // it is not open
            assert_eq!(kafka.appetite().0, most);
        }
    }
}
