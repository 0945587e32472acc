//! What an operator does to a sensor in its first week.

mod rig;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{HTTP, Place, Sensor, get, number, program, send, until};
use ringtap_lab::{Directory, namespace, skip_for_ordinary_users};

ringtap_lab::test_binary!();

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/flow/cases/");

fn output(words: &[&str]) -> Output {
    Command::new(program()).args(words).output().expect("it was built")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[ringtap_lab::test]
fn a_full_disk_and_a_reader_that_leaves_are_errors_and_no_panics() {
    let file = format!("{CASES}http-chunked.pcap");
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for words in
        [&["flows", "-r", &file][..], &["messages", "-r", &file], &["doctor"], &["man", "run"]]
    {
        let spoilt = Command::new(program()).args(words).stdout(full()).output().unwrap();
        let said = errors(&spoilt);
        assert_eq!(spoilt.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("No space left on device"), "{words:?}: {said}");
        // Not even standard error can be written.
        let mute = Command::new(program()).args(words).stdout(full()).stderr(full()).output();
        assert_eq!(mute.unwrap().status.code(), Some(1), "{words:?}");
        // Nobody has ever read.
        let mut child = Command::new(program());
        let mut child = child.args(words).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let code = child.wait().unwrap().code();
        // A short text may fit into the pipe before the reader goes.
        assert!(matches!(code, Some(141 | 0)), "{words:?}: {code:?}");
    }
}

/// `capture` at work on an interface.
fn capturing(
    interface: &str,
    directory: &Path,
    more: &[&str],
) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut command = Command::new(program());
    command.args(["capture", interface, "--directory", directory.to_str().unwrap()]).args(more);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap(); // it has begun
    (child, told)
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

#[ringtap_lab::test]
fn signals_ask_how_it_goes_end_it_or_have_it_started_anew() {
    let Some(net) = namespace() else { return };
    // Whoever runs the tests under nohup has their children ignore it.
    // SAFETY: it is what a process begins with; no handler is installed.
    unsafe { nix::sys::signal::signal(Signal::SIGHUP, nix::sys::signal::SigHandler::SigDfl) }
        .unwrap();
    let veth = net.veth();
    let directory = Directory::new();
    for (last, code) in [(Signal::SIGTERM, 0), (Signal::SIGINT, 0), (Signal::SIGHUP, 129)] {
        let (mut child, mut told) = capturing(&veth.right, directory.path(), &[]);
        for asked in [Signal::SIGUSR1, Signal::SIGUSR2] {
            signal(&child, asked);
            let mut line = String::new();
            told.read_line(&mut line).unwrap();
            assert!(line.contains("dropped by the kernel"), "{line}");
        }
        signal(&child, last);
        let status = child.wait().unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(status.code(), Some(code), "{last}: {said}");
        assert!(said.contains("0 could not be written"), "{last}: {said}");
    }
}

#[ringtap_lab::test]
fn packets_that_no_file_has_are_counted_and_no_success() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let directory = Directory::new();
    if let Err(why) = directory.mount("tmpfs", "size=256k") {
        return skip_for_ordinary_users(&why.to_string());
    }
    let (mut child, _told) = capturing(&veth.right, directory.path(), &["--seconds", "3"]);
    send(&veth.left, 10, 400, 20_000);
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let lost = said.split(", ").last().and_then(|part| part.split(' ').next()?.parse::<u64>().ok());
    assert!(lost.is_some_and(|lost| lost > 500), "{said}");
    assert_eq!(status.code(), Some(1), "{said}");
}

#[ringtap_lab::test]
fn what_it_writes_is_for_its_user_alone() {
    let Some(place) = Place::new() else { return };
    let sensor = place.sensor("1", &[]);
    send(&place.veth.left, 10, 1, 1000);
    sensor.finish();
    let mut seen = 0;
    let mut look = |path: &Path| {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        seen += 1;
    };
    let (spool, lines) = (place.path("spool"), place.path("flows.ndjson"));
    look(Path::new(&spool));
    look(Path::new(&lines));
    for entry in std::fs::read_dir(&spool).unwrap() {
        look(&entry.unwrap().path());
    }
    assert!(seen >= 5, "{seen}");
}

