//! The sensor beside the engines that it sends to, each of them the real one.

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use rig::{HTTP, Place, check_packets, number, send, server, sum, until, until_listening};
use ringtap_lab::{Traffic, tool};
use serde_json::Value;

ringtap_lab::test_binary!();

#[ringtap_lab::test]
fn a_collector_of_ipfix_has_the_same_totals() {
    let Some(place) = Place::new() else { return };
    let kept = place.path("kept");
    std::fs::create_dir(&kept).unwrap();
    let words = ["-p", "4739", "-b", "127.0.0.1", "-w", &kept, "-t", "3600", "-B", "16777216"];
    let Some(collector) = server("nfcapd", &words, place.directory.path()) else { return };
    // It says nothing when it listens: a socket that is bound does.
    let socket = || {
        let text = std::fs::read_to_string("/proc/thread-self/net/udp").ok()?;
        text.lines().find(|line| line.contains("0100007F:1283 00000000")).map(str::to_owned)
    };
    until("nfcapd listens", || socket().is_some());
    // With counts in between, which it must not take for flows that it missed.
    let config = place.path("counts.toml");
    let text = "sensor = \"sensor\"\nspool = \"of flags\"\ncounts_seconds = 1\nsink = []\n";
    std::fs::write(&config, text).unwrap();
    let sensor = place.sensor("2", &["--config", &config, "--sink", "ipfix:127.0.0.1:4739"]);
    send(&place.veth.left, 100_000, 2, 60_000);
    let account = sensor.finish();
    check_packets(&account, &place.veth, 200_000);
    // It leaves what is in its socket's buffer when it is asked to end.
    until("nfcapd has read all", || socket().is_some_and(|line| line.contains(":00000000 00:")));
    collector.finish();

    let lines = place.lines();
    let ((flows, missing), [packets, octets]) = (lines.check(), lines.totals());
    assert_eq!((flows, missing), (number(&account, "flows"), 0), "{account}");
    assert_eq!(packets, number(&account, "delivered"));
    // Of a frame, all but its Ethernet header.
    assert_eq!(octets, packets * (Traffic::default().len as u64 - 14));
    let Some(text) = tool::run("nfdump", &["-R", &kept, "-I"], b"") else { return };
    let kept = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse::<u64>().unwrap()
    };
    let names = ["Flows", "Packets", "Bytes", "Sequence failures"];
    assert_eq!(names.map(kept), [flows, packets, octets, 0], "{text}");
    // Dropped packets may take a flow along, both of whose packets they were.
    assert!(flows == 100_000 || number(&account, "drops") + place.veth.lost() > 1, "{flows} flows");
}

