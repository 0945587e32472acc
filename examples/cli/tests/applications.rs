//! What applications said in flows, in records: as tshark reads it.

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use rig::Place;
use ringtap_lab::{pcap, skip, tool};
use serde_json::Value;

ringtap_lab::test_binary!();

const FILES: [&str; 9] = [
    "arkime-dns-dns-tcp.pcap",
    "arkime-http-http-wrapped-header.pcap",
    "ipfixprobe-http-http.pcap",
    "pcappp-dns-DnsPackets.pcap",
    "pcappp-tls-tls.pcap",
    "zeek-flows-wikipedia.pcap",
    "zeek-quic-curl-8.1.2-dev-http3-www-google-de.pcap",
    "zeek-tls-chrome-34-google.pcap",
    "zeek-tls-tls13-ech.pcap",
];

/// Records of a file, as lines; with Parquet files beside them, where that is built in.
fn records(place: &Place, file: &Path, words: &[&str]) -> Vec<Value> {
    let name = file.file_name().unwrap().to_str().unwrap();
    let path = |kind: &str| place.path(&format!("{name}.{kind}"));
    let (spool, lines) = (path("spool"), path("ndjson"));
    let mut command = Command::new(rig::program());
    command.args(["sensor", "--applications", "--sensor", "s", "--spool", &spool, "-r"]).arg(file);
    command.args(["--sink", &format!("ndjson:{lines}")]).args(words);
    if cfg!(feature = "parquet") {
        command.args(["--sink", &format!("parquet:{}", path("parquet"))]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(lines).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the first message of each flow names, by protocol.
type Names = BTreeMap<&'static str, Vec<String>>;

fn ours(records: &[Value]) -> Names {
    let mut names = Names::new();
    let mut add = |of, parts: [&Value; 2]| {
        let parts = parts.map(|part| part.as_str().unwrap_or_default());
        if !parts.concat().is_empty() {
            names.entry(of).or_default().push(parts.join(" ").trim().to_owned());
        }
    };
    for record in records {
        add("dns", [&record["dns"]["name"], &Value::Null]);
        add("http", [&record["http"]["method"], &record["http"]["host"]]);
        add("tls", [&record["tls"]["sni"], &Value::Null]);
    }
    names.values_mut().for_each(|names| names.sort_unstable());
    names
}

/// As tshark has it; `None` where it is missing.
fn tsharks(file: &Path) -> Option<Names> {
    let mut names = Names::new();
    for (of, filter, fields) in [
        ("dns", "dns", &["dns.qry.name"][..]),
        ("http", "http.request", &["http.request.method", "http.host"]),
        ("tls", "tls.handshake.extensions_server_name", &["tls.handshake.extensions_server_name"]),
    ] {
        let mut arguments = vec!["-r", file.to_str().unwrap(), "-2", "-Y", filter, "-T", "fields"];
        arguments.extend(["-e", "tcp.stream", "-e", "udp.stream"]);
        fields.iter().for_each(|field| arguments.extend(["-e", field]));
        let text = tool::run("tshark", &arguments, b"")?;
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            let parts: Vec<&str> = line.split('\t').collect();
            let first = |text: &str| text.split(',').next().unwrap().to_owned();
            let named: Vec<String> = parts[2..].iter().map(|text| first(text)).collect();
            if !named.concat().is_empty() && seen.insert((parts[0].to_owned(), parts[1].to_owned()))
            {
                names.entry(of).or_default().push(named.join(" ").trim().to_owned());
            }
        }
    }
    names.values_mut().for_each(|names| names.sort_unstable());
    Some(names)
}

#[ringtap_lab::test]
fn records_name_what_the_first_messages_of_their_flows_name() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let Some(place) = Place::new() else { return };
    let mut count = BTreeMap::<_, usize>::new();
    for file in FILES.map(|name| directory.join(name)) {
        let records = records(&place, &file, &["--active-seconds", "0", "--idle-seconds", "86400"]);
        let Some(expected) = tsharks(&file) else { return };
        let ours = ours(&records);
        for (of, names) in &expected {
            let (ours, theirs) = (ours.get(of).map_or(&[][..], Vec::as_slice), &names[..]);
            let at = (0..=ours.len().max(theirs.len())).find(|at| ours.get(*at) != theirs.get(*at));
            assert_eq!(at.map(|at| (ours.get(at), theirs.get(at))), None, "{}", file.display());
        }
        assert_eq!(ours.len(), expected.len(), "{}", file.display());
        expected.iter().for_each(|(of, names)| *count.entry(*of).or_default() += names.len());
    }
    println!("{count:?}");
    assert!(count["dns"] > 20 && count["http"] > 10 && count["tls"] > 5, "{count:?}");
}

#[ringtap_lab::test]
fn codes_and_fingerprints_are_those_of_their_flows() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let Some(place) = Place::new() else { return };
    let of = |name: &str, field: &str| {
        let records = records(&place, &directory.join(name), &[]);
        let with = |record: &Value| record.get(field).cloned();
        records.iter().filter_map(with).collect::<Vec<_>>()
    };
    let hello = &of("zeek-quic-curl-8.1.2-dev-http3-www-google-de.pcap", "tls")[0];
    assert_eq!(
        (&hello["sni"], &hello["alpn"]),
        (&"www.google.de".into(), &"h3,h3-29,h3-28,h3-27".into())
    );
    let answered = of("zeek-tls-tls13-ech.pcap", "tls");
    assert_eq!(answered[0]["version"], "TLS 1.3", "{answered:?}");
    assert!(hello["ja4"].as_str().unwrap().starts_with("q13d"), "{hello}");
    let requests = of("ipfixprobe-http-http.pcap", "http");
    assert!(requests.iter().any(|one| one["status"] == 200), "{requests:?}");
    let queries = of("pcappp-dns-DnsPackets.pcap", "dns");
    assert!(queries.iter().any(|one| one["code"] == "NOERROR"), "{queries:?}");
    assert!(queries.iter().any(|one| one["type"] == "A"), "{queries:?}");
}

