//! Frames and files for tests of flows: a client, 10.0.0.1, and a server, 10.0.0.2.

use std::io::Cursor;

use etherparse::PacketBuilder;
use ringtap::Packet;
use ringtap::packet::Timestamp;
use ringtap::pcap::{CaptureWriter, PcapSource};

/// The server's port.
pub(crate) const PORT: u16 = 80;

/// A TCP segment from the client's port `client` or to it, with flags of `S`, `F`, `R` and `A`.
pub(crate) fn tcp(
    client: u16,
    is_clients: bool,
    flags: &str,
    seq: u32,
    ack: u32,
    payload: &[u8],
) -> Vec<u8> {
    let (from, to, source, destination) = match is_clients {
        true => ([10, 0, 0, 1], [10, 0, 0, 2], client, PORT),
        false => ([10, 0, 0, 2], [10, 0, 0, 1], PORT, client),
    };
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64);
    let mut tcp = builder.tcp(source, destination, seq, 60_000);
    for flag in flags.chars() {
        tcp = match flag {
            'S' => tcp.syn(),
            'F' => tcp.fin(),
            'R' => tcp.rst(),
            _ => tcp.ack(ack),
        };
    }
    let mut frame = Vec::new();
    tcp.write(&mut frame, payload).unwrap();
    frame
}

/// A file of frames, each with its time after the first second of the recording.
pub(crate) fn file(frames: impl IntoIterator<Item = (Timestamp, Vec<u8>)>) -> PcapSource {
    let mut writer = CaptureWriter::builder().to(Vec::new()).unwrap();
    for (mut time, frame) in frames {
        time.secs += 1_700_000_000;
        writer.write(&Packet::from_bytes(&frame, time)).unwrap();
    }
    PcapSource::from_reader(Cursor::new(writer.finish().unwrap())).unwrap()
}

/// A file of frames, a microsecond apart.
pub(crate) fn quick_file(frames: &[Vec<u8>]) -> PcapSource {
    let time = |number| Timestamp { secs: 0, nanos: number as u32 * 1000 };
    file(frames.iter().enumerate().map(|(number, frame)| (time(number), frame.clone())))
}
