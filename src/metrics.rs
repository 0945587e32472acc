//! Statistics for monitoring: as Prometheus text and, with the feature `metrics`, through the `metrics` facade.
//!
//! Nothing is counted twice, and nothing is added to the data path: the values are those that the statistics
//! hold anyway, read on request. The labels are an interface, a shard or a direction. So the number of time
//! series is the number of these times the number of metrics in the [catalogue](CATALOGUE).

#[cfg(feature = "metrics")]
mod facade;

use std::fmt::Write as _;

#[cfg(feature = "metrics")]
pub use self::facade::record;
use crate::bridge::{BridgeLaneStats, BridgeStats};
use crate::dedup::DedupStats;
use crate::interface::InterfaceCounters;
use crate::shard::AllShardStats;
use crate::stats::{CaptureStats, InjectorStats, ReactorStats};

/// The description of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Name of the metric.
    pub name: &'static str,
    /// Help text: the quantity that it measures.
    pub help: &'static str,
    /// Whether the value never decreases.
    pub is_counter: bool,
}

/// The value of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The metric.
    pub metric: Metric,
    /// Labels, by name, in addition to those given by the caller.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: u64,
}

/// Statistics that can be monitored.
pub trait Measured {
    /// Returns the current values.
    fn samples(&self) -> Vec<Sample>;

    /// Returns the current values as Prometheus text (version 0.0.4) with the given labels. This is for a
    /// single kind of statistics; to combine several kinds or several interfaces, use [`Exposition`].
    ///
    /// ```
    /// use ringtap::metrics::Measured;
    ///
    /// let text = ringtap::stats::CaptureStats::default().to_prometheus(&[("interface", "eth0")]);
    /// assert!(text.contains("ringtap_capture_drops_total{interface=\"eth0\"} 0\n"));
    /// ```
    fn to_prometheus(&self, labels: &[(&str, &str)]) -> String {
        let mut exposition = Exposition::new();
        exposition.add(labels, &self.samples());
        exposition.finish()
    }
}

/// Declares the metrics of a kind of statistics, and how they are read.
macro_rules! metrics {
    ($catalogue:ident: $($type:ty => {
        $($field:ident $kind:ident $name:literal $help:literal)*
    })*) => {
        /// The metrics of one group of statistics.
        pub const $catalogue: &[Metric] =
            &[$($(Metric { name: $name, help: $help, is_counter: is_counter(stringify!($kind)) },)*)*];

        $(impl Measured for $type {
            fn samples(&self) -> Vec<Sample> {
                vec![$(Sample {
                    metric: Metric { name: $name, help: $help, is_counter: is_counter(stringify!($kind)) },
                    labels: Vec::new(),
                    value: self.$field,
                }),*]
            }
        })*
    };
}

const fn is_counter(kind: &str) -> bool {
    matches!(kind.as_bytes(), b"counter")
}

metrics! { CATALOGUE:
    CaptureStats => {
        packets counter "ringtap_capture_packets_total" "Packets that passed the socket's filter, dropped ones included."
        delivered counter "ringtap_capture_delivered_total" "Packets handed out in batches."
        drops counter "ringtap_capture_drops_total" "Packets dropped by the kernel because the ring was full."
        freezes counter "ringtap_capture_freezes_total" "Times that the ring was full."
        batches counter "ringtap_capture_batches_total" "Batches handed out."
        malformed counter "ringtap_capture_malformed_total" "Packets left out for a header that does not hold together."
    }
    InterfaceCounters => {
        rx_packets counter "ringtap_interface_rx_packets_total" "Packets that the interface received."
        rx_bytes counter "ringtap_interface_rx_bytes_total" "Bytes that the interface received."
        tx_packets counter "ringtap_interface_tx_packets_total" "Packets that the interface sent."
        tx_bytes counter "ringtap_interface_tx_bytes_total" "Bytes that the interface sent."
        rx_errors counter "ringtap_interface_rx_errors_total" "Packets that were received damaged."
        rx_missed counter "ringtap_interface_rx_missed_total" "Packets that the card dropped for lack of the host's buffers."
        rx_fifo counter "ringtap_interface_rx_fifo_total" "Packets that the card dropped for lack of its own buffers."
        rx_dropped counter "ringtap_interface_rx_dropped_total" "Packets dropped before any socket, or unwanted."
        tx_dropped counter "ringtap_interface_tx_dropped_total" "Packets not sent for lack of room."
        rx_no_handler counter "ringtap_interface_rx_no_handler_total" "Packets of protocols that nobody handles."
    }
    InjectorStats => {
        committed counter "ringtap_inject_committed_total" "Frames committed."
        rejected counter "ringtap_inject_rejected_total" "Frames committed that the kernel refused."
        stale counter "ringtap_inject_stale_total" "Frames taken back because the interface was down."
        abandoned counter "ringtap_inject_abandoned_total" "Frames that the kernel had not taken at the end."
        kicks counter "ringtap_inject_kicks_total" "Times that the kernel was told to look."
        buffer_full counter "ringtap_inject_buffer_full_total" "Kicks that ended at a full send buffer."
        queue_full counter "ringtap_inject_queue_full_total" "Kicks that ended at a full queue of the interface."
    }
    ReactorStats => {
        turns counter "ringtap_reactor_turns_total" "Turns of the reactor."
        enters counter "ringtap_reactor_enters_total" "Calls of io_uring_enter."
        wakeups counter "ringtap_reactor_wakeups_total" "Returns from sleep."
        spurious counter "ringtap_reactor_spurious_total" "Returns from sleep that found nothing."
        coalesced counter "ringtap_reactor_coalesced_total" "Sleeps held back to gather more."
        completions counter "ringtap_reactor_completions_total" "Completions reaped."
        overflows counter "ringtap_reactor_overflows_total" "Times that the completion ring was full."
    }
    BridgeLaneStats => {
        received counter "ringtap_bridge_received_total" "Packets taken from the capture."
        segmented counter "ringtap_bridge_segmented_total" "Additional frames from splitting packets."
        forwarded counter "ringtap_bridge_forwarded_total" "Packets sent on."
        filtered counter "ringtap_bridge_filtered_total" "Packets dropped by the filter."
        too_large counter "ringtap_bridge_too_large_total" "Packets too large for the other side."
        rejected counter "ringtap_bridge_rejected_total" "Packets that the kernel does not send on."
        ring_full counter "ringtap_bridge_ring_full_total" "Packets dropped because the other side took none."
        stale counter "ringtap_bridge_stale_total" "Packets dropped because the other side was down."
        lost counter "ringtap_bridge_lost_total" "Packets dropped by the kernel because the ring was full."
    }
    DedupStats => {
        packets counter "ringtap_dedup_packets_total" "Packets looked at."
        duplicates counter "ringtap_dedup_duplicates_total" "Packets seen already."
        evicted counter "ringtap_dedup_evicted_total" "Packets forgotten for want of room."
    }
}