#[ringtap_lab::test]
fn each_record_of_a_flow_that_lasts_has_what_was_said() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let Some(place) = Place::new() else { return };
    let file = directory.join("zeek-flows-wikipedia.pcap");
    let records = records(&place, &file, &["--active-seconds", "1"]);
    let mut said = BTreeMap::new();
    let mut again = 0;
    for record in records.iter().filter(|record| record["kind"] == "flow") {
        let ends = ["source", "source_port", "destination", "destination_port"];
        let ends = ends.map(|name| record[name].to_string());
        if let Some(before) = said.get(&ends) {
            assert_eq!(record["http"]["host"], *before, "{record}");
            again += 1;
        }
        if record.get("http").is_some() && record["reason"] == "active" {
            said.insert(ends, record["http"]["host"].clone());
        }
    }
    assert!(again > 0, "no flow lasts");
}

#[cfg(feature = "parquet")]
#[ringtap_lab::test]
fn parquet_files_have_the_same() {
    const READ: &str = "
import sys, glob, pyarrow.parquet as parquet
for name in sorted(glob.glob(sys.argv[1] + '/*.parquet')):
    for row in parquet.read_table(name).to_pylist():
        if row['application']:
            print(row['application'], row['dns_name'], row['dns_type'], row['dns_code'], row['http_host'],
                  row['http_method'], row['http_status'], row['tls_sni'], row['tls_alpn'], row['tls_ja4'],
                  row['tls_version'], sep='|')
";
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    if tool::run("python3", &["-c", "import pyarrow"], b"").is_none() {
        return skip("no pyarrow here");
    }
    let Some(place) = Place::new() else { return };
    for name in [FILES[2], FILES[3], FILES[6], FILES[7]] {
        let text = |value: &Value| match value {
            Value::Null => "None".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let expected: Vec<String> = records(&place, &directory.join(name), &[])
            .iter()
            .filter_map(|record| {
                let of = ["dns", "http", "tls"].into_iter().find(|of| record.get(of).is_some())?;
                let is_quic = of == "tls" && record["protocol"] == 17;
                let mut parts = vec![if is_quic { "quic" } else { of }.to_owned()];
                for (of, name) in [
                    ("dns", "name"),
                    ("dns", "type"),
                    ("dns", "code"),
                    ("http", "host"),
                    ("http", "method"),
                    ("http", "status"),
                    ("tls", "sni"),
                    ("tls", "alpn"),
                    ("tls", "ja4"),
                    ("tls", "version"),
                ] {
                    parts.push(text(&record[of][name]));
                }
                Some(parts.join("|"))
            })
            .collect();
        let place = place.path(&format!("{name}.parquet"));
        let read = tool::run("python3", &["-c", READ, &place], b"").unwrap();
        assert_eq!(read.lines().collect::<Vec<_>>(), expected, "{name}");
        assert!(!expected.is_empty());
    }
}
