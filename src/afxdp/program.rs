//! The program that redirects packets to sockets.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringtap_filter::{BpfFilter, FilterTarget};

use super::bypass::Bypass;
use super::cbpf_to_ebpf::translate;
use super::hints::{Questions, redirect_with_hints};
use super::nic::{check_tags, index_of, link_of, queue_count};
use super::orphans::{FREED_WITHIN, Place, QueueProbe};
use crate::error::{Error, Result, Step};
use crate::ring::umem::hints::XdpHints;
use crate::sys::ebpf::{self, Insn, Loading};
use crate::sys::netlink;

/// How an XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Attach {
    /// In the driver if it can, otherwise in the stack.
    #[default]
    Auto,
    /// In the driver, before anything is allocated for a packet.
    Native,
    /// In the stack: works with any driver, but is slower.
    Generic,
}

/// An XDP program that redirects the packets of each queue to the socket registered for it, and lets packets of
/// other queues pass to the stack.
///
/// It stays attached to its interface as long as a clone of it lives (a `bpf_link`): the kernel detaches it when
/// the process ends, however that happens.
#[derive(Debug, Clone)]
pub struct XdpProgram(Arc<Attached>);

#[derive(Debug)]
struct Attached {
    // In this order: no packet is redirected any more when the map is closed.
    link: Option<OwnedFd>,
    map: OwnedFd,
    interface: String,
    index: u32,
    is_generic: bool,
    /// What it tells about packets, or why nothing.
    hints: Result<XdpHints>,
    bypass: Option<Bypass>,
    /// The queues of closed sockets that did not copy.
    leaving: Mutex<Vec<QueueProbe>>,
}

/// The interfaces whose programs wait to be detached by this process, one entry for each program.
static DETACHING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// An entry of [`DETACHING`].
struct Detaching(u32);

impl Detaching {
    fn new(index: u32) -> Self {
        detaching().push(index);
        Self(index)
    }
}

impl Drop for Detaching {
    fn drop(&mut self) {
        let mut all = detaching();
        if let Some(at) = all.iter().position(|&index| index == self.0) {
            all.swap_remove(at);
        }
    }
}

