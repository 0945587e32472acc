//! A card in every mode: what is sent at one end must arrive at the other.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::queues::Steered;
use ringtap::capture::RingLayout;
use ringtap::error::Step;
use ringtap::xdp::{Attach, CopyMode, XdpProgram};
use ringtap::{Capture, Error, Injector, PacketBatch, Result, XdpSocket};

/// Frames on their way at most: fewer than any card's ring has entries.
pub(super) const UNDER_WAY: u64 = 32;
/// How long nothing may arrive.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// How long a link may take to come up again: attaching a program resets some cards.
const LINK: Duration = Duration::from_secs(20);

/// Tries all modes, a line each; an error if frames were lost in one.
pub(crate) fn run(
    card: &str,
    other: &str,
    count: u64,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let info = ringtap::interface::interface_info(card)?;
    let queues = info.rx_queues.map_or("?".to_owned(), |queues| queues.to_string());
    println!("@driver: {}, {queues} receive queues", info.driver.as_deref().unwrap_or("?"));
    let bad = std::cell::Cell::new(0);
    let tell = |what: &str, outcome: Result<Outcome>| {
        bad.set(bad.get() + tell(what, outcome, count));
    };
    for layout in [RingLayout::Blocks, RingLayout::Frames] {
        tell(&format!("receive, {layout:?}"), receive_ring(card, other, layout, count));
    }
    tell("send", send_ring(card, other, count));
    for (name, attach, copy_mode) in [
        ("in the stack", Attach::Generic, CopyMode::Copy),
        ("in the driver", Attach::Native, CopyMode::Copy),
        ("without copies", Attach::Native, CopyMode::ZeroCopy),
        ("as it comes", Attach::Auto, CopyMode::Auto),
    ] {
        let options = Options { attach, copy_mode };
        tell(&format!("XDP receive, {name}"), options.receive(card, other, count));
        tell(&format!("XDP receive, {name}, again"), options.receive(card, other, count));
    }
    for (name, copy_mode) in [
        ("copied", CopyMode::Copy),
        ("without copies", CopyMode::ZeroCopy),
        ("as it comes", CopyMode::Auto),
    ] {
        tell(&format!("XDP send, {name}"), send_xdp(card, other, copy_mode, count));
    }
    if !kill_a_holder(card)? {
        bad.set(bad.get() + 1);
        println!("@a process that is killed: FAILED to open the card");
    }
    let options = Options { attach: Attach::Auto, copy_mode: CopyMode::Auto };
    tell("XDP receive, after a killed process", options.receive(card, other, count));
    tell("receive, after all that", receive_ring(card, other, RingLayout::Blocks, count));
    let mut bad = bad.get();
    for way in [Steered::Hash, Steered::SymmetricHash, Steered::Rule] {
        bad += way.tell(card, other, count);
    }
    match bad {
        0 => Ok(()),
        bad => Err(format!("{bad} modes failed").into()),
    }
}

/// Prints what came of a mode; 1 if it failed.
fn tell(what: &str, outcome: Result<Outcome>, count: u64) -> u32 {
    let (has_failed, text) = match outcome {
        Ok(outcome) if outcome.is_whole(count) => (false, outcome.to_string()),
        Ok(outcome) => (true, format!("{outcome} of {count}")),
        Err(error) if is_unavailable(&error) => (false, format!("not available: {error}")),
        Err(error) => (true, error.to_string()),
    };
    println!("@{what}: {}{text}", if has_failed { "FAILED " } else { "" });
    has_failed.into()
}

/// Opens a socket, says so, and keeps it until the process is killed.
pub(crate) fn hold(card: &str) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut socket = XdpSocket::open(card)?;
    println!("held");
    loop {
        socket.next_batch_timeout(Duration::from_secs(1))?;
    }
}

/// Whether a driver has not got what was asked for: a program in the driver, or a queue without copies. That a queue is
/// busy, or that nothing works, is no such thing.
pub(super) fn is_unavailable(error: &Error) -> bool {
    let Error::Os { step, source, .. } = error else { return false };
    match step {
        Step::KickWithoutProgram | Step::BindZeroCopy => true,
        Step::AttachProgram | Step::BindQueue => source.raw_os_error() == Some(libc::EOPNOTSUPP),
        Step::InsertRule | Step::SetHashKey => {
            matches!(source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
        }
        _ => false,
    }
}

/// What came of a mode.
struct Outcome {
    /// What was opened, as it turned out.
    opened: String,
    received: u64,
    reordered: u64,
    /// Frames of ours that did not come back.
    missing: u32,
}

impl Outcome {
    fn is_whole(&self, count: u64) -> bool {
        (self.received, self.reordered, self.missing) == (count, 0, 0)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} received", self.received)?;
        if self.reordered > 0 {
            write!(f, ", {} out of order", self.reordered)?;
        }
        if self.missing > 0 {
            write!(f, ", {} of the socket's frames did not come back", self.missing)?;
        }
        write!(f, "{}", self.opened)
    }
}

/// What has arrived, of frames that are numbered.
#[derive(Default)]
struct Tally {
    received: u64,
    reordered: u64,
    next: u64,
}

impl Tally {
    /// Counts those of ours: the rest of the world may send too.
    fn count(&mut self, batch: &PacketBatch) {
        for packet in batch {
            let data = packet.data();
            if data.get(12..14) != Some(&KIND) || data.len() < 22 {
                continue;
            }
            let number = u64::from_be_bytes(data[14..22].try_into().expect("eight bytes"));
            self.received += 1;
            self.reordered += u64::from(number != self.next);
            self.next = number + 1;
        }
    }

