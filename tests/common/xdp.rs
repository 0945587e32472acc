//! What the tests of AF_XDP share.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::time::{Duration, Instant};

use ringtap::error::Step;
use ringtap::stats::XdpStats;
use ringtap::xdp::{Attach, XdpChunks, XdpProgram, XdpReceiver, XdpSender, XdpSocketBuilder};
use ringtap::{Error, XdpSocket};
use ringtap_lab::{Generator, Namespace, Tally, bootstrap, namespace, skip_for_ordinary_users};

const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace for a test that loads a program, which an ordinary user may not, whatever his namespaces.
pub(crate) fn privileged() -> Option<Namespace> {
    let net = namespace()?;
    if !bootstrap::was_root() {
        let veth = net.veth();
        let refused = XdpProgram::redirect_all(&veth.right, Attach::Auto).unwrap_err();
        assert!(refused.to_string().contains("CAP_BPF"), "{refused}");
        skip_for_ordinary_users("receiving through AF_XDP takes root");
        return None;
    }
    Some(net)
}

/// What was opened; `None`, and the test is not run, if this kernel lacks what was asked for and the error says so.
pub(crate) fn had<T>(opened: ringtap::Result<T>) -> Option<T> {
    let error = match opened {
        Ok(opened) => return Some(opened),
        Err(error) => error,
    };
    let Error::Os { step, source, .. } = &error else { panic!("{error}") };
    let is_lacking = match step {
        Step::BindMultiBuffer | Step::RegisterTxMetadata => true,
        Step::LoadProgram => source.raw_os_error() == Some(libc::EINVAL),
        Step::SetOption(_) => source.raw_os_error() == Some(libc::ENOPROTOOPT),
        _ => false,
    };
    assert!(is_lacking, "{error}");
    ringtap_lab::skip(&error.to_string());
    None
}

pub(crate) fn socket(interface: &str) -> XdpSocketBuilder {
    XdpSocket::builder().interface(interface).frame_count(1024)
}

/// Frames of [`sender`].
pub(crate) const FEW: u32 = 128;

/// Options of a sender so small that an ordinary user may lock the memory of many.
pub(crate) fn sender(interface: &str) -> XdpSocketBuilder {
    socket(interface).frame_count(FEW)
}

/// A socket or one half of it.
pub(crate) trait Counted {
    fn chunks(&mut self) -> XdpChunks;
    fn stats(&self) -> ringtap::Result<XdpStats>;
}

macro_rules! counted {
    ($($socket:ty),*) => { $(
        impl Counted for $socket {
            fn chunks(&mut self) -> XdpChunks {
                self.chunks()
            }

            fn stats(&self) -> ringtap::Result<XdpStats> {
                self.stats()
            }
        }
    )* };
}
counted!(XdpSocket, XdpReceiver, XdpSender);

/// All frames are accounted for, and once the socket is at rest nobody but the kernel has any.
pub(crate) fn assert_conserved(socket: &mut dyn Counted, frames: u32) {
    let chunks = socket.chunks();
    assert_eq!(chunks.total(), frames, "{chunks:?}");
    // Counted in the rings, not by what is missing elsewhere.
    assert_eq!((chunks.rx_rings, chunks.tx_under_way), (chunks.rx_kernel, 0), "{chunks:?}");
    assert_eq!((chunks.rx_free, chunks.rx_leased, chunks.tx_kernel), (0, 0, 0), "{chunks:?}");
    assert_eq!(socket.stats().unwrap().malformed, 0);
}

/// Sends as fast as they come out, with no more under way than the ring takes.
pub(crate) fn receive_all(
    socket: &mut XdpReceiver,
    generator: &mut Generator,
    tally: &mut Tally,
    count: u64,
) {
    let start = Instant::now();
    while tally.received() < count {
        if generator.sent() < count && generator.sent() < tally.received() + 200 {
            generator.flood(100.min(count - generator.sent()));
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{} of {count}: {:?}",
            tally.received(),
            socket.stats()
        );
        if let Some(batch) = socket.next_batch_timeout(Duration::from_millis(100)).unwrap() {
            assert!(batch.len() <= 64 && !batch.is_losing());
            batch.iter().for_each(|packet| tally.record(packet.data()));
        }
    }
}
