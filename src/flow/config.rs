//! Options and counters of a table of flows.

use std::time::Duration;

use flowscope::EventMask;

/// Options of a table of flows; from [`FlowConfig::default`].
///
/// ```
/// use std::time::Duration;
///
/// use ringtap::flow::FlowConfig;
///
/// let mut config = FlowConfig::default();
/// config.max_flows = 1_000_000;
/// config.active_timeout = Some(Duration::from_secs(60));
/// ```
#[doc(alias = "FlowTrackerConfig")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowConfig {
    /// Maximum number of flows. Beyond it, the flow that was not used for longest, of a few, ends as
    /// [evicted](super::EndReason::Evicted); connections that nobody has answered go first. Default: 100,000; at
    /// most 67,108,864. A flow takes at most 160 bytes, and memory for flows that were never there is not touched.
    pub max_flows: usize,
    /// How long a TCP connection may be idle if only one of its sides was seen, or one side has closed it.
    /// Default: 5 minutes.
    pub idle_timeout_tcp: Duration,
    /// How long a TCP connection may be idle that both sides keep open. A connection that is quiet between two
    /// requests goes on as the same flow. Default: 2 hours and 4 minutes (RFC 5382, 5).
    pub idle_timeout_established: Duration,
    /// How long a flow of UDP datagrams may be idle. Default: 1 minute.
    pub idle_timeout_udp: Duration,
    /// How long other flows may be idle. Default: 30 seconds.
    pub idle_timeout_other: Duration,
    /// How long a TCP connection stays that both sides have closed, or one has reset: what was under way then is
    /// still counted for it. The end is reported when nothing has come for that long; if it is 0, at once. Default:
    /// 5 seconds, as in Zeek.
    pub close_delay: Duration,
    /// How often a flow that goes on is reported ([`FlowEvent::Report`](super::FlowEvent)), at least once in six days. Default: never.
    pub active_timeout: Option<Duration>,
    /// Events that are not reported. Default: those of each packet.
    pub suppress_events: EventMask,
    /// If the first segment seen is a SYN-ACK, whether its receiver is the initiator. Default: yes.
    pub infer_tcp_initiator: bool,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            max_flows: 100_000,
            idle_timeout_tcp: Duration::from_secs(300),
            idle_timeout_established: Duration::from_secs(7440),
            idle_timeout_udp: Duration::from_secs(60),
            idle_timeout_other: Duration::from_secs(30),
            close_delay: Duration::from_secs(5),
            active_timeout: None,
            suppress_events: EventMask::PACKET,
            infer_tcp_initiator: true,
        }
    }
}

impl FlowConfig {
    /// The greatest value of [`max_flows`](Self::max_flows).
    pub const MOST_FLOWS: usize = 1 << 26;

    /// Sets all idle timeouts to the same time.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout_tcp = timeout;
        self.idle_timeout_established = timeout;
        self.idle_timeout_udp = timeout;
        self.idle_timeout_other = timeout;
        self
    }

    /// Sets which events are not reported.
    #[must_use]
    pub fn with_event_filter(mut self, suppressed: EventMask) -> Self {
        self.suppress_events = suppressed;
        self
    }
}

/// Counters of a table of flows.
#[doc(alias = "FlowTrackerStats")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FlowTableStats {
    /// Flows that began.
    pub flows_created: u64,
    /// Flows that ended, for any reason.
    pub flows_ended: u64,
    /// Flows that ended because there were too many.
    pub flows_evicted: u64,
    /// Packets that belong to no flow because the extractor knows none for them.
    pub packets_unmatched: u64,
    /// Packets of TCP connections that had already ended; they belong to no flow.
    pub late_packets: u64,
}
