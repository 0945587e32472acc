//! Every example runs on traffic of the lab, and ends with the line that it should.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringtap_lab::{bootstrap, namespace};

/// Where the examples and their runner are; else they are where cargo puts them.
const FOLDER: &str = "RINGTAP_EXAMPLES";
/// The longest that one may take: they take ten seconds at most, on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(300);

/// A condition on the numbers of the lines.
type Rule = fn(&[u64]) -> bool;

const ANY: Rule = |_| true;

/// The last line of the runner, if it has sent frames.
const SENT: &str = "lab: # frames were sent, # were lost on the way";
/// That line, if the example has joined two hosts.
const ANSWERED: &str = "lab: # of # questions were answered, half of them within *";
/// That line, if the example has sent frames.
const RECEIVED: &str = "lab: the far end received # frames";

/// The name, the last line of the example, the lines of the runner after it (`#` is a number, `*` anything), and a
/// condition on the numbers of both.
///
/// The kernel's queues before a far end may lose some on a busy machine: that all arrive is for other tests.
const EXAMPLES: &[(&str, &str, &str, Rule)] = &[
    ("async_bridge", "back: # received, # forwarded, # dropped, # failed", ANSWERED, |n| {
        n[0] == n[1] + n[2] + n[3] && n[1] > 0 && (1..n[5]).contains(&n[4])
    }),
    ("async_capture", "# packets, # dropped", SENT, |n| n[0] > 1000 && n[0] + n[1] + n[3] == n[2]),
    ("async_inject", "100000 frames in *", RECEIVED, |n| (90_000..=100_000).contains(&n[0])),
    ("async_stream", "in all # packets, # bytes", SENT, |n| n[0] >= 20_000 && n[1] == 128 * n[0]),
    ("batch", STATS, SENT, |n| n[1] > 0),
    ("bpf_filter", STATS, SENT, |n| n[1] > 2000),
    ("bridge", "}", ANSWERED, |n| 2 * n[0] > n[1]),
    ("capture", "CaptureStats { packets: #, delivered: #, drops: 0, *}", SENT, |n| {
        n[0] >= n[1] && n[1] >= 20 // where the last batch has more
    }),
    ("channel", "# received + # dropped at the queue + # dropped in the kernel = #", SENT, |n| {
        n[0] + n[1] + n[2] == n[3] && n[0] > 0
    }),
    ("conversations", "2000 conversations, # bytes", SENT, |n| n[0] > 0),
    (
        "dedup",
        "1000 packets kept; DedupStats { packets: 2000, duplicates: 1000, evicted: 0 }",
        "lab: 1000 packets were sent",
        ANY,
    ),
    ("dns_log", "1000 queries, 1000 responses", SENT, ANY),
    ("doctor", "# work, # limited, # missing, # unknown", "", |n| n[0] > 10),
    (
        "dpi",
        "tcp or udp port 53: {\"DNS\": 1, \"HTTP\": 2, \"SSH\": 1, \"TLS\": 1, \"something else\": 1}",
        SENT,
        ANY,
    ),
    // Half of the frames have even source ports on one side, none on the other.
    ("ebpf_filter", "# packets accepted by the program", SENT, |n| n[0] > 0 && 3 * n[0] < n[1]),
    ("fanout", "# packets captured", SENT, |n| n[0] <= n[1] && n[0] > 0),
    ("flow_channel", "a worker took 2000 streams, # bytes", SENT, |n| n[0] > 0),
    ("flow_filter", "1000 connections to port 443, 1000 closed; *", SENT, ANY),
    ("flow_history", "2000 connections", SENT, ANY),
    ("flow_keys", "1 by pairs of hardware addresses", "", ANY),
    ("flow_shards", "3000 flows have ended", SENT, ANY),
    ("flow_summary", "# bytes  Udp *", SENT, |n| n[0] > 0),
    ("flows", "64 begun, 64 ended", SENT, ANY),
    ("http_sessions", "1000 requests, 1000 responses", SENT, ANY),
    ("inject", "*, all sent: true, # frames per second", RECEIVED, |n| {
        (90_000..=100_000).contains(&n[1])
    }),
    ("low_latency", "the median of frames is # times lower", SENT, ANY),
    ("metrics", STATS, SENT, |n| n[0] == n[1] + n[2] && n[1] > 0),
    ("own_runtime", STATS, SENT, |n| n[0] == n[1] + n[2] && n[0] + n[4] == n[3]),
    ("pcap_rotate", "RotationStats { *", "lab: *.pcapng has # bytes\n*", |n| n[0] > 0),
    (
        "pcap_write",
        "*.pcapng: # packets, InterfaceStatistics { *}",
        "lab: a.pcapng has # bytes\n*",
        |n| n[0] > 0 && n[1] > 128 * n[0],
    ),
    ("pipeline", STATS, SENT, |n| n[0] == n[1] + n[2]),
    ("pollster", "# packets, # dropped", SENT, |n| n[0] > 10_000 && n[0] + n[1] + n[3] == n[2]),
    (
        "record",
        "# packets in # files, # lost, # dropped",
        "lab: shard*.pcapng has # bytes\n*lab: # frames were sent, # were lost on the way",
        |n| n[0] > 10_000 && n[2] == 0 && n[0] + n[3] + n[6] == n[5],
    ),
    ("replay", "the latest batch was * behind its time", RECEIVED, |n| {
        (18_000..=20_000).contains(&n[0])
    }),
    ("shards", "every packet is accounted for", "", ANY),
    ("signal", "interrupted: # packets, none left behind: true", SENT, |n| n[0] > 0),
    ("stats", "in all: # = # delivered + # dropped", SENT, |n| n[0] == n[1] + n[2]),
    ("tls_sni", "1000 hellos, 50 servers", SENT, ANY),
    ("xdp_bridge", "*: XdpStats { *}", ANSWERED, |n| 2 * n[0] > n[1]),
    ("xdp_busy_poll", "busy polling: # packets in *, # wake-ups", SENT, |n| n[0] >= 50_000),
    ("xdp_capture", "# packets, # bytes; XdpStats { *}", SENT, |n| n[0] > 0 && n[1] == 128 * n[0]),
    ("xdp_custom_program", "# packets redirected by the program", SENT, |n| {
        n[0] > 0 && 3 * n[0] < n[1]
    }),
    (
        "xdp_echo",
        "# packets sent back in # turns with # system calls",
        "lab: # frames were sent, # were lost on the way, # came back",
        |n| n[0] > 0 && n[5] > 0,
    ),
    ("xdp_self_loaded", "# packets taken by the program, # passed on", SENT, |n| {
        n[0] > 0 && n[1] > 0
    }),
    ("xdp_send", "*, all sent: true, # frames per second", RECEIVED, |n| {
        (900_000..=1_000_000).contains(&n[1])
    }),
    // The veth counts a packet that a socket drops as lost, because its redirection fails.
    ("xdp_shards", "in all: # delivered, # dropped", SENT, |n| n[0] + n[3] == n[2]),
    (
        "glommio_echo",
        "# connections, # bytes echoed; # captured, # dropped",
        ANSWERED,
        // Each client says 50 things, the longest of which have 5000 bytes.
        |n| n[0] == 40 && n[1] == 40 * 127_500 && n[2] == 40 && n[3] == 0 && n[4] == n[5],
    ),
    ("smoltcp_http", "# requests answered, DeviceStats { *}", ANSWERED, |n| {
        n[0] == 200 && n[1] == 200
    }),
    ("spawned", "# packets counted, # dropped", SENT, |n| {
        n[0] > 10_000 && n[0] + n[1] + n[3] == n[2]
    }),
    ("tokio_app", "# packets counted, # dropped", SENT, |n| {
        n[0] > 10_000 && n[0] + n[1] + n[3] == n[2]
    }),
    (
        "tokio_uring_recorder",
        "# packets recorded, # read back, # dropped",
        "lab: packets.pcapng has # bytes\nlab: # frames were sent, # were lost on the way",
        |n| n[0] > 10_000 && n[0] == n[1] && n[0] + n[2] + n[5] == n[4] && n[3] > 66 * n[0],
    ),
];

