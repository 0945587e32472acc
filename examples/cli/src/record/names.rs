//! Records as JSON, in the names that others' schemas have for what is in them.

use std::net::IpAddr;
use std::time::SystemTime;

use ringtap::packet::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::{Http, Tls};
use super::{App, Body, Counts, Flow, Reason, Record};
use crate::units;

/// Whose names the fields of JSON have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Names {
    /// Our own.
    #[default]
    Plain,
    /// Elastic Common Schema 8.
    Ecs,
    /// Open Cybersecurity Schema Framework 1.3: Network Activity.
    Ocsf,
    /// Semantic conventions of OpenTelemetry.
    Otel,
}

/// What says which record a line is, in any names.
#[derive(Debug, Deserialize)]
pub(crate) struct Which {
    pub(crate) sensor: String,
    pub(crate) shard: u16,
    pub(crate) sequence: u64,
    pub(crate) kind: String,
    /// Of a flow, in nanoseconds since the epoch.
    #[serde(default)]
    pub(crate) start_ns: u64,
    #[serde(default)]
    pub(crate) end_ns: u64,
    #[serde(flatten)]
    pub(crate) counts: Option<Counts>,
}

impl Which {
    /// Reads a line; `None` if it is no record.
    pub(crate) fn read(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Unmapped {
            ringtap: Which,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Own { ringtap: Which },
            Unmapped { unmapped: Unmapped },
            Plain(Which),
        }
        Some(match serde_json::from_slice(line).ok()? {
            Any::Own { ringtap } | Any::Unmapped { unmapped: Unmapped { ringtap } } => ringtap,
            Any::Plain(which) => which,
        })
    }
}

impl Record {
    /// What others' schemas have no names for: which record it is, and its counts.
    fn own(&self, sensor: &str) -> Value {
        let mut own = json!({ "sensor": sensor, "shard": self.shard, "sequence": self.sequence });
        match &self.body {
            Body::Flow(flow) => {
                own["kind"] = "flow".into();
                own["start_ns"] = flow.start.into();
                own["end_ns"] = flow.end.into();
                own["history"] = flow.history().into();
                own["class_sent"] = flow.sent.class.into();
                own["class_received"] = flow.received.class.into();
                own["bytes_sent"] = flow.sent.bytes.into();
                own["bytes_received"] = flow.received.bytes.into();
                if let Some((kind, code)) = flow.icmp {
                    own["icmp_type"] = kind.into();
                    own["icmp_code"] = code.into();
                }
            }
            Body::Counts(counts) => {
                own["kind"] = "counts".into();
                let Counts { flows, overflowed, refused, lost, packets, drops } = *counts;
                own["flows"] = flows.into();
                own["overflowed"] = overflowed.into();
                own["refused"] = refused.into();
                own["lost"] = lost.into();
                own["packets"] = packets.into();
                own["drops"] = drops.into();
            }
        }
        own
    }

    pub(super) fn as_ecs(&self, sensor: &str) -> Value {
        let mut event = json!({ "module": "ringtap", "sequence": self.sequence });
        let mut all = json!({
            "ecs": { "version": "8.11.0" },
            "observer": { "name": sensor, "type": "sensor", "vendor": "ringtap" },
            "ringtap": self.own(sensor),
        });
        match &self.body {
            Body::Counts(_) => {
                event["kind"] = "metric".into();
                event["dataset"] = "ringtap.counts".into();
                all["@timestamp"] = now().into();
            }
            Body::Flow(flow) => {
                let is_over = flow.reason != Reason::Active;
                event["kind"] = "event".into();
                event["dataset"] = "ringtap.flow".into();
                event["category"] = json!(["network"]);
                event["type"] =
                    if is_over { json!(["connection", "end"]) } else { json!(["connection"]) };
                event["reason"] = flow.reason.text().into();
                event["start"] = time(flow.start).into();
                event["end"] = time(flow.end).into();
                event["duration"] = flow.end.saturating_sub(flow.start).into();
                all["@timestamp"] = time(flow.end).into();
                all["source"] = side(flow.initiator, flow.sent.octets, flow.sent.packets);
                all["destination"] =
                    side(flow.responder, flow.received.octets, flow.received.packets);
                all["network"] = json!({
                    "type": family(flow),
                    "iana_number": flow.protocol.to_string(),
                    "bytes": flow.sent.octets + flow.received.octets,
                    "packets": flow.sent.packets + flow.received.packets,
                });
                if let Some(name) = transport(flow.protocol) {
                    all["network"]["transport"] = name.into();
                }
                if let Some(vlan) = flow.vlan {
                    all["network"]["vlan"] = json!({ "id": vlan.to_string() });
                }
                if let Some(app) = flow.app.as_deref() {
                    all["network"]["protocol"] = app.name(flow.protocol == 17).into();
                    extend(&mut all, app.as_ecs());
                }
            }
        }
        all["event"] = event;
        all
    }

