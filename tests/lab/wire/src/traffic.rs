//! Frames that can be told apart and rebuilt: the far end compares every byte.

use etherparse::PacketBuilder;

/// The transport of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// UDP over IPv4.
    Udp,
    /// TCP over IPv4.
    Tcp,
    /// UDP over IPv6.
    Udp6,
}

/// A plan of frames: frame number N is always the same, but for its send stamp.
///
/// Frames go round the flows; with both directions, every second round is the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of a frame, a VLAN tag not counted; raised to the least that holds a [`Mark`].
    pub len: usize,
    /// Whether frames have different lengths, up to `len`, by their number.
    pub varied: bool,
    /// Flows.
    pub flows: u32,
    /// Whether flows have answers.
    pub both_directions: bool,
    /// The transport.
    pub protocol: Protocol,
    /// A VLAN id for an 802.1Q tag in the frame.
    pub vlan: Option<u16>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            len: 66,
            varied: false,
            flows: 1,
            both_directions: false,
            protocol: Protocol::Udp,
            vlan: None,
        }
    }
}

/// What a frame says of itself, at the start of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its number, from 0.
    pub number: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds when it was sent.
    pub stamp: u64,
}

const MAGIC: u32 = 0x7269_6e67; // "ring"
const MARK_LEN: usize = 20;
const ETHERNET: usize = 14;
const TAG: usize = 4;

impl Mark {
    /// The mark of a frame, with or without its VLAN tag; `None` for frames that are not ours.
    pub fn find(frame: &[u8]) -> Option<Self> {
        [Protocol::Udp, Protocol::Tcp, Protocol::Udp6]
            .into_iter()
            .flat_map(|protocol| [headers(protocol), headers(protocol) + TAG])
            .find_map(|at| Self::read(frame.get(at..at + MARK_LEN)?))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let u64_at = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let magic = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        (magic == MAGIC).then(|| Self { number: u64_at(4), stamp: u64_at(12) })
    }

    fn write(self, bytes: &mut [u8]) {
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.number.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.stamp.to_be_bytes());
    }
}

/// `CLOCK_MONOTONIC` now, in nanoseconds.
pub fn now() -> u64 {
    // SAFETY: a C struct of integers.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is writable; this clock exists everywhere.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn headers(protocol: Protocol) -> usize {
    ETHERNET
        + match protocol {
            Protocol::Udp => 20 + 8,
            Protocol::Tcp => 20 + 20,
            Protocol::Udp6 => 40 + 8,
        }
}

impl Traffic {
    /// The flow of frame `number`.
    pub fn flow(&self, number: u64) -> u32 {
        (number % u64::from(self.flows)) as u32
    }

    /// Whether frame `number` is an answer.
    pub fn is_answer(&self, number: u64) -> bool {
        self.both_directions && (number / u64::from(self.flows)) % 2 == 1
    }

    /// Bytes of the longest frame, its tag included.
    pub fn frame_len(&self) -> usize {
        self.len.max(headers(self.protocol) + MARK_LEN) + if self.vlan.is_some() { TAG } else { 0 }
    }

    /// Bytes of frame `number`, a tag not counted.
    fn len_of(&self, number: u64) -> usize {
        let least = headers(self.protocol) + MARK_LEN;
        if !self.varied || self.len <= least {
            return self.len;
        }
        least + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % (self.len - least + 1)
    }

    /// Frame `number`, as it is sent.
    pub fn frame(&self, number: u64, stamp: u64) -> Vec<u8> {
        let len = self.len_of(number);
        let mut frame = self.template(self.flow(number), self.is_answer(number), len);
        self.fill(&mut frame, number, stamp);
        frame
    }

    /// What arrives: the frame without its tag, which the kernel strips.
    pub fn arrives(&self, number: u64, stamp: u64) -> Vec<u8> {
        let mut frame = self.frame(number, stamp);
        if self.vlan.is_some() {
            frame.drain(12..16);
        }
        frame
    }

    /// A frame of this flow, direction and length, without number.
    pub(crate) fn template(&self, flow: u32, is_answer: bool, len: usize) -> Vec<u8> {
        let payload_len = len.saturating_sub(headers(self.protocol)).max(MARK_LEN);
        let payload = vec![0; payload_len];
        let (client_mac, server_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let client_port = 10_000 + (flow % 50_000) as u16;
        let client = [10, 1, (flow >> 8) as u8, flow as u8];
        let server = [10, 2, 0, 1];
        let (macs, ips, ports) = if is_answer {
            ((server_mac, client_mac), (server, client), (443, client_port))
        } else {
            ((client_mac, server_mac), (client, server), (client_port, 443))
        };
        let builder = PacketBuilder::ethernet2(macs.0, macs.1);
        let mut frame = Vec::with_capacity(self.frame_len());
        macro_rules! network {
            ($builder:expr) => {
                match self.protocol {
                    Protocol::Udp6 => $builder.ipv6(wide(ips.0), wide(ips.1), 64),
                    _ => $builder.ipv4(ips.0, ips.1, 64),
                }
            };
        }
        let network = match self.vlan {
            Some(id) => network!(builder.single_vlan(id.try_into().expect("a VLAN id"))),
            None => network!(builder),
        };
        let written = match self.protocol {
            Protocol::Tcp => network.tcp(ports.0, ports.1, flow, 1024).write(&mut frame, &payload),
            _ => network.udp(ports.0, ports.1).write(&mut frame, &payload),
        };
        written.expect("the payload fits");
        frame
    }

    /// Writes number, stamp and a filling that depends on the number into a template.
    pub(crate) fn fill(&self, frame: &mut [u8], number: u64, stamp: u64) {
        let at = headers(self.protocol) + if self.vlan.is_some() { TAG } else { 0 };
        Mark { number, stamp }.write(&mut frame[at..at + MARK_LEN]);
        let mut value = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for chunk in frame[at + MARK_LEN..].chunks_mut(8) {
            value ^= value << 13;
            value ^= value >> 7;
            value ^= value << 17;
            chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
        }
    }
}

fn wide(v4: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[..2].copy_from_slice(&[0xfd, 0]);
    address[12..].copy_from_slice(&v4);
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_and_rebuilt_from_its_mark() {
        for protocol in [Protocol::Udp, Protocol::Tcp, Protocol::Udp6] {
            for vlan in [None, Some(100)] {
                let traffic = Traffic {
                    len: 300,
                    varied: false,
                    flows: 7,
                    both_directions: true,
                    protocol,
                    vlan,
                };
                for number in [0, 6, 7, 13, 1 << 40] {
                    let frame = traffic.frame(number, 99);
                    assert_eq!(frame.len(), traffic.frame_len());
                    let mark = Mark::find(&frame).unwrap();
                    assert_eq!(mark, Mark { number, stamp: 99 });
                    let arrived = traffic.arrives(number, 99);
                    assert_eq!(Mark::find(&arrived), Some(mark));
                    assert_eq!(arrived.len(), 300);
                }
                assert_ne!(traffic.frame(1, 0), traffic.frame(8, 0), "answers differ");
            }
        }
    }
}
