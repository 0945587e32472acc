//! The examples, and the needs of each.

use std::fmt;

use crate::traffic::{Kind, Server};

/// An example.
#[derive(Debug)]
pub(crate) struct Example {
    pub(crate) name: &'static str,
    /// The package it is in.
    pub(crate) package: &'static str,
    pub(crate) features: &'static str,
    /// Where it runs.
    pub(crate) stage: Stage,
    /// Its arguments. `{a}` and `{b}` stand for interfaces, `{folder}` for a folder of temporary files.
    pub(crate) arguments: &'static [&'static str],
    /// The files in that folder when it starts.
    pub(crate) files: Files,
    pub(crate) traffic: Kind,
    pub(crate) end: End,
    /// The port on which it answers with its counts.
    pub(crate) server: Option<Server>,
}

/// Where an example runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// On this machine as it is.
    Here,
    /// On one end of a veth pair, `{a}`.
    Veth,
    /// Between two hosts, which are behind `{a}` and `{b}`.
    Hosts,
    /// Between two hosts that compute all checksums themselves, because AF_XDP passes frames on as they are.
    HostsWithChecksums,
    /// On the loopback interface, `{a}`.
    Loopback,
}

/// The files in the folder of an example when it starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Files {
    Nothing,
    /// `a.pcap`: two seconds of bursts with pauses between them.
    Bursts,
    /// `a.pcap`: hosts that visit a server several times.
    Visits,
    /// `filter`: an eBPF program that accepts even source ports.
    Filter,
    /// `program`: an XDP program that drops odd source ports, and `sockets`: the map that it redirects to.
    Program,
}

/// How an example ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// By itself.
    Alone,
    /// When it is interrupted.
    CtrlC,
}

impl Example {
    /// One that captures on a veth pair until Ctrl-C, and needs nothing else.
    const fn new(name: &'static str, features: &'static str, traffic: Kind) -> Self {
        Self {
            name,
            package: "ringtap-examples",
            features,
            stage: Stage::Veth,
            arguments: &["{a}"],
            files: Files::Nothing,
            traffic,
            end: End::CtrlC,
            server: None,
        }
    }

    const fn ends_alone(self) -> Self {
        Self { end: End::Alone, ..self }
    }

    const fn on(self, stage: Stage, arguments: &'static [&'static str]) -> Self {
        Self { stage, arguments, ..self }
    }

    const fn with(self, files: Files, arguments: &'static [&'static str]) -> Self {
        Self { files, arguments, ..self }
    }

    const fn of(self, package: &'static str) -> Self {
        Self { package, ..self }
    }

    const fn serves(self, address: &'static str, request: &'static str) -> Self {
        Self { server: Some(Server { address, request }), ..self }
    }
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<21} {:<20} {}", self.name, self.package, self.features)
    }
}

/// Long enough for the examples that take a number of packets.
const UNTIL_THE_END: u64 = 60;

