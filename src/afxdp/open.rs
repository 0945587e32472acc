//! The opening sequence of an AF_XDP socket: UMEM, rings, bind, program. No other order works.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bound::{Bound, Parts};
use super::builder::{CopyMode, Halves, HugePages, TxChecksum, XdpSocketBuilder};
use super::nic::{asker, hardware_of, index_of, queue_count};
use super::orphans::{self, Orphans, Place, QueueProbe};
use super::program::XdpProgram;
use super::receiver::{Filled, XdpReceiver};
use super::sender::{TxOptions, XdpSender};
use super::socket::XdpSocket;
use crate::error::{Error, GeometryError, Result, Step};
use crate::interface::TagTaker;
use crate::ring::umem::{Chunk, Umem};
use crate::ring::xsk_ring::{Consumer, Descriptor, Entry, IndexLayout, IndexRing, Producer};
use crate::sys::netdev::Netdev;
use crate::sys::xdp::{self, UmemSpec, Which};
use crate::sys::{Mapping, packet_socket, sockopt};
use crate::trace;

/// How long to try a queue that is busy: its socket may have been closed by another process just now.
const BUSY_FOR: Duration = Duration::from_secs(1);

impl XdpSocketBuilder {
    /// Opens a socket that receives and sends, and attaches a program.
    ///
    /// # Errors
    /// [`Error::InterfaceMissing`], [`Error::Geometry`], [`Error::NoSuchInterface`], [`Error::NoSuchQueue`];
    /// [`Error::Os`] with the step that failed and its remedy: memory that may not be locked, a queue that is taken
    /// or absent, or zero-copy that the driver does not support; also the errors of [`XdpProgram::redirect_all`].
    pub fn build(self) -> Result<XdpSocket> {
        let (receiver, sender) = self.open(Halves::Both)?;
        let both = receiver.zip(sender).expect("there are frames for both, which was checked");
        Ok(XdpSocket::join(both.0, both.1))
    }

    /// Opens a socket that only receives, and attaches a program. It gets all frames of the UMEM.
    ///
    /// # Errors
    /// The errors of [`build`](Self::build).
    pub fn build_receiver(self) -> Result<XdpReceiver> {
        Ok(self.open(Halves::Rx)?.0.expect("all frames are for receiving"))
    }

    /// Opens a socket that only sends. It gets all frames of the UMEM.
    ///
    /// This needs no privilege but `CAP_NET_RAW`, and no program, except for drivers that send without copies only
    /// while one is attached. A [`program`](Self::program) that is set is kept attached.
    ///
    /// # Errors
    /// The errors of [`build`](Self::build).
    pub fn build_sender(self) -> Result<XdpSender> {
        Ok(self.open(Halves::Tx)?.1.expect("all frames are for sending"))
    }

    fn open(mut self, halves: Halves) -> Result<Opened> {
        self.halves = halves;
        let opening = trace::opening("xdp", self.interface.as_deref());
        let opened = open(&self).map_err(|error| error.of(self.object()))?;
        opening.done();
        Ok(opened)
    }

    /// Returns the object that the builder's errors name.
    fn object(&self) -> String {
        format!("{}, queue {}", self.interface.as_deref().unwrap_or_default(), self.queue())
    }
}

type Opened = (Option<XdpReceiver>, Option<XdpSender>);

fn open(options: &XdpSocketBuilder) -> Result<Opened> {
    let opened = open_once(options)?;
    let Some(source) = refused_kick(&opened) else { return Ok(opened) };
    if options.copy_mode != CopyMode::Auto || options.shared.is_some() {
        return Err(Error::os(Step::KickWithoutProgram, source));
    }
    drop(opened);
    open_once(&options.clone().copy_mode(CopyMode::Copy))
}

