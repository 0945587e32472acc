//! Loading and attaching an XDP program (bpf(2)): the part that AF_XDP needs, and no more.

#![allow(unsafe_code, reason = "system calls with pointers")]

use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

const MAP_CREATE: i32 = 0;
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const MAP_GET_NEXT_KEY: i32 = 4;
const PROG_LOAD: i32 = 5;
const OBJ_GET: i32 = 7;
const OBJ_GET_INFO: i32 = 15;
const LINK_CREATE: i32 = 28;
const MAP_TYPE_LRU_HASH: u32 = 9;
pub(crate) const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// Passes the packet to the network stack (`enum xdp_action`).
const XDP_PASS: i32 = 2;

/// One instruction (`struct bpf_insn`, linux/bpf.h).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Insn {
    code: u8,
    /// Destination and source register, each a bit field of four bits in this machine's order.
    registers: u8,
    pub(crate) offset: i16,
    immediate: i32,
}

impl Insn {
    pub(crate) fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        let registers = match cfg!(target_endian = "big") {
            true => destination << 4 | source,
            false => destination | source << 4,
        };
        Self { code, registers, offset, immediate }
    }
}

const _: () = assert!(size_of::<Insn>() == 8);

/// Makes the system call with the first bytes of `union bpf_attr`; the rest counts as zero.
///
/// # Safety
/// `T` must be a `repr(C)` prefix of the attributes of `command`, and everything it points to must be valid
/// for that command.
unsafe fn bpf<T>(command: i32, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are readable for their size; the caller promises that what they point to is
    // valid.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>() as u32)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: a fresh descriptor that the kernel has just returned, which nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Creates a map from queues to AF_XDP sockets.
pub(crate) fn create_xskmap(queues: u32) -> io::Result<OwnedFd> {
    create_map(MAP_TYPE_XSKMAP, [4, 4], queues)
}

/// Creates a map with keys and values of these lengths. If the type says so, new entries replace old ones.
fn create_map(
    map_type: u32,
    [key_size, value_size]: [u32; 2],
    max_entries: u32,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
    }
    let attributes = Attributes { map_type, key_size, value_size, max_entries, map_flags: 0 };
    // SAFETY: a prefix of the attributes of this command, without pointers.
    unsafe { bpf(MAP_CREATE, &attributes) }.map(owned)
}

/// Opens the map pinned at a path of a BPF file system.
pub(crate) fn open_pinned_map(path: &CStr) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let attributes = Attributes { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: a prefix of the attributes of this command; the path is a string that lives until it returns.
    unsafe { bpf(OBJ_GET, &attributes) }.map(owned)
}