    pub(super) fn as_ocsf(&self, sensor: &str) -> Value {
        let mut all = json!({
            "severity_id": 1,
            "metadata": {
                "version": "1.3.0",
                "uid": format!("{sensor}/{}/{}", self.shard, self.sequence),
                "sequence": self.sequence,
                "product": { "name": "ringtap", "vendor_name": "ringtap" },
            },
            "unmapped": { "ringtap": self.own(sensor) },
        });
        let flow = match &self.body {
            Body::Counts(_) => {
                for name in ["category_uid", "class_uid", "activity_id", "type_uid"] {
                    all[name] = 0.into(); // a base event
                }
                all["time"] = millis(now_nanos()).into();
                return all;
            }
            Body::Flow(flow) => flow,
        };
        const CLASS: u64 = 4001;
        let (activity, name) =
            if flow.reason == Reason::Active { (6, "Traffic") } else { (2, "Close") };
        let endpoint = |of: std::net::SocketAddr| match flow.has_ports() {
            true => json!({ "ip": of.ip(), "port": of.port() }),
            false => json!({ "ip": of.ip() }),
        };
        let fields = json!({
            "category_uid": 4, "category_name": "Network Activity",
            "class_uid": CLASS, "class_name": "Network Activity",
            "activity_id": activity, "activity_name": name,
            "type_uid": CLASS * 100 + activity,
            "time": millis(flow.end),
            "start_time": millis(flow.start),
            "end_time": millis(flow.end),
            "duration": millis(flow.end.saturating_sub(flow.start)),
            "src_endpoint": endpoint(flow.initiator),
            "dst_endpoint": endpoint(flow.responder),
            "connection_info": {
                "protocol_num": flow.protocol,
                "protocol_ver_id": if flow.initiator.is_ipv4() { 4 } else { 6 },
                "direction_id": 0,
            },
            "traffic": {
                "bytes": flow.sent.octets + flow.received.octets,
                "packets": flow.sent.packets + flow.received.packets,
                "bytes_out": flow.sent.octets,
                "packets_out": flow.sent.packets,
                "bytes_in": flow.received.octets,
                "packets_in": flow.received.packets,
            },
            "status_detail": flow.reason.text(),
        });
        extend(&mut all, fields);
        if let Some(name) = transport(flow.protocol) {
            all["connection_info"]["protocol_name"] = name.into();
        }
        if flow.protocol == 6 {
            all["connection_info"]["tcp_flags"] =
                (flow.tcp_flags(false) | flow.tcp_flags(true)).into();
        }
        if let Some(vlan) = flow.vlan {
            all["src_endpoint"]["vlan_uid"] = vlan.to_string().into();
        }
        if let Some(app) = flow.app.as_deref() {
            all["app_name"] = app.name(flow.protocol == 17).into();
            // Network Activity has names for what TLS says alone.
            match app {
                App::Tls(tls) => {
                    extend(&mut all, tls.as_ocsf());
                    if let Some(alpn) = &tls.alpn {
                        all["unmapped"]["tls"] = json!({ "alpn": alpn });
                    }
                }
                other => extend(&mut all["unmapped"], json!(other)),
            }
        }
        all
    }