/// Returns the error of a first kick if the driver sends without copies only while an XDP program is attached, and
/// none is.
///
/// Such drivers return EINVAL (`igb_xsk_wakeup`, `i40e_xsk_wakeup`, `ice_xsk_wakeup`) or ENXIO
/// (`ixgbe_xsk_wakeup`). A driver whose link is down does not report this yet: the sender's own kicks will.
fn refused_kick(opened: &Opened) -> Option<io::Error> {
    let (None, Some(sender)) = opened else { return None };
    if !sender.is_zerocopy() {
        return None;
    }
    let give_up = Instant::now() + BUSY_FOR;
    loop {
        let errno = packet_socket::kick(sender.as_fd()).err()?;
        match errno.raw_os_error() {
            Some(libc::EINVAL | libc::ENXIO) => return Some(errno),
            Some(libc::EAGAIN) if Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(5)); // the driver is setting the queue up
            }
            _ => return None,
        }
    }
}

fn open_once(options: &XdpSocketBuilder) -> Result<Opened> {
    let name = options.interface.as_deref().ok_or(Error::InterfaceMissing)?;
    options.check()?;
    let (index, hardware, asker) = (index_of(name)?, hardware_of(name)?, asker()?);
    let (rx, tx) = options.frames();
    let socket = xdp::open()?;
    sockopt::set_busy_poll(socket.as_fd(), &options.busy_poll)?;
    let (umem, has_huge_pages, orphans) = umem(options, socket.as_fd())?;
    let rings = rings(socket.as_fd(), rx, tx)?;
    let has_program = rx > 0 || options.has_program();
    let program = has_program.then(|| options.attach_program()).transpose()?;
    if let Some(program) = &program {
        program.check(index, name)?;
    }
    // In the namespace of the socket.
    let probe = umem.is_shared().then(|| QueueProbe::new(index, options.queue())).transpose()?;
    // For sockets that may turn out not to copy.
    let may_leave_slowly = options.copy_mode != CopyMode::Copy
        && program
            .as_ref()
            .is_some_and(|program| program.is_attached_here() && !program.is_generic());
    let leaving = may_leave_slowly.then(|| QueueProbe::new(index, options.queue())).transpose()?;
    let membership = options.promiscuous.then(|| promiscuous(index)).transpose()?;
    // The last step before binding, so that a socket that cannot be opened uses up no share.
    let mut share = umem.take_share().ok_or(GeometryError::NoShareLeft)?;
    let for_tx = share.chunks.split_off(rx as usize);
    let Rings { fill, completion, rx, tx } = rings;
    let filled = Filled::new(fill, share, &umem);
    if let Err(error) = bind(options, &socket, index, program.as_ref()) {
        let mut share = filled.take_back(&umem);
        share.chunks.extend(for_tx);
        umem.return_share(share);
        return Err(error);
    }
    let place = Place::new(socket.as_fd(), index, options.queue());
    orphans::let_go(place);
    if let Some(program) = &program {
        program.was_free(place);
    }
    let is_zerocopy = xdp::is_zerocopy(socket.as_fd())?;
    let leaving = leaving.filter(|_| is_zerocopy);
    let tag_taker = TagTaker::of(Netdev(asker.as_fd()), name, index);
    let (name, queue) = (name.to_owned(), options.queue());
    let (asks, multi_buffer, need_wakeup) = match &options.shared {
        Some(shared) => (shared.asks, shared.multi_buffer, shared.need_wakeup),
        None => (options.asks(), options.multi_buffer, options.need_wakeup),
    };
    let parts = Parts {
        socket,
        asker,
        name,
        index,
        queue,
        hardware,
        tag_taker,
        is_zerocopy,
        receives: rx.is_some(),
        has_huge_pages,
        program,
        asks,
        multi_buffer,
        need_wakeup,
        membership,
        probe,
        leaving,
    };
    let bound = Arc::new(Bound::new(parts, &umem, filled.share(), &orphans));
    let number = filled.share();
    let receiver = rx.map(|rx| XdpReceiver::new(rx, filled, Arc::clone(&umem), Arc::clone(&bound)));
    let sender = tx.map(|tx| sender((tx, completion), (number, for_tx), &bound));
    let sender = sender.transpose()?;
    if let Some(receiver) = &receiver {
        if bound.check_tags().is_err() {
            trace::tags_are_lost(&bound.name);
        }
        if !options.is_closed {
            receiver.open_intake()?; // only now that there are frames to receive into
        }
    }
    Ok((receiver, sender))
}

