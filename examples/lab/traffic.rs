//! Packets for an example.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringtap_lab_wire::generator::Sender;
use ringtap_lab_wire::{link, stage, talk};

use crate::Result;
use crate::place::{Network, Place};

/// A kind of traffic.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Nothing: the example sends, or needs no network.
    Nothing,
    /// UDP of 64 flows in both directions, at this rate in frames per second.
    Pace { rate: u64, seconds: u64 },
    /// These flows, as fast as possible.
    Flood { seconds: u64 },
    /// This number of hosts, each of which looks up a name, gets a page, and says hello with TLS.
    Visits(u32),
    /// The first packets of several protocols.
    FirstWords,
    /// UDP over loopback, each payload twice.
    Datagrams(u32),
    /// This number of questions from one host to the other, each of which is answered.
    Ping(usize),
    /// Clients of an echo server, which is the example, each of which says 50 things.
    Echoes { address: &'static str, clients: usize },
    /// This number of pages, which the first host gets from a web server: the example.
    Pages(usize),
}

/// Traffic under way.
#[derive(Debug)]
pub(crate) enum Traffic {
    Frames(stage::Running),
    Questions(JoinHandle<Vec<Duration>>, usize),
    /// It was sent in `start`.
    Sent(u64),
}

/// The traffic of a run.
#[derive(Debug)]
pub(crate) enum Summary {
    Sent(u64),
    Answers(Vec<Duration>, usize),
}

impl Traffic {
    /// Begins to send.
    pub(crate) fn start(kind: Kind, place: &Place) -> Result<Self> {
        Ok(match (kind, &place.network) {
            (Kind::Pace { rate, seconds }, Network::Veth(stage)) => {
                Self::Frames(stage.pace(Duration::from_secs(seconds), rate))
            }
            (Kind::Flood { seconds }, Network::Veth(stage)) => {
                Self::Frames(stage.flood(Duration::from_secs(seconds)))
            }
            (Kind::Visits(count), Network::Veth(stage)) => Self::Frames(stage.talk(count)),
            (Kind::FirstWords, Network::Veth(stage)) => {
                let frames = talk::first_words();
                Sender::open(stage.sending_interface())?.send_all(&frames)?;
                Self::Sent(frames.len() as u64)
            }
            (Kind::Datagrams(count), _) => {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                for number in 0..count {
                    socket.send_to(&(number / 2).to_be_bytes(), socket.local_addr()?)?;
                }
                Self::Sent(count.into())
            }
            (Kind::Echoes { address, clients }, _) => {
                let asking = std::thread::spawn(move || echoes(address, clients));
                Self::Questions(asking, clients * SAYINGS)
            }
            (Kind::Ping(count), Network::Hosts(pair)) => Self::Questions(pair.ping(count), count),
            (Kind::Pages(count), Network::Hosts(pair)) => Self::Questions(pair.fetch(count), count),
            _ => Self::Sent(0),
        })
    }

    /// Whether it goes on.
    pub(crate) fn is_under_way(&self) -> bool {
        match self {
            Self::Frames(running) => running.is_under_way(),
            Self::Questions(asking, _) => !asking.is_finished(),
            Self::Sent(_) => false,
        }
    }

    /// Ends it.
    pub(crate) fn finish(self) -> Summary {
        match self {
            Self::Frames(running) => Summary::Sent(running.stop()),
            Self::Questions(asking, count) => {
                Summary::Answers(asking.join().expect("the hosts do not panic"), count)
            }
            Self::Sent(count) => Summary::Sent(count),
        }
    }
}

impl Summary {
    /// A line about the traffic, for the time after the example has ended; none if there was no traffic.
    pub(crate) fn after(self, place: &Place) -> Result<Option<String>> {
        let sent = match self {
            Self::Sent(sent) => sent,
            Self::Answers(mut times, count) => {
                times.sort_unstable();
                let median = times.get(times.len() / 2).copied().unwrap_or_default();
                let answered = times.len();
                return Ok(Some(format!(
                    "{answered} of {count} questions were answered, half of them within {median:?}"
                )));
            }
        };
        let Network::Veth(stage) = &place.network else {
            return Ok((sent > 0).then(|| format!("{sent} packets were sent")));
        };
        let returned = link::stats(stage.sending_interface())?.received;
        let lost = stage.lost();
        Ok(Some(match (sent, returned) {
            (0, _) => format!("the far end received {returned} frames"),
            (_, 0) => format!("{sent} frames were sent, {lost} were lost on the way"),
            _ => format!(
                "{sent} frames were sent, {lost} were lost on the way, {returned} came back"
            ),
        }))
    }
}

/// Things that a client says to an echo server.
const SAYINGS: usize = 50;

/// The times of the answers that are what was said. Four clients are connected at a time.
fn echoes(address: &str, clients: usize) -> Vec<Duration> {
    let one = |client: usize| -> std::io::Result<Vec<Duration>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut times = Vec::new();
        for number in 1..=SAYINGS {
            let said: Vec<u8> = (0..100 * number).map(|at| (client + number + at) as u8).collect();
            let (start, mut heard) = (Instant::now(), vec![0; said.len()]);
            stream.write_all(&said)?;
            stream.read_exact(&mut heard)?;
            if heard == said {
                times.push(start.elapsed());
            }
        }
        Ok(times)
    };
    std::thread::scope(|scope| {
        let some = |first| (first..clients).step_by(4).flat_map(|n| one(n).unwrap_or_default());
        let workers =
            [0, 1, 2, 3].map(|first| scope.spawn(move || some(first).collect::<Vec<_>>()));
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    })
}

/// A port on which an example answers.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: &'static str,
    pub(crate) request: &'static str,
}

impl Server {
    /// Connects to it, and prints the answers of one second.
    pub(crate) fn ask(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(1);
        let mut connection = TcpStream::connect(self.address)?;
        connection.write_all(self.request.as_bytes())?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        for line in BufReader::new(connection).lines().map_while(std::io::Result::ok) {
            println!("lab: {} answers: {line}", self.address);
            if Instant::now() > end {
                break;
            }
        }
        Ok(())
    }
}