/// All of them.
pub(crate) const EXAMPLES: &[Example] = &[
    Example::new("async_bridge", "", Kind::Ping(20)).on(Stage::Hosts, &["{a}", "{b}"]),
    Example::new("async_capture", "", Kind::Pace { rate: 10_000, seconds: 3 }),
    Example::new("async_inject", "", Kind::Nothing).ends_alone(),
    Example::new("async_stream", "", Kind::Pace { rate: 20_000, seconds: UNTIL_THE_END })
        .ends_alone(),
    Example::new("batch", "", Kind::Pace { rate: 50_000, seconds: UNTIL_THE_END }).ends_alone(),
    Example::new("bpf_filter", "", Kind::Pace { rate: 20_000, seconds: UNTIL_THE_END })
        .ends_alone(),
    Example::new("bridge", "", Kind::Ping(10_000)).on(Stage::Hosts, &["{a}", "{b}"]),
    Example::new("capture", "", Kind::Pace { rate: 20, seconds: UNTIL_THE_END }).ends_alone(),
    Example::new("channel", "channel", Kind::Flood { seconds: 2 }),
    Example::new("conversations", "flow", Kind::Visits(1000)),
    Example::new("dedup", "", Kind::Datagrams(1000)).on(Stage::Loopback, &["{a}"]),
    Example::new("dns_log", "flow-dns", Kind::Visits(1000)),
    Example::new("doctor", "af-xdp", Kind::Nothing).on(Stage::Here, &[]).ends_alone(),
    Example::new("dpi", "", Kind::FirstWords),
    Example::new("ebpf_filter", "aya", Kind::Pace { rate: 20_000, seconds: 1 })
        .with(Files::Filter, &["{a}", "{folder}/filter"]),
    Example::new("fanout", "", Kind::Pace { rate: 100_000, seconds: 2 }),
    Example::new("flow_channel", "flow", Kind::Visits(1000)),
    Example::new("flow_filter", "flow", Kind::Visits(1000)),
    Example::new("flow_history", "flow", Kind::Visits(1000)),
    Example::new("flow_keys", "flow", Kind::Nothing)
        .on(Stage::Here, &["{folder}/a.pcap"])
        .with(Files::Visits, &["{folder}/a.pcap"])
        .ends_alone(),
    Example::new("flow_shards", "flow-records", Kind::Visits(1000)),
    Example::new("flow_summary", "flow", Kind::Pace { rate: 20_000, seconds: 2 }),
    Example::new("flows", "flow", Kind::Pace { rate: 20_000, seconds: 1 }),
    Example::new("http_sessions", "flow-http", Kind::Visits(1000)),
    Example::new("inject", "", Kind::Nothing).ends_alone(),
    Example::new("low_latency", "", Kind::Pace { rate: 10_000, seconds: 5 }),
    Example::new("metrics", "", Kind::Pace { rate: 20_000, seconds: 1 })
        .serves("127.0.0.1:9100", "GET /metrics HTTP/1.1\r\n\r\n"),
    Example::new("own_runtime", "", Kind::Flood { seconds: 1 }),
    Example::new("pollster", "", Kind::Pace { rate: 20_000, seconds: 2 }),
    Example::new("pcap_rotate", "pcap", Kind::Pace { rate: 100_000, seconds: 2 })
        .with(Files::Nothing, &["{a}", "{folder}"]),
    Example::new("pcap_write", "pcap", Kind::Pace { rate: 100_000, seconds: 2 })
        .with(Files::Nothing, &["{a}", "{folder}/a.pcapng"]),
    Example::new("pipeline", "", Kind::Flood { seconds: 2 }),
    Example::new("record", "record", Kind::Pace { rate: 100_000, seconds: 2 })
        .with(Files::Nothing, &["{a}", "{folder}"]),
    Example::new("replay", "pcap", Kind::Nothing)
        .with(Files::Bursts, &["{a}", "{folder}/a.pcap"])
        .ends_alone(),
    Example::new("shards", "", Kind::Nothing).on(Stage::Here, &[]).ends_alone(),
    Example::new("signal", "", Kind::Pace { rate: 10_000, seconds: 2 }),
    Example::new("stats", "", Kind::Flood { seconds: 4 }),
    Example::new("tls_sni", "flow-tls", Kind::Visits(1000)),
    Example::new("xdp_bridge", "af-xdp", Kind::Ping(10_000))
        .on(Stage::HostsWithChecksums, &["{a}", "{b}"]),
    Example::new("xdp_busy_poll", "af-xdp", Kind::Pace { rate: 50_000, seconds: UNTIL_THE_END })
        .ends_alone(),
    Example::new("xdp_capture", "af-xdp", Kind::Flood { seconds: 2 }),
    Example::new("xdp_custom_program", "af-xdp,aya", Kind::Pace { rate: 20_000, seconds: 1 })
        .with(Files::Program, &["{a}", "{folder}/program", "{folder}/sockets"]),
    Example::new("xdp_echo", "af-xdp", Kind::Pace { rate: 50_000, seconds: 2 }),
    Example::new("xdp_self_loaded", "af-xdp", Kind::Pace { rate: 20_000, seconds: 1 }),
    Example::new("xdp_send", "af-xdp", Kind::Nothing).ends_alone(),
    Example::new("xdp_shards", "af-xdp", Kind::Flood { seconds: 2 }),
    Example::new("glommio_echo", "", Kind::Echoes { address: "127.0.0.1:7100", clients: 40 })
        .of("ringtap-glommio")
        .on(Stage::Loopback, &["{a}", "127.0.0.1:7100"]),
    Example::new("smoltcp_http", "af-xdp", Kind::Pages(200))
        .of("ringtap-smoltcp")
        .on(Stage::HostsWithChecksums, &["{a}", "10.9.0.2"]),
    Example::new("spawned", "", Kind::Pace { rate: 20_000, seconds: 2 }).of("ringtap-tokio"),
    Example::new("tokio_app", "", Kind::Pace { rate: 20_000, seconds: 2 })
        .of("ringtap-tokio")
        .serves("127.0.0.1:7200", ""),
    Example::new("tokio_uring_recorder", "", Kind::Pace { rate: 20_000, seconds: 2 })
        .of("ringtap-tokio-uring")
        .with(Files::Nothing, &["{a}", "{folder}/packets.pcapng"]),
];
