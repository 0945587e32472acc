//! Where the examples of the bridge play: two interfaces that are named, or two hosts in the lab.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Host, Namespace, bootstrap};

const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// Two interfaces to join, and, in the lab, a host behind each.
#[derive(Debug)]
pub struct Pair {
    /// The interfaces.
    pub interfaces: [String; 2],
    lab: Option<([Host; 2], Namespace)>,
}

impl Pair {
    /// The interfaces named by the first two arguments, or the lab. Call it first in `main`.
    ///
    /// # Errors
    /// Why there can be no namespace.
    pub fn from_args() -> Result<Self, String> {
        if let (Some(a), Some(b)) = (std::env::args().nth(1), std::env::args().nth(2)) {
            return Ok(Self { interfaces: [a, b], lab: None });
        }
        bootstrap::enter()?;
        let namespace = Namespace::enter()?;
        let cables = [namespace.veth(), namespace.veth()];
        let hosts = [Host::new(&cables[0].left, A), Host::new(&cables[1].left, B)];
        println!("no interfaces named: joining two hosts, {A} and {B}, in namespaces of my own");
        let interfaces = cables.map(|cable| cable.right);
        Ok(Self { interfaces, lab: Some((hosts, namespace)) })
    }

    /// Has both hosts of the lab compute the checksums of what they send.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn finish_checksums(&self) {
        if let Some((hosts, _)) = &self.lab {
            hosts.iter().for_each(Host::finish_checksums);
        }
    }

    /// In the lab, one host asks the other `count` times, over UDP, and the times that took are returned;
    /// `None` on real interfaces.
    ///
    /// # Panics
    /// The thread does, where a host cannot open its socket.
    pub fn ping(&self, count: usize) -> Option<JoinHandle<Vec<Duration>>> {
        let ([asking, answering], _) = self.lab.as_ref()?;
        answering.run(move || {
            let socket = UdpSocket::bind((B, 7)).expect("a port");
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            let mut bytes = [0; 64];
            while let Ok((len, from)) = socket.recv_from(&mut bytes) {
                let _ = socket.send_to(&bytes[..len], from);
            }
        });
        Some(asking.run(move || {
            let socket = UdpSocket::bind((A, 0)).expect("a port");
            socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
            let mut times = Vec::new();
            for number in 0..count as u64 {
                let start = Instant::now();
                let mut bytes = [0; 8];
                if socket.send_to(&number.to_be_bytes(), (B, 7)).is_ok()
                    && socket.recv(&mut bytes).is_ok()
                    && bytes == number.to_be_bytes()
                {
                    times.push(start.elapsed());
                }
            }
            times
        }))
    }
}
