//! Receiving by AF_XDP: one flood over veth in copy mode, the same program, sender, ring sizes and cores for all.
//!
//! What veth cannot show: zero-copy, and the driver's own interrupt moderation (NAPI).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ringtap::XdpSocket;
use ringtap::executor::Executor;
use ringtap::reactor::{Coalesce, ReactorOptions};
use ringtap::xdp::{AsyncXdpReceiver, XdpProgram, XdpReceiver};
use ringtap_lab::{Traffic, Veth, link, xdp as programs};

use crate::calls::Calls;
use crate::harness::{CALLS, Kind, Outcome, Progress, Table, Used, WAKEUPS, compare, pin};
use crate::receive::touch;

const TIME: Duration = Duration::from_millis(500);
/// How long a receiver waits before it looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// Frames of each UMEM, and entries of its rings.
const FRAMES: u32 = 4096;

/// Receives until it is told to end.
type Receiver = fn(&str, OwnedFd, &Progress) -> Outcome<()>;

const WAYS: &[(&str, Kind, Option<Receiver>)] = &[
    ("XDP_DROP, no receiver", Kind::Limit, None),
    ("ringtap, blocking", Kind::Ours, Some(ringtap_blocking)),
    (
        "ringtap, async",
        Kind::Ours,
        Some(|name, map, progress| ringtap_async(name, map, progress, Coalesce::Off)),
    ),
    (
        "ringtap, async, 50 µs",
        Kind::Ours,
        Some(|name, map, progress| {
            ringtap_async(name, map, progress, Coalesce::Fixed(Duration::from_micros(50)))
        }),
    ),
    (
        "ringtap, async, 200 µs",
        Kind::Ours,
        Some(|name, map, progress| {
            ringtap_async(name, map, progress, Coalesce::Fixed(Duration::from_micros(200)))
        }),
    ),
    (
        "ringtap, async, adaptive",
        Kind::Ours,
        Some(|name, map, progress| {
            let max = Duration::from_micros(200);
            ringtap_async(name, map, progress, Coalesce::Adaptive { max })
        }),
    ),
    ("netring 0.29", Kind::Peer, Some(netring_blocking)),
    ("xdp 0.8", Kind::Peer, Some(xdp_poll)),
    #[cfg(feature = "xsk-rs")]
    ("xsk-rs 0.11", Kind::Peer, Some(xsk_rs)),
];

/// With `is_loaded`, a spinner is kept on each core.
pub(crate) fn table(veth: &Veth, is_loaded: bool, rounds: usize) -> Table {
    let spinning = Progress::default();
    let spinners = if is_loaded { spin(&spinning) } else { Vec::new() };
    let title = if is_loaded { "AF_XDP, both cores loaded" } else { "AF_XDP" };
    let columns = &["CPU ns/packet", "kpackets/s", WAKEUPS, CALLS];
    let table = compare(title, columns, WAYS, rounds, |way| measure(veth, way));
    spinning.stop();
    spinners.into_iter().for_each(|spinner| spinner.join().expect("it only spins"));
    table
}

fn measure(veth: &Veth, way: Option<Receiver>) -> Outcome<Vec<f64>> {
    let map = programs::xskmap(1)?;
    let program = programs::drop_odd_ports(map.as_fd())?; // flow 0 has an even one
    let _attached = programs::attach(program.as_fd(), &veth.right)?;
    let progress = Progress::default();
    let (name, for_receiver) = (veth.right.clone(), progress.clone());
    let receiving = std::thread::spawn(move || -> Outcome<(Used, u64)> {
        pin(1);
        let calls = Calls::of_this_thread();
        let before = Used::by(libc::RUSAGE_THREAD);
        way.map_or(Ok(()), |way| way(&name, map, &for_receiver))?;
        let used = Used::by(libc::RUSAGE_THREAD).since(before);
        Ok((used, calls.map_or(0, |calls| calls.count())))
    });
    pin(0);
    let traffic = Traffic { flows: 2, varied: false, ..Traffic::default() };
    let options = XdpSocket::builder().interface(&veth.left);
    let mut sender = options.frame_count(FRAMES).build_sender()?;
    std::thread::sleep(Duration::from_millis(30)); // the receiver opens its socket
    let frame = traffic.frame(u64::from(way.is_none()), 0);
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        for _ in 0..256 {
            sender.send(&frame[..60])?;
        }
        sender.flush()?;
        sent += 256;
    }
    let elapsed = start.elapsed().as_secs_f64();
    progress.stop();
    let (used, called) = receiving.join().map_err(|_| "the receiver panicked")??;
    let packets = match way {
        Some(_) => progress.packets(),
        None => sent, // all were dropped, by a program
    } as f64;
    let a_thousand = |count: u64| 1e3 * count as f64 / packets;
    Ok(vec![
        used.cpu.as_nanos() as f64 / packets,
        packets / elapsed / 1e3,
        a_thousand(used.sleeps),
        a_thousand(called),
    ])
}

fn ours(name: &str, map: OwnedFd) -> ringtap::Result<XdpReceiver> {
    let program = XdpProgram::from_map(name, false, map)?;
    let options = XdpSocket::builder().interface(name).program(program);
    options.frame_count(FRAMES).build_receiver()
}

fn ringtap_blocking(name: &str, map: OwnedFd, progress: &Progress) -> Outcome<()> {
    let mut socket = ours(name, map)?;
    while !progress.is_over() {
        let Some(batch) = socket.next_batch_timeout(PATIENCE)? else { continue };
        std::hint::black_box(batch.iter().map(|packet| touch(packet.data())).sum::<u64>());
        progress.add(batch.len() as u64);
    }
    Ok(())
}