#[ringtap_lab::test]
fn two_consumers_of_redis_see_each_record_once_and_nothing_is_lost_while_it_is_away() {
    let Some(place) = Place::new() else { return };
    let words = [
        "--bind",
        "127.0.0.1",
        "--port",
        "6379",
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ];
    let start = || server("redis-server", &words, place.directory.path());
    let Some(redis) = start() else { return };
    until_listening(6379);
    let sensor = place.sensor("2", &["--sink", "redis://127.0.0.1:6379/0", "--idle-seconds", "1"]);
    // As long as this, in seconds, it is away in the middle.
    let away: u64 =
        std::env::var("RINGTAP_SENSOR_AWAY").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let (left, flows) = (place.veth.left.clone(), 1000 * (away as u32 + 6));
    let sending = std::thread::spawn(move || send(&left, flows, 1, 1000));
    std::thread::sleep(Duration::from_secs(2));
    redis.kill();
    let gauge = |name: &str| {
        let page = rig::get(HTTP, "/metrics").unwrap();
        let line =
            page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{page}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    // A page is as it was up to a second ago.
    let (failures, bytes) =
        ("ringtap_sensor_failures_total{sink=\"redis\"}", "ringtap_sensor_spool_bytes");
    until("the sink is missed", || gauge(failures) > 0);
    let spooled = gauge(bytes);
    until("records wait in the spool", || gauge(bytes) >= spooled + 100 * 500);
    let acknowledged = "ringtap_sensor_acknowledged_total{sink=\"redis\"}";
    let had = gauge(acknowledged);
    std::thread::sleep(Duration::from_secs(away));
    assert_eq!(gauge(acknowledged), had, "nobody was there");
    assert!(gauge(bytes) < 1 << 30);
    let _redis = start().expect("it was there");
    sending.join().unwrap();
    until_listening(6379);
    let account = sensor.finish();
    check_packets(&account, &place.veth, flows.into());
    assert_eq!(number(&account, "drops"), 0, "{account}");
    for sink in account["sinks"].as_array().unwrap() {
        assert_eq!(
            (&sink["has_all"], number(sink, "acknowledged")),
            (&Value::from(true), number(&account, "records"))
        );
    }
    let (of_lines, missing) = place.lines().check();
    assert_eq!((of_lines, missing), (flows.into(), 0), "{account}");

    let cli = |words: &[&str]| tool::run("redis-cli", words, b"").unwrap();
    let keys = ["ringtap:sensor:0", "ringtap:sensor:1"];
    keys.iter().for_each(|key| drop(cli(&["XGROUP", "CREATE", key, "g", "0"])));
    let consume = |name: &'static str| {
        let mut seen = Vec::new();
        loop {
            let words = [
                "--json",
                "XREADGROUP",
                "GROUP",
                "g",
                name,
                "COUNT",
                "50",
                "STREAMS",
                keys[0],
                keys[1],
                ">",
                ">",
            ];
            let answer: Value = serde_json::from_str(&cli(&words)).unwrap();
            let Some(streams) = answer.as_object() else { return seen };
            for entry in streams.values().flat_map(|entries| entries.as_array().unwrap()) {
                let text = entry[1][1].as_str().unwrap_or_else(|| panic!("{entry}"));
                seen.push(serde_json::from_str::<Value>(text).unwrap());
            }
        }
    };
    let ours = std::thread::scope(|scope| {
        let other = scope.spawn(|| consume("b"));
        [consume("a"), other.join().unwrap()]
    });
    assert!(ours.iter().all(|seen| !seen.is_empty()), "one of them saw nothing");
    let who = |record: &Value| (number(record, "shard"), number(record, "sequence"));
    let seen: BTreeSet<_> = ours.iter().flatten().map(who).collect();
    let all: u64 = ours.iter().map(|seen| seen.len() as u64).sum();
    assert_eq!(
        (seen.len() as u64, all),
        (number(&account, "records"), number(&account, "records"))
    );

    let place = "redis://127.0.0.1:6379/0";
    let (is_complete, verdicts) = rig::verify(&[place]);
    assert!(is_complete || number(&account, "drops") > 0, "{verdicts:?}");
    assert_eq!(sum(&verdicts, "records"), number(&account, "records"));
    // Somebody removes a record.
    cli(&["XDEL", keys[1], "8-0"]);
    let (is_complete, verdicts) = rig::verify(&[place]);
    let gaps: Vec<&Value> = verdicts.iter().filter(|of| of["missing"] != NONE).collect();
    let [gap] = &gaps[..] else { panic!("{verdicts:?}") };
    assert_eq!((is_complete, number(gap, "shard")), (false, 1));
    assert_eq!((number(&gap["missing"][0], "first"), number(&gap["missing"][0], "last")), (7, 7));
}

#[cfg(feature = "parquet")]
#[ringtap_lab::test]
fn parquet_files_read_by_another_reader_have_the_same_totals_after_a_kill() {
    let Some(place) = Place::new() else { return };
    let config = place.path("parquet.toml");
    let text = format!(
        "spool_mib = 64\ninterface = \"-\"\nsensor = \"p\"\nspool = \"-\"\n\
         [[sink]]\nkind = \"parquet\"\ndirectory = \"{}\"\nrecords = 2000\nseconds = 1\n",
        place.path("parquet")
    );
    std::fs::write(&config, text).unwrap();
    let words = ["--config", &config, "--idle-seconds", "1"];
    let sensor = place.sensor("2", &words);
    send(&place.veth.left, 6000, 1, 2000);
    sensor.kill();
    let sensor = place.sensor("2", &words);
    send(&place.veth.left, 5000, 2, 5000);
    let account = sensor.finish();
    let lines = place.lines();
    let ((flows, _), [packets, octets]) = (lines.check(), lines.totals());
    const READ: &str = "
import sys, glob, pyarrow.parquet as parquet, pyarrow as arrow, pyarrow.compute as compute
tables = [parquet.read_table(name) for name in sorted(glob.glob(sys.argv[1] + '/*.parquet'))]
table = arrow.concat_tables(tables).filter(compute.field('kind') == 'flow')
keys = set(zip(table['sensor'].to_pylist(), table['shard'].to_pylist(), table['sequence'].to_pylist()))
total = lambda *names: sum(compute.sum(table[name]).as_py() for name in names)
print(len(tables), table.num_rows, len(keys), total('packets_sent', 'packets_received'), total('octets_sent', 'octets_received'))
";
    let python = std::process::Command::new("python3").args(["-c", "import pyarrow"]).output();
    if !python.is_ok_and(|output| output.status.success()) {
        ringtap_lab::skip("no pyarrow here: pip install pyarrow");
        return;
    }
    let text = tool::run("python3", &["-c", READ, &place.path("parquet")], b"").unwrap();
    let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert!(numbers[0] > 3, "{text}");
    assert_eq!(numbers[1..], [flows, flows, packets, octets], "{account}");

    // The sensor was killed: flows that it had not written yet are told of, and nothing else is missing.
    let (directory, lines) = (place.path("parquet"), place.path("flows.ndjson"));
    let (_, verdicts) = rig::verify(&[&directory]);
    assert_eq!(sum(&verdicts, "flows"), flows, "{verdicts:?}");
    for verdict in &verdicts {
        assert_eq!((&verdict["missing"], &verdict["wrong_counts"]), (&NONE, &NONE), "{verdict}");
        assert_eq!(number(verdict, "twice"), 0);
    }
    let (_, mut of_lines) = rig::verify(&[&lines]);
    of_lines.iter_mut().for_each(|verdict| verdict["sink"] = "parquet".into());
    assert_eq!(of_lines, verdicts);
    // A file is removed.
    let mut files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(Result::unwrap).collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    std::fs::remove_file(files[1].path()).unwrap();
    let (is_complete, verdicts) = rig::verify(&[&directory]);
    assert!(!is_complete && verdicts.iter().any(|of| of["missing"] != NONE), "{verdicts:?}");
}

