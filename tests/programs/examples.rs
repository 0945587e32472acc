//! Every example runs without arguments, ends by itself, and ends with the line that it should.

// The others are not built without.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringtap_lab::{bootstrap, namespace};

/// Where the examples are; beside this test's own folder, unless it was moved.
const FOLDER: &str = "RINGTAP_EXAMPLES";
/// The longest that one may take: they take ten seconds at most, on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the numbers of a line must fulfil.
type Rule = fn(&[u64]) -> bool;

const ANY: Rule = |_| true;

/// Name, last line (`#` is a number, `*` anything), and what its numbers must fulfil.
///
/// The kernel's queues before a far end may lose some on a busy machine: that all arrive is for other tests.
const EXAMPLES: &[(&str, &str, Rule)] = &[
    ("async_bridge", "and back: # received = # forwarded + # filtered + # others", |n| {
        n[0] == n[1] + n[2] + n[3] && n[1] > 0
    }),
    ("async_capture", "# packets, # dropped", |n| n[0] > 1000),
    ("async_inject", "the far end received #", |n| (90_000..=100_000).contains(&n[0])),
    ("async_stream", "in all # packets, # bytes", |n| n[0] >= 20_000 && n[1] == 128 * n[0]),
    ("batch", "CaptureStats { packets: #, delivered: #, drops: #, *}", |n| n[1] > 0),
    ("bpf_filter", "CaptureStats { packets: #, delivered: #, drops: #, *}", |n| n[1] > 0),
    ("bridge", "median of a question and its answer, four wake-ups: *", ANY),
    ("capture", "CaptureStats { packets: #, delivered: #, drops: 0, *}", |n| {
        n[0] >= n[1] && n[1] >= 20 // where the last batch has more
    }),
    ("channel", "# received + # dropped at the queue + # in the kernel = #", |n| {
        n[0] + n[1] + n[2] == n[3] && n[0] > 0
    }),
    ("conversations", "2000 conversations, # bytes", |n| n[0] > 0),
    ("dedup", "1000 packets kept; DedupStats { packets: 2000, duplicates: 1000, evicted: 0 }", ANY),
    ("dns_log", "1000 queries, 1000 responses", ANY),
    ("doctor", "# work, # limited, # missing, # unknown", |n| n[0] > 10),
    (
        "dpi",
        "tcp or udp port 53: {\"DNS\": 1, \"HTTP\": 2, \"SSH\": 1, \"TLS\": 1, \"something else\": 1}",
        ANY,
    ),
    ("ebpf_filter", "# packets from even ports, 0 from odd ones", |n| n[0] > 0),
    ("fanout", "# packets captured; # sent in the lab", |n| n[0] <= n[1] && n[0] > 0),
    ("flow_channel", "a worker took 2000 streams, # bytes", |n| n[0] > 0),
    ("flow_filter", "1000 connections to port 443, 1000 closed; *", ANY),
    ("flow_history", "2000 connections", ANY),
    ("flow_keys", "1 by pairs of hardware addresses", ANY),
    ("flow_shards", "3000 flows have ended", ANY),
    ("flow_summary", "# bytes  Udp *", |n| n[0] > 0),
    ("flows", "64 begun, 64 ended", ANY),
    ("http_sessions", "1000 requests, 1000 responses", ANY),
    ("inject", "the far end received #", |n| (90_000..=100_000).contains(&n[0])),
    ("low_latency", "p50 of frames is # times lower (# to #)", ANY),
    ("metrics", "ringtap_reactor_overflows_total{interface=\"*\",shard=\"1\"} #", ANY),
    ("own_runtime", "# sent, CaptureStats { packets: #, delivered: #, drops: #, *}", |n| {
        n[0] == n[1] && n[1] == n[2] + n[3]
    }),
    ("pcap_rotate", "*.pcapng # bytes", |n| n[0] > 0),
    ("pcap_write", "*.pcapng: # packets, InterfaceStatistics { *}", |n| n[0] > 0),
    ("pipeline", "CaptureStats { packets: #, delivered: #, drops: #, *}", |n| n[0] == n[1] + n[2]),
    ("replay", "the far end received #", |n| (18_000..=20_000).contains(&n[0])),
    ("shards", "every packet is accounted for", ANY),
    ("signal", "interrupted: # packets, none left behind: true", |n| n[0] > 0),
    ("stats", "in all: # = # delivered + # dropped", |n| n[0] == n[1] + n[2]),
    ("tls_sni", "1000 hellos, 50 servers", ANY),
    ("xdp_bridge", "median of a question and its answer, four wake-ups: *", ANY),
    ("xdp_busy_poll", "packets by interrupts and by busy polling: # and #", |n| {
        n[0] > 0 && n[1] > 0
    }),
    ("xdp_capture", "# packets, # bytes; XdpStats { *}", |n| n[0] > 0),
    ("xdp_custom_program", "# packets from even ports, 0 from odd ones", |n| n[0] > 0),
    ("xdp_echo", "the sender's end received #", |n| n[0] > 0),
    ("xdp_self_loaded", "# packets taken by the program, # passed on", |n| n[0] > 0 && n[1] > 0),
    ("xdp_send", "the far end received #", |n| (900_000..=1_000_000).contains(&n[0])),
    ("xdp_shards", "accounted: # of #", |n| n[0] == n[1]),
    ("glommio_shards", "sent #, captured #, dropped #", |n| n[0] == n[1] + n[2]),
    ("tokio_app", "counted #, dropped #, of #", |n| n[0] > 10_000 && n[0] + n[1] <= n[2]),
    ("tokio_uring_server", "# packets, # bytes in *", |n| n[0] > 10_000),
];