#[ringtap_lab::test]
fn no_password_is_ever_shown() {
    let Some(net) = namespace() else { return };
    net.loopback_up();
    let directory = Directory::new();
    let spool = directory.path().join("spool");
    let run = |sink: &str| {
        let words =
            ["run", "--interface", "lo", "--spool", spool.to_str().unwrap(), "--seconds", "1"];
        output(&[&words[..], &["--sink", sink]].concat())
    };
    for sink in [
        "redis://:hunter2@127.0.0.1:notaport/0",
        "redis://user:hunter2@127.0.0.1:1/0",
        "redis+sentinel://:hunter2@h:1",
        "rediss://:hunter2@127.0.0.1:1/x/y",
    ] {
        let output = run(sink);
        let said = errors(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("hunter2"), "{sink}: {said}");
        assert!(!said.is_empty(), "{sink}");
    }
    // A file that cannot be read shows which line is wrong, and not the line.
    let config = directory.path().join("c.toml");
    for wrong in [
        "[[sink]]\nkind = \"redis\"\nurl = \"redis://:hunter2@h:1",
        "url = \"redis://:hunter2@h:1\"",
    ] {
        std::fs::write(&config, format!("sensor = \"a\"\n{wrong}\n")).unwrap();
        let said = errors(&output(&["run", "--config", config.to_str().unwrap()]));
        assert!(said.contains("line ") && !said.contains("hunter2"), "{said}");
    }
}

#[ringtap_lab::test]
fn a_start_that_is_refused_leaves_the_spool_as_it_was() {
    let Some(place) = Place::new() else { return };
    let spool = place.path("spool");
    let run = |more: &[&str]| {
        let words = ["run", "--spool", &spool, "--sink", "ndjson", "--seconds", "1"];
        let output = output(&[&words[..], more].concat());
        assert!(!output.status.success(), "{more:?}");
        errors(&output)
    };
    let on = place.veth.right.as_str();
    assert!(run(&["--interface", on, "--shards", "9999"]).contains("a fanout group has no more"));
    assert!(run(&["--interface", "none", "--shards", "200"]).contains("none"));
    for (flag, says) in [
        (["--idle-seconds", "0"], "idle_seconds = 0: give 1"),
        (["--shards", "0"], "give at least one"),
        (["--active-seconds", "99999999999"], "active_seconds"),
    ] {
        let said = run(&[&["--interface", on][..], &flag].concat());
        assert!(said.contains(says), "{flag:?}: {said}");
    }
    let config = place.path("c.toml");
    for (wrong, says) in [
        ("max_flows = 0", "max_flows = 0"),
        ("counts_seconds = 0", "counts_seconds = 0"),
        ("user = \"nobody-of-that-name\"", "no such user"),
    ] {
        let text = format!(
            "sensor = \"a\"\ninterface = \"{on}\"\nspool = \"{spool}\"\n{wrong}\n[[sink]]\nkind = \"ndjson\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let refused = output(&["run", "--config", &config, "--seconds", "1"]);
        assert!(
            !refused.status.success() && errors(&refused).contains(says),
            "{}",
            errors(&refused)
        );
    }
    let ledger = std::fs::metadata(Path::new(&spool).join("ledger")).map_or(0, |file| file.len());
    assert!(ledger <= 64, "shards that never were have {ledger} bytes");
    let account = place.sensor("1", &[]).finish();
    assert_eq!(number(&account, "records"), 1, "the counts of one shard: {account}");
}

#[ringtap_lab::test]
fn a_flow_that_goes_on_is_told_of_and_the_sums_are_its() {
    let Some(place) = Place::new() else { return };
    let sensor = place.sensor("1", &["--active-seconds", "1", "--idle-seconds", "30"]);
    // Four seconds of one flow, and one that is over at once.
    send(&place.veth.left, 1, 4000, 1000);
    let account = sensor.finish();
    let lines = std::fs::read_to_string(place.path("flows.ndjson")).unwrap();
    let flows: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|record: &serde_json::Value| record["kind"] == "flow")
        .collect();
    let told = flows.iter().filter(|flow| flow["reason"] == "active").count();
    assert!(told >= 2 && told < flows.len(), "{flows:?}");
    let [packets, octets] = place.lines().totals();
    let seen = number(&account, "delivered") - number(&account, "of_none");
    assert_eq!(packets, seen, "{account}");
    assert_eq!(octets, seen * (octets / packets), "each packet once");
    for pair in flows.windows(2) {
        assert!(number(&pair[1], "start_ns") >= number(&pair[0], "end_ns"), "{pair:?}");
    }
    place.lines().check();
}

