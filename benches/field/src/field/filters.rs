//! What a filter costs, by where it matches: against the same text in libpcap, offline and on a socket.

use std::time::{Duration, Instant};

use ringtap::filter::FilterTarget;
use ringtap::{BpfFilter, Capture};
use ringtap_lab::Veth;
use ringtap_lab::generator::Sender;

use crate::harness::{Kind, Outcome, Table, compare, cpu_time, pin};

/// Whose compiler, and machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    #[cfg(feature = "libpcap")]
    Libpcap,
}

/// The port that the first term asks for.
const FIRST: u16 = 4_000;

/// Whose, how many terms, and the port of the packets.
type Way = (Whose, u16, u16);

const TERMS: &[(&str, Kind, Way)] = &[
    ("1 term", Kind::Ours, (Whose::Ours, 1, FIRST)),
    ("8 terms, none matches", Kind::Ours, (Whose::Ours, 8, 9)),
    ("64 terms, the first matches", Kind::Ours, (Whose::Ours, 64, FIRST)),
    ("64 terms, the last matches", Kind::Ours, (Whose::Ours, 64, FIRST + 63)),
    ("64 terms, none matches", Kind::Ours, (Whose::Ours, 64, 9)),
    #[cfg(feature = "libpcap")]
    ("1 term, libpcap", Kind::Peer, (Whose::Libpcap, 1, FIRST)),
    #[cfg(feature = "libpcap")]
    ("64 terms, the first matches, libpcap", Kind::Peer, (Whose::Libpcap, 64, FIRST)),
    #[cfg(feature = "libpcap")]
    ("64 terms, the last matches, libpcap", Kind::Peer, (Whose::Libpcap, 64, FIRST + 63)),
    #[cfg(feature = "libpcap")]
    ("64 terms, none matches, libpcap", Kind::Peer, (Whose::Libpcap, 64, 9)),
];

const ON_A_SOCKET: &[(&str, Kind, Option<Way>)] = &[
    ("no socket", Kind::Limit, None),
    ("ringtap, 1 term, which does not match", Kind::Ours, Some((Whose::Ours, 1, 9))),
    ("ringtap, none of 64 terms", Kind::Ours, Some((Whose::Ours, 64, 9))),
    #[cfg(feature = "libpcap")]
    ("libpcap, none of 64 terms", Kind::Peer, Some((Whose::Libpcap, 64, 9))),
];

fn text(terms: u16) -> String {
    let ports: Vec<_> = (0..terms).map(|at| format!("udp dst port {}", FIRST + at)).collect();
    ports.join(" or ")
}

fn frame(port: u16) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = builder.ipv4([10, 0, 0, 1], [10, 9, 9, 9], 64).udp(7, port);
    let mut frame = Vec::new();
    builder.write(&mut frame, &[0; 18]).expect("a Vec takes all");
    frame
}

/// Filters on packets in memory.
pub(crate) fn terms(rounds: usize) -> Table {
    let columns = &["CPU ns/packet", "compile µs", "instructions"];
    compare("Terms of a filter", columns, TERMS, rounds, |(whose, terms, port)| {
        let (text, frame) = (text(terms), frame(port));
        let matches = port >= FIRST;
        pin(1);
        let start = Instant::now();
        match whose {
            Whose::Ours => {
                let filter: BpfFilter = text.parse()?;
                let compiled = start.elapsed();
                let len = filter.program(FilterTarget::Socket).len();
                timed(compiled, len, matches, || filter.matches(std::hint::black_box(&frame)))
            }
            #[cfg(feature = "libpcap")]
            Whose::Libpcap => {
                let dead = pcap::Capture::dead(pcap::Linktype::ETHERNET)?;
                let program = dead.compile(&text, true)?;
                let compiled = start.elapsed();
                let len = program.get_instructions().len();
                timed(compiled, len, matches, || program.filter(std::hint::black_box(&frame)))
            }
        }
    })
}

fn timed(
    compiled: Duration,
    instructions: usize,
    expected: bool,
    matches: impl Fn() -> bool,
) -> Outcome<Vec<f64>> {
    const TIMES: u32 = 3_000_000;
    let before = cpu_time(libc::RUSAGE_THREAD);
    let matched = (0..TIMES).filter(|_| matches()).count();
    let used = cpu_time(libc::RUSAGE_THREAD) - before;
    if matched != if expected { TIMES as usize } else { 0 } {
        return Err("it says otherwise".into());
    }
    let nanos = used.as_nanos() as f64 / f64::from(TIMES);
    Ok(vec![nanos, compiled.as_nanos() as f64 / 1e3, instructions as f64])
}

/// What a filter on the receiving socket, which takes no packet, costs who sends: the kernel runs it there.
pub(crate) fn on_a_socket(veth: &Veth, rounds: usize) -> Table {
    const TIME: Duration = Duration::from_millis(500);
    compare("A filter on a socket", &["sender's CPU ns/packet"], ON_A_SOCKET, rounds, |way| {
        let name = veth.right.as_str();
        let (whose, terms, port) = way.unwrap_or((Whose::Ours, 0, 9));
        let ours = match (way, whose) {
            (Some(_), Whose::Ours) => {
                let filter: BpfFilter = text(terms).parse()?;
                Some(Capture::builder().interface(name).filter(filter).build()?)
            }
            _ => None,
        };
        #[cfg(feature = "libpcap")]
        let _theirs = match (way, whose) {
            (Some(_), Whose::Libpcap) => {
                let mut capture = pcap::Capture::from_device(name)?.open()?;
                capture.filter(&text(terms), true)?;
                Some(capture)
            }
            _ => None,
        };
        pin(0);
        let sender = Sender::open(&veth.left)?;
        let frames = vec![frame(port); 64];
        let (start, before, mut sent) = (Instant::now(), cpu_time(libc::RUSAGE_THREAD), 0_u64);
        while start.elapsed() < TIME {
            sender.send_all(&frames)?;
            sent += 64;
        }
        let used = cpu_time(libc::RUSAGE_THREAD) - before;
        drop(ours);
        Ok(vec![used.as_nanos() as f64 / sent as f64])
    })
}