/// The four rings of a socket; the rings of an absent half are `None`.
struct Rings {
    fill: Producer<u64>,
    completion: Consumer<u64>,
    rx: Option<Consumer<Descriptor>>,
    tx: Option<Producer<Descriptor>>,
}

fn rings(socket: BorrowedFd<'_>, rx: u32, tx: u32) -> Result<Rings> {
    // Each ring has room for all frames, as packets forwarded from a shared UMEM need entries too. The kernel
    // requires both of the UMEM's rings, whichever is used.
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

/// Returns the UMEM (new or another socket's), whether it is in huge pages, and what its closed sockets have left.
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
            Err(_) => {} // `has_huge_pages` tells the caller
        }
    }
    let mapping =
        Mapping::anonymous(bytes, false).map_err(|source| Error::RingTooLarge { bytes, source })?;
    Ok((mapping, false))
}

/// Binds the socket; a queue whose last socket was just closed stays busy for a moment.
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
    // A shared UMEM has the mode of its first socket.
    if shared.as_ref().is_some_and(|first| !first.is_zerocopy)
        && options.copy_mode == CopyMode::ZeroCopy
    {
        let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        return Err(Error::os(Step::BindQueue, source));
    }
    let shared = shared.as_ref().map(|bound| bound.fd());
    let give_up = Instant::now() + BUSY_FOR;
    let place = Place::new(socket.as_fd(), index, options.queue());
    let may_wait = || Instant::now() < give_up || orphans::was_just_closed(place);
    loop {
        match xdp::bind(socket.as_fd(), (index, options.queue()), flags, shared) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && may_wait() => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(source) => return Err(unbound(options, index, source)),
        }
    }
}

/// Returns the error of a failed bind, with the cause as far as it can be determined.
fn unbound(options: &XdpSocketBuilder, index: u32, source: io::Error) -> Error {
    let name = options.interface.clone().unwrap_or_default();
    if source.raw_os_error() == Some(libc::EINVAL)
        && let Ok(Some(count)) = queue_count(&name)
        && options.queue() >= count
    {
        return options.no_such_queue(options.queue(), count);
    }
    let mode = match options.copy_mode {
        CopyMode::ZeroCopy => libc::XDP_ZEROCOPY,
        CopyMode::Auto | CopyMode::Copy => libc::XDP_COPY,
    };
    let can = |flags| {
        options.shared.is_none()
            && QueueProbe::new(index, options.queue()).is_ok_and(|probe| probe.bind(flags).is_ok())
    };
    let step = if options.multi_buffer && can(mode) {
        Step::BindMultiBuffer
    } else if mode == libc::XDP_ZEROCOPY && can(libc::XDP_COPY) {
        Step::BindZeroCopy
    } else {
        Step::BindQueue
    };
    Error::os(step, source)
}

/// Opens a socket that keeps an interface promiscuous, which an AF_XDP socket cannot do.
fn promiscuous(index: u32) -> Result<OwnedFd> {
    let socket = packet_socket::open()?;
    packet_socket::promiscuous(socket.as_fd(), index)?;
    Ok(socket)
}

/// Creates the sending half, with its chunks.
fn sender(
    (tx, completion): (Producer<Descriptor>, Consumer<u64>),
    chunks: (u32, Vec<Chunk>),
    bound: &Arc<Bound>,
) -> Result<XdpSender> {
    let options = TxOptions {
        multi_buffer: bound.multi_buffer,
        asks: bound.asks,
        is_told_to_kick: bound.is_zerocopy && bound.need_wakeup,
    };
    let parts = (bound.umem(), Arc::clone(bound));
    XdpSender::new(tx, completion, chunks, parts, options)
}
