//! What writing a flood to a file costs, beside tcpdump and dumpcap: CPU a packet of the whole process, each in turn.
//! `cargo bench --features record --bench write [-- --rounds N] [--len BYTES] [--directory D]`, as root or not; it takes both
//! tools. Files are in memory, where it is not the disk that is measured, unless there is a directory.
//!
//! With `--search`: the highest rate at which each loses nothing in three seconds (RFC 2544's search, to 5 %), beside the rate of
//! the generator alone, and what `dd` writes past the page cache of the same disk. On few cores no generator is fast enough to
//! find the rate: with `--share PERCENT` each writer has only this much of a core (by cgroups, as root).

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringtap::Capture;
use ringtap::pcap::{
    BackgroundWriter, CaptureReader, CaptureWriter, FileFormat, FileInterface, PacketSink,
};
use ringtap::record::Recorder;
use ringtap_lab::{Directory, Generator, Namespace, Traffic, bootstrap, unique_name};

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
    let directory = Directory::within(Path::new(directory));
    let path = directory.path().join("capture").display().to_string();
    if arguments.iter().any(|word| word == "--search") {
        let share = Share::new(number("--share", 100));
        return search(&veth, &path, &share, (rounds, len));
    }
    let traffic = Traffic { len, flows: 64, ..Traffic::default() };
    let (packets, rate) =
        (number("--packets", PACKETS as usize) as u64, number("--rate", RATE as usize) as u64);
    let mut costs: Vec<[Vec<f64>; 4]> = vec![Default::default(); WRITERS.len()];
    for _ in 0..rounds {
        for (writer, costs) in WRITERS.iter().zip(&mut costs) {
            let cost = written(writer, (&veth, &path), &traffic, (packets, rate));
            costs.iter_mut().zip(cost).for_each(|(all, one)| all.push(one));
        }
    }
    println!("{packets} packets of {len} bytes at {rate} a second, {rounds} rounds in turn");
    let heads = ["ns CPU a packet", "of the whole machine", "page cache, MiB", "missing"];
    println!("{:22} {:>24} {:>24} {:>20} {:>20}", "", heads[0], heads[1], heads[2], heads[3]);
    for (writer, costs) in WRITERS.iter().zip(costs) {
        let [own, machine, cache, missing] = costs.map(spread);
        println!("{writer:22} {own:>24} {machine:>24} {cache:>20} {missing:>20}");
    }
}

/// The median, and the spread from the least to the most.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{:.0} ({least:.0} to {most:.0})", values[values.len() / 2])
}

/// Has a writer take packets: its own nanoseconds a packet; those of the whole machine but for the generator, until everything is
/// on the disk; by how many MiB the page cache has grown; and how many packets are missing.
fn written(
    writer: &str,
    (veth, path): (&ringtap_lab::Veth, &str),
    traffic: &Traffic,
    (packets, rate): (u64, u64),
) -> [f64; 4] {
    let mut child = start(writer, &veth.right, path);
    let mut generator = Generator::new(&veth.left, traffic);
    let (began, idle, own, cached) = (Instant::now(), idle_of_machine(), own_cpu(), page_cache());
    generator.paced(packets, rate);
    std::thread::sleep(Duration::from_millis(300));
    let cache = page_cache() - cached;
    let micros = end(&mut child);
    let generated = own_cpu() - own;
    // SAFETY: it takes no memory.
    unsafe { libc::sync() };
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let elapsed = began.elapsed().as_secs_f64();
    let busy = cores * elapsed - (idle_of_machine() - idle) - generated;
    let written = take(Path::new(path));
    let a_packet = |seconds: f64| 1e9 * seconds / written.max(1) as f64;
    let missing = packets - written.min(packets);
    [a_packet(micros / 1e6), a_packet(busy), cache, missing as f64]
}

/// The seconds that all cores together had nothing to do: those are counted exactly, while what they did is sampled by ticks.
fn idle_of_machine() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").expect("proc");
    let words = text.lines().next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let idle: f64 = [3, 4, 7].iter().map(|at| ticks[*at]).sum();
    idle / 100.0
}

/// The seconds that this thread was busy.
fn own_cpu() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: it is written by the call.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) }, 0);
    // SAFETY: zeroed, and written.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The MiB of the page cache.
fn page_cache() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("proc");
    let cached = text.lines().find_map(|line| line.strip_prefix("Cached:")).unwrap_or_default();
    cached.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0)
        / 1024.0
}

/// Those whose highest rate is searched.
const SEARCHED: [&str; 4] = [WRITERS[0], WRITERS[2], WRITERS[4], WRITERS[5]];

/// How long each rate is tried.
const TRIED: Duration = Duration::from_secs(3);