/// The last line of many examples.
const STATS: &str = "CaptureStats { packets: #, delivered: #, drops: #, *}";

/// Load a program, which takes root of the machine.
const TAKE_ROOT: &[&str] = &[
    "ebpf_filter",
    "smoltcp_http",
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
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if !is_example || name == "lab" {
            continue;
        }
        let source =
            fs::read_to_string(&path).or_else(|_| fs::read_to_string(path.join("main.rs")));
        let has_lab = source.unwrap().contains("ringtap_lab");
        assert_eq!(
            has_lab,
            name == "shards",
            "{name}: an example can be copied into another package"
        );
        there.insert(name);
    }
    assert_eq!(listed, there.iter().map(String::as_str).collect());
}

#[ringtap_lab::test]
fn the_runner_has_each_with_the_features_that_it_requires() {
    let output = Command::new(lab()).arg("--list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let listed: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(listed.len(), rows.len(), "none twice");
    assert_eq!(listed, EXAMPLES.iter().map(|(name, ..)| *name).collect());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/Cargo.toml");
    let Ok(manifest) = fs::read_to_string(manifest) else { return }; // in an emulator
    for row in rows.iter().filter(|row| row[1] == "ringtap-examples") {
        let has: Vec<&str> =
            row.get(2).map_or(Vec::new(), |features| features.split(',').collect());
        let entry =
            manifest.split("[[").find(|part| part.contains(&format!("name = \"{}\"\n", row[0])));
        let line =
            entry.unwrap().lines().find_map(|line| line.strip_prefix("required-features = "));
        for feature in line.unwrap_or_default().split('"').skip(1).step_by(2) {
            assert!(has.contains(&feature), "{} requires {feature}", row[0]);
        }
    }
}

/// Where cargo puts the binaries of this profile.
fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().to_owned()
}

