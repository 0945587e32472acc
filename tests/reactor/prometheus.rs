//! What monitoring sees, as Prometheus' text.

use std::time::Duration;

use ringtap::metrics::{Exposition, Measured};
use ringtap::shard::Cores;
use ringtap::{Capture, Shards};
use ringtap_lab::{Generator, Traffic, namespace};

/// A sample's name, labels and value.
type Series = (String, Vec<(String, String)>, f64);

/// Reads Prometheus' text as its parser does: families, each with a type and a text, and samples by name and labels.
fn parsed(text: &str) -> Vec<Series> {
    let (mut samples, mut family, mut described) = (Vec::new(), String::new(), Vec::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split_once(' ').expect("a text").0.to_owned();
            assert!(!described.contains(&family), "{family} is described twice");
            described.push(family.clone());
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(matches!(kind, "counter" | "gauge"));
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        assert_eq!(name, family, "a sample of its family");
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
            let (name, value) = label.split_once('=').unwrap();
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            (name.to_owned(), value.unwrap().to_owned())
        });
        samples.push((name.to_owned(), labels.collect(), value.parse().unwrap()));
    }
    samples
}

#[ringtap_lab::test]
fn prometheus_reads_what_shards_and_captures_counted() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = Capture::builder().interface(&veth.right).block_timeout_ms(2);
    capture = capture.block_size(1 << 16).block_count(512);
    let shards = Shards::builder()
        .capture(capture.clone())
        .cores(Cores::Unpinned)
        .shards(2)
        .spawn(|mut shard| async move {
            while shard.capture.next_batch().await?.is_some() {}
            Ok(())
        })
        .unwrap();
    let alone = capture.build().unwrap();
    Generator::new(&veth.left, &Traffic { flows: 16, ..Traffic::default() }).flood(500);
    let began = std::time::Instant::now();
    while shards.stats().unwrap().total().delivered < 500 {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    let mut exposition = Exposition::new();
    exposition.add(&[("group", "one")], &shards.stats().unwrap().samples());
    exposition.add(&[("interface", &veth.right)], &alone.stats().unwrap().samples());
    let samples = parsed(&exposition.finish());
    let of = |name: &str, label: &str, value: &str| -> f64 {
        let has =
            |labels: &[(String, String)]| labels.iter().any(|(n, v)| n == label && v == value);
        let found = samples.iter().filter(|(sample, labels, _)| sample == name && has(labels));
        found.map(|(_, _, value)| value).sum()
    };
    let delivered = "ringtap_capture_delivered_total";
    assert_eq!(of(delivered, "shard", "0") + of(delivered, "shard", "1"), 500.0);
    assert_eq!(of("ringtap_capture_packets_total", "interface", &veth.right), 500.0);
    assert_eq!(of("ringtap_capture_delivered_total", "interface", &veth.right), 0.0);
    assert!(of("ringtap_reactor_wakeups_total", "group", "one") >= 1.0);
    assert!(
        of("ringtap_reactor_spurious_total", "group", "one")
            <= of("ringtap_reactor_wakeups_total", "group", "one")
    );
}