fn detaching() -> MutexGuard<'static, Vec<u32>> {
    DETACHING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Attached {
    fn new(
        link: Option<OwnedFd>,
        map: OwnedFd,
        interface: String,
        index: u32,
        is_generic: bool,
        hints: Result<XdpHints>,
    ) -> Self {
        let (bypass, leaving) = (None, Mutex::default());
        Self { link, map, interface, index, is_generic, hints, bypass, leaving }
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<QueueProbe>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attached {
    /// Detaches the program once the queues are free; on another thread if they are not yet.
    ///
    /// The kernel takes a closed socket's memory from its queue a little later. If the program was detached before,
    /// virtio_net refuses that for the queues that it had for the program's sake, keeps a pointer to the memory, and
    /// crashes the kernel when the next program is attached (`virtnet_xsk_pool_disable`, seen on 7.3.4).
    fn drop(&mut self) {
        let mut leaving = std::mem::take(&mut *self.leaving());
        leaving.retain_mut(|probe| !probe.try_take());
        let Some(link) = self.link.take().filter(|_| !leaving.is_empty()) else { return };
        // Not here: this may be the thread whose reactor still has to let go of the sockets.
        let detaching = Detaching::new(self.index);
        let wait = move || {
            let give_up = Instant::now() + FREED_WITHIN;
            while !leaving.is_empty() && Instant::now() < give_up {
                std::thread::sleep(Duration::from_millis(1));
                leaving.retain_mut(|probe| !probe.try_take());
            }
            drop(link);
            drop(detaching);
        };
        // Without a thread the closure is dropped, and the link with it.
        let _ = std::thread::Builder::new().name("ringtap-detach".to_owned()).spawn(wait);
    }
}

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE`, linux/if_link.h.
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;
/// Minimum number of queues in a map: there may be more later.
const QUEUES: u32 = 256;

/// Attaches a program; also returns whether that is in the stack. An earlier program of this process goes in a moment, and
/// is waited for.
fn link(program: BorrowedFd<'_>, index: u32, attach: Attach) -> io::Result<(OwnedFd, bool)> {
    loop {
        match link_once(program, index, attach) {
            Err(error) if is_taken(&error) && detaching().contains(&index) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            linked => return linked,
        }
    }
}

fn link_once(program: BorrowedFd<'_>, index: u32, attach: Attach) -> io::Result<(OwnedFd, bool)> {
    let native = || ebpf::attach(program, index, NATIVE).map(|link| (link, false));
    let generic = || ebpf::attach(program, index, GENERIC).map(|link| (link, true));
    match attach {
        Attach::Native => native(),
        Attach::Generic => generic(),
        Attach::Auto => native().or_else(|error| match error.raw_os_error() {
            // The driver does not support this, or not with this MTU.
            Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE) => generic(),
            _ => Err(error),
        }),
    }
}

/// Whether the interface has a program already.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

/// Returns the error of a program that was not attached.
fn unattached(interface: &str, index: u32, source: io::Error) -> Error {
    if is_taken(&source) {
        let id = netlink::xdp_program_id(index).ok().flatten();
        return Error::ProgramAttached { name: interface.to_owned(), id };
    }
    Error::os(Step::AttachProgram, source).of(interface)
}

/// Checks whether this kernel and this process can load the program that redirects everything; attaches nothing.
pub(crate) fn try_program() -> Result<()> {
    let load = |source| Error::os(Step::LoadProgram, source);
    let map = ebpf::create_xskmap(1).map_err(load)?;
    let program = ebpf::redirect(map.as_raw_fd());
    ebpf::load(&program, Loading::default()).map(drop).map_err(load)
}

impl XdpProgram {
    /// Attaches a program that redirects all packets of the interface's queues that have a socket.
    ///
    /// It also tells the time at which the driver got each packet, its hash and its stripped VLAN tag, where kernel and driver
    /// can ([`hints`](Self::hints)); not the card's timestamps, which are of another clock
    /// ([`redirect_with_hints`](Self::redirect_with_hints)).
    ///
    /// # Errors
    /// [`Error::NoSuchInterface`]; [`Error::ProgramAttached`]; [`Error::Os`] with the step that failed, most often
    /// loading without `CAP_BPF` and `CAP_NET_ADMIN` in the initial namespace.
    pub fn redirect_all(interface: &str, attach: Attach) -> Result<Self> {
        Self::redirect(interface, attach, false)
    }

    /// Attaches a program like [`redirect_all`](Self::redirect_all), for sockets with
    /// [`multi_buffer`](crate::xdp::XdpSocketBuilder::multi_buffer).
    ///
    /// # Errors
    /// The errors of [`redirect_all`](Self::redirect_all).
    pub fn redirect_multi_buffer(interface: &str, attach: Attach) -> Result<Self> {
        Self::redirect(interface, attach, true)
    }

    /// Attaches a program like [`redirect_all`](Self::redirect_all) that asks for these hints, and for no others: for all
    /// packets to have the card's timestamps, or for packets without hints, which cost a packet up to 200 ns (see the guide
    /// on AF_XDP).
    ///
    /// # Errors
    /// The errors of [`redirect_all`](Self::redirect_all).
    pub fn redirect_with_hints(interface: &str, attach: Attach, hints: XdpHints) -> Result<Self> {
        let plan = Plan { interface, attach, has_frags: false, hints, bypass: None };
        plan.attach(|accept, _| Ok(accept.to_vec()))
    }

    /// Attaches a program like [`redirect_all`](Self::redirect_all) that first looks each packet up among at most `flows` flows
    /// to bypass: see [`bypass`](Self::bypass). Each packet costs some 50 ns more for that.
    ///
    /// ```no_run
    /// use ringtap::xdp::{Attach, BypassKey, BypassVerdict, XdpProgram};
    ///
    /// # fn main() -> ringtap::Result<()> {
    /// let program = XdpProgram::redirect_with_bypass("eth0", Attach::Auto, 65_536)?;
    /// let bypass = program.bypass().expect("it was asked for");
    /// let flow = BypassKey::new(([10, 0, 0, 1], 443).into(), ([10, 0, 0, 2], 50_000).into(), 6);
    /// for direction in [flow, flow.reversed()] {
    ///     bypass.insert(direction, BypassVerdict::Pass)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`redirect_all`](Self::redirect_all). The kernel's verifier refuses this program without `CAP_PERFMON`.
    pub fn redirect_with_bypass(interface: &str, attach: Attach, flows: u32) -> Result<Self> {
        let load = |source| Error::os(Step::LoadProgram, source).of(interface);
        let bypass = Some(Bypass::new(flows.max(1)).map_err(load)?);
        let (has_frags, hints) = (false, XdpHints::by_default());
        let plan = Plan { interface, attach, has_frags, hints, bypass };
        plan.attach(|accept, _| Ok(accept.to_vec()))
    }

    /// Returns the flows that the program keeps from its sockets, if it was attached with
    /// [`redirect_with_bypass`](Self::redirect_with_bypass).
    pub fn bypass(&self) -> Option<Bypass> {
        self.0.bypass.clone()
    }

    fn redirect(interface: &str, attach: Attach, has_frags: bool) -> Result<Self> {
        let hints = XdpHints::by_default();
        let plan = Plan { interface, attach, has_frags, hints, bypass: None };
        plan.attach(|accept, _| Ok(accept.to_vec()))
    }

    /// Attaches a program that redirects packets that a filter accepts, and lets all others pass to the stack.
    ///
    /// Unwanted packets thus cost next to nothing. The program sees frames as the card delivers them: a filter
    /// about VLANs is refused if the tags are not in the packets' bytes. If a packet spans several buffers, the
    /// program sees the first buffer and the packet's whole length.
    ///
    /// # Errors
    /// The errors of [`redirect_all`](Self::redirect_all), and without `CAP_PERFMON` those of the verifier, if the filter
    /// reads at offsets that the packet says, or the packet's length; an error if the filter is too long for the verifier, or
    /// uses data that only a socket has ([`BpfFilter::check_offline`]); [`Error::TagsStripped`].
    pub fn filtered(interface: &str, attach: Attach, filter: &BpfFilter) -> Result<Self> {
        let filter = filter.on(link_of(interface)?)?;
        filter.check_offline()?;
        let classic = filter.program(FilterTarget::Offline);
        // The two targets differ only in tags.
        if classic != filter.program(FilterTarget::Socket) {
            check_tags(interface)?;
        }
        let (has_frags, hints) = (ebpf::knows_frags(), XdpHints::by_default());
        let plan = Plan { interface, attach, has_frags, hints, bypass: None };
        plan.attach(|accept, has_frags| translate(classic, accept, has_frags))
    }

    /// Returns what the program tells about packets besides their bytes ([`Packet::timestamp`](crate::Packet::timestamp),
    /// [`clock`](crate::Packet::clock), [`rxhash`](crate::Packet::rxhash), [`vlan`](crate::Packet::vlan)); nothing if the
    /// program is not this crate's.
    ///
    /// # Errors
    /// [`Error::Os`] with the reason why it can tell nothing: the kernel is older than Linux 6.3 or does not describe its
    /// functions, the driver has none of this, or the program runs in the stack.
    pub fn hints(&self) -> Result<XdpHints, &Error> {
        self.0.hints.as_ref().copied()
    }

    /// Attaches a program that was loaded elsewhere, for example with aya or libbpf.
    ///
    /// The program redirects packets through `map`, a map of AF_XDP sockets (`BPF_MAP_TYPE_XSKMAP`) whose keys are
    /// queues.
    ///
    /// # Errors
    /// The errors of [`redirect_all`](Self::redirect_all).
    pub fn from_fds(
        interface: &str,
        attach: Attach,
        program: OwnedFd,
        map: OwnedFd,
    ) -> Result<Self> {
        let index = index_of(interface)?;
        let linked = link(program.as_fd(), index, attach);
        let (link, is_generic) = linked.map_err(|source| unattached(interface, index, source))?;
        let (interface, hints) = (interface.to_owned(), Ok(XdpHints::empty()));
        let attached = Attached::new(Some(link), map, interface, index, is_generic, hints);
        Ok(Self(Arc::new(attached)))
    }

    /// Uses a program that was loaded and attached elsewhere, and that redirects packets through `map`.
    ///
    /// Sockets only register in the map; the program is not detached here. Set `is_generic` if it was attached in
    /// the stack instead of the driver: sockets must then copy.
    ///
    /// # Errors
    /// [`Error::NoSuchInterface`]. A map of the wrong type is reported only when a socket registers in it.
    pub fn from_map(interface: &str, is_generic: bool, map: OwnedFd) -> Result<Self> {
        let index = index_of(interface)?;
        let interface = interface.to_owned();
        Ok(Self(Arc::new(Attached::new(
            None,
            map,
            interface,
            index,
            is_generic,
            Ok(XdpHints::empty()),
        ))))
    }

    /// Uses a program that was loaded and attached elsewhere, through its map of sockets, which is pinned at a path of a BPF
    /// file system (`/sys/fs/bpf/…`); see [`from_map`](Self::from_map).
    ///
    /// # Errors
    /// [`Error::Os`] if there is no such map, it is not for this process, or it is not a map of AF_XDP sockets.
    pub fn from_pinned(interface: &str, is_generic: bool, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |source| Error::os(Step::OpenPinnedMap, source).of(path.display());
        let text = CString::new(path.as_os_str().as_bytes());
        let text = text.map_err(|_| failed(io::Error::from_raw_os_error(libc::ENOENT)))?;
        let map = ebpf::open_pinned_map(&text).map_err(failed)?;
        // A program that is pinned is an object, too, and has a type of its own numbering.
        match ebpf::map_type(map.as_fd()) {
            Ok(ebpf::MAP_TYPE_XSKMAP) => Self::from_map(interface, is_generic, map),
            _ => Err(failed(io::Error::from_raw_os_error(libc::EINVAL))),
        }
    }

    /// Returns whether the program is detached with its last handle.
    pub(super) fn is_attached_here(&self) -> bool {
        self.0.link.is_some()
    }

    /// Keeps the program attached until a queue is free whose socket is about to be closed.
    pub(super) fn outlive(&self, probe: QueueProbe) {
        let mut leaving = self.0.leaving();
        leaving.retain(|other| other.place() != probe.place());
        leaving.push(probe);
    }

    /// Notes that a socket was bound to a queue, which therefore was free.
    pub(super) fn was_free(&self, place: Place) {
        self.0.leaving().retain(|probe| probe.place() != place);
    }

    /// Checks that the program is attached to this interface.
    pub(super) fn check(&self, index: u32, name: &str) -> Result<()> {
        if self.0.index == index {
            return Ok(());
        }
        Err(Error::OtherInterface { program: self.0.interface.clone(), socket: name.to_owned() })
    }

    /// Returns the name of the interface to which the program is attached.
    pub fn interface(&self) -> &str {
        &self.0.interface
    }

    /// Returns whether the program runs in the stack instead of the driver.
    pub fn is_generic(&self) -> bool {
        self.0.is_generic
    }

    pub(super) fn register(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<()> {
        ebpf::register(self.0.map.as_fd(), queue, socket).map_err(|source| {
            Error::os(Step::RegisterSocket, source)
                .of(format_args!("{}, queue {queue}", self.0.interface))
        })
    }

    pub(super) fn unregister(&self, queue: u32) {
        // An entry that no longer exists is already removed.
        let _ = ebpf::unregister(self.0.map.as_fd(), queue);
    }
}

/// A program that is about to be attached.
struct Plan<'a> {
    interface: &'a str,
    attach: Attach,
    has_frags: bool,
    /// The hints that are wanted.
    hints: XdpHints,
    /// Flows that never reach a socket.
    bypass: Option<Bypass>,
}

impl Plan<'_> {
    /// Attaches the program that `program` makes of the instructions for accepted packets, and of whether packets may be of
    /// several buffers: with hints, or without where these are not to be had.
    fn attach(
        self,
        program: impl Fn(&[Insn], bool) -> io::Result<Vec<Insn>>,
    ) -> Result<XdpProgram> {
        let index = index_of(self.interface)?;
        let load = |source| Error::os(Step::LoadProgram, source).of(self.interface);
        let queues = queue_count(self.interface)?.unwrap_or(0).max(QUEUES);
        let map = ebpf::create_xskmap(queues).map_err(load)?;
        let hints = if self.hints.is_empty() {
            Ok(self.hints)
        } else {
            match self.attach_with_hints(index, map.as_fd(), &program) {
                Ok((link, hints)) => {
                    return Ok(self.attached((link, false), map, index, Ok(hints)));
                }
                Err(source) if is_taken(&source) => {
                    return Err(unattached(self.interface, index, source));
                }
                Err(source) => Err(Error::os(Step::AskDriver, source).of(self.interface)),
            }
        };
        let insns = program(&ebpf::redirect(map.as_raw_fd()), self.has_frags).map_err(load)?;
        let insns = self.whole(insns);
        let loading = Loading { has_frags: self.has_frags, bound_to: None };
        let loaded = ebpf::load(&insns, loading).map_err(load)?;
        let linked = link(loaded.as_fd(), index, self.attach)
            .map_err(|source| unattached(self.interface, index, source))?;
        Ok(self.attached(linked, map, index, hints))
    }

    fn attach_with_hints(
        &self,
        index: u32,
        map: BorrowedFd<'_>,
        program: impl Fn(&[Insn], bool) -> io::Result<Vec<Insn>>,
    ) -> io::Result<(OwnedFd, XdpHints)> {
        if self.attach == Attach::Generic {
            // The program is bound to the driver, and cannot run in the stack.
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let questions = Questions::of_interface(index, self.hints)?;
        let accept = redirect_with_hints(map.as_raw_fd(), questions);
        let insns = self.whole(program(&accept, self.has_frags)?);
        let loading = Loading { has_frags: self.has_frags, bound_to: Some(index) };
        let loaded = ebpf::load(&insns, loading)?;
        let (link, _) = link(loaded.as_fd(), index, Attach::Native)?;
        Ok((link, questions.hints()))
    }

    /// Puts what comes before the rest of a program before it.
    fn whole(&self, rest: Vec<Insn>) -> Vec<Insn> {
        match &self.bypass {
            Some(bypass) => bypass.before(&rest),
            None => rest,
        }
    }

    fn attached(
        &self,
        (link, is_generic): (OwnedFd, bool),
        map: OwnedFd,
        index: u32,
        hints: Result<XdpHints>,
    ) -> XdpProgram {
        let interface = self.interface.to_owned();
        let mut attached = Attached::new(Some(link), map, interface, index, is_generic, hints);
        attached.bypass = self.bypass.clone();
        XdpProgram(Arc::new(attached))
    }
}
