//! Commands that read, send and count packets, each in a process of its own.

mod rig;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{program, until};
use ringtap::BpfFilter;
use ringtap::filter::FilterTarget;
use ringtap::packet::OwnedPacket;
use ringtap::pcap::CaptureReader;
use ringtap_lab::{Directory, Generator, Tally, Traffic, namespace};
use serde_json::Value;

ringtap_lab::test_binary!();

fn output(words: &[&str]) -> Output {
    Command::new(program()).args(words).output().expect("it was built")
}

fn text(words: &[&str]) -> String {
    let output = output(words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn complaint(words: &[&str]) -> String {
    let output = output(words);
    assert!(!output.status.success(), "{words:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Captures a number of frames on an interface into a file, from the time when this returns.
fn capturing(interface: &str, count: u64, file: &Path) -> Child {
    let mut command = Command::new(program());
    let count = count.to_string();
    command.args(["capture", "-i", interface, "-c", &count, "--seconds", "60", "-w"]).arg(file);
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    until("it captures", || receivers() == 1);
    child
}

/// The packet sockets of this thread's namespace that receive: they are bound to an interface, for all protocols.
fn receivers() -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
    let receives = |line: &&str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns[3] == "0003" && columns[4] != "0" && columns[5] == "1"
    };
    table.lines().skip(1).filter(receives).count()
}

fn packets(file: &Path) -> Vec<OwnedPacket> {
    let mut reader = CaptureReader::open(file).unwrap();
    let mut packets = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        packets.push(record.packet().to_owned());
    }
    packets
}

#[ringtap_lab::test]
fn a_filter_is_explained() {
    let told = text(&["filter", "udp", "port", "53", "and", "not", "host", "192.0.2.7"]);
    for line in [
        "filter: udp port 53 and not host 192.0.2.7",
        "by the index of a recording: udp and port 53",
        "on packets in files: yes",
    ] {
        assert!(told.lines().any(|told| told == line), "{told}");
    }
    assert!(told.contains("in the kernel, on a socket") && told.contains("(000) ldh"), "{told}");
    for (words, target) in
        [(&[][..], FilterTarget::Socket), (&["--offline"], FilterTarget::Offline)]
    {
        let numbers = text(&[&["filter", "vlan 5 and tcp", "--numbers"], words].concat());
        let program = BpfFilter::from_listing(&numbers).unwrap();
        let ours: BpfFilter = "vlan 5 and tcp".parse().unwrap();
        assert_eq!(program.program(target), ours.program(target));
    }
    assert!(complaint(&["filter", "tcp and and"]).contains("and"));
    assert!(complaint(&["filter", "--link", "101", "ether host 2:0:0:0:0:1"]).contains("101"));
    assert!(complaint(&["filter", "inbound", "--offline"]).contains("inbound"));
}

#[ringtap_lab::test]
fn what_was_captured_is_played_again_byte_by_byte() {
    let Some(net) = namespace() else { return };
    let (veth, directory) = (net.veth(), Directory::new());
    let path = |name: &str| directory.path().join(name);
    let traffic = Traffic { len: 300, flows: 8, ..Traffic::default() };
    let mut child = capturing(&veth.right, 500, &path("first.pcapng"));
    Generator::new(&veth.left, &traffic).bursts(500, 50, Duration::from_millis(1));
    assert!(child.wait().unwrap().success());
    let first = packets(&path("first.pcapng"));
    let file = path("first.pcapng");
    for (number, more, count) in [
        (0, &["--fast"][..], 500),
        (1, &["--speed", "2"], 500),
        (2, &["--fast", "udp src port 10003"], 0),
        (3, &["--fast", "--rounds", "2"], 1000),
        (4, &["--fast", "-c", "7"], 7),
    ] {
        let filter: BpfFilter = if count == 0 { more[1] } else { "" }.parse().unwrap();
        let wanted: Vec<_> = (0..if count == 1000 { 2 } else { 1 })
            .flat_map(|_| first.iter().filter(|packet| packet.as_packet().matches(&filter)))
            .take(if count == 7 { 7 } else { 1000 })
            .collect();
        let again = path(&format!("again-{number}.pcapng"));
        let mut child = capturing(&veth.right, wanted.len() as u64, &again);
        let words = ["replay", file.to_str().unwrap(), "-i", &veth.left, "--json"];
        let told: Value = serde_json::from_str(&text(&[&words[..], more].concat())).unwrap();
        assert_eq!(told["sent"], wanted.len(), "{told}");
        assert!(child.wait().unwrap().success());
        let again = packets(&again);
        assert!(again.iter().map(OwnedPacket::data).eq(wanted.iter().map(|packet| packet.data())));
    }
    let words = ["replay", file.to_str().unwrap(), "-i"];
    assert!(complaint(&[&words[..], &["nowhere"]].concat()).contains("nowhere"));
    assert!(complaint(&[&words[..], &[&veth.left, "--speed", "0"]].concat()).contains("above 0"));
    assert!(complaint(&["replay", "/nowhere", "-i", &veth.left]).contains("/nowhere"));

    // What is read is written again, and as lines.
    let copy = path("copy.pcapng");
    let words = ["capture", "-r", file.to_str().unwrap(), "-c", "20"];
    text(&[&words[..], &["-w", copy.to_str().unwrap(), "udp src port 10003"]].concat());
    assert_eq!(packets(&copy).len(), 20);
    assert_eq!(text(&words).lines().filter(|line| line.contains(": UDP, length ")).count(), 20);
}

#[ringtap_lab::test]
fn interfaces_are_joined_and_counted() {
    let Some(net) = namespace() else { return };
    let (one, other, directory) = (net.veth(), net.veth(), Directory::new());
    let traffic = Traffic { len: 200, flows: 4, ..Traffic::default() };
    let mut command = Command::new(program());
    command.args(["bridge", &one.right, &other.right, "udp", "--json"]);
    let mut bridge = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(bridge.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("joining "), "{said}");
    let mut stats = Command::new(program());
    stats.args(["stats", "-i", &other.left, "udp", "--json"]);
    let stats = stats.stdout(Stdio::piped()).spawn().unwrap();
    let file = directory.path().join("forwarded.pcapng");
    // That of `stats`, and those of the bridge.
    until("they listen", || receivers() == 3);
    let mut command = Command::new(program());
    command.args(["capture", "-i", &other.left, "-c", "2000", "--seconds", "20", "udp", "-w"]);
    let mut capture = command.arg(&file).stdout(Stdio::null()).spawn().unwrap();
    until("it captures", || receivers() == 4);
    Generator::new(&one.left, &traffic).bursts(2000, 50, Duration::from_micros(500));
    assert!(capture.wait().unwrap().success());
    let mut tally = Tally::new(&traffic, 2000);
    packets(&file).iter().for_each(|packet| tally.record(packet.data()));
    tally.assert_complete();
    let lines = |child: Child| -> Vec<Value> {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let lanes = lines(bridge);
    assert_eq!((&lanes[0]["forwarded"], &lanes[0]["lost"]), (&2000.into(), &0.into()), "{lanes:?}");
    let seconds = lines(stats);
    let sum = |name: &str| seconds.iter().map(|line| line[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("packets"), sum("bytes")), (2000, 400_000), "{seconds:?}");
    assert!(complaint(&["bridge", &one.right, &one.right]).contains(&*one.right));
}

/// A command at a terminal of 90 columns and 20 rows.
struct AtTerminal {
    child: Child,
    keyboard: File,
    /// All that it has drawn.
    drawn: Arc<Mutex<String>>,
}

impl AtTerminal {
    fn start(words: &[&str]) -> Self {
        let size = Winsize { ws_row: 20, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = Command::new(program());
        command.args(words).stdin(end()).stdout(end()).stderr(end());
        // As shells do: one that nobody could continue would not stop.
        command.process_group(0);
        let child = command.spawn().unwrap();
        let (drawn, mut screen) = (Arc::<Mutex<String>>::default(), File::from(master));
        let (keyboard, into) = (screen.try_clone().unwrap(), Arc::clone(&drawn));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It fails once nobody has the other end any more.
            while let Ok(count) = screen.read(&mut bytes) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { child, keyboard, drawn }
    }

    /// The last picture.
    fn picture(&self) -> String {
        let drawn = self.drawn.lock().unwrap();
        drawn.rsplit("\x1b[J").next().unwrap().trim_end().to_owned()
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn until_it_shows(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        until(&format!("{what} in {:?}", self.picture()), || is_so(&self.picture()));
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[ringtap_lab::test]
fn keys_sort_filter_hold_and_end_what_top_shows() {
    let Some(namespace) = namespace() else { return };
    let veth = namespace.veth();
    let mut top = AtTerminal::start(&["top", "-i", &veth.right, "--shards", "1"]);
    top.until_it_shows("that it is there", |picture| {
        picture.contains("q ends, s sorts by packets")
    });
    let (left, stop) = (veth.left.clone(), Arc::new(AtomicBool::new(false)));
    let is_over = Arc::clone(&stop);
    let sender = std::thread::spawn(move || {
        let traffic = Traffic { flows: 4, ..Traffic::default() };
        let mut generator = Generator::new(&left, &traffic);
        while !is_over.load(Ordering::Relaxed) {
            generator.paced(100, 1000);
        }
    });
    let has_talkers = |picture: &str| picture.lines().any(|line| line.contains(" - 10."));
    top.until_it_shows("who talks", has_talkers);
    top.press("s");
    top.until_it_shows("the other order", |picture| picture.contains("s sorts by bytes"));
    top.press("fnobody");
    top.until_it_shows("what is written", |picture| picture.contains("talkers with: nobody_"));
    assert!(!has_talkers(&top.picture()), "{}", top.picture());
    top.press("\x7f");
    top.until_it_shows("a letter less", |picture| picture.contains("talkers with: nobod_"));
    top.press("\r");
    top.until_it_shows("the filter", |picture| picture.contains("(now: nobod)"));
    top.press("f\r");
    top.until_it_shows("all again", has_talkers);
    top.press("p");
    top.until_it_shows("that it holds", |picture| picture.contains("PAUSED"));
    std::thread::sleep(Duration::from_millis(300)); // what is below comes a little later
    let held = top.picture();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(top.picture(), held, "nothing is drawn anew");
    top.press("p");
    top.until_it_shows("that it goes on", |picture| !picture.contains("PAUSED"));
    top.press("q");
    assert!(top.child.wait().unwrap().success());
    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    // And as signals are sent from a keyboard.
    let mut top = AtTerminal::start(&["top", "-i", &veth.right, "--shards", "1"]);
    top.until_it_shows("that it is there", |picture| picture.contains("q ends"));
    top.press("\x1a");
    let process = Pid::from_raw(top.child.id() as i32);
    let is_stopped =
        || std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap().contains(") T ");
    until("it is stopped", is_stopped);
    kill(process, Signal::SIGCONT).unwrap();
    until("it goes on", || !is_stopped());
    top.press("s");
    top.until_it_shows("that keys are read", |picture| picture.contains("s sorts by bytes"));
    top.press("\x03");
    assert!(top.child.wait().unwrap().success());
}