/// Where the examples are.
fn folder() -> PathBuf {
    std::env::var_os(FOLDER).map_or_else(|| target().join("examples"), PathBuf::from)
}

/// The runner.
fn lab() -> PathBuf {
    std::env::var_os(FOLDER).map_or_else(target, PathBuf::from).join("lab")
}

/// The output of the runner with an example.
fn run(name: &str) -> Result<Output, String> {
    let path = lab();
    let mut command = Command::new(&path);
    command.arg(name).env(FOLDER, folder());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        let remedy = "`cargo build --workspace --examples --bins --all-features` builds it";
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

fn check((name, example, runner, rule): (&str, &str, &str, Rule)) -> Result<(), String> {
    let start = Instant::now();
    let output = run(name)?;
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let pattern =
        if runner.is_empty() { example.to_owned() } else { format!("{example}\n{runner}") };
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // The last line of the example, and the lines of the runner after it.
    let from = lines.iter().rposition(|line| !line.starts_with("lab: ")).unwrap_or(0);
    let last = lines[from..].join("\n");
    if TAKE_ROOT.contains(&name) && !bootstrap::was_root() {
        // It says what it takes: root, or before that more memory than a user may lock by default.
        let has_said = errors.contains("root") || errors.contains("raise RLIMIT_MEMLOCK");
        return match has_said {
            true => Ok(()),
            false => Err(format!("{name}, not as root: {}\n{said}\n{errors}", output.status)),
        };
    }
    let is_right = output.status.success() && matched(&last, &pattern).is_some_and(|n| rule(&n));
    match is_right {
        true => Ok(()),
        false => Err(format!(
            "{name}: {} after {:?}; the last lines should be\n{pattern}\nand are\n{last}\n{errors}",
            output.status,
            start.elapsed()
        )),
    }
}

#[ringtap_lab::test]
fn each_ends_with_the_lines_that_it_should_end_with() {
    if namespace().is_none() {
        return;
    }
    let (queue, failures) = (Mutex::new(EXAMPLES.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(example) = queue.lock().unwrap().next() else { break };
                    if let Err(why) = check(*example) {
                        failures.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
