//! Passes statistics to the program's recorder through the crate `metrics`.

use metrics::{Label, counter, gauge};

use super::Measured;

/// Reports the current statistics to the program's recorder, with the given labels. Call this from time to time
/// and from one place: counters are set, not added to.
///
/// ```
/// use ringtap::metrics;
///
/// let stats = ringtap::stats::CaptureStats::default();
/// metrics::record(&stats, &[("interface", "eth0")]);
/// ```
pub fn record(stats: &impl Measured, labels: &[(&str, &str)]) {
    for sample in stats.samples() {
        let given =
            labels.iter().map(|(name, value)| Label::new((*name).to_owned(), (*value).to_owned()));
        let own = sample.labels.into_iter().map(|(name, value)| Label::new(name, value));
        let all: Vec<Label> = given.chain(own).collect();
        match sample.metric.is_counter {
            true => counter!(sample.metric.name, all).absolute(sample.value),
            false => gauge!(sample.metric.name, all).set(sample.value as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::stats::CaptureStats;

    #[derive(Default, Clone)]
    struct Kept(Arc<Mutex<Vec<(String, u64)>>>);

    impl metrics::CounterFn for One {
        fn increment(&self, _: u64) {
            unreachable!("counters are set")
        }

        fn absolute(&self, value: u64) {
            self.1.0.lock().unwrap().push((self.0.clone(), value));
        }
    }

    struct One(String, Kept);

    impl Recorder for Kept {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(Arc::new(One(key.to_string(), self.clone())))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn a_recorder_gets_the_totals() {
        let kept = Kept::default();
        let stats = CaptureStats { packets: 5, drops: 2, ..CaptureStats::default() };
        metrics::with_local_recorder(&kept, || record(&stats, &[("interface", "eth0")]));
        let kept = kept.0.lock().unwrap();
        let of =
            |name: &str| kept.iter().find(|(key, _)| key.contains(name) && key.contains("eth0"));
        assert_eq!(of("ringtap_capture_packets_total").unwrap().1, 5);
        assert_eq!(of("ringtap_capture_drops_total").unwrap().1, 2);
    }
}
