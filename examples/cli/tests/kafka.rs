//! The sensor beside Kafka's protocol, as librdkafka's stand-in for a cluster speaks it.

mod rig;

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::{Offset, TopicPartitionList};
use rig::{HTTP, Place, Received, Sensor, number, send, until};
use serde_json::Value;

ringtap_lab::test_binary!();

const TOPIC: &str = "ringtap.flows";
const PARTITIONS: i32 = 3;

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// Three brokers on the loopback of the calling thread's namespace.
fn cluster() -> Cluster {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 3).unwrap();
    cluster
}

/// All records of the topic, each partition in its order, with their messages' keys.
fn records(cluster: &Cluster) -> Vec<(String, Value)> {
    let mut records = Vec::new();
    for (key, lines) in read(cluster) {
        for line in lines.split(|byte| *byte == b'\n') {
            records.push((key.clone(), serde_json::from_slice(line).unwrap()));
        }
    }
    records
}

/// All messages of the topic, each partition in its order, with their keys.
fn read(cluster: &Cluster) -> Vec<(String, Vec<u8>)> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "reader");
    client.set("enable.partition.eof", "true").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut found, mut ended, begin) = (Vec::new(), 0, Instant::now());
    while ended < PARTITIONS {
        assert!(begin.elapsed() < Duration::from_secs(60), "{ended} partitions ended");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
                found.push((key, message.payload().unwrap().to_vec()));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            _ => {}
        }
    }
    found
}

/// Checks the keys, and that every record is there once, in order. Returns how many flows there are, and how many records.
fn check(cluster: &Cluster) -> (u64, u64) {
    let records = records(cluster);
    for (key, record) in &records {
        let (sensor, shard) = (record["sensor"].as_str().unwrap(), number(record, "shard"));
        assert_eq!(*key, format!("{sensor}/{shard}"));
    }
    let received = Received::of(records.into_iter().map(|(_, record)| record));
    let (flows, missing) = received.check();
    assert_eq!(missing, 0);
    (flows, received.len() as u64)
}

