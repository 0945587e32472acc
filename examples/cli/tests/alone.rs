//! The sensor without anybody to send to.

mod rig;

use std::process::Command;
use std::time::Duration;

use rig::{Received, Sensor, check_packets, get, number, program, send};
use ringtap::pcap::CaptureReader;
use ringtap_lab::{Directory, namespace};

ringtap_lab::test_binary!();

fn text(words: &[&str]) -> String {
    let output = Command::new(program()).args(words).output().expect("it was built");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("it writes text")
}

fn complaint(words: &[&str]) -> String {
    let output = Command::new(program()).args(words).output().expect("it was built");
    assert!(!output.status.success(), "{words:?}");
    String::from_utf8(output.stderr).expect("it writes text")
}

#[ringtap_lab::test]
fn the_demo_of_a_recording_proves_what_is_in_the_files() {
    if namespace().is_none() {
        return;
    }
    let text = text(&["demo", "--recording"]);
    let last = text.lines().last();
    assert_eq!(last, Some("every packet is in a file once, or known to be missing"), "{text}");
}

#[ringtap_lab::test]
fn the_demo_accounts_for_every_packet_from_the_wire_to_the_sink() {
    if namespace().is_none() {
        return;
    }
    let directory = Directory::new();
    let report = directory.path().join("report.html");
    let text = text(&["demo", "--visits", "500", "--report", report.to_str().unwrap()]);
    assert!(text.ends_with("every packet is accounted for, from the wire to the sink\n"), "{text}");
    assert!(text.contains("1500 made") && text.contains("shard core"), "{text}");
    let page = std::fs::read_to_string(report).unwrap();
    for part in [
        "<title>ringtap sensor demo</title>",
        "<b>9\u{202f}000</b>packets",
        "dropped by the kernel",
        "Latency of packets",
        "From the wire to the sink",
        "<b>1\u{202f}500</b>flows",
        "<td>TCP 80<td>",
        "9000 delivered",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("http") && !page.contains("NaN"), "{page}");
    assert!(complaint(&["demo", "--report", "a.pdf"]).contains("ends with .html"));
}

#[ringtap_lab::test]
fn completions_and_the_manual_are_those_of_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&["completions", shell]).contains("ringtap"));
    }
    let manual = text(&["man"]);
    assert!(manual.starts_with(".ie") && manual.contains("ringtap\\-sensor"), "{manual}");
    let report: serde_json::Value = serde_json::from_str(&text(&["doctor", "--json"])).unwrap();
    assert!(report.to_string().contains("io_uring"), "{report}");
}

#[ringtap_lab::test]
fn what_a_record_costs_is_measured_with_records_that_arrive() {
    let directory = Directory::new();
    let path = directory.path().join("flows.ndjson");
    let text =
        text(&["measure", "--records", "1000", "--sink", &format!("ndjson:{}", path.display())]);
    assert!(text.contains("\nspool ") && text.contains("\nndjson "), "{text}");
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1000);
}

#[ringtap_lab::test]
fn a_spool_is_one_sensors() {
    let Some(namespace) = namespace() else { return };
    namespace.loopback_up();
    let directory = Directory::new();
    let spool = directory.path().join("spool");
    let words = ["--interface", "lo", "--spool", spool.to_str().unwrap(), "--sink", "ndjson:-"];
    let _sensor = Sensor::start(9101, &words);
    let told = complaint(&[&["run"][..], &words].concat());
    assert!(told.contains("another sensor has it"), "{told}");
}

#[ringtap_lab::test]
fn what_is_wrong_is_said_with_a_remedy() {
    let Some(_namespace) = namespace() else { return };
    let directory = Directory::new();
    let spool = directory.path().join("spool");
    let spool = spool.to_str().unwrap();
    let run = |more: &[&str]| complaint(&[&["run", "--spool", spool][..], more].concat());
    assert!(run(&[]).contains("give --interface"));
    assert!(run(&["--interface", "lo"]).contains("--sink KIND:WHERE"));
    assert!(run(&["--interface", "none", "--sink", "ndjson"]).contains("none"));
    assert!(run(&["--interface", "lo", "--sink", "smoke:1"]).contains("write ndjson:PATH"));
    assert!(
        run(&["--interface", "lo", "--sink", "ndjson", "--filter", "tcp and"]).contains("filter")
    );
    let config = directory.path().join("c.toml");
    std::fs::write(&config, "sensor = \"a b\"\n").unwrap();
    let told = complaint(&["run", "--config", config.to_str().unwrap()]);
    assert!(told.contains("line 1") && told.contains("letters, digits"), "{told}");
}

