//! The hot paths, each with what feeds it.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use ringtap::capture::RingLayout;
use ringtap::dedup::Dedup;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{EventMask, FlowConfig, FlowTable};
use ringtap::packet::Timestamp;
use ringtap::testing::{Peer, TestRing};
use ringtap::xdp::{Attach, XdpHints, XdpProgram, XdpReceiver, XdpSender};
use ringtap::{BpfFilter, Capture, Injector, Packet, PacketBatch, XdpSocket};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Traffic, Veth};

use crate::Outcome;

/// A path through the library.
pub(crate) trait Path {
    /// Brings packets to where the path begins.
    fn feed(&mut self) -> Outcome<()>;
    /// Takes them: how many. What is collected and timed is this.
    fn measured(&mut self) -> u64;
}

type Open = fn(&Veth) -> Outcome<Box<dyn Path>>;

pub(crate) const PATHS: &[(&str, Open)] = &[
    ("walk a block", |_| Ok(Box::new(Walk::new()))),
    ("receive frames", |veth| Ok(Box::new(Frames::open(veth)?))),
    ("receive AF_XDP", |veth| Ok(Box::new(XdpReceive::open(veth, XdpHints::empty())?))),
    ("receive AF_XDP, hints", |veth| Ok(Box::new(XdpReceive::open(veth, HINTS)?))),
    ("commit frames", |veth| Ok(Box::new(Commit::open(veth)?))),
    ("commit AF_XDP", |veth| Ok(Box::new(XdpCommit::open(veth)?))),
    ("filter, 12 terms", |_| Ok(Box::new(Filter::new()?))),
    ("dedup by content", |_| Ok(Box::new(Deduped::new()))),
    ("flow table, 64 flows", |_| Ok(Box::new(Flows::new()))),
];

/// Packets of a feed.
const FEED: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(5);

fn touch(batch: &PacketBatch) -> u64 {
    let mut sum = 0;
    for packet in batch {
        sum += u64::from(packet.data()[0]) + packet.len() as u64;
    }
    black_box(sum);
    batch.len() as u64
}

fn frames(flows: u32) -> Vec<Vec<u8>> {
    let traffic = Traffic { flows, varied: false, ..Traffic::default() };
    (0..FEED).map(|number| traffic.frame(number, 0)).collect()
}

struct Walk {
    ring: TestRing,
    peer: Peer,
    frame: Vec<u8>,
}

impl Walk {
    fn new() -> Self {
        let (ring, peer) = TestRing::new(1 << 18, 4);
        Self { ring, peer, frame: vec![7; 60] }
    }
}

impl Path for Walk {
    fn feed(&mut self) -> Outcome<()> {
        let packets = std::iter::repeat_n(self.frame.as_slice(), 1500);
        self.peer.retire(packets).ok_or("the block is free")?;
        Ok(())
    }

    #[inline(never)]
    fn measured(&mut self) -> u64 {
        self.ring.next_batch().map_or(0, |batch| touch(&batch))
    }
}

struct Frames {
    capture: Capture,
    sender: Sender,
    frames: Vec<Vec<u8>>,
}

impl Frames {
    fn open(veth: &Veth) -> Outcome<Self> {
        let ring = Capture::builder().interface(&veth.right).layout(RingLayout::Frames);
        let ring = ring.block_size(1 << 16).block_count(16).frame_size(2048);
        let capture = ring.ignore_outgoing(true).build()?;
        Ok(Self { capture, sender: Sender::open(&veth.left)?, frames: frames(1) })
    }
}

impl Path for Frames {
    fn feed(&mut self) -> Outcome<()> {
        let before = self.capture.stats()?.packets;
        self.sender.send_all(&self.frames)?;
        while self.capture.stats()?.packets < before + FEED {
            std::thread::yield_now();
        }
        Ok(())
    }

    #[inline(never)]
    fn measured(&mut self) -> u64 {
        let mut count = 0;
        while count < FEED {
            count += self.capture.next_batch().map_or(FEED, |batch| touch(&batch));
        }
        count
    }
}

/// What programs ask for unless told otherwise.
const HINTS: XdpHints = XdpHints::all().difference(XdpHints::TIMESTAMP);

struct XdpReceive {
    socket: XdpReceiver,
    sender: XdpSender,
    frames: Vec<Vec<u8>>,
}

impl XdpReceive {
    fn open(veth: &Veth, hints: XdpHints) -> Outcome<Self> {
        let options = |name: &str| XdpSocket::builder().interface(name);
        let program = XdpProgram::redirect_with_hints(&veth.right, Attach::Native, hints)?;
        let receiver = options(&veth.right).frame_size(2048).frame_count(256).program(program);
        let socket = receiver.build_receiver()?;
        let sender = options(&veth.left).frame_count(128).build_sender()?;
        Ok(Self { socket, sender, frames: frames(1) })
    }
}