/// Returns the type of a map (`bpf_map_info`), or an error if it is none.
pub(crate) fn map_type(map: BorrowedFd<'_>) -> io::Result<u32> {
    #[repr(C)]
    struct Attributes {
        fd: u32,
        info_len: u32,
        info: u64,
    }
    // Its first members are the type and the id of the object.
    let mut info = [0_u32; 2];
    let attributes = Attributes {
        fd: map.as_raw_fd() as u32,
        info_len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the attributes of this command; the kernel writes as many bytes as there are.
    unsafe { bpf(OBJ_GET_INFO, &attributes) }?;
    Ok(info[0])
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Adds a socket to a map.
pub(crate) fn register(map: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = socket.as_raw_fd() as u32;
    let (key, value) = (std::ptr::from_ref(&queue) as u64, std::ptr::from_ref(&value) as u64);
    /// Fails if the queue already has a socket.
    const NOEXIST: u64 = 1;
    let element = Element { map: map.as_raw_fd() as u32, padding: 0, key, value, flags: NOEXIST };
    // SAFETY: the attributes of this command; key and value have four bytes each, as the map's do.
    unsafe { bpf(MAP_UPDATE_ELEM, &element) }.map(drop)
}

/// Removes the entry at `queue` from a map.
pub(crate) fn unregister(map: BorrowedFd<'_>, queue: u32) -> io::Result<()> {
    let key = std::ptr::from_ref(&queue) as u64;
    let element = Element { map: map.as_raw_fd() as u32, padding: 0, key, value: 0, flags: 0 };
    // SAFETY: the attributes of this command; the key has four bytes, as the map's has.
    unsafe { bpf(MAP_DELETE_ELEM, &element) }.map(drop)
}

/// A map from keys to values of fixed lengths, of which the least recently used are replaced where it is full.
#[derive(Debug)]
pub(crate) struct LruMap<const KEY: usize, const VALUE: usize> {
    fd: OwnedFd,
    entries: u32,
}

impl<const KEY: usize, const VALUE: usize> LruMap<KEY, VALUE> {
    pub(crate) fn new(entries: u32) -> io::Result<Self> {
        let fd = create_map(MAP_TYPE_LRU_HASH, [KEY as u32, VALUE as u32], entries)?;
        Ok(Self { fd, entries })
    }

    /// Returns the descriptor, for a program.
    pub(crate) fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Returns the number of entries there are at most.
    pub(crate) fn capacity(&self) -> u32 {
        self.entries
    }

    fn element(&self, key: Option<&[u8; KEY]>, value: u64) -> Element {
        let key = key.map_or(0, |key| key.as_ptr() as u64);
        Element { map: self.fd.as_raw_fd() as u32, padding: 0, key, value, flags: 0 }
    }

    /// Adds an entry, or replaces it.
    pub(crate) fn insert(&self, key: &[u8; KEY], value: &[u8; VALUE]) -> io::Result<()> {
        let element = self.element(Some(key), value.as_ptr() as u64);
        // SAFETY: the attributes of this command; key and value are as long as the map's.
        unsafe { bpf(MAP_UPDATE_ELEM, &element) }.map(drop)
    }

    pub(crate) fn get(&self, key: &[u8; KEY]) -> io::Result<Option<[u8; VALUE]>> {
        let mut value = [0; VALUE];
        let element = self.element(Some(key), value.as_mut_ptr() as u64);
        // SAFETY: the attributes of this command; the key is as long as the map's, and there is room for its value.
        let found = unsafe { bpf(MAP_LOOKUP_ELEM, &element) };
        missing(found.map(|_| value))
    }

    /// Removes an entry. Returns whether there was one.
    pub(crate) fn remove(&self, key: &[u8; KEY]) -> io::Result<bool> {
        let element = self.element(Some(key), 0);
        // SAFETY: the attributes of this command; the key is as long as the map's.
        let removed = unsafe { bpf(MAP_DELETE_ELEM, &element) };
        missing(removed.map(drop)).map(|was_there| was_there.is_some())
    }

    /// Returns the key after `key`, in an order of the kernel's; the first one after one that is not there.
    pub(crate) fn next_key(&self, key: Option<&[u8; KEY]>) -> io::Result<Option<[u8; KEY]>> {
        let mut next = [0; KEY];
        let element = self.element(key, next.as_mut_ptr() as u64);
        // SAFETY: the attributes of this command; the key is as long as the map's, and there is room for another.
        let found = unsafe { bpf(MAP_GET_NEXT_KEY, &element) };
        missing(found.map(|_| next))
    }
}

/// `None` for what is not there.
fn missing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the instructions that send a packet to the socket of its queue in a map, or on to the stack if
/// there is none (`bpf_redirect_map`, bpf-helpers(7)). They expect the context in r1 and end the program.
pub(crate) fn redirect(map: i32) -> [Insn; 6] {
    const REDIRECT_MAP: i32 = 51;
    [
        Insn::new(0x61, 2, 1, 16, 0), // r2 = ((struct xdp_md *)r1)->rx_queue_index
        Insn::new(0x18, 1, 1, 0, map), // r1 = the map …
        Insn::new(0x00, 0, 0, 0, 0),  // … in the second half of that instruction
        Insn::new(0xb7, 3, 0, 0, XDP_PASS), // r3 = what to do on a miss
        Insn::new(0x85, 0, 0, 0, REDIRECT_MAP), // r0 = bpf_redirect_map(r1, r2, r3)
        Insn::new(0x95, 0, 0, 0, 0),  // return r0
    ]
}

/// How a program is loaded.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Loading {
    /// Whether it gets packets of several buffers too.
    pub(crate) has_frags: bool,
    /// The interface for which alone it is, so that it may ask its driver; it cannot be attached in the stack then.
    pub(crate) bound_to: Option<u32>,
}

/// Loads an XDP program. The error contains the last words of the verifier.
pub(crate) fn load(program: &[Insn], loading: Loading) -> io::Result<OwnedFd> {
    load_with_log(program, loading, &mut []).or_else(|error| {
        if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EACCES | libc::E2BIG)) {
            return Err(error);
        }
        let mut log = vec![0; 64 << 10];
        load_with_log(program, loading, &mut log).map_err(|_| {
            log.truncate(log.iter().position(|byte| *byte == 0).unwrap_or(log.len()));
            let log = String::from_utf8_lossy(&log);
            let mut lines = log.lines().rev().filter(|line| !line.starts_with("processed "));
            match lines.next() {
                Some(words) => io::Error::new(error.kind(), format!("{error}: {words}")),
                None => error, // the verifier did not run
            }
        })
    })
}

