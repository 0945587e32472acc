//! What a collector of IPFIX is sent, as tshark's dissector reads it.

mod rig;

use std::net::UdpSocket;
use std::time::Duration;

use rig::{HTTP, Place, Sensor, number, send};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Protocol, Traffic, tool};
use serde_json::Value;

ringtap_lab::test_binary!();

/// Somebody who takes datagrams, and the port.
fn collector() -> (UdpSocket, u16) {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    collector.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let port = collector.local_addr().unwrap().port();
    (collector, port)
}

/// What has come, as JSON of tshark's; `None` where there is none.
fn dissected(collector: &UdpSocket) -> Option<String> {
    let (mut message, mut all) = ([0; 2048], Vec::new());
    while let Ok(len) = collector.recv(&mut message) {
        all.push(message[..len].to_vec());
    }
    let mut words = vec!["-r", "-", "-d", "udp.port==4739,cflow", "-T", "json", "-J", "cflow"];
    words.extend(["-o", "cflow.ipfix.ports:4739"]);
    tool::run("tshark", &words, &as_capture(&all))
}

/// A capture file of datagrams to the port of IPFIX, for those who read such files.
fn as_capture(datagrams: &[Vec<u8>]) -> Vec<u8> {
    const RAW_IP: u32 = 101;
    let mut file = 0xa1b2_c3d4_u32.to_ne_bytes().to_vec();
    file.extend([2_u16, 4].map(u16::to_ne_bytes).concat());
    file.extend([0, 0, 1 << 16, RAW_IP].map(u32::to_ne_bytes).concat());
    for datagram in datagrams {
        let len = 28 + datagram.len();
        file.extend([1_700_000_000, 0, len as u32, len as u32].map(u32::to_ne_bytes).concat());
        file.extend([0x45, 0]);
        file.extend((len as u16).to_be_bytes());
        file.extend([0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
        file.extend([4739, 4739, len as u16 - 20, 0].map(u16::to_be_bytes).concat());
        file.extend(datagram);
    }
    file
}

#[ringtap_lab::test]
fn a_collector_is_found_by_its_name_and_gets_what_collectors_ask_for() {
    let Some(place) = Place::new() else { return };
    let (collector, port) = collector();
    let sink = format!("ipfix:localhost:{port}");
    let sensor = place.sensor("1", &["--sink", &sink, "--idle-seconds", "1"]);
    send(&place.veth.left, 5, 2, 1000);
    let index = ringtap_lab::link::index(&place.veth.right).unwrap();
    sensor.finish();
    let fields = [
        "cflow.srcport",
        "cflow.protocol",
        "cflow.inputint",
        "cflow.outputint",
        "cflow.ip_version",
        "cflow.direction",
        "cflow.packets",
        "cflow.sampling_packet_interval",
        "cflow.tos",
        "cflow.vlanid",
    ];
    let Some(text) = dissected(&collector) else { return };
    let count = |what: &str| text.matches(what).count();
    for field in fields {
        assert!(count(&format!("\"{field}\"")) > 0, "{field} is in none of {text}");
    }
    assert_eq!(count(&format!("\"cflow.inputint\": \"{index}\"")), 5, "{text}");
    assert_eq!(count("\"cflow.packets\": \"2\""), 5, "{text}");
    assert!(count("\"cflow.sampling_packet_interval\": \"1\"") > 0, "{text}");
    assert_eq!(count("malformed"), 0, "{text}");
}

/// The byte of a frame of Ethernet and IPv4 that has the type of service.
const SERVICE: usize = 15;
const PROTOCOL: usize = 23;
const ADDRESSES: usize = 26;
/// The header behind IPv4's.
const ABOVE: usize = 34;

/// The answer to a frame: the same, with its ends exchanged.
fn turned(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..12].rotate_left(6);
    frame[ADDRESSES..ADDRESSES + 8].rotate_left(4);
    frame[ABOVE..ABOVE + 4].rotate_left(2);
    frame
}

/// A datagram and its answer in VLAN 7, with types of service; a ping and its answer; and a message that a port is closed.
fn frames() -> Vec<Vec<u8>> {
    let traffic = Traffic::default();
    let mut udp = traffic.frame(1, 0);
    udp[SERVICE] = 0xb8;
    let mut answer = turned(&udp);
    answer[SERVICE] = 0x20;
    let mut ping = traffic.frame(2, 0);
    ping[PROTOCOL] = 1;
    ping[ABOVE..ABOVE + 8].copy_from_slice(&[8, 0, 0, 0, 0x12, 0x34, 0, 1]);
    let mut pong = ping.clone();
    pong[ADDRESSES..ADDRESSES + 8].rotate_left(4);
    pong[ABOVE] = 0;
    let mut closed = traffic.frame(3, 0);
    closed[PROTOCOL] = 1;
    closed[ABOVE..ABOVE + 8].copy_from_slice(&[3, 3, 0, 0, 0, 0, 0, 0]);
    closed[ADDRESSES + 3] ^= 1;
    for frame in [&mut udp, &mut answer] {
        frame.splice(12..12, [0x81, 0, 0, 7]);
    }
    vec![udp, answer, ping, pong, closed]
}

#[ringtap_lab::test]
fn service_vlan_and_messages_of_icmp_are_told_one_way_and_both() {
    assert_eq!(Traffic::default().protocol, Protocol::Udp);
    let Some(place) = Place::new() else { return };
    for is_biflow in [false, true] {
        let (collector, port) = collector();
        let (config, lines) =
            (place.path("ipfix.toml"), place.path(&format!("{is_biflow}.ndjson")));
        let text = format!(
            "interface = \"{}\"\nsensor = \"i\"\nspool = \"{}\"\nshards = 1\nidle_seconds = 1\n\
             [[sink]]\nkind = \"ipfix\"\nto = \"127.0.0.1:{port}\"\nbiflow = {is_biflow}\n\
             [[sink]]\nkind = \"ndjson\"\npath = \"{lines}\"\n",
            place.veth.right,
            place.path(&format!("spool-{is_biflow}")),
        );
        std::fs::write(&config, text).unwrap();
        let sensor = Sensor::start(HTTP, &["--config", &config]);
        Sender::open(&place.veth.left).unwrap().send_all(&frames()).unwrap();
        let account = sensor.finish();
        assert_eq!((number(&account, "flows"), number(&account, "delivered")), (3, 5), "{account}");
        let lines = std::fs::read_to_string(lines).unwrap();
        let mut flows: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|record| record["kind"] == "flow")
            .collect();
        flows.sort_by_key(|flow| (number(flow, "protocol"), number(flow, "packets_received")));
        let [closed, ping, udp] = &flows[..] else { panic!("{lines}") };
        assert_eq!((number(udp, "class_sent"), number(udp, "class_received")), (0xb8, 0x20));
        assert_eq!((number(udp, "vlan"), udp.get("icmp_type")), (7, None));
        assert_eq!((number(ping, "icmp_type"), number(ping, "icmp_code")), (8, 0));
        assert_eq!((number(closed, "icmp_type"), number(closed, "icmp_code")), (3, 3));
        assert!(closed.get("vlan").is_none());

        let Some(text) = dissected(&collector) else { return };
        let count = |what: &str| text.matches(what).count();
        assert_eq!(count("malformed"), 0, "{text}");
        let records = if is_biflow { 3 } else { 5 };
        assert_eq!(count("\"cflow.vlanid\""), records, "{text}");
        assert_eq!(count("\"cflow.vlanid\": \"7\""), if is_biflow { 1 } else { 2 }, "{text}");
        assert_eq!(count("\"cflow.tos\": \"0xb8\""), 1, "{text}");
        assert_eq!(count("0x20"), 1, "of the answer: {text}");
        assert_eq!(count("\"cflow.icmp_type_code_ipv4\": \"0x0800\""), 1, "{text}");
        assert_eq!(count("\"cflow.icmp_type_code_ipv4\": \"0x0303\""), 1, "{text}");
        println!("{text}");
    }
}
