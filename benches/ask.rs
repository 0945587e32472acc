//! What it takes to find a host's packets in a recording, beside `tcpdump -r` with the same filter: wall clock, each in turn, from
//! files that are in no cache and from files that are.
//! `cargo bench --features record,testing --bench ask -- --directory D [--packets N] [--rounds N]`; it takes tcpdump, and some 300
//! bytes of disk for each packet.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use ringtap::executor;
use ringtap::record::{Archive, Recorder};
use ringtap::testing::TestRing;
use ringtap_lab::Directory;

/// The host that is asked for, and how many packets it has.
const HOST: [u8; 4] = [198, 51, 100, 7];
const ITS: u64 = 100;
const BLOCK: usize = 1 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| arguments.iter().skip_while(|word| *word != name).nth(1);
    let number = |name, otherwise| option(name).map_or(otherwise, |n| n.parse().expect("a number"));
    let (packets, rounds) = (number("--packets", 10_000_000), number("--rounds", 5));
    let directory = option("--directory").map_or("/var/tmp", String::as_str);
    let directory = Directory::within(Path::new(directory));
    let path = directory.path();
    let began = Instant::now();
    record(path, packets);
    println!("recorded {packets} packets in {:.1} s", began.elapsed().as_secs_f64());
    let filter = format!("host {}", HOST.map(|byte| byte.to_string()).join("."));
    let query = Archive::open(path).expect("a recording").query();
    let query = query.filter(filter.parse().expect("a filter"));
    println!("{}", query.explain().expect("files"));
    for is_cached in [false, true] {
        let mut ratios = Vec::new();
        for _ in 0..rounds {
            let ours = timed(path, is_cached, || query.clone().packets().count() as u64);
            let theirs = timed(path, is_cached, || tcpdump(path, &filter));
            ratios.push((theirs / ours, ours, theirs));
        }
        ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (least, most) = (ratios[0].0, ratios[ratios.len() - 1].0);
        let (ratio, ours, theirs) = ratios[ratios.len() / 2];
        let from = if is_cached { "from the page cache" } else { "from the disk" };
        println!(
            "{from}: {:.1} ms, tcpdump {:.1} ms: {ratio:.0} times ({least:.0} to {most:.0})",
            1000.0 * ours,
            1000.0 * theirs
        );
    }
}

/// The seconds that a search takes, which finds all.
fn timed(path: &Path, is_cached: bool, search: impl Fn() -> u64) -> f64 {
    for file in std::fs::read_dir(path).expect("it is ours") {
        let file = std::fs::File::open(file.expect("it is ours").path()).expect("a file");
        match is_cached {
            true => drop(std::io::copy(&mut &file, &mut std::io::sink())),
            // SAFETY: no memory is passed.
            false => drop(unsafe {
                libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED)
            }),
        }
    }
    let began = Instant::now();
    assert_eq!(search(), ITS);
    began.elapsed().as_secs_f64()
}

fn tcpdump(path: &Path, filter: &str) -> u64 {
    let archive = Archive::open(path).expect("a recording");
    let of_file = |file: &PathBuf| {
        let mut command = Command::new("tcpdump");
        let output = command.arg("-nr").arg(file).args(["--count", filter]).output();
        let said = String::from_utf8(output.expect("it is installed").stdout).expect("text");
        said.split(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count")
    };
    archive.files("p").iter().map(of_file).sum()
}

/// Records packets of a thousand hosts at a time, and those of one host among them.
fn record(path: &Path, packets: u64) {
    executor::block_on(async {
        let recorder = Recorder::builder(path, "p").depth(4).max_bytes(512 << 20);
        let mut recorder = recorder.build().expect("a recorder");
        let (mut ring, mut peer) = TestRing::new(BLOCK, 32);
        let (mut number, mut frames) = (0, vec![vec![0; 200]; 3600]);
        while number < packets {
            let count = frames.len().min((packets - number) as usize);
            for frame in &mut frames[..count] {
                fill(frame, number, packets / ITS);
                number += 1;
            }
            let frames = || frames[..count].iter().map(Vec::as_slice);
            let mut fitted = peer.retire(frames());
            while fitted.is_none() {
                recorder.flush().await.expect("written");
                fitted = peer.retire(frames());
            }
            assert_eq!(fitted, Some(count));
            recorder.write(ring.next_batch().expect("retired")).await.expect("written");
        }
        assert_eq!(recorder.finish().await.expect("written").written, packets);
    });
}

fn fill(frame: &mut [u8], number: u64, one_in: u64) {
    let [.., a, b] = (number / 100_000).to_be_bytes();
    let [.., c] = (number.wrapping_mul(0x9e37_79b9) >> 7).to_be_bytes();
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[16..24].copy_from_slice(&[0, 186, 0, 0, 0, 0, 64, 17]);
    frame[26..30].copy_from_slice(&[10, a, b, c]);
    let to = if number % one_in == one_in / 2 { HOST } else { [192, 0, 2, (number % 200) as u8] };
    frame[30..34].copy_from_slice(&to);
    frame[34..38].copy_from_slice(&[0x9c, 0x40, 0, 53]);
}