/// Returns whether the kernel knows programs that get packets of several buffers (Linux 5.18). This is tested
/// once per process with a program that passes all packets; a problem that prevents any program from loading
/// is left for the real one to report.
pub(crate) fn knows_frags() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let pass = [Insn::new(0xb7, 0, 0, 0, XDP_PASS), Insn::new(0x95, 0, 0, 0, 0)];
        let loaded =
            load_with_log(&pass, Loading { has_frags: true, ..Loading::default() }, &mut []);
        !loaded.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
    })
}

/// Loads a program; `log` receives the verifier's reasoning as text, unless it is empty.
fn load_with_log(program: &[Insn], loading: Loading, log: &mut [u8]) -> io::Result<OwnedFd> {
    /// `BPF_F_XDP_HAS_FRAGS` and `BPF_F_XDP_DEV_BOUND_ONLY`, linux/bpf.h.
    const HAS_FRAGS: u32 = 1 << 5;
    const BOUND: u32 = 1 << 6;
    #[repr(C)]
    struct Attributes {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    let license = c"Dual MIT/GPL";
    let mut name = [0; 16];
    name[..12].copy_from_slice(b"ringtap_xdp\0");
    let attributes = Attributes {
        kind: PROG_TYPE_XDP,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kernel_version: 0,
        flags: if loading.has_frags { HAS_FRAGS } else { 0 }
            | if loading.bound_to.is_some() { BOUND } else { 0 },
        name,
        interface: loading.bound_to.unwrap_or(0),
        attach_type: if loading.bound_to.is_some() { ATTACH_XDP } else { 0 },
    };
    // The verifier gives up with EAGAIN if a signal is pending (`do_check`, kernel/bpf/verifier.c), as one for another
    // thread's end may be.
    const ATTEMPTS: u32 = 10;
    let mut attempt = 1;
    loop {
        // SAFETY: a prefix of the attributes of this command; instructions, licence and log live until it returns.
        match unsafe { bpf(PROG_LOAD, &attributes) } {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && attempt < ATTEMPTS => {
                attempt += 1;
                std::thread::yield_now();
            }
            loaded => return loaded.map(owned),
        }
    }
}

/// Attaches a program to an interface for as long as the link's descriptor is open; it is detached even if
/// the process is killed.
pub(crate) fn attach(program: BorrowedFd<'_>, index: u32, flags: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        target: u32,
        kind: u32,
        flags: u32,
    }
    let attributes =
        Attributes { program: program.as_raw_fd() as u32, target: index, kind: ATTACH_XDP, flags };
    // SAFETY: a prefix of the attributes of this command, without pointers.
    unsafe { bpf(LINK_CREATE, &attributes) }.map(owned)
}
