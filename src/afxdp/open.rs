//! The opening sequence of an AF_XDP socket: UMEM, rings, bind, program; none works in another order.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bound::{Bound, Parts, asker, hardware_of, index_of, queue_count};
use super::builder::{CopyMode, HugePages, TxChecksum, XdpSocketBuilder};
use super::orphans::{self, Orphans, Place, QueueProbe};
use super::program::XdpProgram;
use super::receiver::XdpReceiver;
use super::sender::{TxOptions, XdpSender};
use super::shared::Shared;
use super::socket::XdpSocket;
use crate::interface::TagTaker;
use crate::ring::index::{Consumer, Descriptor, Entry, IndexLayout, IndexRing, Producer};
use crate::ring::umem::{Share, Umem};
use crate::sys::netdev::Asker;
use crate::sys::xdp::{self, UmemSpec, Which};
use crate::sys::{Mapping, packet_socket, sockopt};
use crate::{Error, GeometryError, Result, Step, trace};

/// How long the queue of a socket that was just closed may stay busy.
const BUSY_FOR: Duration = Duration::from_secs(1);

pub(super) fn open(options: &XdpSocketBuilder) -> Result<XdpSocket> {
    let name = options.interface.as_deref().ok_or(Error::InterfaceMissing)?;
    options.check()?;
    let (index, hardware, asker) = (index_of(name)?, hardware_of(name)?, asker()?);
    let (rx, tx) = options.frames();
    let socket = xdp::open()?;
    sockopt::set_busy_poll(socket.as_fd(), &options.busy_poll)?;
    let (umem, has_huge_pages, orphans) = umem(options, socket.as_fd())?;
    let rings = rings(socket.as_fd(), rx, tx)?;
    let program = (rx > 0).then(|| options.attach_program()).transpose()?;
    if let Some(program) = &program {
        program.check(index, name)?;
    }
    // While nothing is spent yet, in the namespace of the socket.
    let probe = umem.is_shared().then(|| QueueProbe::new(index, options.queue)).transpose()?;
    bind(options, &socket, index, program.as_ref())?;
    orphans::let_go(Place::new(socket.as_fd(), index, options.queue));
    let is_zerocopy = xdp::is_zerocopy(socket.as_fd())?;
    if options.copy_mode == CopyMode::ZeroCopy && !is_zerocopy {
        // A shared UMEM has the mode of its first socket.
        let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        return Err(Error::os(Step::BindQueue, source));
    }
    let tag_taker = TagTaker::of(Asker(asker.as_fd()), name, index);
    let membership = options.promiscuous.then(|| promiscuous(index)).transpose()?;
    let (name, queue) = (name.to_owned(), options.queue);
    let parts = Parts {
        socket,
        asker,
        name,
        index,
        queue,
        hardware,
        tag_taker,
        is_zerocopy,
        has_huge_pages,
        program,
        membership,
        probe,
    };
    let (asks, multi_buffer) = match &options.shared {
        Some(shared) => (shared.asks, shared.multi_buffer),
        None => (options.asks(), options.multi_buffer),
    };
    // Near the end: a socket that cannot be opened should spend none.
    let share = umem.take_share().ok_or(GeometryError::NoShareLeft)?;
    let bound = Arc::new(Bound::new(parts, &umem, share.number, &orphans));
    let socket =
        halves(options, rings, share, Shared { umem, bound, orphans, asks, multi_buffer })?;
    if rx > 0 && socket.check_tags().is_err() {
        trace::tags_are_lost(socket.interface());
    }
    match options.is_closed {
        true => {}
        false => socket.open_intake()?, // only now: there is something to receive into
    }
    Ok(socket)
}

/// The four rings of a socket; those of a half that is not there are missing.
struct Rings {
    fill: Producer<u64>,
    completion: Consumer<u64>,
    rx: Option<Consumer<Descriptor>>,
    tx: Option<Producer<Descriptor>>,
}

fn rings(socket: BorrowedFd<'_>, rx: u32, tx: u32) -> Result<Rings> {
    // What is sent on from a shared UMEM comes on top: room for all of the frames in each ring. The kernel
    // wants both of the UMEM's rings, whichever is used.
    let size = (rx + tx).next_power_of_two();
    let rings = Rings {
        fill: Producer::new(create::<u64>(socket, Which::Fill, size)?),
        completion: Consumer::new(create::<u64>(socket, Which::Completion, size)?),
        rx: (rx > 0)
            .then(|| Ok::<_, Error>(Consumer::new(create(socket, Which::Rx, size)?)))
            .transpose()?,
        tx: (tx > 0)
            .then(|| Ok::<_, Error>(Producer::new(create(socket, Which::Tx, size)?)))
            .transpose()?,
    };
    if tx > 0 {
        xdp::raise_budget(socket, size);
    }
    Ok(rings)
}

fn create<T: Entry>(socket: BorrowedFd<'_>, which: Which, size: u32) -> Result<Arc<IndexRing<T>>> {
    let (mapping, offset) = xdp::create_ring(socket, which, size, size_of::<T>())?;
    let layout = IndexLayout {
        producer: offset.producer as usize,
        consumer: offset.consumer as usize,
        flags: offset.flags as usize,
        entries: offset.desc as usize,
        size,
    };
    Ok(Arc::new(IndexRing::new(mapping, layout)))
}

