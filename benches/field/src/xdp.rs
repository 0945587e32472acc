//! AF_XDP receivers side by side: `cargo run --release --bin xdp [-- --rounds N --frames N --only NAME --loaded]` in this directory,
//! as root. One flood over veth in copy mode, one socket a time on the far end, interleaved; each figure is a
//! median over the rounds with the least and the most. The program, the sender, the ring sizes and the cores
//! are the same for all. `--loaded` keeps a spinner on each core.
//!
//! What veth cannot show: zero-copy, and the driver's own interrupt moderation (NAPI).

use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringtap::executor::Executor;
use ringtap::{AsyncXdpSocket, Coalesce, ReactorOptions, XdpMode, XdpProgram, XdpSocket};
use ringtap_lab::{Namespace, Traffic, Veth, link, xdp as programs};

const TIME: Duration = Duration::from_millis(500);
/// How long a receiver waits before it looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a receiver is told and tells.
#[derive(Clone, Default)]
struct Progress {
    /// Frames of its UMEM.
    frames: u32,
    stop: Arc<AtomicBool>,
    packets: Arc<AtomicU64>,
}

impl Progress {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn add(&self, more: u64) {
        self.packets.fetch_add(more, Ordering::Relaxed);
    }
}

/// Receives until it is told to end.
type Receiver = fn(&str, OwnedFd, &Progress) -> Outcome<()>;

const RECEIVERS: &[(&str, Receiver)] = &[
    ("ringtap, blocking", ringtap_blocking),
    ("ringtap, async, off", |name, map, progress| {
        ringtap_async(name, map, progress, Coalesce::Off)
    }),
    ("ringtap, async, 50 us", |name, map, progress| {
        ringtap_async(name, map, progress, Coalesce::Fixed(Duration::from_micros(50)))
    }),
    ("ringtap, async, 200 us", |name, map, progress| {
        ringtap_async(name, map, progress, Coalesce::Fixed(Duration::from_micros(200)))
    }),
    ("ringtap, async, adaptive", |name, map, progress| {
        let max = Duration::from_micros(200);
        ringtap_async(name, map, progress, Coalesce::Adaptive { max })
    }),
    ("netring 0.29, blocking", netring_blocking),
    ("xdp 0.8, poll", xdp_poll),
    #[cfg(feature = "xsk-rs")]
    ("xsk-rs 0.11, poll", xsk_rs),
];

#[derive(Default)]
struct Cell {
    cpu_ns: Vec<f64>,
    kpps: Vec<f64>,
}

fn main() -> Outcome<()> {
    let mut args = pico_args::Arguments::from_env();
    let rounds: usize = args.opt_value_from_str("--rounds")?.unwrap_or(9);
    let frames: u32 = args.opt_value_from_str("--frames")?.unwrap_or(4096);
    let is_loaded = args.contains("--loaded");
    let only: Option<String> = args.opt_value_from_str("--only")?;
    let is_asked = |name: &str| only.as_ref().is_none_or(|only| name.contains(only));
    let receivers: Vec<_> = RECEIVERS.iter().filter(|(name, _)| is_asked(name)).collect();
    let namespace = Namespace::enter()?;
    let veth = namespace.veth();
    let spinning = Progress::default();
    let spinners = if is_loaded { spin(&spinning) } else { Vec::new() };
    let mut cells: Vec<Cell> = receivers.iter().map(|_| Cell::default()).collect();
    for round in 0..rounds {
        for at in 0..receivers.len() {
            let at = (at + round) % receivers.len(); // none is always first
            measure(&veth, frames, receivers[at].1, &mut cells[at])?;
        }
    }
    spinning.stop.store(true, Ordering::Relaxed);
    spinners.into_iter().for_each(|spinner| spinner.join().expect("it only spins"));
    let machine = if is_loaded { "loaded" } else { "quiet" };
    println!("{machine} machine, {rounds} rounds, flood, {frames} frames");
    println!("{:<26} receiver CPU ns/packet       thousand packets/s", "");
    for ((name, _), cell) in receivers.iter().zip(&mut cells) {
        println!("{name:<26} {}  {}", spread(&mut cell.cpu_ns), spread(&mut cell.kpps));
    }
    Ok(())
}