#[ringtap_lab::test]
fn top_flows_and_capture_show_what_comes() {
    let Some(namespace) = namespace() else { return };
    let veth = namespace.veth();
    let (left, right) = (veth.left.clone(), veth.right.clone());
    let directory = Directory::new();
    let sending = std::thread::spawn(move || send(&left, 50, 2000, 10_000));
    let look: serde_json::Value =
        serde_json::from_str(&text(&["top", &right, "--once", "--json", "--shards", "1"])).unwrap();
    assert!(number(&look["shards"][0], "packets") > 0, "{look}");
    let flows = text(&["flows", &right, "--format", "csv", "--seconds", "2"]);
    assert_eq!(flows.lines().count(), 51, "{flows}");
    let to = directory.path().to_str().unwrap();
    let told = text(&["capture", &right, "--directory", to, "--seconds", "2", "--snap-len", "64"]);
    let packets: u64 = told.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap();
    let files = std::fs::read_dir(directory.path()).unwrap().count();
    assert!(packets > 0 && files == 1, "{told}");
    sending.join().unwrap();
}

#[ringtap_lab::test]
fn top_tells_who_talks_now_and_counts_no_packet_twice() {
    let Some(namespace) = namespace() else { return };
    let veth = namespace.veth();
    let (left, right) = (veth.left.clone(), veth.right.clone());
    let sending = std::thread::spawn(move || send(&left, 4, 10_000, 10_000));
    let told = text(&["top", &right, "--json", "--shards", "1", "--seconds", "6"]);
    sending.join().unwrap();
    let looks: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let talkers = looks.iter().flat_map(|look| look["talkers"].as_array().unwrap());
    let packets: u64 = talkers.map(|talker| number(talker, "packets")).sum();
    let all = number(&looks.last().unwrap()["shards"][0], "packets");
    // Flows that go on are in several looks, each with what came since the one before.
    assert!(looks.len() > 2 && packets > 0 && packets <= all, "{packets} of {all}: {told}");
}

