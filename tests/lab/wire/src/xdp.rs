//! XDP programs made elsewhere than in ringtap, for tests and examples of those: only root may load them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const MAP_CREATE: i32 = 0;
const PROG_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;
const XSKMAP: u32 = 17;
const XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;

fn bpf(command: i32, attributes: &[u32; 32]) -> io::Result<OwnedFd> {
    let size = size_of_val(attributes);
    // SAFETY: the attributes are readable during the call, and what they point to as their makers say.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A map of AF_XDP sockets by queue.
///
/// # Errors
/// The kernel's.
pub fn xskmap(queues: u32) -> io::Result<OwnedFd> {
    let mut attributes = [0; 32];
    attributes[..4].copy_from_slice(&[XSKMAP, 4, 4, queues]);
    bpf(MAP_CREATE, &attributes)
}

/// A program that drops IPv4/UDP frames from an odd source port, and sends all others to the socket of their
/// queue in `map`.
///
/// # Errors
/// The kernel's.
pub fn drop_odd_ports(map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    load(&[
        insn(0x61, 0x12, 0, 0),               // r2 = data
        insn(0x61, 0x13, 4, 0),               // r3 = data_end
        insn(0xbf, 0x24, 0, 0),               // r4 = r2
        insn(0x07, 0x04, 0, 36),              // r4 += 36
        insn(0x2d, 0x34, 11, 0),              // r4 > r3: pass
        insn(0x71, 0x25, 35, 0),              // r5 = the low byte of the source port
        insn(0x57, 0x05, 0, 1),               // r5 &= 1
        insn(0x15, 0x05, 2, 0),               // r5 == 0: redirect
        insn(0xb7, 0x00, 0, 1),               // XDP_DROP
        insn(0x95, 0x00, 0, 0),               //
        insn(0x61, 0x12, 16, 0),              // redirect: r2 = the queue
        insn(0x18, 0x11, 0, map.as_raw_fd()), // r1 = the map
        0,                                    //
        insn(0xb7, 0x03, 0, 2),               // r3 = XDP_PASS, on a miss
        insn(0x85, 0x00, 0, 51),              // bpf_redirect_map
        insn(0x95, 0x00, 0, 0),               //
        insn(0xb7, 0x00, 0, 2),               // pass: XDP_PASS
        insn(0x95, 0x00, 0, 0),
    ])
}

/// A program that puts the number of each marked IPv4/UDP frame (see [`Mark`](crate::Mark)) before it as
/// metadata, and sends it to the socket of its queue in `map`.
///
/// # Errors
/// The kernel's.
pub fn number_before(map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    load(&[
        insn(0xbf, 0x16, 0, 0),               // r6 = the context
        insn(0xb7, 0x02, 0, -8),              // r2 = -8
        insn(0x85, 0x00, 0, 54),              // bpf_xdp_adjust_meta
        insn(0x55, 0x00, 9, 0),               // no room for it: redirect
        insn(0x61, 0x63, 0, 0),               // r3 = data
        insn(0x61, 0x64, 4, 0),               // r4 = data_end
        insn(0xbf, 0x35, 0, 0),               // r5 = r3
        insn(0x07, 0x05, 0, 54),              // r5 += 54
        insn(0x2d, 0x45, 4, 0),               // r5 > r4: redirect
        insn(0x61, 0x62, 8, 0),               // r2 = data_meta
        insn(0xbf, 0x25, 0, 0),               // r5 = r2
        insn(0x07, 0x05, 0, 8),               // r5 += 8
        insn(0x3d, 0x53, 6, 0),               // r3 >= r5: write
        insn(0x61, 0x62, 16, 0),              // redirect: r2 = the queue
        insn(0x18, 0x11, 0, map.as_raw_fd()), // r1 = the map
        0,                                    //
        insn(0xb7, 0x03, 0, 2),               // r3 = XDP_PASS, on a miss
        insn(0x85, 0x00, 0, 51),              // bpf_redirect_map
        insn(0x95, 0x00, 0, 0),               //
        insn(0x79, 0x35, 46, 0),              // write: r5 = the number
        insn(0x7b, 0x52, 0, 0),               // *r2 = r5
        insn(0x05, 0x00, -9, 0),              // redirect
    ])
}

fn insn(code: u64, registers: u64, offset: i16, immediate: i32) -> u64 {
    code | registers << 8 | u64::from(offset as u16) << 16 | u64::from(immediate as u32) << 32
}

fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    let licence = c"MIT";
    let halves = |pointer: u64| [pointer as u32, (pointer >> 32) as u32];
    let mut attributes = [0; 32];
    attributes[..2].copy_from_slice(&[XDP, instructions.len() as u32]);
    attributes[2..4].copy_from_slice(&halves(instructions.as_ptr() as u64));
    attributes[4..6].copy_from_slice(&halves(licence.as_ptr() as u64));
    bpf(PROG_LOAD, &attributes)
}

/// Attaches a program in the driver, for as long as the descriptor lives.
///
/// # Errors
/// The kernel's.
pub fn attach(program: BorrowedFd<'_>, interface: &str) -> io::Result<OwnedFd> {
    const NATIVE: u32 = 4;
    let mut attributes = [0; 32];
    let index = crate::link::index(interface)?;
    attributes[..4].copy_from_slice(&[program.as_raw_fd() as u32, index, ATTACH_XDP, NATIVE]);
    bpf(LINK_CREATE, &attributes)
}

/// Puts a socket into a map, as the one of a queue.
///
/// # Errors
/// The kernel's.
pub fn register(map: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    const MAP_UPDATE_ELEM: i32 = 2;
    let value = socket.as_raw_fd() as u32;
    let (key_at, value_at) = (&raw const queue as u64, &raw const value as u64);
    let attributes: [u64; 4] = [map.as_raw_fd() as u64, key_at, value_at, 0];
    // SAFETY: the attributes, the key and the value are readable during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, MAP_UPDATE_ELEM, attributes.as_ptr(), size_of_val(&attributes))
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