/// The UMEM, this socket's own or another's, whether it is in huge pages, and what its closed sockets have left.
fn umem(
    options: &XdpSocketBuilder,
    socket: BorrowedFd<'_>,
) -> Result<(Arc<Umem>, bool, Arc<Orphans>)> {
    if let Some(shared) = &options.shared {
        let bound = shared.bound.upgrade().ok_or(GeometryError::NoSharedSocket)?;
        return Ok((Arc::clone(&shared.umem), bound.has_huge_pages, Arc::clone(&shared.orphans)));
    }
    let (rx, tx) = options.frames();
    let bytes = (rx + tx) as usize * options.shares as usize * options.frame_size as usize;
    let (mapping, has_huge_pages) = memory(options.huge_pages, bytes)?;
    if let Some(node) = options.numa_node {
        mapping.bind_to_node(node).map_err(|source| Error::os(Step::BindMemory, source))?;
    }
    let umem = Umem::new(mapping, options.frame_size, options.asks().len(), options.shares);
    let spec = UmemSpec {
        base: umem.base(),
        len: umem.len() as u64,
        chunk_size: umem.chunk_size(),
        headroom: options.headroom,
        metadata: options.asks().len(),
        software_checksums: options.tx_checksum == TxChecksum::Software,
    };
    xdp::register_umem(socket, &spec)?;
    let umem = Arc::new(umem);
    let orphans = Orphans::new(&umem);
    Ok((umem, has_huge_pages, orphans))
}

fn memory(choice: HugePages, bytes: usize) -> Result<(Mapping, bool)> {
    if choice != HugePages::No {
        match Mapping::anonymous(bytes, true) {
            Ok(mapping) => return Ok((mapping, true)),
            Err(source) if choice == HugePages::Require => {
                return Err(Error::os(Step::MapHugePages, source));
            }
            Err(_) => {} // the caller is told by `has_huge_pages`
        }
    }
    let mapping =
        Mapping::anonymous(bytes, false).map_err(|source| Error::RingTooLarge { bytes, source })?;
    Ok((mapping, false))
}

/// Binds; a queue whose last socket was just closed stays busy for a moment.
fn bind(
    options: &XdpSocketBuilder,
    socket: &OwnedFd,
    index: u32,
    program: Option<&XdpProgram>,
) -> Result<()> {
    let mut flags = match options.copy_mode {
        CopyMode::Auto if program.is_some_and(XdpProgram::is_generic) => libc::XDP_COPY,
        CopyMode::Auto => 0,
        CopyMode::Copy => libc::XDP_COPY,
        CopyMode::ZeroCopy => libc::XDP_ZEROCOPY,
    };
    if options.need_wakeup {
        flags |= libc::XDP_USE_NEED_WAKEUP;
    }
    if options.multi_buffer {
        flags |= libc::XDP_USE_SG;
    }
    let shared = match &options.shared {
        Some(shared) => Some(shared.bound.upgrade().ok_or(GeometryError::NoSharedSocket)?),
        None => None,
    };
    let shared = shared.as_ref().map(|bound| bound.fd());
    let give_up = Instant::now() + BUSY_FOR;
    loop {
        match xdp::bind(socket.as_fd(), (index, options.queue), flags, shared) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(source) => return Err(unbound(options, source)),
        }
    }
}

/// Why a socket could not be bound.
fn unbound(options: &XdpSocketBuilder, source: io::Error) -> Error {
    let name = options.interface.clone().unwrap_or_default();
    match queue_count(&name) {
        Ok(count) if source.raw_os_error() == Some(libc::EINVAL) && options.queue >= count => {
            options.no_such_queue(options.queue, count)
        }
        _ => Error::os(Step::BindQueue, source),
    }
}

/// A socket that keeps an interface promiscuous: one of AF_XDP cannot.
fn promiscuous(index: u32) -> Result<OwnedFd> {
    let socket = packet_socket::open()?;
    packet_socket::promiscuous(socket.as_fd(), index)?;
    Ok(socket)
}

/// The two halves, and the frames of a share shared out between them.
fn halves(
    options: &XdpSocketBuilder,
    rings: Rings,
    share: Share,
    shared: Shared,
) -> Result<XdpSocket> {
    let (rx_frames, _) = options.frames();
    let Shared { umem, bound, asks, multi_buffer, .. } = &shared;
    let Share { number, mut chunks, holder } = share;
    let for_tx = chunks.split_off(rx_frames as usize);
    let receiver = rings.rx.map(|rx| {
        let share = Share { number, chunks, holder };
        XdpReceiver::new(rx, rings.fill, share, Arc::clone(umem), Arc::clone(bound))
    });
    let tx_options = TxOptions {
        multi_buffer: *multi_buffer,
        asks: *asks,
        is_told_to_kick: bound.is_zerocopy && options.need_wakeup,
    };
    let sender = rings.tx.map(|tx| {
        let parts = (Arc::clone(umem), Arc::clone(bound));
        XdpSender::new(tx, rings.completion, (number, for_tx), parts, tx_options)
    });
    Ok(XdpSocket::new(receiver, sender.transpose()?, shared))
}