    pub(super) fn as_otel(&self, sensor: &str) -> Value {
        let mut all = json!({
            "service.name": "ringtap",
            "service.instance.id": sensor,
            "ringtap": self.own(sensor),
        });
        let flow = match &self.body {
            Body::Counts(_) => {
                all["event.name"] = "ringtap.counts".into();
                all["timestamp"] = now_nanos().into();
                return all;
            }
            Body::Flow(flow) => flow,
        };
        all["event.name"] = "ringtap.flow".into();
        all["timestamp"] = flow.end.into();
        for (name, of) in [("source", flow.initiator), ("destination", flow.responder)] {
            all[format!("{name}.address")] = of.ip().to_string().into();
            if flow.has_ports() {
                all[format!("{name}.port")] = of.port().into();
            }
        }
        all["network.type"] = family(flow).into();
        if let Some(name) = transport(flow.protocol) {
            all["network.transport"] = name.into();
        }
        let own = &mut all["ringtap"];
        own["protocol"] = flow.protocol.into();
        own["reason"] = flow.reason.text().into();
        own["packets_sent"] = flow.sent.packets.into();
        own["packets_received"] = flow.received.packets.into();
        own["octets_sent"] = flow.sent.octets.into();
        own["octets_received"] = flow.received.octets.into();
        if let Some(vlan) = flow.vlan {
            own["vlan"] = vlan.into();
        }
        if let Some(app) = flow.app.as_deref() {
            all["network.protocol.name"] = app.name(flow.protocol == 17).into();
            extend(&mut all, app.as_otel());
        }
        all
    }
}

impl App {
    fn as_ecs(&self) -> Value {
        match self {
            Self::Dns(dns) => present(json!({
                "dns": present(json!({
                    "question": present(json!({ "name": dns.name, "type": dns.kind })),
                    "response_code": dns.code,
                })),
            })),
            Self::Http(http) => present(json!({
                "http": present(json!({
                    "request": present(json!({ "method": http.method })),
                    "response": present(json!({ "status_code": http.status })),
                })),
                "url": present(json!({ "domain": http.address(), "port": http.port() })),
            })),
            Self::Tls(tls) => present(json!({
                "tls": present(json!({
                    "client": present(json!({ "server_name": tls.sni, "ja4": tls.ja4 })),
                    "next_protocol": tls.alpn,
                    "version": tls.number(),
                })),
            })),
        }
    }

    fn as_otel(&self) -> Value {
        present(match self {
            Self::Dns(dns) => json!({
                "dns.question.name": dns.name,
                "dns.question.type": dns.kind,
                "dns.response_code": dns.code,
            }),
            Self::Http(http) => json!({
                "server.address": http.address(),
                "server.port": http.port(),
                "http.request.method": http.method,
                "http.response.status_code": http.status,
            }),
            Self::Tls(tls) => json!({
                "tls.client.server_name": tls.sni,
                "tls.client.ja4": tls.ja4,
                "tls.next_protocol": tls.alpn,
                "tls.protocol.version": tls.number(),
            }),
        })
    }
}

impl Http {
    /// The host without its port, and without an address's brackets.
    fn address(&self) -> Option<&str> {
        self.host.as_deref().map(|host| parts(host).0)
    }

    fn port(&self) -> Option<u16> {
        self.host.as_deref().and_then(|host| parts(host).1)
    }
}

/// A host as a request names it (RFC 9110, 7.2): the name or address, and the port.
fn parts(host: &str) -> (&str, Option<u16>) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name, port.parse().ok())
        }
        _ => (host, None),
    };
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => (address, port),
        // An address of IPv6 without brackets, whose last part is no port.
        None if name.contains(':') => (host, None),
        None => (name, port),
    }
}