/// Nothing is missing.
static NONE: Value = Value::Array(Vec::new());

/// A collector that takes TCP, by the standard's words, for what nfcapd does not take.
#[ringtap_lab::test]
fn ipfix_over_tcp_numbers_its_records_and_tells_its_templates_first() {
    let Some(place) = Place::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:4740").unwrap();
    let collecting = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let sensor = place.sensor("2", &["--sink", "ipfix+tcp:127.0.0.1:4740"]);
    send(&place.veth.left, 3000, 1, 10_000);
    let account = sensor.finish();
    let bytes = collecting.join().unwrap();
    let (mut rest, mut records) = (&bytes[..], BTreeMap::<u32, u32>::new());
    let mut sets: BTreeMap<u16, u32> = BTreeMap::new();
    while !rest.is_empty() {
        let u16_at =
            |bytes: &[u8], at: usize| u16::from_be_bytes(*bytes[at..].first_chunk().unwrap());
        assert_eq!(u16_at(rest, 0), 10, "IPFIX's version");
        let (message, behind) = rest.split_at(u16_at(rest, 2).into());
        let u32_at = |at: usize| u32::from_be_bytes(*message[at..].first_chunk().unwrap());
        let records = records.entry(u32_at(12)).or_default();
        assert_eq!(u32_at(8), *records);
        let mut set = &message[16..];
        while !set.is_empty() {
            let (id, len) = (u16_at(set, 0), usize::from(u16_at(set, 2)));
            let each = match id {
                256 => 63,
                258 => 28,
                259 => 16,
                2 => len - 4,
                3 if u16_at(set, 4) == 258 => {
                    // One scope field, by exporter; flows observed, flows not sent, packets ignored.
                    let told = [8, 10, 14, 18, 22].map(|at| u16_at(set, at));
                    assert_eq!((u16_at(set, 6), told), (4, [1, 144, 163, 166, 164]));
                    len - 4
                }
                3 => {
                    // One scope field, by selector; one packet of one was looked at.
                    let told = [4, 6, 8, 10, 14, 18].map(|at| u16_at(set, at));
                    assert_eq!(told, [259, 3, 1, 302, 305, 306]);
                    len - 4
                }
                id => panic!("a set {id}"),
            };
            assert_eq!((len - 4) % each, 0, "set {id}");
            let count = ((len - 4) / each) as u32;
            *sets.entry(id).or_default() += count;
            *records += if id < 256 { 0 } else { count };
            set = &set[len..];
        }
        rest = behind;
    }
    let flows = number(&account, "flows");
    assert_eq!(flows, 3000 - number(&account, "drops") - place.veth.lost());
    let counts = (number(&account, "records") - flows) as u32;
    let expected = [(2, 1), (3, 2), (256, flows as u32), (258, counts), (259, 1)];
    assert_eq!(sets, BTreeMap::from(expected));
    // What they are about is counted by itself: flows and their sampling, and the process.
    assert_eq!(records, BTreeMap::from([(0, counts), (1, flows as u32 + 1)]));
}