/// Load a program, which takes root of the machine.
const TAKE_ROOT: &[&str] = &[
    "ebpf_filter",
    "xdp_bridge",
    "xdp_busy_poll",
    "xdp_capture",
    "xdp_custom_program",
    "xdp_echo",
    "xdp_self_loaded",
    "xdp_shards",
];

/// The numbers that stand for `#`; `None` where the line is not like the pattern.
fn matched(line: &str, pattern: &str) -> Option<Vec<u64>> {
    let Some(kind) = pattern.chars().next() else {
        return line.is_empty().then(Vec::new);
    };
    let rest = &pattern[kind.len_utf8()..];
    match kind {
        '#' => {
            let digits = line.find(|c: char| !c.is_ascii_digit()).unwrap_or(line.len());
            let number = line[..digits].parse().ok()?;
            let mut numbers = matched(&line[digits..], rest)?;
            numbers.insert(0, number);
            Some(numbers)
        }
        '*' => (0..=line.len())
            .filter(|&at| line.is_char_boundary(at))
            .find_map(|at| matched(&line[at..], rest)),
        letter => matched(line.strip_prefix(letter)?, rest),
    }
}

#[ringtap_lab::test]
fn lines_are_told_apart() {
    assert_eq!(matched("12 = 3 + 9", "# = # + #"), Some(vec![12, 3, 9]));
    assert_eq!(matched("a.pcap: 3 packets", "*: # packets"), Some(vec![3]));
    assert_eq!(matched("3 packet", "# packets"), None);
    assert_eq!(matched("3 packets!", "# packets"), None);
    assert_eq!(matched("x packets", "# packets"), None);
}

#[ringtap_lab::test]
fn none_is_left_out() {
    let listed: BTreeSet<&str> = EXAMPLES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(listed.len(), EXAMPLES.len(), "none twice");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("examples")];
    for adapter in fs::read_dir(root.join("runtimes")).unwrap() {
        folders.push(adapter.unwrap().path().join("examples"));
    }
    let mut there = BTreeSet::new();
    for entry in folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten() {
        let path = entry.unwrap().path();
        let is_package = path.join("Cargo.toml").exists();
        let is_example = path.extension().is_some_and(|extension| extension == "rs")
            || path.join("main.rs").exists() && !is_package;
        if is_example {
            there.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    assert_eq!(listed, there.iter().map(String::as_str).collect());
}

fn folder() -> PathBuf {
    match std::env::var_os(FOLDER) {
        Some(folder) => folder.into(),
        None => std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples"),
    }
}

/// Its output, once it has ended by itself.
fn run(path: &Path) -> Result<Output, String> {
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        let remedy = "`cargo test --workspace --all-features` builds it";
        format!("{}: {error}; {remedy}", path.display())
    })?;
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).map(|_| bytes)
    });
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).map(|_| bytes)
    });
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if start.elapsed() > PATIENCE => {
                child.kill().map_err(|error| error.to_string())?;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let take = |reader: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        reader.join().unwrap().map_err(|error| error.to_string())
    };
    Ok(Output { status, stdout: take(reading)?, stderr: take(errors)? })
}

fn check(folder: &Path, (name, pattern, rule): (&str, &str, Rule)) -> Result<(), String> {
    let start = Instant::now();
    let output = run(&folder.join(name))?;
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    if TAKE_ROOT.contains(&name) && !bootstrap::was_root() {
        // It says what it takes: root, or before that more memory than a user may lock by default.
        let has_said = errors.contains("root") || errors.contains("raise RLIMIT_MEMLOCK");
        return match has_said {
            true => Ok(()),
            false => Err(format!("{name}, not as root: {}\n{said}\n{errors}", output.status)),
        };
    }
    let is_right = output.status.success() && matched(last, pattern).is_some_and(|n| rule(&n));
    match is_right {
        true => Ok(()),
        false => Err(format!(
            "{name}: {} after {:?}; the last line should be\n  {pattern}\nand is\n  {last}\n{errors}",
            output.status,
            start.elapsed()
        )),
    }
}

#[ringtap_lab::test]
fn each_ends_by_itself_with_the_line_it_should_end_with() {
    if namespace().is_none() {
        return;
    }
    let folder = folder();
    let (queue, failures) = (Mutex::new(EXAMPLES.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(example) = queue.lock().unwrap().next() else { break };
                    if let Err(why) = check(&folder, *example) {
                        failures.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
