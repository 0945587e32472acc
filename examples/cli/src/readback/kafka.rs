//! A topic of Kafka: what is committed in it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::see_json;
use crate::config::KafkaConfig;
use crate::proof::Evidence;
use crate::sink::{Outcome, told_by_kafka};

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn read(config: &KafkaConfig, see: &mut dyn FnMut(Evidence)) -> Outcome<u64> {
    let mut client = ClientConfig::new();
    for (name, value) in config.properties.reveal() {
        client.set(name, value);
    }
    client.set("bootstrap.servers", config.brokers.join(","));
    client.set("group.id", "ringtap.verify").set("enable.auto.commit", "false");
    client.set("enable.partition.eof", "true").set("isolation.level", "read_committed");
    let consumer: BaseConsumer = client.create().map_err(told_by_kafka)?;
    let topic = &config.topic;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let of_topic = metadata.topics().first().ok_or("the brokers say nothing of the topic")?;
    // Those whose end was not reached yet.
    let mut left: BTreeSet<i32> = of_topic.partitions().iter().map(|of| of.id()).collect();
    if left.is_empty() {
        return Err(format!("topic {topic}: there is none, or it has no partitions").into());
    }
    let mut list = TopicPartitionList::new();
    for partition in of_topic.partitions() {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut strangers, mut heard) = (0, Instant::now());
    while !left.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let lines = message.payload().unwrap_or_default().split(|byte| *byte == b'\n');
                lines.for_each(|line| see_json(line, &mut strangers, see));
            }
            // Said anew whenever somebody has written behind it.
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(left.remove(&partition)),
            Some(Err(error)) if heard.elapsed() > PATIENCE => return Err(error.into()),
            None if heard.elapsed() > PATIENCE => return Err("the brokers do not answer".into()),
            Some(Err(_)) | None => {}
        }
    }
    Ok(strangers)
}