/// How many records the brokers have acknowledged.
fn acknowledged() -> u64 {
    let page = rig::get(HTTP, "/metrics").unwrap();
    let name = "ringtap_sensor_acknowledged_total{sink=\"kafka\"}";
    let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[ringtap_lab::test]
fn every_record_is_there_once_though_a_broker_goes_and_the_sensor_is_killed() {
    const FLOWS: u32 = 600;
    let Some(place) = Place::new() else { return };
    let cluster = cluster();
    let sink = format!("kafka:{}", cluster.bootstrap_servers());
    let words = ["--idle-seconds", "1", "--sink", &sink];
    let sensor = place.sensor("2", &words);
    send(&place.veth.left, FLOWS, 1, 2000);
    until("some records are there", || acknowledged() >= u64::from(FLOWS));
    // Whichever it is, it leads a partition of three.
    cluster.broker_down(1).unwrap();
    send(&place.veth.left, FLOWS, 1, 2000);
    std::thread::sleep(Duration::from_secs(2));
    cluster.broker_up(1).unwrap();
    until("the broker is used again", || acknowledged() >= 2 * u64::from(FLOWS));
    sensor.kill();
    let sensor = place.sensor("2", &words);
    send(&place.veth.left, FLOWS, 1, 2000);
    let account = sensor.finish();
    for sink in account["sinks"].as_array().unwrap() {
        assert_eq!(sink["has_all"], true, "{account}");
    }
    let (flows, records) = check(&cluster);
    let (of_lines, missing) = place.lines().check();
    assert_eq!((flows, 0), (of_lines, missing), "{account}");
    assert!(flows >= 2 * u64::from(FLOWS) && records > flows, "{flows} flows, {records} records");
    let (_, verdicts) = rig::verify(&[&sink]);
    assert_eq!((verdicts.len(), rig::sum(&verdicts, "records")), (2, records), "{verdicts:?}");
    for verdict in &verdicts {
        assert_eq!((&verdict["missing"], number(verdict, "twice")), (&Value::Array(vec![]), 0));
    }
}

#[ringtap_lab::test]
fn three_sensors_whose_messages_have_many_records_are_complete_though_a_broker_goes() {
    const FLOWS: u32 = 600;
    let Some(place) = Place::new() else { return };
    let cluster = cluster();
    let start = |number: u16| {
        let (name, config) = (format!("s{number}"), place.path(&format!("s{number}.toml")));
        let brokers: Vec<_> = cluster.bootstrap_servers().split(',').map(str::to_owned).collect();
        let text = format!(
            "sensor = \"{name}\"\ninterface = \"{}\"\nspool = \"{}\"\nidle_seconds = 1\nshards = 2\n\
             filter = \"udp\"\n[[sink]]\nkind = \"kafka\"\nbrokers = {brokers:?}\nrecords = 50\n",
            place.veth.right,
            place.path(&name),
        );
        std::fs::write(&config, text).unwrap();
        Sensor::start(HTTP + number, &["--config", &config])
    };
    let mut sensors: Vec<_> = (0..3).map(start).collect();
    send(&place.veth.left, FLOWS, 1, 2000);
    until("some records are there", || acknowledged() >= u64::from(FLOWS));
    cluster.broker_down(2).unwrap();
    send(&place.veth.left, FLOWS, 1, 2000);
    std::thread::sleep(Duration::from_secs(2));
    cluster.broker_up(2).unwrap();
    until("the broker is used again", || acknowledged() >= 2 * u64::from(FLOWS));
    sensors.remove(0).kill();
    let again = start(0);
    send(&place.veth.left, FLOWS, 1, 2000);
    let mut records = number(&again.finish(), "records");
    let others = sensors.into_iter().map(|sensor| number(&sensor.finish(), "records"));
    let others: Vec<_> = others.collect();
    let sink = format!("kafka:{}", cluster.bootstrap_servers());
    let (is_complete, verdicts) = rig::verify(&[&sink]);
    assert_eq!((verdicts.len(), is_complete), (6, true), "{verdicts:?}");
    let (flows, all) = check(&cluster);
    assert_eq!(rig::sum(&verdicts, "records"), all);
    records += others.iter().sum::<u64>();
    assert!(all > records && flows >= 8 * u64::from(FLOWS), "{flows} flows, {all} records");
    let messages = read(&cluster).len() as u64;
    println!("{all} records in {messages} messages");
    assert!(messages < all / 5);
}

#[ringtap_lab::test]
fn messages_are_no_longer_than_the_brokers_take() {
    const MOST: usize = 4000;
    let Some(place) = Place::new() else { return };
    let cluster = cluster();
    let brokers: Vec<_> = cluster.bootstrap_servers().split(',').map(str::to_owned).collect();
    let (config, spool) = (place.path("s.toml"), place.path("s"));
    let text = format!(
        "sensor = \"s\"\ninterface = \"{}\"\nspool = \"{spool}\"\nidle_seconds = 1\nshards = 2\n\
         filter = \"udp\"\n[[sink]]\nkind = \"kafka\"\nbrokers = {brokers:?}\nrecords = 256\n\
         properties = {{ \"message.max.bytes\" = \"{MOST}\" }}\n",
        place.veth.right,
    );
    std::fs::write(&config, text).unwrap();
    let sensor = Sensor::start(HTTP, &["--config", &config]);
    send(&place.veth.left, 600, 1, 2000);
    let account = sensor.finish();
    let (flows, all) = check(&cluster);
    assert_eq!((flows, all), (600 - place.veth.lost(), number(&account, "records")));
    let messages = read(&cluster);
    assert!(messages.iter().all(|(_, message)| message.len() < MOST));
    assert!((messages.len() as u64) < all / 2, "{} messages of {all} records", messages.len());
}

#[ringtap_lab::test]
fn what_is_in_the_topic_behind_the_last_acknowledgement_is_not_sent_again() {
    let Some(place) = Place::new() else { return };
    let cluster = cluster();
    let sensor = place.sensor("1", &[]);
    send(&place.veth.left, 20, 1, 1000);
    let before = sensor.finish();
    // A predecessor has sent these, and was killed before it heard so; others have written since.
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", cluster.bootstrap_servers());
    let producer: BaseProducer = client.create().unwrap();
    let put = |partition: i32, key: &str, text: &str| {
        let message = BaseRecord::to(TOPIC).partition(partition).key(key).payload(text);
        producer.send(message).map_err(|(error, _)| error).unwrap();
    };
    let partition = (crc32fast::hash(b"sensor/0") % PARTITIONS as u32) as i32;
    let name = "{\"sensor\":\"sensor\",\"shard\":0,\"kind\":\"flow\"";
    for sequence in 0..7 {
        put(partition, "sensor/0", &format!("{name},\"sequence\":{sequence}}}"));
    }
    // More than are looked through at first.
    for sequence in 0..9000 {
        let text = format!(
            "{{\"sensor\":\"other\",\"shard\":0,\"sequence\":{sequence},\"kind\":\"flow\"}}"
        );
        put(partition, "other/0", &text);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let sink = format!("kafka:{}", cluster.bootstrap_servers());
    let sensor = place.sensor("1", &["--sink", &sink]);
    send(&place.veth.left, 20, 1, 1000);
    let account = sensor.finish();
    let ours = records(&cluster).into_iter().filter(|(key, _)| key == "sensor/0");
    let sequences: Vec<u64> = ours.map(|(_, record)| number(&record, "sequence")).collect();
    let all = number(&before, "records") + number(&account, "records");
    assert_eq!(sequences, (0..all).collect::<Vec<_>>());
}

#[ringtap_lab::test]
fn a_property_that_there_is_not_is_refused_and_a_password_is_not_shown() {
    let Some(place) = Place::new() else { return };
    let config = place.path("kafka.toml");
    let run = |properties: &str| {
        let text = format!(
            "interface = \"{}\"\nsensor = \"k\"\nspool = \"{}\"\nshards = 1\n[[sink]]\nkind = \"kafka\"\n\
             brokers = [\"127.0.0.1:1\"]\n{properties}\n",
            place.veth.right,
            place.path("spool")
        );
        std::fs::write(&config, text).unwrap();
        let output = std::process::Command::new(rig::program())
            .args(["sensor", "--config", &config, "--seconds", "1"])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run("properties = { \"sasl.pasword\" = \"geheim\" }");
    assert!(code == Some(1) && said.contains("sasl.pasword") && !said.contains("geheim"), "{said}");
    let (code, said) = run("topic = \"a b\"");
    assert!(code == Some(1) && said.contains("topic"), "{said}");
    let (_, said) = run("properties = { \"sasl.password\" = \"geheim\" }");
    assert!(said.contains("127.0.0.1:1") && !said.contains("geheim"), "{said}");
}
