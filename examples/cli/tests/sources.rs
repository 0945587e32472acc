//! Where a sensor's packets come from: several interfaces, all of them, queues, and files.

mod rig;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{HTTP, Place, Received, Sensor, number, send, verify};
use ringtap::packet::{Packet, Timestamp};
use ringtap::pcap::{CaptureWriter, FileFormat, PacketSink};
use ringtap_lab::{Traffic, bootstrap, skip_for_ordinary_users};
use serde_json::Value;

ringtap_lab::test_binary!();

/// A sensor with these words that writes lines; and where.
fn sensor(place: &Place, name: &str, words: &[&str]) -> (Sensor, String) {
    sensor_by(Command::new(rig::program()), place, name, words)
}

/// Starts such a sensor through `command`, to which its arguments are added.
fn sensor_by(command: Command, place: &Place, name: &str, words: &[&str]) -> (Sensor, String) {
    let (lines, spool) = (place.path(&format!("{name}.ndjson")), place.path(name));
    let sink = format!("ndjson:{lines}");
    let own = ["--sensor", name, "--spool", &spool, "--sink", &sink, "--filter", "udp"];
    let words = [&own[..], &["--idle-seconds", "1"], words].concat();
    (Sensor::start_by(command, HTTP, &words), lines)
}

/// Flows, packets and octets in lines.
fn totals(lines: &str) -> (u64, [u64; 2]) {
    let received = Received::in_lines(lines.as_ref());
    (received.check().0, received.totals())
}

#[ringtap_lab::test]
fn flows_of_several_interfaces_and_of_all_are_told_by_one_sensor() {
    let Some(place) = Place::new() else { return };
    let other = place.namespace.veth();
    let both = ["-i", &place.veth.right, "-i", &other.right, "--shards", "2"];
    for (name, words) in [("both", &both[..]), ("any", &["-i", "any", "--shards", "2"])] {
        let (sensor, lines) = sensor(&place, name, words);
        // Of one more interface, which has no part in `both`.
        send(&place.veth.left, 300, 2, 5000);
        let traffic = Traffic { flows: 200, len: 200, ..Default::default() };
        ringtap_lab::Generator::new(&other.left, &traffic).paced(400, 5000);
        let account = sensor.finish();
        let (flows, [packets, _]) = totals(&lines);
        assert_eq!(number(&account, "drops"), 0, "{account}");
        // With `any`, a veth pair shows each packet at both of its ends; flows of both interfaces have the same addresses.
        let times = if name == "any" { 2 } else { 1 };
        assert_eq!(
            packets,
            times * (600 + 400) - times * (place.veth.lost() + other.lost()),
            "{account}"
        );
        assert_eq!(flows, 300, "{account}");
    }
}

#[ringtap_lab::test]
fn a_sensor_without_a_right_captures_on_sockets_that_are_passed_to_it() {
    let Some(place) = Place::new() else { return };
    let other = place.namespace.veth();
    let both = ["-i", &place.veth.right, "-i", &other.right];
    let without_rights = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"];
    let alone = Command::new(without_rights[0])
        .args(&without_rights[1..])
        .arg(rig::program())
        .args(["sensor", "--spool", &place.path("refused"), "--sink", "ndjson:-"])
        .args(both)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&alone.stderr);
    assert!(!alone.status.success() && said.contains("CAP_NET_RAW"), "{said}");

    let mut command = Command::new(rig::program());
    command.arg("pass").args(both).args(["-n", "2", "--"]).args(without_rights);
    command.arg(rig::program());
    let (sensor, lines) =
        sensor_by(command, &place, "passed", &[&both[..], &["--passed"]].concat());
    send(&place.veth.left, 300, 2, 5000);
    let traffic = Traffic { flows: 200, len: 200, ..Default::default() };
    ringtap_lab::Generator::new(&other.left, &traffic).paced(400, 5000);
    let account = sensor.finish();
    let (flows, [packets, _]) = totals(&lines);
    assert_eq!(number(&account, "drops"), 0, "{account}");
    assert_eq!(packets, 600 + 400 - place.veth.lost() - other.lost(), "{account}");
    assert_eq!(flows, 300, "{account}");
}

