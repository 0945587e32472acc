//! Two hosts, and two interfaces that are to be joined before either can reach the other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Host, Namespace, bootstrap};

const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// How long a page may take.
const LONGEST: Duration = Duration::from_secs(10);

/// Two interfaces to join, with a host behind each.
#[derive(Debug)]
pub struct Pair {
    /// The interfaces.
    pub interfaces: [String; 2],
    hosts: [Host; 2],
    _namespace: Namespace,
}

impl Pair {
    /// Makes them, in a namespace that the calling thread is in until this is dropped.
    ///
    /// # Errors
    /// Why there can be no namespace.
    pub fn new() -> Result<Self, String> {
        bootstrap::enter()?;
        let namespace = Namespace::enter()?;
        let cables = [namespace.veth(), namespace.veth()];
        let hosts = [Host::new(&cables[0].left, A), Host::new(&cables[1].left, B)];
        let interfaces = cables.map(|cable| cable.right);
        Ok(Self { interfaces, hosts, _namespace: namespace })
    }

    /// Has both hosts compute all checksums of their packets.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn finish_checksums(&self) {
        self.hosts.iter().for_each(Host::finish_checksums);
    }

    /// One host asks the other `count` times, over UDP; returns the time of each answer that came within a second.
    ///
    /// # Panics
    /// The thread does, where a host cannot open its socket.
    pub fn ping(&self, count: usize) -> JoinHandle<Vec<Duration>> {
        let [asking, answering] = &self.hosts;
        answering.run(move || {
            let socket = UdpSocket::bind((B, 7)).expect("a port");
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            let mut bytes = [0; 64];
            while let Ok((len, from)) = socket.recv_from(&mut bytes) {
                let _ = socket.send_to(&bytes[..len], from);
            }
        });
        asking.run(move || {
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
        })
    }

    /// The first host gets a page `count` times from the web server that is where the second host would be; returns the
    /// time of each that is whole.
    ///
    /// # Panics
    /// The thread does, where the host cannot open its socket.
    pub fn fetch(&self, count: usize) -> JoinHandle<Vec<Duration>> {
        self.hosts[0].run(move || {
            let fetch = || {
                let mut stream = TcpStream::connect_timeout(&(B, 80).into(), LONGEST)?;
                stream.set_read_timeout(Some(LONGEST))?;
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
                let mut page = String::new();
                stream.read_to_string(&mut page).map(|_| page)
            };
            let mut times = Vec::new();
            for _ in 0..count {
                let start = Instant::now();
                let page = fetch().unwrap_or_default();
                let body = page.split_once("\r\n\r\n");
                let length = page.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                if body.is_some_and(|(_, body)| Some(body.len().to_string().as_str()) == length) {
                    times.push(start.elapsed());
                }
            }
            times
        })
    }
}