impl Tls {
    fn as_ocsf(&self) -> Value {
        const JA4: u64 = 1;
        let prints = self.ja4.as_ref().map(|value| json!([{ "type_id": JA4, "value": value }]));
        let tls = present(json!({ "sni": self.sni, "version": self.number() }));
        present(json!({ "ja4_fingerprint_list": prints, "tls": tls }))
    }

    /// The number of the version alone.
    fn number(&self) -> Option<&str> {
        self.version.as_deref().map(|text| text.trim_start_matches("TLS "))
    }
}

/// An object without what is not there.
fn present(mut object: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.retain(|_, field| match field {
            Value::Null => false,
            Value::Object(inner) => !inner.is_empty(),
            _ => true,
        });
    }
    object
}

/// Adds the fields of an object to another.
fn extend(all: &mut Value, more: Value) {
    if let (Value::Object(all), Value::Object(more)) = (all, more) {
        all.extend(more);
    }
}

/// An end of a flow, and what it has sent, in ECS.
fn side(of: std::net::SocketAddr, octets: u64, packets: u64) -> Value {
    let mut side =
        json!({ "ip": of.ip(), "address": of.ip(), "bytes": octets, "packets": packets });
    if of.port() != 0 {
        side["port"] = of.port().into();
    }
    side
}

fn family(flow: &Flow) -> &'static str {
    match flow.initiator.ip() {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}

/// The name of a protocol in IANA's registry, of those that networks see.
fn transport(protocol: u8) -> Option<&'static str> {
    Some(match protocol {
        1 => "icmp",
        2 => "igmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "ipv6-icmp",
        89 => "ospf",
        132 => "sctp",
        136 => "udplite",
        _ => return None,
    })
}

fn time(nanos: u64) -> String {
    units::time(Timestamp::from_nanos(nanos))
}

fn millis(nanos: u64) -> u64 {
    nanos / 1_000_000
}