#[ringtap_lab::test]
fn sockets_that_are_too_many_or_not_there_are_refused() {
    let Some(place) = Place::new() else { return };
    let (name, spool) = (&place.veth.right, place.path("spool"));
    let sensor = |before: &[&str], words: &[&str]| {
        let (first, rest) = before.split_first().unwrap();
        let mut command = Command::new(first);
        command.args(rest).arg("sensor").args(["-i", name, "--spool", &spool, "--passed"]);
        command.args(["--sink", "ndjson:-", "--seconds", "1"]).args(words);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let program = rig::program().to_str().unwrap().to_owned();
    let said = sensor(&[&program], &[]);
    assert!(said.contains("ringtap pass"), "{said}");
    let said =
        sensor(&[&program, "pass", "-i", name, "-n", "2", "--", &program], &["--shards", "3"]);
    assert!(said.contains("a socket for each capture"), "{said}");
    let said = sensor(&[&program, "pass", "-i", name, "--", "/no/such"], &[]);
    assert!(said.contains("/no/such: No such file"), "{said}");
    let said = sensor(&[&program, "pass", "-i", "no0such", "--", &program], &[]);
    assert!(said.contains("no0such"), "{said}");
}

#[ringtap_lab::test]
fn flows_of_queues_are_told_before_the_stack_sees_them() {
    let Some(place) = Place::new() else { return };
    if !bootstrap::was_root() {
        return skip_for_ordinary_users("receiving through AF_XDP takes root");
    }
    let (sensor, lines) = sensor(&place, "queues", &["-i", &place.veth.right, "--xdp"]);
    send(&place.veth.left, 300, 2, 5000);
    let account = sensor.finish();
    let (flows, [packets, _]) = totals(&lines);
    assert_eq!(
        (flows, packets),
        (300, 600 - place.veth.lost() - number(&account, "drops")),
        "{account}"
    );
}

/// Runs a sensor to its end.
fn run(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(rig::program()).arg("sensor").args(words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The account of a sensor that reads these places.
fn read(place: &Place, name: &str, words: &[&str]) -> (Value, String) {
    let (lines, spool) = (place.path(&format!("{name}.ndjson")), place.path(name));
    let sink = format!("ndjson:{lines}");
    let own = ["--json", "--sensor", name, "--spool", &spool, "--spool-mib", "1", "--sink", &sink];
    let (code, out, said) = run(&[&own[..], words].concat());
    assert_eq!(code, Some(0), "{said}");
    (serde_json::from_str(&out).unwrap(), lines)
}

#[ringtap_lab::test]
fn files_and_recordings_give_the_records_that_their_packets_would_have_given() {
    let Some(place) = Place::new() else { return };
    let recording = place.path("recording");
    let mut command = Command::new(rig::program());
    command.args(["record", "-i", &place.veth.right, "udp", "-w", &recording]);
    let mut recorder = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(recorder.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("recording"), "{line}");
    // More than the queue of a shard, and the spool, have room for.
    send(&place.veth.left, 60_000, 1, 20_000);
    kill(Pid::from_raw(recorder.id() as i32), Signal::SIGTERM).unwrap();
    let mut said = String::new();
    recorder.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(recorder.wait().unwrap().success(), "{said}");
    let recorded: u64 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(recorded > 50_000, "{said}");

    let (account, lines) = read(&place, "offline", &["-r", &recording, "--idle-seconds", "1"]);
    let (flows, all) = totals(&lines);
    assert_eq!((flows, all[0]), (recorded, recorded), "{account}");
    assert_eq!((number(&account, "overflowed"), number(&account, "refused")), (0, 0), "{account}");
    assert_eq!(number(&account, "delivered"), recorded);
    assert!(verify(&[&lines]).0);

    // File after file, and from a pipe.
    let mut files: Vec<_> =
        std::fs::read_dir(&recording).unwrap().flatten().map(|of| of.path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "pcapng"));
    files.sort();
    let mut words = vec!["--idle-seconds", "1"];
    files.iter().for_each(|file| words.extend(["-r", file.to_str().unwrap()]));
    let (_, lines) = read(&place, "files", &words);
    assert_eq!(totals(&lines).1, all);
    let (narrow, lines) =
        read(&place, "narrow", &["-r", &recording, "--filter", "udp src port 10007"]);
    assert_eq!(number(&narrow, "delivered"), totals(&lines).1[0]);
    assert!(number(&narrow, "delivered") < recorded);
}

#[ringtap_lab::test]
fn a_pipe_that_says_nothing_does_not_hold_up_the_end() {
    let Some(place) = Place::new() else { return };
    let (spool, sink) = (place.path("spool"), format!("ndjson:{}", place.path("lines")));
    let mut command = Command::new(rig::program());
    command.args(["sensor", "--json", "--spool", &spool, "--sink", &sink, "-r", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The pipe stays open.
    let _stdin = child.stdin.take().unwrap();
    rig::until("it reads", || Path::new(&spool).join("00000001.seg").exists());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("before all was read"), "{said}");
}

#[ringtap_lab::test]
fn what_cannot_be_read_or_watched_is_refused_before_anything_is_written() {
    let Some(place) = Place::new() else { return };
    let spool = place.path("spool");
    let empty = place.path("empty");
    std::fs::create_dir(&empty).unwrap();
    for (words, says) in [
        (&["-r", "/nowhere/a.pcap"][..], "/nowhere/a.pcap"),
        (&["-r", &empty], "no capture file"),
        (&["-i", "lo", "-i", "lo"], "twice"),
        (&["-i", "lo", "-i", "any"], "alone"),
        (&["-i", "any", "--xdp"], "one interface"),
        (&["-r", "-", "--view"], "--view"),
        (&[], "no interface"),
    ] {
        let own = ["--spool", &spool, "--sink", "ndjson:-"];
        let (code, _, said) = run(&[&own[..], words].concat());
        assert_eq!(code, Some(1), "{words:?}: {said}");
        assert!(said.contains(says), "{words:?}: {said}");
        assert!(!Path::new(&spool).join("00000001.seg").exists(), "{words:?}");
    }
    let damaged = place.path("damaged.pcap");
    std::fs::write(&damaged, "not a capture").unwrap();
    let (code, _, said) = run(&["--spool", &spool, "--sink", "ndjson:-", "-r", &damaged]);
    assert!(code == Some(1) && said.contains("damaged.pcap"), "{said}");
}

#[ringtap_lab::test]
fn a_flow_of_ten_minutes_is_told_each_minute_and_the_sums_are_its() {
    const SECONDS: u64 = 600;
    let Some(place) = Place::new() else { return };
    let file = place.path("long.pcap");
    let (mut writer, mut bytes) =
        (CaptureWriter::builder().format(FileFormat::PcapMicros).create(&file).unwrap(), 0);
    let traffic = Traffic { flows: 1, ..Traffic::default() };
    for second in 0..=SECONDS {
        let frame = traffic.frame(second, 0);
        bytes += frame.len() as u64;
        let time = Timestamp { secs: 1_700_000_000 + second as u32, nanos: 0 };
        writer.write_packet(&Packet::from_bytes(&frame, time)).unwrap();
    }
    writer.finish().unwrap();
    let (_, lines) = read(&place, "long", &["-r", &file]);
    let text = std::fs::read_to_string(&lines).unwrap();
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let flows: Vec<_> = records.iter().filter(|record| record["kind"] == "flow").collect();
    let active = flows.iter().filter(|flow| flow["reason"] == "active").count();
    assert!((9..=10).contains(&active) && flows.len() == active + 1, "{flows:?}");
    let sum = |name: &str| flows.iter().map(|flow| number(flow, name)).sum::<u64>();
    assert_eq!((sum("packets_sent"), sum("packets_received")), (SECONDS + 1, 0));
    assert_eq!(sum("bytes_sent"), bytes);
    for pair in flows.windows(2) {
        assert_eq!(number(pair[1], "start_ns"), number(pair[0], "end_ns"));
        let minutes = (number(pair[0], "end_ns") - number(flows[0], "start_ns")) as f64 / 6e10;
        assert!((minutes - minutes.round()).abs() < 0.05, "{minutes}");
    }
}
