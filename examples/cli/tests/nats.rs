//! The sensor beside NATS JetStream.

mod rig;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use rig::{HTTP, Place, Process, Received, Sensor, number, send, server, until, until_listening};
use ringtap_lab::{Host, Veth};
use serde_json::Value;

ringtap_lab::test_binary!();

#[ringtap_lab::test]
fn a_stream_of_three_nats_servers_has_every_record_once_though_one_is_killed() {
    let Some(place) = Place::new() else { return };
    let mut servers: Vec<Option<Process>> = Vec::new();
    for number in 1..=3 {
        let Some(server) = nats(&place, number) else { return };
        servers.push(Some(server));
    }
    (1..=3).for_each(|number| until_listening(4220 + number));
    // Three sensors, each in a namespace of its own; the first one's is where the servers are.
    let cables: Vec<Veth> = (0..3).map(|_| place.namespace.veth()).collect();
    let hosts: Vec<Host> = (1..)
        .zip(&cables)
        .map(|(at, cable)| Host::new(&cable.right, Ipv4Addr::new(10, 9, at, 1)))
        .collect();
    cables.iter().for_each(|cable| ringtap_lab::link::wait_for_carrier(&cable.left));
    let config = place.path("nats.toml");
    let text = "spool_mib = 64\ninterface = \"of flags\"\nsensor = \"of-flags\"\nspool = \"of flags\"\n\
        drain_seconds = 90\n[[sink]]\nkind = \"nats\"\n\
        servers = [\"127.0.0.1:4221\", \"127.0.0.1:4222\", \"127.0.0.1:4223\"]\nreplicas = 3\nin_flight = 256\n";
    std::fs::write(&config, text).unwrap();
    let sensors: Vec<Sensor> = (0_u16..)
        .zip(&hosts)
        .map(|(at, host)| {
            let file = host
                .namespace_file()
                .to_str()
                .unwrap()
                .replace("self", &std::process::id().to_string());
            let (name, spool) = (format!("s{at}"), place.path(&format!("spool{at}")));
            let words =
                ["--config", &config, "--sensor", &name, "--spool", &spool, "--netns", &file];
            let more = [
                "--interface",
                host.interface(),
                "--shards",
                "2",
                "--filter",
                "udp",
                "--idle-seconds",
                "1",
            ];
            Sensor::start(HTTP + at, &[words, more].concat())
        })
        .collect();
    const FLOWS: u32 = 1500;
    let sending: Vec<_> = cables
        .iter()
        .map(|cable| {
            let left = cable.left.clone();
            std::thread::spawn(move || send(&left, FLOWS, 1, 150)) // for ten seconds
        })
        .collect();
    std::thread::sleep(Duration::from_secs(3));
    servers[0].take().expect("it runs").kill();
    std::thread::sleep(Duration::from_secs(4));
    servers[0] = nats(&place, 1);
    sending.into_iter().for_each(|thread| thread.join().unwrap());
    let accounts: Vec<Value> = sensors.into_iter().map(Sensor::finish).collect();
    let spooled: u64 = accounts.iter().map(|account| number(account, "records")).sum();
    for account in &accounts {
        assert_eq!(account["sinks"][0]["has_all"], true, "{account}");
    }
    let mut records = Client::new(4222).stream();
    // What was on its way to the killed server may be there behind what came after it.
    records.sort_by_key(|record| number(record, "sequence"));
    let received = Received::of(records);
    let (flows, missing) = received.check();
    assert_eq!((flows, missing), (3 * u64::from(FLOWS), 0), "{accounts:?}");
    assert_eq!(received.len() as u64, spooled);
    let (_, verdicts) = rig::verify(&["nats:127.0.0.1:4222,127.0.0.1:4223"]);
    assert_eq!((verdicts.len(), rig::sum(&verdicts, "records")), (6, spooled), "{verdicts:?}");
    assert!(verdicts.iter().all(|of| of["complete"] == true || number(of, "drops") > 0));
}

fn nats(place: &Place, number: u16) -> Option<Process> {
    let (name, store) = (format!("n{number}"), place.path(&format!("store{number}")));
    let (port, own) = ((4220 + number).to_string(), format!("nats://127.0.0.1:{}", 6220 + number));
    let routes = "nats://127.0.0.1:6221,nats://127.0.0.1:6222,nats://127.0.0.1:6223";
    let words = ["-n", &name, "-a", "127.0.0.1", "-p", &port, "-js", "-sd", &store];
    let cluster = ["-cluster_name", "lab", "-cluster", &own, "-routes", routes];
    server("nats-server", &[&words[..], &cluster].concat(), place.directory.path())
}