/// Reads a file of the cases, and returns the lines as JSON.
fn lines(command: &str, name: &str, more: &[&str]) -> Vec<serde_json::Value> {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/flow/cases/");
    let file = format!("{cases}{name}");
    let text = text(&[&[command, "-r", &file], more].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[ringtap_lab::test]
fn files_are_read_as_flows_and_messages() {
    let flows = lines("flows", "encap-gre.pcap", &["--format", "ndjson"]);
    let kinds: Vec<&str> = flows.iter().map(|flow| flow["proto"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["tcp", "udp"]);
    assert_eq!((&flows[0]["octets_sent"], &flows[0]["src_port"]), (&276.into(), &40000.into()));
    let outer = lines("flows", "encap-gre.pcap", &["--format", "ndjson", "--tunnels", "outer"]);
    assert!(outer.len() == 1 && outer[0]["proto"] == "47", "{outer:?}");
    let messages = lines("messages", "http-chunked.pcap", &["--json"]);
    let kinds: Vec<(&str, &str)> = messages
        .iter()
        .map(|message| (message["protocol"].as_str().unwrap(), message["type"].as_str().unwrap()))
        .collect();
    assert_eq!(kinds, [("http", "request"), ("http", "response")].repeat(3));
    let [request, response, ..] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((&request["method"], &request["path"]), (&"GET".into(), &"/1".into()));
    assert_eq!((&response["status"], &response["body"]), (&200.into(), &"hello".into()));
    assert_eq!((&request["src_port"], &response["src_port"]), (&40000.into(), &80.into()));
    assert!(request["time"].as_str().unwrap().starts_with("2023-11-14T22:13:20."), "{request}");
    let filter = ["--json", "--filter", "udp src port 20000"];
    let messages = lines("messages", "dns-query-types.pcap", &filter);
    let [query] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((&query["protocol"], &query["type"]), (&"dns".into(), &"query".into()));
    let question = serde_json::json!({ "name": "t1.example", "qtype": 1, "qclass": 1 });
    assert_eq!(query["questions"], serde_json::json!([question]));
}

#[ringtap_lab::test]
fn a_kill_at_any_time_takes_only_what_is_counted_at_the_next_start() {
    let Some(namespace) = namespace() else { return };
    namespace.loopback_up();
    let (veth, directory) = (namespace.veth(), Directory::new());
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (spool, file) = (path("spool"), path("flows.ndjson"));
    let sink = format!("ndjson:{file}");
    let words = ["--interface", &veth.right, "--spool", &spool, "--sink", &sink, "--shards", "2"];
    let words = [&words[..], &["--idle-seconds", "1", "--filter", "udp"]].concat();
    for round in 0..6_u64 {
        let sensor = Sensor::start(9101, &words);
        // Flows end while others begin, and the kill comes in the middle of it.
        send(&veth.left, 4000, 1, 2000 + 100 * round);
        std::thread::sleep(Duration::from_millis(37 * round));
        sensor.kill();
    }
    let sensor = Sensor::start(9101, &words);
    send(&veth.left, 1000, 1, 10_000);
    let account = sensor.finish();
    assert_eq!(number(&account, "flows"), 1000, "{account}");
    let received = Received::in_lines(file.as_ref());
    // A shard's line of it begins with the flows that it has made records of.
    let ledger = std::fs::read(directory.path().join("spool/ledger")).unwrap();
    let made: u64 =
        ledger.chunks(32).map(|line| u64::from_be_bytes(*line.first_chunk().unwrap())).sum();
    let (flows, missing) = received.check();
    // Those that the table still had when it was killed were no records yet.
    assert!(flows > 6000, "{flows} and {missing}");
    assert_eq!(flows + missing, made, "made, by the ledger");
}

#[ringtap_lab::test]
fn a_spool_that_is_full_takes_nothing_more_and_counts_it() {
    let Some(namespace) = namespace() else { return };
    namespace.loopback_up();
    let (veth, directory) = (namespace.veth(), Directory::new());
    let spool = directory.path().join("spool").to_str().unwrap().to_owned();
    let words =
        ["--interface", &veth.right, "--spool", &spool, "--spool-mib", "1", "--shards", "1"];
    // Nobody listens there.
    let more = ["--sink", "ipfix+tcp:127.0.0.1:4739", "--filter", "udp"];
    let sensor = Sensor::start(9101, &[&words[..], &more].concat());
    send(&veth.left, 30_000, 1, 30_000);
    let page = get(9101, "/metrics").unwrap();
    for name in [
        "ringtap_capture_drops_total",
        "ringtap_sensor_spool_bytes",
        "ringtap_sensor_failures_total{sink=\"ipfix\"}",
    ] {
        assert!(page.contains(name), "{page}");
    }
    let account = sensor.finish();
    check_packets(&account, &veth, 30_000);
    let (flows, refused) = (number(&account, "flows"), number(&account, "refused"));
    assert!(
        flows == 30_000 - number(&account, "drops") - veth.lost() && refused > 15_000,
        "{account}"
    );
    let bytes: u64 = std::fs::read_dir(&spool)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes < 1_100_000, "{bytes}");
}

#[ringtap_lab::test]
fn words_and_flags_are_those_of_tcpdump() {
    let Some(namespace) = namespace() else { return };
    let veth = namespace.veth();
    let directory = Directory::new();
    let path = directory.path().join("some.pcapng");
    let file = path.to_str().unwrap();
    let (left, right) = (veth.left.clone(), veth.right.clone());
    let sending = std::thread::spawn(move || send(&left, 4, 2000, 2000));
    let told = text(&[
        "capture", "-n", "-i", &right, "-c", "25", "-s", "60", "-w", file, "ip", "and", "not",
        "icmp",
    ]);
    assert!(told.starts_with("25 packets, "), "{told}");
    // To a reader, packet by packet; an interface without its flag, and a filter in one word.
    let piped = Command::new(program())
        .args(["capture", &right, "-c5", "-w", "-", "ip and not icmp"])
        .output()
        .unwrap();
    assert!(piped.status.success(), "{piped:?}");
    sending.join().unwrap();
    for (bytes, count, len) in
        [(std::fs::read(&path).unwrap(), 25, Some(60)), (piped.stdout, 5, None)]
    {
        let mut reader = CaptureReader::from_reader(std::io::Cursor::new(bytes)).unwrap();
        let mut seen = 0;
        while let Some(record) = reader.next_record().unwrap() {
            seen += 1;
            assert!(len.is_none_or(|len| record.packet().len() == len), "{record:?}");
        }
        assert_eq!(seen, count);
    }
    // What is read can be filtered so too.
    let flows = |words: &[&str]| {
        text(&[&["flows", "-r", file, "--json"][..], words].concat()).lines().count()
    };
    assert_eq!(flows(&["udp"]) + flows(&["not", "udp"]), flows(&[]));
    assert!(complaint(&["flows"]).contains("no interface"));
    assert!(complaint(&["capture", "lo", "--filter", "ip", "udp"]).contains("give one"));
    assert!(complaint(&["capture", "lo", "-c", "1", "-w", "/dev/full"]).contains("No space left"));
}
