//! What no library adds to: the shortest loops that do the work.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use ringtap_lab::link;

use crate::harness::{Outcome, Progress};
use crate::receive::{BLOCK, BLOCKS, PATIENCE, RETIRE_MS, touch};

/// A packet socket with a ring.
struct Ring {
    socket: OwnedFd,
    base: NonNull<u8>,
    len: usize,
}

impl Ring {
    fn open<T>(
        name: &str,
        version: libc::c_int,
        option: libc::c_int,
        request: &T,
        len: usize,
    ) -> io::Result<Self> {
        // SAFETY: no memory involved.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        check(fd)?;
        // SAFETY: a fresh descriptor.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        set(fd, libc::PACKET_VERSION, &version)?;
        set(fd, option, request)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a fresh mapping.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a C struct of integers.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = link::index(name)? as i32;
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is readable for its length.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), size) })?;
        Ok(Self { socket, base: NonNull::new(base.cast()).expect("mapped"), len })
    }

    fn status(&self, at: usize) -> &AtomicU32 {
        assert!(at + 4 <= self.len && at.is_multiple_of(4));
        // SAFETY: inside the mapping, as just asserted.
        let place = unsafe { self.base.add(at) };
        // SAFETY: aligned, as just asserted; only ever accessed atomically.
        unsafe { AtomicU32::from_ptr(place.as_ptr().cast()) }
    }

    /// Bytes that are ours, as the status before them has said.
    fn bytes(&self, at: usize, len: usize) -> &[u8] {
        assert!(at + len <= self.len);
        // SAFETY: inside the mapping, as just asserted.
        let first = unsafe { self.base.add(at) };
        // SAFETY: so are all of the bytes, and the kernel writes none of them while the status says that they are
        // ours.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), len) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: our own mapping.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set<T>(fd: RawFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let size = size_of_val(value) as libc::socklen_t;
    // SAFETY: the value is readable for its size.
    check(unsafe {
        libc::setsockopt(fd, libc::SOL_PACKET, option, std::ptr::from_ref(value).cast(), size)
    })
}

fn wait(fd: RawFd, events: i16) {
    let mut polled = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one descriptor.
    unsafe { libc::poll(&raw mut polled, 1, PATIENCE.as_millis() as i32) };
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// The loop, waiting by `poll(2)`.
pub(crate) fn receive(name: &str, progress: &Progress) -> Outcome<()> {
    receive_by(name, progress, |fd| Ok(move || wait(fd, libc::POLLIN | libc::POLLERR)))
}

/// The same, waiting by epoll.
pub(crate) fn receive_by_epoll(name: &str, progress: &Progress) -> Outcome<()> {
    receive_by(name, progress, |fd| {
        // SAFETY: no memory involved.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        check(epoll)?;
        // SAFETY: a fresh descriptor.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let mut event =
            libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        // SAFETY: the event is readable.
        check(unsafe {
            libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event)
        })?;
        Ok(move || {
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            let limit = PATIENCE.as_millis() as i32;
            // SAFETY: room for one event.
            unsafe { libc::epoll_wait(epoll.as_raw_fd(), &raw mut event, 1, limit) };
        })
    })
}

/// The same, waiting by a multishot poll of an io_uring.
pub(crate) fn receive_by_uring(name: &str, progress: &Progress) -> Outcome<()> {
    receive_by(name, progress, |fd| {
        let mut builder = io_uring::IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun();
        let mut ring: io_uring::IoUring = builder.build(8)?;
        let mut is_armed = false;
        Ok(move || {
            if !is_armed {
                let poll =
                    io_uring::opcode::PollAdd::new(io_uring::types::Fd(fd), libc::POLLIN as u32);
                // SAFETY: it refers to no memory.
                unsafe { ring.submission().push(&poll.multi(true).build()) }
                    .expect("there is room");
                is_armed = true;
            }
            let limit = io_uring::types::Timespec::from(PATIENCE);
            let limit = io_uring::types::SubmitArgs::new().timespec(&limit);
            let _ = ring.submitter().submit_with_args(1, &limit);
            for entry in ring.completion() {
                is_armed &= io_uring::cqueue::more(entry.flags());
            }
        })
    })
}