/// A client of another make than the sensor's: NATS' text, spoken here.
struct Client {
    out: TcpStream,
    input: BufReader<TcpStream>,
}

impl Client {
    fn new(port: u16) -> Self {
        let out = TcpStream::connect(("127.0.0.1", port)).unwrap();
        out.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        out.set_nodelay(true).unwrap();
        let input = BufReader::new(out.try_clone().unwrap());
        let mut client = Self { out, input };
        client.say(b"CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB inbox 1\r\n");
        client
    }

    fn say(&mut self, words: &[u8]) {
        self.out.write_all(words).unwrap();
    }

    fn answer(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            self.input.read_line(&mut line).unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["PING"] => self.say(b"PONG\r\n"),
                ["MSG" | "HMSG", .., len] => {
                    let mut bytes = vec![0; len.parse::<usize>().unwrap() + 2];
                    self.input.read_exact(&mut bytes).unwrap();
                    return serde_json::from_slice(&bytes[..bytes.len() - 2]).ok();
                }
                _ => {}
            }
        }
    }

    fn ask(&mut self, subject: &str, body: &str) -> Option<Value> {
        self.say(format!("PUB {subject} inbox {}\r\n{body}\r\n", body.len()).as_bytes());
        self.answer()
    }

    /// All messages of the stream, in its order.
    fn stream(&mut self) -> Vec<Value> {
        let mut info = Value::Null;
        until("the stream has a leader", || {
            info = self.ask("$JS.API.STREAM.INFO.ringtap", "").unwrap_or_default();
            info["state"].is_object()
        });
        let get = |sequence| {
            let body = format!("{{\"seq\":{sequence}}}");
            let answer = self.ask("$JS.API.STREAM.MSG.GET.ringtap", &body).unwrap();
            let data = answer["message"]["data"].as_str().unwrap_or_else(|| panic!("{answer}"));
            serde_json::from_slice(&base64(data)).unwrap()
        };
        (1..=number(&info["state"], "last_seq")).map(get).collect()
    }
}

#[ringtap_lab::test]
fn a_hole_in_a_stream_is_filled_and_what_is_there_is_not_sent_again() {
    let Some(place) = Place::new() else { return };
    let store = place.path("store");
    let words = ["-a", "127.0.0.1", "-p", "4222", "-js", "-sd", &store];
    let Some(_server) = server("nats-server", &words, place.directory.path()) else { return };
    until_listening(4222);
    let sensor = place.sensor("1", &[]);
    send(&place.veth.left, 20, 1, 1000);
    let before = sensor.finish();
    let mut client = Client::new(4222);
    let stream =
        r#"{"name":"ringtap","subjects":["ringtap.flows.>"],"duplicate_window":100000000}"#;
    let made = client.ask("$JS.API.STREAM.CREATE.ringtap", stream).unwrap();
    assert!(made["config"].is_object(), "{made}");
    // Of what a sensor sent in one go, the server has this, and has forgotten that it came just now.
    let there = [0, 1, 3, 4, 7];
    for sequence in there {
        let head = format!("NATS/1.0\r\nNats-Msg-Id: sensor/0/{sequence}\r\n\r\n");
        let body = format!(
            "{{\"sensor\":\"sensor\",\"shard\":0,\"sequence\":{sequence},\"kind\":\"old\"}}"
        );
        let (of_head, all) = (head.len(), head.len() + body.len());
        client.say(
            format!("HPUB ringtap.flows.sensor.0 inbox {of_head} {all}\r\n{head}{body}\r\n")
                .as_bytes(),
        );
        assert!(client.answer().unwrap()["seq"].is_u64());
    }
    std::thread::sleep(Duration::from_millis(500));
    let sensor = place.sensor("1", &["--sink", "nats:127.0.0.1:4222"]);
    send(&place.veth.left, 20, 1, 1000);
    let account = sensor.finish();
    assert_eq!(number(&account, "flows"), 20, "{account}");
    let records = client.stream();
    let old = |record: &&Value| record["kind"] == "old";
    assert_eq!(records.iter().filter(old).count(), there.len());
    let mut sequences: Vec<u64> = records.iter().map(|record| number(record, "sequence")).collect();
    sequences.sort_unstable();
    assert_eq!(
        sequences,
        (0..number(&before, "records") + number(&account, "records")).collect::<Vec<_>>()
    );
}

fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let place = |letter: u8| LETTERS.iter().position(|&known| known == letter).unwrap() as u32;
    let letters: Vec<u8> = text.bytes().filter(|&letter| letter != b'=').collect();
    let bytes = letters.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0, |bits, &letter| bits << 6 | place(letter))
            << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    });
    bytes.collect()
}