fn measure(veth: &Veth, frames: u32, receiver: Receiver, cell: &mut Cell) -> Outcome<()> {
    let map = programs::xskmap(1)?;
    let program = programs::drop_odd_ports(map.as_fd())?; // flow 0 has an even one
    let _attached = programs::attach(program.as_fd(), &veth.right)?;
    let progress = Progress { frames, ..Progress::default() };
    let (name, for_receiver) = (veth.right.clone(), progress.clone());
    let receiving = std::thread::spawn(move || -> Outcome<Duration> {
        pin(1);
        let before = cpu_time();
        receiver(&name, map, &for_receiver)?;
        Ok(cpu_time() - before)
    });
    pin(0);
    let traffic = Traffic { flows: 1, varied: false, ..Traffic::default() };
    let options = XdpSocket::builder().interface(&veth.left).mode(XdpMode::Tx);
    let mut sender = options.frame_count(4096).build()?;
    std::thread::sleep(Duration::from_millis(30)); // the receiver opens its socket
    let frame = traffic.frame(0, 0);
    let start = Instant::now();
    while start.elapsed() < TIME {
        for _ in 0..256 {
            sender.send(&frame[..60.min(frame.len())])?;
        }
        sender.flush()?;
    }
    let elapsed = start.elapsed().as_secs_f64();
    progress.stop.store(true, Ordering::Relaxed);
    let cpu = receiving.join().expect("no receiver panics")?;
    let packets = progress.packets.load(Ordering::Relaxed) as f64;
    cell.cpu_ns.push(cpu.as_nanos() as f64 / packets);
    cell.kpps.push(packets / elapsed / 1e3);
    Ok(())
}

fn ours(name: &str, map: OwnedFd, frames: u32) -> ringtap::Result<XdpSocket> {
    let program = XdpProgram::from_map(name, false, map)?;
    let options = XdpSocket::builder().interface(name).program(program).mode(XdpMode::Rx);
    options.frame_count(frames).build()
}

fn touch(data: &[u8]) -> u64 {
    u64::from(data[0]) + data.len() as u64
}

fn ringtap_blocking(name: &str, map: OwnedFd, progress: &Progress) -> Outcome<()> {
    let mut socket = ours(name, map, progress.frames)?;
    while !progress.is_over() {
        let Some(batch) = socket.next_batch_timeout(PATIENCE)? else { continue };
        std::hint::black_box(batch.iter().map(|packet| touch(packet.data())).sum::<u64>());
        progress.add(batch.len() as u64);
    }
    Ok(())
}

fn ringtap_async(name: &str, map: OwnedFd, progress: &Progress, coalesce: Coalesce) -> Outcome<()> {
    let socket = ours(name, map, progress.frames)?;
    Executor::new(ReactorOptions::new().coalesce(coalesce))?.block_on(async {
        let mut socket = AsyncXdpSocket::new(socket)?;
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
    let mut socket = options.queue_id(0).frame_count(progress.frames as usize).build()?;
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
    let config = xdp::umem::UmemCfgBuilder { frame_count: progress.frames, ..Default::default() };
    let mut umem = xdp::Umem::map(config.build()?)?;
    let mut builder = xdp::socket::XdpSocketBuilder::new()?;
    let rings = xdp::RingConfigBuilder {
        rx_count: progress.frames,
        tx_count: 0,
        fill_count: progress.frames,
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
    unsafe { rings.fill_ring.enqueue(&mut umem, progress.frames as usize, true)? };
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
    let size = QueueSize::new(progress.frames)?;
    let config = UmemConfig::builder().fill_queue_size(size).build()?;
    let count = progress.frames.try_into()?;
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

fn pin(core: usize) {
    // SAFETY: a C struct of integers.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the core's number is below the set's size.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is readable for its size.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
}

fn spin(progress: &Progress) -> Vec<std::thread::JoinHandle<()>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let start = |core| {
        let progress = progress.clone();
        std::thread::spawn(move || {
            pin(core);
            while !progress.is_over() {
                std::hint::spin_loop();
            }
        })
    };
    (0..cores).map(start).collect()
}

fn cpu_time() -> Duration {
    // SAFETY: a C struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is writable.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Duration::from_micros(micros(usage.ru_utime) + micros(usage.ru_stime))
}

fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return "-".to_owned() };
    format!("{:>7.1} ({:>6.1} to {:>6.1})", values[values.len() / 2], first, last)
}