impl Path for XdpReceive {
    fn feed(&mut self) -> Outcome<()> {
        for frame in &self.frames {
            self.sender.send(frame)?;
        }
        let sent = self.sender.drain(PATIENCE)?;
        if sent { Ok(()) } else { Err("the frames were not sent".into()) }
    }

    #[inline(never)]
    fn measured(&mut self) -> u64 {
        let mut count = 0;
        while count < FEED {
            count += self.socket.next_batch().map_or(FEED, |batch| touch(&batch));
        }
        count
    }
}

struct Commit {
    injector: Injector,
    is_first: bool,
}

impl Commit {
    fn open(veth: &Veth) -> Outcome<Self> {
        let injector = Injector::builder().interface(&veth.left).frame_count(256).build()?;
        Ok(Self { injector, is_first: true })
    }
}

impl Path for Commit {
    fn feed(&mut self) -> Outcome<()> {
        let sent = std::mem::take(&mut self.is_first) || self.injector.drain(PATIENCE)?;
        if sent { Ok(()) } else { Err("the frames were not sent".into()) }
    }

    #[inline(never)]
    fn measured(&mut self) -> u64 {
        for number in 0..FEED {
            let Some(mut slot) = self.injector.allocate(60) else { return number };
            slot.data_mut()[0] = number as u8;
            slot.send().expect("a legal frame");
        }
        FEED
    }
}

struct XdpCommit {
    sender: XdpSender,
}

impl XdpCommit {
    fn open(veth: &Veth) -> Outcome<Self> {
        let options = XdpSocket::builder().interface(&veth.left);
        Ok(Self { sender: options.frame_count(256).build_sender()? })
    }
}

impl Path for XdpCommit {
    fn feed(&mut self) -> Outcome<()> {
        if self.sender.drain(PATIENCE)? { Ok(()) } else { Err("the frames were not sent".into()) }
    }

    #[inline(never)]
    fn measured(&mut self) -> u64 {
        for number in 0..FEED {
            let Some(mut slot) = self.sender.reserve(60) else { return number };
            slot.data_mut()[0] = number as u8;
            slot.send().expect("a legal frame");
        }
        FEED
    }
}

struct Filter {
    filter: BpfFilter,
    frames: Vec<Vec<u8>>,
}

impl Filter {
    fn new() -> Outcome<Self> {
        let terms: Vec<String> = (1..=12).map(|port| format!("dst port {port}")).collect();
        Ok(Self { filter: terms.join(" or ").parse()?, frames: frames(8) })
    }
}

impl Path for Filter {
    fn feed(&mut self) -> Outcome<()> {
        Ok(())
    }

    #[inline(never)]
    fn measured(&mut self) -> u64 {
        for frame in &self.frames {
            black_box(self.filter.matches(frame));
        }
        FEED
    }
}

struct Deduped {
    dedup: Dedup,
    frames: Vec<Vec<u8>>,
    at: u32,
}

impl Deduped {
    fn new() -> Self {
        let dedup = Dedup::content(Duration::from_millis(1), 1024);
        Self { dedup, frames: frames(8), at: 0 }
    }
}

impl Path for Deduped {
    fn feed(&mut self) -> Outcome<()> {
        self.at += 1;
        Ok(())
    }

    #[inline(never)]
    fn measured(&mut self) -> u64 {
        let time = Timestamp { secs: 1_700_000_000 + self.at, nanos: 0 };
        for frame in &self.frames {
            black_box(self.dedup.keep(&Packet::from_bytes(frame, time)));
        }
        FEED
    }
}

struct Flows {
    table: FlowTable<FiveTuple, ()>,
    events: VecDeque<ringtap::flow::FlowEvent<ringtap::flow::extract::FiveTupleKey>>,
    frames: Vec<Vec<u8>>,
    at: u32,
}

impl Flows {
    fn new() -> Self {
        let mut config = FlowConfig::default();
        config.suppress_events = EventMask::all();
        let table = FlowTable::with_config_and_state(FiveTuple::bidirectional(), config, |_| ());
        Self { table, events: VecDeque::new(), frames: frames(64), at: 0 }
    }
}

impl Path for Flows {
    fn feed(&mut self) -> Outcome<()> {
        self.at += 1;
        Ok(())
    }

    #[inline(never)]
    fn measured(&mut self) -> u64 {
        let time = Timestamp { secs: 1_700_000_000, nanos: self.at };
        for frame in &self.frames {
            self.table.packet(&Packet::from_bytes(frame, time), &mut self.events);
        }
        FEED
    }
}
