//! What is spoken: a filter in the kernel, and a look at the first bytes of what comes through.
//! `cargo run --release --example dpi -- eth0 'tcp or udp port 53'`, or without arguments in the lab.

use std::collections::BTreeMap;
use std::time::Duration;

use etherparse::{PacketBuilder, SlicedPacket};
use ringtap::{BpfFilter, Capture, Injector};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let text = std::env::args().nth(2).unwrap_or_else(|| "tcp or udp port 53".to_owned());
    let filter: BpfFilter = text.parse()?;
    let options = Capture::builder().interface(stage.interface()).block_timeout_ms(50);
    let mut capture = options.filter(filter).vlan_reinsert(true).build()?;
    let wait = if stage.is_real() { Duration::from_secs(10) } else { say_something(&stage)? };
    let mut spoken: BTreeMap<&str, u64> = BTreeMap::new();
    while let Some(batch) = capture.next_batch_timeout(wait)? {
        for packet in &batch {
            if let Some(name) = payload(packet.data()).map(guess) {
                *spoken.entry(name).or_default() += 1;
            }
        }
    }
    println!("{text}: {spoken:?}");
    Ok(())
}

/// What is behind the TCP or UDP header, if anything is.
fn payload(frame: &[u8]) -> Option<&[u8]> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let payload = match packet.transport? {
        etherparse::TransportSlice::Tcp(tcp) => tcp.payload(),
        etherparse::TransportSlice::Udp(udp) => udp.payload(),
        _ => return None,
    };
    (!payload.is_empty()).then_some(payload)
}

/// By the first bytes alone; a real sensor looks at ports and at what comes later, too.
fn guess(payload: &[u8]) -> &'static str {
    const METHODS: [&[u8]; 5] = [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"HTTP/1."];
    match payload {
        _ if METHODS.iter().any(|method| payload.starts_with(method)) => "HTTP",
        // A handshake, of TLS 1.0 to 1.3: a client's or a server's hello.
        [0x16, 0x03, 0..=4, _, _, 1 | 2, ..] => "TLS",
        [b'S', b'S', b'H', b'-', ..] => "SSH",
        // A header with one question, and few flags.
        [_, _, flags, _, 0, 1, _, ..] if payload.len() > 16 && flags & 0x78 == 0 => "DNS",
        _ => "something else",
    }
}

/// A few first words on the wire, two of them behind a VLAN tag; how long to wait for them.
fn say_something(stage: &Stage) -> Result<Duration, ringtap::Error> {
    let tcp: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3],
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"hello?",
    ];
    let question = [b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01"];
    let link = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut injector = Injector::open(stage.sending_interface())?;
    let mut frame = Vec::new();
    for (number, payload) in tcp.into_iter().enumerate() {
        frame.clear();
        let ip = match number % 2 {
            0 => link().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
            _ => link().single_vlan(7.try_into().expect("12 bits")).ipv4(
                [10, 0, 0, 1],
                [10, 0, 0, 2],
                64,
            ),
        };
        ip.tcp(40_000, 4_000, 1, 1_000).write(&mut frame, payload).expect("a Vec takes all");
        injector.send(&frame)?;
    }
    for port in [53, 5353] {
        frame.clear();
        let ip = link().ipv6([1; 16], [2; 16], 64).udp(40_000, port);
        ip.write(&mut frame, question[0]).expect("a Vec takes all");
        injector.send(&frame)?;
    }
    injector.drain(Duration::from_secs(1))?;
    Ok(Duration::from_millis(500))
}