#[cfg(feature = "af-xdp")]
metrics! { XDP_CATALOGUE:
    crate::stats::XdpStats => {
        delivered counter "ringtap_xdp_delivered_total" "Packets handed out in batches."
        batches counter "ringtap_xdp_batches_total" "Batches handed out."
        committed counter "ringtap_xdp_committed_total" "Frames committed to be sent."
        send_failed counter "ringtap_xdp_send_failed_total" "Frames committed that the kernel did not send."
        not_forwarded counter "ringtap_xdp_not_forwarded_total" "Frames to be sent on that were not committed."
        abandoned counter "ringtap_xdp_abandoned_total" "Frames that the kernel had not taken at the end."
        kicks counter "ringtap_xdp_kicks_total" "Kicks."
        malformed counter "ringtap_xdp_malformed_total" "Entries of the kernel's that named no frame."
        rx_dropped counter "ringtap_xdp_rx_dropped_total" "Packets dropped for want of a frame, or too long for one."
        rx_invalid counter "ringtap_xdp_rx_invalid_total" "Invalid entries of the fill ring."
        tx_invalid counter "ringtap_xdp_tx_invalid_total" "Invalid entries of the TX ring."
        rx_ring_full counter "ringtap_xdp_rx_ring_full_total" "Packets dropped because the RX ring was full."
        fill_ring_empty counter "ringtap_xdp_fill_ring_empty_total" "Times that there was no frame to receive into."
        tx_ring_empty counter "ringtap_xdp_tx_ring_empty_total" "Times that the TX ring was empty."
    }
}

#[cfg(feature = "pcap")]
metrics! { FILE_CATALOGUE:
    crate::pcap::WriterStats => {
        packets counter "ringtap_writer_packets_total" "Packets taken."
        bytes counter "ringtap_writer_bytes_total" "Bytes given to the file."
        dropped counter "ringtap_writer_dropped_total" "Packets not taken, as too much was waiting."
        errors counter "ringtap_writer_errors_total" "Times that writing failed."
    }
    crate::pcap::RotationStats => {
        packets counter "ringtap_rotation_packets_total" "Packets taken."
        lost counter "ringtap_rotation_lost_total" "Packets that are in no file."
        files counter "ringtap_rotation_files_total" "Files begun."
        removed counter "ringtap_rotation_removed_total" "Files removed, being the oldest."
        errors counter "ringtap_rotation_errors_total" "Times that something failed."
    }
    crate::pcap::BackgroundStats => {
        taken counter "ringtap_background_taken_total" "Packets handed to the writing thread."
        written counter "ringtap_background_written_total" "Packets that it has written."
        dropped counter "ringtap_background_dropped_total" "Packets dropped, as too much was waiting."
        errors counter "ringtap_background_errors_total" "Times that its sink failed."
    }
}

#[cfg(feature = "record")]
metrics! { RECORD_CATALOGUE:
    crate::record::RecordStats => {
        packets counter "ringtap_record_packets_total" "Packets given to the recorder."
        written counter "ringtap_record_written_total" "Packets in files."
        pending gauge "ringtap_record_pending" "Packets on their way into a file."
        lost counter "ringtap_record_lost_total" "Packets that are in no file."
        bytes counter "ringtap_record_bytes_total" "Bytes in files."
        blocks counter "ringtap_record_blocks_total" "Blocks written from where they lay."
        copied counter "ringtap_record_copied_total" "Batches that were copied."
        files counter "ringtap_record_files_total" "Files begun."
        removed counter "ringtap_record_removed_total" "Files removed, being the oldest."
        errors counter "ringtap_record_errors_total" "Times that a file could not be created or written."
    }
}

