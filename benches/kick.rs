//! What a kick costs: `sendto` of no bytes, and SEND of no bytes and SENDMSG of nothing through io_uring,
//! alone and sixteen in an enter. `cargo bench --bench kick`
//!
//! The transmit ring is empty, so this is the price of asking, without any frame.

#![allow(unsafe_code, reason = "submits requests of its own, past the library's reactor")]

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Instant;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use ringtap::Injector;
use ringtap_lab::{Namespace, bootstrap};

const ROUNDS: usize = 9;
const KICKS: u32 = 160_000;

/// Nanoseconds a kick, of `KICKS` submitted `at_once` at a time.
fn through_ring(ring: &mut IoUring, entry: &squeue::Entry, at_once: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..KICKS / at_once {
        for _ in 0..at_once {
            // SAFETY: what the entry refers to outlives this function, which waits for each request.
            unsafe { ring.submission().push(entry) }.expect("there is room");
        }
        ring.submit_and_wait(at_once as usize).expect("submitted");
        let answers = ring.completion().map(|answer| answer.result());
        assert!(answers.filter(|&result| result == 0).count() == at_once as usize);
    }
    start.elapsed().as_nanos() as f64 / f64::from(KICKS)
}

fn with_sendto(fd: RawFd) -> f64 {
    let start = Instant::now();
    for _ in 0..KICKS {
        // SAFETY: no bytes, to nobody.
        let sent = unsafe {
            libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        assert_eq!(sent, 0);
    }
    start.elapsed().as_nanos() as f64 / f64::from(KICKS)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    bootstrap::enter()?;
    let namespace = Namespace::enter()?;
    let veth = namespace.veth();
    let injector = Injector::open(&veth.left)?;
    let fd = injector.as_fd().as_raw_fd();
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(32)
        .or_else(|_| IoUring::new(32))?;
    // SAFETY: a C struct of pointers and integers, of which none is a legal "nothing".
    let nothing: libc::msghdr = unsafe { std::mem::zeroed() };
    let flags = libc::MSG_DONTWAIT;
    let send = opcode::Send::new(Fd(fd), std::ptr::null(), 0).flags(flags).build();
    let sendmsg = opcode::SendMsg::new(Fd(fd), &raw const nothing).flags(flags as u32).build();

    let mut results: [(&str, Vec<f64>); 5] =
        ["sendto", "SEND", "SENDMSG", "SEND, 16 an enter", "SENDMSG, 16 an enter"]
            .map(|name| (name, Vec::new()));
    for _ in 0..ROUNDS {
        let round = [
            with_sendto(fd),
            through_ring(&mut ring, &send, 1),
            through_ring(&mut ring, &sendmsg, 1),
            through_ring(&mut ring, &send, 16),
            through_ring(&mut ring, &sendmsg, 16),
        ];
        for ((_, times), time) in results.iter_mut().zip(round) {
            times.push(time);
        }
    }
    println!("{:<22} {:>9} {:>17}", "kick by", "median ns", "least … most");
    for (name, times) in &mut results {
        times.sort_by(f64::total_cmp);
        let (median, least, most) = (times[ROUNDS / 2], times[0], times[ROUNDS - 1]);
        println!("{name:<22} {median:>9.0} {least:>8.0} … {most:.0}");
    }
    Ok(())
}
