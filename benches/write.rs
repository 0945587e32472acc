//! What writing a flood to a file costs, beside tcpdump and dumpcap: CPU a packet of the whole process, each in turn.
//! `cargo bench --features record --bench write [-- --rounds N] [--len BYTES] [--directory D]`, as root or not; it takes both
//! tools. Files are in memory, where it is not the disk that is measured, unless there is a directory.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringtap::Capture;
use ringtap::pcap::{
    BackgroundWriter, CaptureReader, CaptureWriter, FileFormat, FileInterface, PacketSink,
};
use ringtap::record::Recorder;
use ringtap_lab::{Generator, Namespace, Traffic, bootstrap};

const PACKETS: u64 = 300_000;
const RATE: u64 = 300_000;

/// The programs that are compared. The first four are ringtap, each in a process of its own like the others.
const WRITERS: [&str; 6] = [
    "ringtap",
    "ringtap, by a thread",
    "ringtap, recorder",
    "ringtap, without index",
    "tcpdump",
    "dumpcap",
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, kind, interface, path] = &arguments[..]
        && WRITERS.contains(&kind.as_str())
    {
        return write(kind, interface, Path::new(path));
    }
    let option = |name: &str| arguments.iter().skip_while(|word| *word != name).nth(1);
    let number = |name, otherwise| option(name).map_or(otherwise, |n| n.parse().expect("a number"));
    let (rounds, len) = (number("--rounds", 7), number("--len", 200));
    bootstrap::enter().expect("a namespace");
    let namespace = Namespace::enter().expect("a namespace");
    let veth = namespace.veth();
    let directory = option("--directory").map_or("/dev/shm", String::as_str);
    let path = format!("{directory}/ringtap-write-{}", std::process::id());
    let mut costs = vec![Vec::new(); WRITERS.len()];
    for _ in 0..rounds {
        for (writer, costs) in WRITERS.iter().zip(&mut costs) {
            let mut child = start(writer, &veth.right, &path);
            let traffic = Traffic { len, flows: 64, ..Traffic::default() };
            Generator::new(&veth.left, &traffic).paced(PACKETS, RATE);
            std::thread::sleep(Duration::from_millis(300));
            let micros = end(&mut child);
            let written = take(Path::new(&path));
            costs.push((1000.0 * micros / written as f64, PACKETS - written.min(PACKETS)));
        }
    }
    println!("{PACKETS} packets of {len} bytes at {RATE} a second, {rounds} rounds in turn");
    println!("{:22} {:>28} {:>8}", "", "ns CPU a packet", "missing");
    for (writer, mut costs) in WRITERS.iter().zip(costs) {
        costs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (least, most) = (costs[0].0, costs[costs.len() - 1].0);
        let missing: u64 = costs.iter().map(|cost| cost.1).sum();
        let spread = format!("{:.0} ({least:.0} to {most:.0})", costs[costs.len() / 2].0);
        println!("{writer:22} {spread:>28} {missing:>8}");
    }
}

/// Removes what was written, a file or a directory with some, and returns the number of packets in it.
fn take(path: &Path) -> u64 {
    if path.is_dir() {
        let files =
            std::fs::read_dir(path).expect("it is ours").map(|file| file.expect("it is ours"));
        let written = files.map(|file| take(&file.path())).sum();
        std::fs::remove_dir(path).expect("it is ours");
        return written;
    }
    let mut written = 0_u64;
    if path.extension().is_some_and(|extension| extension == "idx") {
        std::fs::remove_file(path).expect("it is ours");
        return written;
    }
    let mut reader = CaptureReader::open(path).expect("a file");
    while reader.next_record().is_ok_and(|record| record.is_some()) {
        written += 1;
    }
    std::fs::remove_file(path).expect("it is ours");
    written
}

/// Starts a process that writes what comes, and waits until it captures.
fn start(writer: &str, interface: &str, path: &str) -> Child {
    let mut command = match writer {
        "tcpdump" => {
            let mut command = Command::new("tcpdump");
            command.args(["-i", interface, "-w", path, "-B", "65536", "-Z", "root", "-n"]);
            command
        }
        "dumpcap" => {
            let mut command = Command::new("dumpcap");
            command.args(["-i", interface, "-w", path, "-B", "64", "-q"]);
            command
        }
        ours => {
            let mut command = Command::new(std::env::current_exe().expect("a bench has a path"));
            command.args([ours, interface, path]);
            command
        }
    };
    let mut child =
        command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it is installed");
    let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
    // "listening on", "File:", "ready": each says so once it captures.
    let is_ready =
        |line: &String| ["listening on", "File:", "ready"].iter().any(|word| line.contains(word));
    assert!(said.any(|line| is_ready(&line.expect("text"))), "{writer} does not capture");
    std::thread::spawn(move || said.count()); // so that it can go on speaking
    std::thread::sleep(Duration::from_millis(100));
    child
}

/// Ends it as Ctrl-C does: the microseconds of CPU that it took.
fn end(child: &mut Child) -> f64 {
    let id = child.id() as libc::pid_t;
    // SAFETY: a child of ours, not waited for yet.
    assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both are written by the call.
    assert_eq!(unsafe { libc::wait4(id, &raw mut status, 0, usage.as_mut_ptr()) }, id);
    let status = std::process::ExitStatus::from_raw(status);
    assert!(status.success(), "{status}");
    // SAFETY: zeroed, and written.
    let usage = unsafe { usage.assume_init() };
    let micros = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

/// Writes to files in a directory, by the reactor.
fn record(interface: &str, path: &Path, has_index: bool) {
    std::fs::create_dir(path).expect("a directory");
    let ring = Capture::builder().interface(interface).block_size(1 << 20).block_count(64);
    let mut capture = ring.for_recording(true).build().expect("a capture");
    let stop = capture.stop_handle().expect("a handle");
    ctrlc::set_handler(move || stop.stop()).expect("a handler");
    ringtap::executor::block_on(async {
        let mut capture = ringtap::AsyncCapture::new(capture).expect("a reactor");
        // A second handle is the first one, of which the reactor now knows.
        capture.stop_handle().expect("a handle");
        let recorder = Recorder::builder(path, "p").interface(FileInterface::ethernet(interface));
        let mut recorder = recorder.index(has_index).build().expect("a recorder");
        eprintln!("ready");
        recorder.record(&mut capture).await.expect("written");
        recorder.finish().await.expect("written");
    });
}

fn write(kind: &str, interface: &str, path: &Path) {
    if kind == WRITERS[2] || kind == WRITERS[3] {
        return record(interface, path, kind == WRITERS[2]);
    }
    let ring = Capture::builder().interface(interface).block_size(1 << 20).block_count(64);
    let mut capture = ring.build().expect("a capture");
    let stop = capture.stop_handle().expect("a handle");
    ctrlc::set_handler(move || stop.stop()).expect("a handler");
    let file =
        CaptureWriter::builder().format(FileFormat::PcapMicros).create(path).expect("a file");
    eprintln!("ready");
    if kind == WRITERS[0] {
        let mut file = file;
        for batch in capture.batches() {
            file.write_batch(&batch.expect("a batch")).expect("written");
        }
        file.finish().expect("written");
    } else {
        let mut writer = BackgroundWriter::spawn(file, 64 << 20).expect("a thread");
        for batch in capture.batches() {
            PacketSink::write_batch(&mut writer, &batch.expect("a batch")).expect("written");
        }
        writer.finish().expect("written").0.finish().expect("written");
    }
}