    fn outcome(self, opened: String) -> Outcome {
        Outcome { opened, received: self.received, reordered: self.reordered, missing: 0 }
    }
}

/// The EtherType for local experiments (IEEE 802).
const KIND: [u8; 2] = [0x88, 0xb5];

fn frame(number: u64) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&KIND);
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    frame
}

/// Sends `count` frames, a few at a time, until all have arrived or nothing more does.
fn exchange(
    count: u64,
    mut send: impl FnMut(&[u8]) -> Result<()>,
    mut flush: impl FnMut() -> Result<()>,
    mut receive: impl FnMut(Duration) -> Result<Option<PacketBatch>>,
) -> Result<Tally> {
    let (mut tally, mut sent, mut arrived) = (Tally::default(), 0, Instant::now());
    while tally.received < count && arrived.elapsed() < PATIENCE {
        while sent < count && sent < tally.received + UNDER_WAY {
            send(&frame(sent))?;
            sent += 1;
        }
        flush()?;
        if let Some(batch) = receive(Duration::from_millis(20))? {
            let before = tally.received;
            tally.count(&batch);
            if tally.received > before {
                arrived = Instant::now(); // others' frames do not count
            }
        }
    }
    Ok(tally)
}

/// Waits until both links are up.
pub(super) fn settle(ports: [&str; 2]) -> Result<()> {
    let start = Instant::now();
    for port in ports {
        while !ringtap::interface::interface_info(port)?.has_carrier() {
            if start.elapsed() > LINK {
                return Err(Error::LinkDown { name: port.to_owned() });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // Some cards say that they have a carrier before they receive.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

fn capture(port: &str, layout: RingLayout) -> Result<Capture> {
    Capture::builder()
        .interface(port)
        .layout(layout)
        .block_timeout_ms(5)
        .ignore_outgoing(true)
        .build()
}

fn receive_ring(card: &str, other: &str, layout: RingLayout, count: u64) -> Result<Outcome> {
    let mut capture = capture(card, layout)?;
    let mut injector = Injector::open(other)?;
    settle([card, other])?;
    let tally = between(&mut injector, count, |wait| capture.next_batch_timeout(wait))?;
    Ok(tally.outcome(String::new()))
}

fn send_ring(card: &str, other: &str, count: u64) -> Result<Outcome> {
    let mut capture = capture(other, RingLayout::Blocks)?;
    let mut injector = Injector::open(card)?;
    settle([card, other])?;
    let tally = between(&mut injector, count, |wait| capture.next_batch_timeout(wait))?;
    Ok(tally.outcome(String::new()))
}

/// From an injector to whoever receives.
fn between(
    injector: &mut Injector,
    count: u64,
    receive: impl FnMut(Duration) -> Result<Option<PacketBatch>>,
) -> Result<Tally> {
    let injector = std::cell::RefCell::new(injector);
    let send = |frame: &[u8]| injector.borrow_mut().send(frame);
    exchange(count, send, || injector.borrow_mut().flush(), receive)
}

struct Options {
    attach: Attach,
    copy_mode: CopyMode,
}

impl Options {
    fn receive(&self, card: &str, other: &str, count: u64) -> Result<Outcome> {
        let options = XdpSocket::builder().interface(card).promiscuous(true);
        let mut socket = options.attach(self.attach).copy_mode(self.copy_mode).build_receiver()?;
        let mut injector = Injector::open(other)?;
        settle([card, other])?;
        let tally = between(&mut injector, count, |wait| socket.next_batch_timeout(wait))?;
        // A card without copies has some of them in hand, which nobody sees.
        let chunks = socket.chunks();
        let unseen = if socket.is_zerocopy() { 0 } else { chunks.rx_kernel - chunks.rx_rings };
        let missing = chunks.rx_leased + unseen;
        Ok(Outcome { missing, ..tally.outcome(opened(socket.is_zerocopy(), socket.program())) })
    }
}

fn send_xdp(card: &str, other: &str, copy_mode: CopyMode, count: u64) -> Result<Outcome> {
    let options = XdpSocket::builder().interface(card).copy_mode(copy_mode);
    let mut socket = options.build_sender()?;
    let mut capture = capture(other, RingLayout::Blocks)?;
    settle([card, other])?;
    let shared = std::cell::RefCell::new(&mut socket);
    let send = |frame: &[u8]| shared.borrow_mut().send(frame);
    let flush = || shared.borrow_mut().flush();
    let tally = exchange(count, send, flush, |wait| capture.next_batch_timeout(wait))?;
    socket.drain(PATIENCE)?;
    let missing = socket.chunks().tx_kernel;
    Ok(Outcome { missing, ..tally.outcome(opened(socket.is_zerocopy(), socket.program())) })
}

fn opened(is_zerocopy: bool, program: Option<&XdpProgram>) -> String {
    let copies = if is_zerocopy { "without copies" } else { "copied" };
    match program {
        Some(program) if program.is_generic() => format!(" ({copies}, program in the stack)"),
        Some(_) => format!(" ({copies}, program in the driver)"),
        None => format!(" ({copies})"),
    }
}

/// Kills a process that has a socket open, of which nothing must stay: whether it had.
fn kill_a_holder(card: &str) -> std::io::Result<bool> {
    let mut holder = Command::new(std::env::current_exe()?);
    let mut holder = holder.args(["--hold", card]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(holder.stdout.take().expect("it was asked for")).read_line(&mut line)?;
    holder.kill()?;
    holder.wait()?;
    Ok(line.trim_end() == "held")
}