/// Prints the highest rates without loss.
fn search(veth: &ringtap_lab::Veth, path: &str, share: &Share, (rounds, len): (usize, usize)) {
    let traffic = Traffic { len, flows: 64, ..Traffic::default() };
    let most = generated(veth, &traffic, u64::MAX).1;
    let written = dd(path);
    let mut rates = vec![Vec::new(); SEARCHED.len()];
    let mut bounded = [false; SEARCHED.len()];
    for _ in 0..rounds {
        for (number, (writer, rates)) in SEARCHED.iter().zip(&mut rates).enumerate() {
            // Highest rate that was lossless, lowest that was not.
            let (mut good, mut bad) = (0, None);
            let mut rate = 20_000.min(most);
            while rate > 1000 && bad.is_none_or(|bad: u64| bad - good > bad / 20) {
                let (is_lossless, reached) = tried(writer, (veth, path, share), &traffic, rate);
                match is_lossless {
                    true => good = good.max(reached),
                    false => bad = Some(rate),
                }
                // Beside this writer, the generator does no more.
                if is_lossless && reached < rate / 20 * 19 {
                    bounded[number] = true;
                    break;
                }
                rate = bad.map_or(rate * 2, |bad| good.midpoint(bad));
            }
            rates.push(good);
        }
    }
    let (len, share) = (traffic.len, share.percent);
    println!("highest rate without loss in {TRIED:?}, packets of {len} bytes, {rounds} rounds");
    println!("writers have {share} % of a core");
    println!("the generator alone: {most} packets a second");
    println!("dd past the page cache: {written}");
    for (writer, (mut rates, is_bounded)) in SEARCHED.iter().zip(rates.into_iter().zip(bounded)) {
        rates.sort_unstable();
        let (least, most) = (rates[0], rates[rates.len() - 1]);
        let by = if is_bounded { ", as fast as the generator beside it" } else { "" };
        println!("{writer:22} {:>9} ({least} to {most}){by}", rates[rates.len() / 2]);
    }
}

/// Sends at a rate for as long as it is tried. Returns how many packets, and how many a second they were.
fn generated(veth: &ringtap_lab::Veth, traffic: &Traffic, rate: u64) -> (u64, u64) {
    let (begin, mut count) = (Instant::now(), 0);
    let mut generator = Generator::new(&veth.left, traffic);
    while begin.elapsed() < TRIED {
        let step = (rate / 20).clamp(1, 20_000);
        match rate {
            u64::MAX => generator.flood(step),
            rate => generator.paced(step, rate),
        }
        count += step;
    }
    (count, (count as f64 / begin.elapsed().as_secs_f64()) as u64)
}

/// Whether nothing is lost at a rate, and which rate the generator has reached beside the writer.
fn tried(
    writer: &str,
    (veth, path, share): (&ringtap_lab::Veth, &str, &Share),
    traffic: &Traffic,
    rate: u64,
) -> (bool, u64) {
    let mut child = start(writer, &veth.right, path);
    share.limit(&child);
    let (sent, reached) = generated(veth, traffic, rate);
    // tcpdump's blocks are handed to it after a second, and those of the end only then.
    std::thread::sleep(Duration::from_millis(1500));
    end(&mut child);
    let written = take(Path::new(path));
    (written >= sent, reached)
}

/// A part of a core that processes may take.
struct Share {
    percent: usize,
    /// The directory of the group.
    group: Option<PathBuf>,
}

impl Share {
    /// Makes a group for it; none for a whole core.
    fn new(percent: usize) -> Self {
        const PERIOD: usize = 10_000; // microseconds
        if percent >= 100 {
            return Self { percent: 100, group: None };
        }
        let root = Path::new("/sys/fs/cgroup");
        let is_unified = root.join("cgroup.controllers").exists();
        let parent = if is_unified { root.to_owned() } else { root.join("cpu") };
        let group = parent.join(unique_name());
        std::fs::create_dir(&group).expect("a group, which takes root");
        let quota = PERIOD * percent / 100;
        let put = |name: &str, text: String| {
            std::fs::write(group.join(name), text).expect("a controller of CPU time");
        };
        let share = Self { percent, group: Some(group.clone()) }; // from now on it is removed
        if is_unified {
            put("cpu.max", format!("{quota} {PERIOD}"));
        } else {
            put("cpu.cfs_period_us", PERIOD.to_string());
            put("cpu.cfs_quota_us", quota.to_string());
        }
        share
    }

    fn limit(&self, child: &Child) {
        if let Some(group) = &self.group {
            std::fs::write(group.join("cgroup.procs"), child.id().to_string()).expect("it is ours");
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            let _ = std::fs::remove_dir(group);
        }
    }
}

/// What `dd` says of a gigabyte that it writes past the page cache.
fn dd(path: &str) -> String {
    let of = format!("of={path}");
    let arguments = ["if=/dev/zero", &of, "bs=1M", "count=1024", "oflag=direct"];
    let output = Command::new("dd").args(arguments).output().expect("it is installed");
    let _ = std::fs::remove_file(path);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.lines().last().unwrap_or_default().to_owned()
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