#[ringtap_lab::test]
fn a_sensor_that_is_hardened_works_and_may_do_nothing_else() {
    let Some(place) = Place::new() else { return };
    let sensor = place.sensor("2", &["--harden", "--idle-seconds", "1"]);
    let status = |thread: &str| {
        let text = std::fs::read_to_string(format!("/proc/{}/task/{thread}/status", sensor.id()));
        text.unwrap_or_default()
    };
    let threads = std::fs::read_dir(format!("/proc/{}/task", sensor.id())).unwrap();
    let mut count = 0;
    for thread in threads.flatten() {
        let status = status(thread.file_name().to_str().unwrap());
        // Some end meanwhile, and workers of io_uring, which make no system calls, are the kernel's.
        if status.is_empty() || status.contains("Name:\tiou-") {
            continue;
        }
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
        count += 1;
    }
    assert!(count > 4, "{count} threads");
    send(&place.veth.left, 500, 2, 5000);
    let account = sensor.finish();
    assert_eq!(number(&account, "flows"), 500, "{account}");
    let (flows, missing) = place.lines().check();
    assert_eq!((flows, missing), (500, 0));
}

#[ringtap_lab::test]
fn dashboards_and_alerts_ask_for_metrics_that_there_are() {
    let Some(place) = Place::new() else { return };
    let sensor = place.sensor("1", &[]);
    until("the page has all", || {
        get(HTTP, "/metrics").is_some_and(|page| page.contains("ringtap_capture_drops_total"))
    });
    let page = get(HTTP, "/metrics").unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let mut count = 0;
    for name in ["dashboard.json", "alerts.yaml"] {
        let text = std::fs::read_to_string(deploy.join(name)).unwrap();
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        for word in
            text.split(|letter| !is_word(letter)).filter(|word| word.starts_with("ringtap_"))
        {
            assert!(page.contains(&format!("# TYPE {word} ")), "{name}: {word} is not in {page}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
    let dashboard = std::fs::read(deploy.join("dashboard.json")).unwrap();
    serde_json::from_slice::<serde_json::Value>(&dashboard).unwrap();
    sensor.finish();
}

#[ringtap_lab::test]
fn whoever_reaches_the_port_holds_nothing_up() {
    let Some(place) = Place::new() else { return };
    let sensor = place.sensor("2", &["--idle-seconds", "1"]);
    // Connections that say nothing, more than the sensor would have descriptors for.
    let mut idle = Vec::new();
    for _ in 0..600 {
        if let Ok(stream) =
            TcpStream::connect_timeout(&([127, 0, 0, 1], HTTP).into(), Duration::from_millis(200))
        {
            idle.push(stream);
        }
    }
    assert!(idle.len() > 32, "{}", idle.len());
    // A body that never comes, and a head without an end.
    let mut bodiless = TcpStream::connect(("127.0.0.1", HTTP)).unwrap();
    let _ =
        bodiless.write_all(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    let mut endless = TcpStream::connect(("127.0.0.1", HTTP)).unwrap();
    endless.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let _ = endless.write_all(b"GET /metrics HTTP/1.1\r\n");
    let head = [b'a'; 4096];
    for _ in 0..1000 {
        if endless.write_all(&head).is_err() {
            break;
        }
    }
    send(&place.veth.left, 2000, 1, 4000);
    // Beside all of those.
    until("the port answers", || get(HTTP, "/metrics").is_some());
    drop(idle);
    until("the port answers again", || {
        get(HTTP, "/metrics").is_some_and(|page| page.contains("ringtap_sensor_bytes_total"))
    });
    let page = get(HTTP, "/metrics").unwrap();
    assert!(
        page.contains("ringtap_sensor_build_info{version=") && page.contains("sensor_sink_up"),
        "{page}"
    );
    let account = sensor.finish();
    assert_eq!(number(&account, "flows"), 2000, "{account}");
    assert_eq!(place.lines().check(), (2000, 0));
}

#[ringtap_lab::test]
fn it_is_not_ready_while_no_sink_takes_anything() {
    let Some(place) = Place::new() else { return };
    let spool = place.path("spool");
    // Nobody listens there.
    let words = [
        "--interface",
        &place.veth.right,
        "--spool",
        &spool,
        "--shards",
        "1",
        "--idle-seconds",
        "1",
    ];
    let sensor =
        Sensor::start(HTTP, &[&words[..], &["--sink", "ipfix+tcp:127.0.0.1:4739"]].concat());
    send(&place.veth.left, 5, 1, 1000);
    until("it says that it is not ready", || {
        get(HTTP, "/ready").is_some_and(|page| page.starts_with("HTTP/1.1 503"))
    });
    let page = get(HTTP, "/metrics").unwrap();
    assert!(page.contains("ringtap_sensor_sink_up{sink=\"ipfix\"} 0"), "{page}");
    sensor.kill();
}

#[ringtap_lab::test]
fn under_nohup_a_terminal_that_closes_ends_nothing() {
    let Some(place) = Place::new() else { return };
    let to = place.path("packets");
    std::fs::create_dir(&to).unwrap();
    let mut capture = Command::new("nohup")
        .arg(program())
        .args(["capture", &place.veth.right, "--directory", &to, "--seconds", "3"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    signal(&capture, Signal::SIGHUP);
    let ended = capture.wait().unwrap();
    assert!(ended.success(), "it goes on to its end: {ended}");
}

#[ringtap_lab::test]
fn a_spool_behind_a_link_becomes_its_users_too() {
    use std::os::unix::fs::MetadataExt;

    let Some(place) = Place::new() else { return };
    let (real, link, config) = (place.path("real"), place.path("spool"), place.path("c.toml"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let on = &place.veth.right;
    let text = format!(
        "sensor = \"a\"\ninterface = \"{on}\"\nspool = \"{link}\"\nuser = 65534\n[[sink]]\nkind = \"ndjson\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let ran = output(&["run", "--config", &config, "--seconds", "1"]);
    if !ran.status.success() {
        let said = errors(&ran);
        assert!(!said.contains("Not a directory"), "{said}");
        return skip_for_ordinary_users(&said);
    }
    assert_eq!(std::fs::metadata(&real).unwrap().uid(), 65534);
}

#[ringtap_lab::test]
fn what_was_recorded_is_returned_when_asked_for() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let directory = Directory::new();
    let place = directory.path().to_str().unwrap();
    let mut command = Command::new(program());
    let key = directory.path().join("key");
    let key = key.to_str().unwrap();
    let public = output(&["archive", "key", key]);
    let public = String::from_utf8(public.stdout).unwrap();
    command.args([
        "record",
        &veth.right,
        "udp",
        "-w",
        place,
        "--max",
        "1G",
        "--sync",
        "--sign",
        key,
    ]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("recording"), "{line}");
    let traffic = ringtap_lab::Traffic { len: 300, flows: 8, ..ringtap_lab::Traffic::default() };
    let mut generator = ringtap_lab::Generator::new(&veth.left, &traffic);
    generator.bursts(2_000, 64, Duration::from_micros(300));
    std::thread::sleep(Duration::from_millis(1_100));
    let between = std::time::SystemTime::now();
    let between = between.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    std::thread::sleep(Duration::from_millis(100));
    generator.bursts(1_000, 64, Duration::from_micros(300));
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, Signal::SIGTERM);
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    let lost = veth.lost();
    let recorded: u64 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(said.contains(" 0 dropped by the kernel, 0 could not be written"), "{said}");
    assert_eq!(recorded + lost, 3_000, "{said}");

    let ask = |words: &[&str]| {
        let output = output(&[&["query", place][..], words].concat());
        assert!(output.status.success(), "{words:?}: {}", errors(&output));
        output.stdout
    };
    let count = |words: &[&str]| -> u64 {
        let report = ask(&[words, &["--json"]].concat());
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        report["packets"].as_u64().unwrap()
    };
    assert_eq!(count(&[]), recorded);
    let between = format!("{between:.6}");
    let (before, after) = (count(&["--to", &between]), count(&["--from", &between]));
    assert!(before + after == recorded && after <= 1_000 && after > 0, "{before} and {after}");
    assert_eq!(count(&["--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z"]), 0);
    let one = count(&["udp", "src", "port", "10003"]);
    assert!(one > 0 && one < recorded);
    let file = ask(&["udp src port 10003", "-w", "-"]);
    let mut reader = ringtap::pcap::CaptureReader::from_reader(std::io::Cursor::new(file)).unwrap();
    let mut returned = 0;
    while reader.next_record().unwrap().is_some() {
        returned += 1;
    }
    assert_eq!(returned, one);
    assert_eq!(reader.interfaces()[0].name.as_deref(), Some(&*veth.right));
    for words in
        [&["--from", "yesterday"][..], &["--to", "-5"], &["--series", "eth0"], &["tcp and and"]]
    {
        let refused = output(&[&["query", place][..], words].concat());
        assert_eq!(
            refused.status.code(),
            Some(if words[1..] == ["-5"] { 2 } else { 1 }),
            "{words:?}"
        );
    }
    what_is_there_is_listed_and_proven(directory.path(), recorded, public.trim());
    let missing = output(&["query", "/nowhere"]);
    assert!(errors(&missing).contains("/nowhere"), "{}", errors(&missing));
}

/// Lists, explains, indexes and verifies a recording that is complete; then one that lacks a file.
fn what_is_there_is_listed_and_proven(directory: &Path, recorded: u64, public: &str) {
    let place = directory.to_str().unwrap();
    let lines = |words: &[&str]| -> (Option<i32>, Vec<serde_json::Value>) {
        let output = output(words);
        let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
        let lines = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code(), lines)
    };
    let sum = |lines: &[serde_json::Value], name: &str| -> u64 {
        lines.iter().map(|line| line[name].as_u64().unwrap()).sum()
    };
    let (code, listed) = lines(&["archive", "ls", place, "--json"]);
    assert_eq!((code, sum(&listed, "packets")), (Some(0), recorded));
    assert!(sum(&listed, "index_bytes") > 0 && listed[0]["times"][0].is_string(), "{listed:?}");
    let (code, verified) = lines(&["archive", "verify", place, "--json"]);
    assert_eq!((code, sum(&verified, "packets")), (Some(0), recorded), "{verified:?}");
    assert!(verified.iter().all(|series| series["complete"] == true), "{verified:?}");
    let (code, sealed) = lines(&["archive", "verify", place, "--json", "--key", public]);
    let is_sound = |series: &serde_json::Value| series["broken_seals"] == serde_json::json!([]);
    assert!(code == Some(0) && sealed.iter().all(is_sound), "{sealed:?}");
    let another = output(&["archive", "verify", place, "--key", &"0".repeat(64)]);
    assert_eq!(another.status.code(), Some(1));
    let (_, explained) = lines(&["query", place, "host 192.0.2.255", "--explain", "--json"]);
    assert_eq!(explained[0]["by_index"], "host 192.0.2.255");
    assert!(sum(&explained, "without_terms") > 9 * sum(&explained, "to_read"), "{explained:?}");

    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if entry.path().extension().is_some_and(|of| of == "idx") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let (_, made) = lines(&["archive", "index", place, "--json"]);
    assert!(sum(&made, "written") > 0 && sum(&made, "written") <= sum(&made, "files"), "{made:?}");
    let (_, again) = lines(&["query", place, "host 192.0.2.255", "--explain", "--json"]);
    assert_eq!(again, explained);

    // What the manifest says of a recording from which somebody has taken the first packets.
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|of| of == "pcapng"))
        .collect();
    files.sort();
    let file = std::fs::read(&files[0]).unwrap();
    let span = u32::from_ne_bytes(file[4096 + 16..4096 + 20].try_into().unwrap()) as usize;
    std::fs::write(&files[0], [&file[..4096], &file[4096 + span..]].concat()).unwrap();
    let manifest = directory.join("manifest.json");
    let asked = ["query", place, "udp", "--manifest", manifest.to_str().unwrap(), "--json"];
    let (_, report) = lines(&asked);
    let manifest = std::fs::read(manifest).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!((&manifest["found"], &manifest["filter"]), (&report[0], &"udp".into()));
    assert_eq!(
        (&manifest["complete"], &manifest["missing"][0]["kind"]),
        (&false.into(), &"removed".into())
    );
    let gone = manifest["missing"][0]["packets"].as_u64().unwrap();
    assert_eq!(gone + report[0]["packets"].as_u64().unwrap(), recorded);
    let verified = output(&["archive", "verify", place, "--key", public]);
    let said = String::from_utf8(verified.stdout).unwrap();
    assert!(said.contains("it is not what was sealed"), "{said}");
    assert_eq!(verified.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("{gone} packets were recorded and are in no file")), "{said}");
}