fn ringtap_async(name: &str, map: OwnedFd, progress: &Progress, coalesce: Coalesce) -> Outcome<()> {
    let socket = ours(name, map)?;
    Executor::new(ReactorOptions::new().coalesce(coalesce))?.block_on(async {
        let mut socket = AsyncXdpReceiver::new(socket)?;
        let (stop, watched) = (socket.stop_handle()?, progress.clone());
        let _watching = ringtap::executor::spawn_local(async move {
            while !watched.is_over() {
                ringtap::time::sleep(PATIENCE).await;
            }
            stop.stop();
        });
        while let Some(batch) = socket.next_batch().await? {
            std::hint::black_box(batch.iter().map(|packet| touch(packet.data())).sum::<u64>());
            progress.add(batch.len() as u64);
        }
        Ok(())
    })
}

fn netring_blocking(name: &str, map: OwnedFd, progress: &Progress) -> Outcome<()> {
    let options = netring::XdpSocket::builder().interface(name).mode(netring::XdpMode::Rx);
    let mut socket = options.queue_id(0).frame_count(FRAMES as usize).build()?;
    programs::register(map.as_fd(), 0, socket.as_fd())?;
    while !progress.is_over() {
        let Some(batch) = socket.next_batch_blocking(PATIENCE)? else { continue };
        let mut count = 0;
        for packet in &batch {
            std::hint::black_box(touch(packet.data()));
            count += 1;
        }
        progress.add(count);
    }
    Ok(())
}

fn xdp_poll(name: &str, map: OwnedFd, progress: &Progress) -> Outcome<()> {
    use xdp::slab::{HeapSlab, Slab};
    let config = xdp::umem::UmemCfgBuilder { frame_count: FRAMES, ..Default::default() };
    let mut umem = xdp::Umem::map(config.build()?)?;
    let mut builder = xdp::socket::XdpSocketBuilder::new()?;
    let rings = xdp::RingConfigBuilder {
        rx_count: FRAMES,
        tx_count: 0,
        fill_count: FRAMES,
        ..Default::default()
    };
    let (mut rings, flags) = builder.build_wakable_rings(&umem, rings.build()?)?;
    let socket = builder.bind(xdp::nic::NicIndex(link::index(name)?), 0, flags)?;
    // SAFETY: the socket outlives this.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.raw_fd()) };
    programs::register(map.as_fd(), 0, fd)?;
    let mut slab = HeapSlab::with_capacity(64);
    let mut rx = rings.rx_ring.take().expect("asked for");
    // SAFETY: the UMEM outlives the socket.
    unsafe { rings.fill_ring.enqueue(&mut umem, FRAMES as usize, true)? };
    let timeout = xdp::socket::PollTimeout::new(Some(PATIENCE));
    while !progress.is_over() {
        // SAFETY: the packets are given back below, before the UMEM goes.
        let count = unsafe { rx.recv(&umem, &mut slab) };
        if count == 0 {
            socket.poll_read(timeout)?;
            continue;
        }
        while let Some(packet) = slab.pop_back() {
            std::hint::black_box(touch(&packet));
            umem.free_packet(packet);
        }
        // SAFETY: as above.
        unsafe { rings.fill_ring.enqueue(&mut umem, count, true)? };
        progress.add(count as u64);
    }
    Ok(())
}

#[cfg(feature = "xsk-rs")]
fn xsk_rs(name: &str, map: OwnedFd, progress: &Progress) -> Outcome<()> {
    use std::os::fd::AsRawFd;
    use xsk_rs::config::{Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
    let size = QueueSize::new(FRAMES)?;
    let config = UmemConfig::builder().fill_queue_size(size).build()?;
    let count = FRAMES.try_into()?;
    let (umem, mut frames) = xsk_rs::Umem::new(config, count, false)?;
    let mut config = SocketConfig::builder();
    let flags = LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD;
    let config = config.rx_queue_size(size).libxdp_flags(flags).build();
    let interface: Interface = name.parse()?;
    // SAFETY: no other socket uses the UMEM.
    let (_tx, mut rx, rings) = unsafe { xsk_rs::Socket::new(config, &umem, &interface, 0)? };
    let (mut fill, _completion) = rings.ok_or("the first socket of a UMEM has its rings")?;
    // SAFETY: the socket outlives this.
    let fd = unsafe { BorrowedFd::borrow_raw(rx.fd().as_raw_fd()) };
    programs::register(map.as_fd(), 0, fd)?;
    // SAFETY: frames of this UMEM, in no ring.
    unsafe { fill.produce(&frames) };
    while !progress.is_over() {
        // SAFETY: the descriptors are those of this UMEM.
        let count = unsafe { rx.consume(&mut frames[..64]) };
        if count == 0 {
            rx.poll(PATIENCE.as_millis() as i32)?;
            continue;
        }
        for frame in &frames[..count] {
            // SAFETY: it was just received, and is not in the fill ring.
            std::hint::black_box(touch(unsafe { umem.data(frame) }.contents()));
        }
        // SAFETY: as above; they are not looked at any more.
        unsafe { fill.produce_and_wakeup(&frames[..count], rx.fd_mut(), 0)? };
        progress.add(count as u64);
    }
    Ok(())
}

/// Keeps all cores busy until it is over.
fn spin(spinning: &Progress) -> Vec<std::thread::JoinHandle<()>> {
    let spinner = |core| {
        let spinning = spinning.clone();
        std::thread::spawn(move || {
            pin(core);
            while !spinning.is_over() {
                std::hint::spin_loop();
            }
        })
    };
    (0..2).map(spinner).collect()
}