fn now_nanos() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn now() -> String {
    time(now_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::app::Dns;
    use crate::record::tests::{flow, said};

    fn line(names: Names, body: Body) -> (Value, Vec<u8>) {
        let mut text = Vec::new();
        Record { shard: 3, sequence: 9, body }.write_json("probe-1", names, &mut text);
        (serde_json::from_slice(&text).unwrap(), text)
    }

    const ALL: [Names; 4] = [Names::Plain, Names::Ecs, Names::Ocsf, Names::Otel];

    #[test]
    fn in_any_names_it_says_which_record_it_is() {
        let counts = Counts { flows: 7, drops: 2, ..Counts::default() };
        for names in ALL {
            let (_, text) = line(names, Body::Flow(flow(2)));
            let which = Which::read(&text).unwrap_or_else(|| panic!("{names:?}"));
            assert_eq!((&*which.sensor, which.shard, which.sequence), ("probe-1", 3, 9));
            assert_eq!((&*which.kind, which.start_ns), ("flow", flow(2).start), "{names:?}");
            let (_, text) = line(names, Body::Counts(counts));
            let which = Which::read(&text).unwrap_or_else(|| panic!("{names:?}"));
            assert_eq!((&*which.kind, which.counts), ("counts", Some(counts)), "{names:?}");
        }
        assert!(Which::read(b"{\"sensor\":\"a\"}").is_none() && Which::read(b"\xff").is_none());
    }

    #[test]
    fn fields_stand_where_each_schema_has_them() {
        let flow =
            Flow { end: 1_700_000_000_250_000_000, start: 1_700_000_000_000_000_000, ..flow(2) };
        let (ecs, _) = line(Names::Ecs, Body::Flow(flow.clone()));
        let at = |path: &str| ecs.pointer(path).unwrap_or_else(|| panic!("{path} in {ecs:#}"));
        assert_eq!(at("/source/ip"), "10.0.0.1");
        assert_eq!((at("/source/port"), at("/destination/port")), (&2.into(), &443.into()));
        assert_eq!(at("/event/duration"), 250_000_000);
        assert_eq!(at("/event/type"), &json!(["connection", "end"]));
        assert_eq!(at("/network/vlan/id"), "5");
        assert_eq!(
            (at("/network/transport"), at("/network/iana_number")),
            (&"tcp".into(), &"6".into())
        );
        assert_eq!(at("/@timestamp"), "2023-11-14T22:13:20.250Z");

        let (ocsf, _) =
            line(Names::Ocsf, Body::Flow(Flow { reason: Reason::Active, ..flow.clone() }));
        let at = |path: &str| ocsf.pointer(path).unwrap_or_else(|| panic!("{path} in {ocsf:#}"));
        assert_eq!((at("/class_uid"), at("/type_uid")), (&4001.into(), &400_106.into()));
        assert_eq!((at("/time"), at("/duration")), (&1_700_000_000_250_u64.into(), &250.into()));
        assert_eq!(at("/dst_endpoint"), &json!({ "ip": "10.0.0.2", "port": 443 }));
        assert_eq!(at("/connection_info/protocol_name"), "tcp");
        assert_eq!(at("/traffic/bytes_out"), flow.sent.octets);

        let ping = Flow { protocol: 1, icmp: Some((8, 0)), vlan: None, ..flow };
        let (otel, _) = line(Names::Otel, Body::Flow(ping));
        assert_eq!(otel["source.address"], "10.0.0.1");
        assert_eq!((&otel["network.transport"], otel.get("source.port")), (&"icmp".into(), None));
        assert_eq!(otel["ringtap"]["icmp_type"], 8);
    }

    #[test]
    fn what_applications_said_stands_where_each_schema_has_it() {
        let said = |names| line(names, Body::Flow(said())).0;
        let plain = said(Names::Plain);
        assert_eq!(
            (&plain["tls"]["sni"], &plain["tls"]["version"]),
            (&"a.example".into(), &"TLS 1.3".into())
        );
        let ecs = said(Names::Ecs);
        assert_eq!(ecs["network"]["protocol"], "tls");
        assert_eq!(
            (&ecs["tls"]["client"]["server_name"], &ecs["tls"]["version"]),
            (&"a.example".into(), &"1.3".into())
        );
        let ocsf = said(Names::Ocsf);
        assert_eq!((&ocsf["app_name"], &ocsf["tls"]["sni"]), (&"tls".into(), &"a.example".into()));
        assert_eq!(
            ocsf["ja4_fingerprint_list"][0]["value"],
            "t13d1516h2_8daaf6152771_e5627efa2ab1"
        );
        assert_eq!(ocsf["unmapped"]["tls"], json!({ "alpn": "h2,http/1.1" }));
        let otel = said(Names::Otel);
        assert_eq!(
            (&otel["network.protocol.name"], &otel["tls.next_protocol"]),
            (&"tls".into(), &"h2,http/1.1".into())
        );

        let mut dns = Dns::default();
        (dns.name, dns.code) = (Some("b.example".into()), Some("NXDOMAIN".into()));
        let dns = Flow { protocol: 17, app: Some(Box::new(App::Dns(dns))), ..flow(1) };
        let (ecs, _) = line(Names::Ecs, Body::Flow(dns.clone()));
        assert_eq!(
            ecs["dns"],
            json!({ "question": { "name": "b.example" }, "response_code": "NXDOMAIN" })
        );
        let (ocsf, _) = line(Names::Ocsf, Body::Flow(dns));
        assert_eq!(ocsf["unmapped"]["dns"]["name"], "b.example");
    }

    #[test]
    fn a_host_is_told_without_its_port() {
        for (host, name, port) in [
            ("a.example", "a.example", None),
            ("a.example:8080", "a.example", Some(8080)),
            ("a.example:", "a.example", None),
            ("[2001:db8::1]:80", "2001:db8::1", Some(80)),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("2001:db8::1", "2001:db8::1", None),
            ("a.example:99999", "a.example", None),
            ("a:b", "a:b", None),
        ] {
            assert_eq!(parts(host), (name, port));
        }
    }
}