fn receive_by<W: FnMut()>(
    name: &str,
    progress: &Progress,
    waiter: impl FnOnce(RawFd) -> io::Result<W>,
) -> Outcome<()> {
    let request = libc::tpacket_req3 {
        tp_block_size: BLOCK as u32,
        tp_block_nr: BLOCKS as u32,
        tp_frame_size: 2048,
        tp_frame_nr: (BLOCK / 2048 * BLOCKS) as u32,
        tp_retire_blk_tov: RETIRE_MS,
        tp_sizeof_priv: 0,
        tp_feature_req_word: 0,
    };
    let ring = Ring::open(
        name,
        libc::tpacket_versions::TPACKET_V3 as i32,
        libc::PACKET_RX_RING,
        &request,
        BLOCK * BLOCKS,
    )?;
    let mut wait = waiter(ring.socket.as_raw_fd())?;
    let mut block = 0;
    while !progress.is_over() {
        let at = block * BLOCK;
        let status = ring.status(at + 8);
        if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            wait();
            continue;
        }
        let header = ring.bytes(at, 48);
        let (count, mut next) = (u32_at(header, 12), at + u32_at(header, 16));
        let mut sum = 0;
        for _ in 0..count {
            let packet = ring.bytes(next, 48);
            let (step, len) = (u32_at(packet, 0), u32_at(packet, 12));
            let mac = usize::from(u16::from_ne_bytes([packet[24], packet[25]]));
            sum += touch(ring.bytes(next + mac, len));
            next += step;
        }
        std::hint::black_box(sum);
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        progress.add(count as u64);
        block = (block + 1) % BLOCKS;
    }
    Ok(())
}

/// Sends `count` copies of `frame`, with a kick each 64.
pub(crate) fn transmit(name: &str, frame: &[u8], count: u64) -> Outcome<()> {
    const SLOT: usize = 2048;
    const SLOTS: usize = 512;
    let request = libc::tpacket_req {
        tp_block_size: (SLOT * SLOTS) as u32,
        tp_block_nr: 1,
        tp_frame_size: SLOT as u32,
        tp_frame_nr: SLOTS as u32,
    };
    let ring = Ring::open(
        name,
        libc::tpacket_versions::TPACKET_V2 as i32,
        libc::PACKET_TX_RING,
        &request,
        SLOT * SLOTS,
    )?;
    let kick = || {
        // SAFETY: no bytes.
        unsafe { libc::send(ring.socket.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT) };
    };
    let mut slot = 0;
    for number in 0..count {
        while ring.status(slot * SLOT).load(Ordering::Acquire) != libc::TP_STATUS_AVAILABLE {
            kick();
        }
        // SAFETY: the slot is ours, inside the mapping.
        let place = unsafe { ring.base.add(slot * SLOT) };
        // SAFETY: a slot is longer than its header.
        let length = unsafe { place.add(4) }.cast::<u32>();
        // SAFETY: as above.
        let data = unsafe { place.add(32) };
        // SAFETY: the length's place in the header of a slot that is ours.
        unsafe { length.write(frame.len() as u32) };
        // SAFETY: a slot is longer than its header and the frame.
        unsafe { data.copy_from_nonoverlapping(NonNull::from(frame).cast(), frame.len()) };
        ring.status(slot * SLOT).store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
        slot = (slot + 1) % SLOTS;
        if number % 64 == 63 {
            kick();
        }
    }
    while (0..SLOTS)
        .any(|slot| ring.status(slot * SLOT).load(Ordering::Acquire) != libc::TP_STATUS_AVAILABLE)
    {
        kick();
    }
    Ok(())
}
