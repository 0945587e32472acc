//! The kernel's verdict on a program and bytes, without any privilege: a filter on a pair of sockets.

use std::io;
use std::os::unix::net::UnixDatagram;

use ringtap::filter::BpfInsn;
use ringtap_lab::bpf;

/// The kernel's verdict: `None` where it refuses the program.
pub(crate) fn verdict(program: &[BpfInsn], bytes: &[u8]) -> Option<bool> {
    let (from, to) = UnixDatagram::pair().expect("a pair of sockets");
    let program: Vec<_> = program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    if !bpf::attach_classic(&to, &program) {
        return None;
    }
    // What is rejected is sent and never comes.
    from.send(bytes).expect("sent");
    to.set_nonblocking(true).expect("not blocking");
    match to.recv(&mut []) {
        Ok(_) => Some(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(false),
        Err(error) => panic!("{error}"),
    }
}
