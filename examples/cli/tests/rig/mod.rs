//! A sensor, traffic for it, and servers, each in a process of its own that goes with the test.

#![allow(dead_code)] // each test binary uses some of it

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringtap_lab::{Directory, Generator, Namespace, Traffic, Veth, namespace, skip};
use serde_json::Value;

/// Where a sensor that has its namespace for itself serves its metrics.
pub(crate) const HTTP: u16 = 9101;

/// The longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// The command; elsewhere where the tests were moved.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("RINGTAP_COMMAND").map_or(env!("CARGO_BIN_EXE_ringtap").into(), Into::into)
}

/// A process that ends with this.
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// `None`, said loudly, where there is no such program.
    pub(crate) fn start(mut command: Command) -> Option<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        match command.spawn() {
            Ok(child) => Some(Self { child, name }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                skip(&format!("no {name} here"));
                None
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it is ours");
    }

    /// Asks it to end: what it has written to its standard output.
    pub(crate) fn finish(mut self) -> String {
        self.signal(Signal::SIGTERM);
        self.output()
    }

    /// Waits for its end: what it has written to its standard output.
    pub(crate) fn output(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            out.read_to_string(&mut text).expect("it writes text");
        }
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "{} ended with {status}: {text}", self.name);
        text
    }

    /// Ends it without a word.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sensor that is told what to do.
pub(crate) struct Sensor {
    process: Process,
}

impl Sensor {
    /// Starts one with `run` and these words, and waits until it watches. It listens on a port of the loopback.
    pub(crate) fn start(port: u16, words: &[&str]) -> Self {
        Self::start_by(Command::new(program()), port, words)
    }

    /// Starts a sensor through `command`, to which its arguments are added.
    pub(crate) fn start_by(mut command: Command, port: u16, words: &[&str]) -> Self {
        let listen = format!("127.0.0.1:{port}");
        command.args(["run", "--json", "--listen", &listen]).args(words).stdout(Stdio::piped());
        let process = Process::start(command).expect("it was built");
        until("the sensor is ready", || {
            get(port, "/ready").is_some_and(|page| page.contains("200 OK"))
        });
        Self { process }
    }

    pub(crate) fn kill(self) {
        self.process.kill();
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// Stops it: its account.
    pub(crate) fn finish(self) -> Value {
        let text = self.process.finish();
        serde_json::from_str(text.lines().last().expect("an account")).expect("it is JSON")
    }
}

/// A namespace with a loopback for servers, an interface to watch, and a place for files.
pub(crate) struct Place {
    pub(crate) veth: Veth,
    pub(crate) directory: Directory,
    pub(crate) namespace: Namespace,
}

impl Place {
    pub(crate) fn new() -> Option<Self> {
        let namespace = namespace()?;
        namespace.loopback_up();
        Some(Self { veth: namespace.veth(), directory: Directory::new(), namespace })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("a plain path").to_owned()
    }

    /// A sensor that writes lines, too: what it says of itself.
    pub(crate) fn sensor(&self, shards: &str, more: &[&str]) -> Sensor {
        let (spool, sink) = (self.path("spool"), format!("ndjson:{}", self.path("flows.ndjson")));
        let words = ["--interface", &self.veth.right, "--spool", &spool, "--sink", &sink];
        let words = [&words[..], &["--shards", shards, "--filter", "udp"], more].concat();
        Sensor::start(HTTP, &words)
    }

    pub(crate) fn lines(&self) -> Received {
        Received::in_lines(self.path("flows.ndjson").as_ref())
    }
}

/// A server in a directory, whose words are nobody's.
pub(crate) fn server(program: &str, words: &[&str], directory: &Path) -> Option<Process> {
    let mut command = Command::new(program);
    command.args(words).current_dir(directory).stdout(Stdio::null()).stderr(Stdio::null());
    Process::start(command)
}

/// Asks an HTTP server.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page)
}

/// Reads records back: whether they are complete, and what is told of each shard.
pub(crate) fn verify(words: &[&str]) -> (bool, Vec<Value>) {
    let output = Command::new(program()).args(["verify", "--json"]).args(words).output();
    let output = output.expect("it was built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)) && said.is_empty(), "{said}");
    let text = String::from_utf8(output.stdout).expect("it writes text");
    let verdicts = text.lines().map(|line| serde_json::from_str(line).expect("it is JSON"));
    (output.status.success(), verdicts.collect())
}

/// The sum of a number of all verdicts.
pub(crate) fn sum(verdicts: &[Value], name: &str) -> u64 {
    verdicts.iter().map(|verdict| number(verdict, name)).sum()
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until somebody listens on a port of the loopback.
pub(crate) fn until_listening(port: u16) {
    until("a server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
}

/// Sends `rounds` frames of each of `flows` flows, `rate` frames a second.
pub(crate) fn send(interface: &str, flows: u32, rounds: u64, rate: u64) {
    let traffic = Traffic { flows, ..Traffic::default() };
    Generator::new(interface, &traffic).paced(u64::from(flows) * rounds, rate);
}

/// A number of an account or a record.
pub(crate) fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// Checks that all packets that were sent are accounted for.
pub(crate) fn check_packets(account: &Value, veth: &Veth, sent: u64) {
    let seen = number(account, "delivered") + number(account, "drops");
    assert_eq!(seen + veth.lost(), sent, "{account}");
}

/// What a receiver has, from records as JSON: each once, and all that were numbered.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// By sensor and shard.
    shards: BTreeMap<(String, u64), Vec<Value>>,
}

impl Received {
    pub(crate) fn of(records: impl IntoIterator<Item = Value>) -> Self {
        let mut received = Self::default();
        for record in records {
            let sensor = record["sensor"].as_str().expect("it says who made it").to_owned();
            let of = received.shards.entry((sensor, number(&record, "shard"))).or_default();
            of.push(record);
        }
        received
    }

    pub(crate) fn in_lines(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("the file was written");
        Self::of(text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")))
    }

    /// Checks that no record is there twice, none is missing, each shard's are in order, and that the counts are of what
    /// is there. How many flows there are, and the last counts' sums of those that are not.
    pub(crate) fn check(&self) -> (u64, u64) {
        let (mut flows, mut missing) = (0, 0);
        for (who, records) in &self.shards {
            let mut of_shard = 0;
            let mut last = None;
            for (at, record) in (0..).zip(records) {
                assert_eq!(number(record, "sequence"), at, "{who:?}");
                match record["kind"].as_str() {
                    Some("flow") => of_shard += 1,
                    _ => {
                        assert_eq!(number(record, "flows"), of_shard, "{who:?}: {record}");
                        last = Some(record);
                    }
                }
            }
            let last = last.expect("each shard ends with counts");
            missing += ["overflowed", "refused", "lost"]
                .map(|name| number(last, name))
                .iter()
                .sum::<u64>();
            flows += of_shard;
        }
        (flows, missing)
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.values().map(Vec::len).sum()
    }

    /// Sums over flows: packets and octets of both directions.
    pub(crate) fn totals(&self) -> [u64; 2] {
        let flows = self.shards.values().flatten().filter(|record| record["kind"] == "flow");
        flows.fold([0, 0], |[packets, octets], flow| {
            let both = |sent, received| number(flow, sent) + number(flow, received);
            let more =
                [both("packets_sent", "packets_received"), both("octets_sent", "octets_received")];
            [packets + more[0], octets + more[1]]
        })
    }
}
