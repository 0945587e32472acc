//! What monitoring sees: Prometheus' text, and `tracing`.

use std::time::Duration;

use ringtap::metrics::{Exposition, Measured};
use ringtap::{Capture, Cores, Shards};
use ringtap_lab::{Generator, Traffic, namespace};

ringtap_lab::test_binary!();

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

#[test]
fn prometheus_reads_what_shards_and_captures_counted() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = Capture::builder().interface(&veth.right).block_timeout_ms(2);
    capture = capture.block_size(1 << 16).block_count(8);
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

#[cfg(feature = "tracing")]
#[test]
fn tracing_is_told_of_openings_links_and_ends() {
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    struct Text(String);

    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0 += &format!(" {}={value:?}", field.name());
        }
    }

    impl Subscriber for Told {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, attributes: &Attributes<'_>) -> Id {
            let mut text = Text(format!("span {}", attributes.metadata().name()));
            attributes.record(&mut text);
            self.0.lock().unwrap().push(text.0);
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut text = Text(event.metadata().level().to_string());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let told = Told::default();
    tracing::subscriber::with_default(told.clone(), || {
        let options = Capture::builder().interface(&veth.right).block_timeout_ms(2);
        let mut capture = options.block_size(1 << 16).block_count(8).build().unwrap();
        veth.down();
        while !told.0.lock().unwrap().iter().any(|text| text.contains("went down")) {
            assert!(capture.next_batch_timeout(Duration::from_millis(20)).unwrap().is_none());
        }
        veth.delete();
        while capture.next_batch_timeout(Duration::from_millis(20)).is_ok() {}
        ringtap::executor::block_on(async {});
        Capture::open("nowhere0").unwrap_err();
    });
    let told = told.0.lock().unwrap().join("\n");
    for expected in [
        "span open what=\"capture\" interface=\"right0\"",
        "DEBUG message=opened",
        "INFO message=the link went down interface=\"right0\"",
        "WARN message=the interface was removed interface=\"right0\"",
        "DEBUG message=a reactor was attached backend=Ok(",
        "span open what=\"capture\" interface=\"nowhere0\"",
    ] {
        assert!(told.contains(expected), "{expected}:\n{told}");
    }
    assert_eq!(told.matches("message=opened").count(), 1, "{told}");
}
