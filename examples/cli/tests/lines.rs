//! Packets as lines, beside tcpdump's.

mod rig;

use std::path::Path;
use std::process::Command;

use ringtap_lab::{bootstrap, pcap, skip, skip_for_ordinary_users};

ringtap_lab::test_binary!();

/// Captures in which tcpdump says more of TCP than its header: headers that lie, that are cut, and what is around them.
const OTHERWISE: [&str; 9] = [
    "mpls",
    "malformed",
    "timestamp_invalid_nano",
    "jumbo",
    "tcpreplay-flows",
    "truncated",
    "sll2",
    "pppoe",
    "arp-leak",
];

fn said(program: &Path, words: &[&str], file: &Path) -> Vec<String> {
    let output = Command::new(program).args(words).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| !line.starts_with(['\t', ' '])).map(str::to_owned).collect()
}

/// A line of tcpdump's without what ours do not say: options and urgent data, and what is behind the length.
fn plain(line: &str) -> String {
    let mut line = line.to_owned();
    for (from, to) in [(", options [", "]"), (", urg ", ",")] {
        if let Some(at) = line.find(from)
            && let Some(len) = line[at + from.len()..].find(to)
        {
            let end = at + from.len() + len + usize::from(to == "]");
            line.replace_range(at..end, "");
        }
    }
    let end = line.find("length ").map_or(line.len(), |at| {
        let digits = line[at + 7..].find(|letter: char| !letter.is_ascii_digit());
        digits.map_or(line.len(), |len| at + 7 + len)
    });
    line.truncate(end);
    line
}

/// Whether a line is of a message of DNS over UDP, all of whose types this tcpdump knows.
fn is_of_dns(line: &str) -> bool {
    let Some((addresses, _)) = line.split_once(": ") else { return false };
    let mut words = addresses.split(' ').skip(1);
    let is_ip = matches!(words.next(), Some("IP" | "IP6"));
    let is_port = |word: &str| word.ends_with(".53") || word.ends_with(".5353");
    is_ip && words.any(is_port) && !line.contains("Flags [") && !line.contains(" Type")
}

#[ringtap_lab::test]
fn lines_of_tcp_arp_and_dns_are_those_of_tcpdump() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    if Command::new("tcpdump").arg("--version").output().is_err() {
        return skip("no tcpdump here: its lines are compared");
    }
    if !bootstrap::was_root() {
        return skip_for_ordinary_users(
            "tcpdump cannot give up root's rights in the namespace of a user",
        );
    }
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let (mut same, mut arp, mut dns, mut faults) = (0, 0, 0, Vec::new());
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_capture = name.ends_with(".pcap") || name.ends_with(".pcapng");
        if !is_capture || OTHERWISE.iter().any(|word| name.contains(word)) {
            continue;
        }
        let ours = said(&rig::program(), &["capture", "-r"], &path);
        let theirs = said(Path::new("tcpdump"), &["-nS", "-r"], &path);
        if ours.len() != theirs.len() {
            continue; // a damaged file, which tcpdump reads less of, or more
        }
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let is_arp = theirs.contains(" ARP, Re") && !theirs.contains('(') && theirs.len() < 100;
            let is_tcp = theirs.contains(": Flags [") && !theirs.contains("[|tcp]");
            let is_dns = is_of_dns(theirs);
            // What tcpdump says with -e alone.
            let words = match ours.split_once("vlan ") {
                Some((time, rest)) => {
                    format!("{time}{}", rest.split_once(", ").map_or("", |(_, rest)| rest))
                }
                None => ours.clone(),
            };
            let is_same = if is_dns { words == *theirs } else { words == plain(theirs) };
            match (is_arp || is_tcp || is_dns, is_same) {
                (true, true) => {
                    same += 1;
                    (arp, dns) = (arp + usize::from(is_arp), dns + usize::from(is_dns));
                }
                (true, false) => faults.push(format!("{name}:\n{ours}\n{theirs}")),
                (false, _) => {}
            }
        }
    }
    let unlike = faults.len();
    println!("{same} lines are the same, {arp} of them of ARP and {dns} of DNS; {unlike} are not");
    assert!(same > 7000 && arp > 400 && dns > 400, "{same}, {arp}, {dns}");
    assert!(faults.is_empty(), "{}", faults[..faults.len().min(5)].join("\n"));
}
