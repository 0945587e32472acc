//! Our verdicts beside libpcap's, over real captures (`../shared/pcaps/BPF_ORACLE.tsv`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use ringtap::BpfFilter;
use ringtap::filter::{Ancillary, Headers};
use ringtap::packet::LinkType;
use ringtap_lab::{pcap, skip};

/// Expressions that are refused, as docs/FILTERS.md says.
const REFUSED: &[&str] = &["ip broadcast"];

struct Row<'a> {
    file: &'a str,
    expression: &'a str,
    matches: &'a str,
    count: usize,
    hash: &'a str,
}

type Packets = Option<(u16, Vec<pcap::Recorded>)>;

/// A digit for each packet. None that matches may lack what the filter needs.
fn verdicts(filter: &BpfFilter, link: LinkType, packets: &[pcap::Recorded]) -> String {
    let needs = filter.needs();
    let one = |(data, wire_len): &pcap::Recorded| {
        let known = Ancillary::of_len(*wire_len);
        let matches = filter.matches_offline(data, &known);
        let may_match = Headers::read(link, data)
            .is_none_or(|headers| needs.may_match(|term| headers.terms().any(|of| of == term)));
        assert!(may_match || !matches, "{filter} needs {needs}: {data:02x?}");
        if matches { '1' } else { '0' }
    };
    packets.iter().map(one).collect()
}

#[ringtap_lab::test]
fn every_expression_decides_every_packet_as_libpcap_does() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let table = std::fs::read_to_string(directory.join("BPF_ORACLE.tsv")).unwrap();
    let rows = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [file, _, expression, matches, count, _, hash, ..] = columns[..] else { return None };
        Some(Row { file, expression, matches, count: count.parse().unwrap_or(0), hash })
    });
    let mut files: HashMap<&str, Packets> = HashMap::new();
    let (mut agreed, mut unread) = (0, BTreeSet::new());
    let mut wrong: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut expressions = BTreeSet::new();
    for Row { file, expression, matches, count, hash } in rows {
        if expression == "<open>" {
            continue;
        }
        expressions.insert(expression);
        let packets = files.entry(file).or_insert_with(|| pcap::packets(&find(&directory, file)));
        let Some((link, packets)) = packets else {
            unread.insert(file);
            continue;
        };
        let filter =
            BpfFilter::parse(expression).and_then(|filter| filter.for_link(LinkType(*link)));
        let is_refused_there = matches.starts_with("ERR");
        if !is_refused_there && packets.len() != count {
            unread.insert(file); // of a damaged file libpcap makes something else
            continue;
        }
        match filter {
            Err(error) => {
                let is_known = REFUSED.contains(&expression) || is_refused_there;
                if !is_known {
                    wrong.entry(expression).or_default().push(format!("{file}: {error}"));
                }
            }
            Ok(_) if is_refused_there => {} // libpcap knows less of this link
            Ok(filter) => {
                let verdicts = verdicts(&filter, LinkType(*link), packets);
                let digest = sha1_smol::Sha1::from(&verdicts).digest().to_string();
                if digest.starts_with(hash) {
                    agreed += 1;
                } else {
                    let count = verdicts.bytes().filter(|&byte| byte == b'1').count();
                    let why = format!("{file} (link {link}): {count}, libpcap {matches}");
                    wrong.entry(expression).or_default().push(why);
                }
            }
        }
    }
    let refused = expressions.iter().filter(|one| REFUSED.contains(one)).count();
    println!(
        "{agreed} agree; {} expressions, {refused} refused; files not read: {unread:?}",
        expressions.len()
    );
    let faults: Vec<String> = wrong
        .iter()
        .map(|(expression, files)| {
            format!("{expression}: {} files, {:?}", files.len(), &files[..files.len().min(3)])
        })
        .collect();
    assert!(faults.is_empty(), "{} expressions differ:\n{}", faults.len(), faults.join("\n"));
    assert!(unread.len() <= 3, "{unread:?}");
    assert!(expressions.len() - refused >= 85 && agreed > 6_000, "{agreed}");
}

fn find(directory: &Path, file: &str) -> std::path::PathBuf {
    directory.join(file)
}