#[cfg(feature = "channel")]
metrics! { CHANNEL_CATALOGUE:
    crate::channel::ChannelStats => {
        received counter "ringtap_channel_received_total" "Packets received from the queue."
        queued gauge "ringtap_channel_queued" "Packets in the queue."
        dropped counter "ringtap_channel_dropped_total" "Packets dropped for want of room in the queue."
    }
}

fn labelled(mut samples: Vec<Sample>, name: &'static str, value: &str) -> Vec<Sample> {
    samples.iter_mut().for_each(|sample| sample.labels.push((name, value.to_owned())));
    samples
}

/// Adds the label `direction`.
impl Measured for BridgeStats {
    fn samples(&self) -> Vec<Sample> {
        let mut samples = labelled(self.a_to_b.samples(), "direction", "a_to_b");
        samples.extend(labelled(self.b_to_a.samples(), "direction", "b_to_a"));
        samples
    }
}

/// Contains captures and reactors, with the label `shard`.
impl Measured for AllShardStats {
    fn samples(&self) -> Vec<Sample> {
        let one = |shard: &crate::shard::ShardStats| {
            let mut samples = shard.capture.samples();
            samples.extend(shard.reactor.samples());
            labelled(samples, "shard", &shard.spec.index.to_string())
        };
        self.shards().iter().flat_map(one).collect()
    }
}

/// A builder for Prometheus text of several statistics, which describes each metric only once.
///
/// ```
/// use ringtap::stats::CaptureStats;
/// use ringtap::metrics::{Exposition, Measured};
///
/// let mut exposition = Exposition::new();
/// for interface in ["eth0", "eth1"] {
///     exposition.add(&[("interface", interface)], &CaptureStats::default().samples());
/// }
/// let text = exposition.finish();
/// assert_eq!(text.matches("# TYPE ringtap_capture_packets_total counter\n").count(), 1);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Exposition {
    /// The lines of each metric.
    families: Vec<(Metric, String)>,
}

impl Exposition {
    /// Creates an empty exposition.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds samples with the given labels. Characters that are not allowed in a label's name are replaced.
    pub fn add(&mut self, labels: &[(&str, &str)], samples: &[Sample]) {
        for sample in samples {
            let found =
                self.families.iter().position(|(metric, _)| metric.name == sample.metric.name);
            let at = found.unwrap_or_else(|| {
                self.families.push((sample.metric, String::new()));
                self.families.len() - 1
            });
            let own = sample.labels.iter().map(|(name, value)| (*name, value.as_str()));
            let all: Vec<String> = labels.iter().copied().chain(own).map(label).collect();
            let lines = &mut self.families[at].1;
            lines.push_str(sample.metric.name);
            if !all.is_empty() {
                let _ = write!(lines, "{{{}}}", all.join(",")); // a `String` never fails
            }
            let _ = writeln!(lines, " {}", sample.value);
        }
    }

    /// Returns the text, to be served as `text/plain; version=0.0.4`.
    pub fn finish(self) -> String {
        let one = |(metric, lines): (Metric, String)| {
            let Metric { name, help, is_counter } = metric;
            let kind = if is_counter { "counter" } else { "gauge" };
            format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}")
        };
        self.families.into_iter().map(one).collect()
    }
}

fn label((name, value): (&str, &str)) -> String {
    let is_of_name = |(at, c): (usize, char)| {
        c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit())
    };
    let name = if name.is_empty() { "_" } else { name };
    let name: String =
        name.chars().enumerate().map(|(at, c)| if is_of_name((at, c)) { c } else { '_' }).collect();
    let mut escaped = String::new();
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            c => escaped.push(c),
        }
    }
    format!("{name}=\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_is_of_one_metric_and_well_formed() {
        let mut names = HashSet::new();
        for metric in CATALOGUE {
            assert!(names.insert(metric.name), "{} twice", metric.name);
            assert!(metric.name.starts_with("ringtap_"));
            assert_eq!(metric.name.ends_with("_total"), metric.is_counter, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'));
        }
        assert!(names.len() > 25);
    }

    #[test]
    fn labels_are_escaped_and_each_family_is_described_once() {
        let stats = CaptureStats { drops: 7, ..CaptureStats::default() };
        let text = stats.to_prometheus(&[("in terface", "a\"b\\c\nd"), ("1", "x")]);
        let line = r#"ringtap_capture_drops_total{in_terface="a\"b\\c\nd",_="x"} 7"#;
        assert!(text.lines().any(|found| found == line), "{text}");
        let bridge = BridgeStats::default().to_prometheus(&[]);
        assert_eq!(bridge.matches("# TYPE ringtap_bridge_lost_total counter").count(), 1);
        assert!(bridge.contains("ringtap_bridge_lost_total{direction=\"b_to_a\"} 0\n"));
    }
}
