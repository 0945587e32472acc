//! Sizes that form no ring.

use ringtap::capture::{CaptureBuilder, RingLayout};
use ringtap::error::GeometryError;
use ringtap::{Capture, Error, Injector};
use ringtap_lab::namespace;

use crate::says;
use crate::setup::sender;

/// Fails before the kernel is asked: there is no such interface, and nobody notices.
fn ring() -> CaptureBuilder {
    Capture::builder().interface("nowhere0")
}

#[ringtap_lab::test]
fn sizes_of_a_ring() {
    says!(
        ring().block_count(0).build(),
        Error::Geometry(GeometryError::Zero("block_count")),
        "ring geometry: block_count is 0; it must be at least 1"
    );
    says!(
        ring().block_size(5000).build(),
        Error::Geometry(GeometryError::BlockNotPageAligned { block_size: 5000, page_size: 4096 }),
        "ring geometry: block_size 5000 is not a multiple of the page size 4096; round it up to 8192"
    );
    let frames = || ring().layout(RingLayout::Frames);
    says!(
        frames().frame_size(1001).build(),
        Error::Geometry(GeometryError::FrameNotAligned { frame_size: 1001 }),
        "ring geometry: frame_size 1001 is not a multiple of 16; round it up to 1008"
    );
    says!(
        frames().frame_size(16).build(),
        Error::Geometry(GeometryError::FrameTooSmall { frame_size: 16, .. }),
        "ring geometry: frame_size 16 cannot hold a packet's header; use at least 96"
    );
    says!(
        frames().frame_size(8192).block_size(4096).build(),
        Error::Geometry(GeometryError::FrameLargerThanBlock { frame_size: 8192, block_size: 4096 }),
        "ring geometry: frame_size 8192 is larger than block_size 4096; use larger blocks"
    );
    let most = ringtap::capture::MAX_RING_BYTES;
    says!(
        ring().block_size(1 << 30).block_count(1 << 20).build(),
        Error::Geometry(GeometryError::TooLarge { .. }),
        "ring geometry: 1048576 blocks of 1073741824 bytes are more than the {most} bytes a ring may take; use \
         fewer or smaller blocks, or more shards"
    );
    says!(
        ring().block_timeout_ms(0).build(),
        Error::Geometry(GeometryError::NoBlockTimeout),
        "ring geometry: block_timeout_ms is 0; use at least 1 (the kernel would choose for you)"
    );
    says!(
        ring().block_timeout_ms(70_000).build(),
        Error::Geometry(GeometryError::BlockTimeoutTooLong { block_timeout_ms: 70_000 }),
        "ring geometry: block_timeout_ms 70000 is too long; use at most 65535"
    );
    says!(
        ring().snap_len(0).build(),
        Error::Geometry(GeometryError::NoSnapLen),
        "ring geometry: snap_len is 0; use at least 1, or leave it unset"
    );
    says!(
        frames().offloads(true).build(),
        Error::Geometry(GeometryError::OffloadsNeedBlocks),
        "ring geometry: offloads need `RingLayout::Blocks`: a ring of frames stops for good at the first packet \
         whose offload the kernel cannot express"
    );
    says!(
        Injector::builder().interface("nowhere0").frame_count(0).build(),
        Error::Geometry(GeometryError::Zero(_)),
        "ring geometry: frame_count is 0; it must be at least 1"
    );
}

#[ringtap_lab::test]
fn sizes_of_a_umem() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let tx = || sender(&veth.left);
    says!(
        tx().frame_size(1000).build_sender(),
        Error::Geometry(GeometryError::ChunkSize { frame_size: 1000 }),
        "ring geometry: frames of a UMEM have 2048 or 4096 bytes, not 1000"
    );
    says!(
        tx().rx_tx_frames(1, 62).build(),
        Error::Geometry(GeometryError::ChunkCount { frame_count: 63, shares: 1 }),
        "ring geometry: a UMEM's frame count, over all of its sockets, is a power of two from 64 to 65536, not 63 for \
         each of 1"
    );
    says!(
        tx().rx_tx_frames(64, 0).build(),
        Error::Geometry(GeometryError::EmptyHalf),
        "ring geometry: a socket that receives and sends has frames for both; open one half with `build_receiver` or \
         `build_sender`"
    );
    says!(
        tx().headroom(4000).build_sender(),
        Error::Geometry(GeometryError::Headroom { headroom: 4000, frame_size: 4096 }),
        "ring geometry: headroom 4000 leaves nothing of a frame of 4096 bytes; use less than 3073"
    );
    let other = net.veth();
    let first = tx().umem_shares(2).build_sender().unwrap();
    says!(
        sender(&other.left).rx_tx_frames(32, 32).shared_umem(&first.umem()).build(),
        Error::Geometry(GeometryError::ShareMismatch { frame_count: 64, share: 128 }),
        "ring geometry: 64 frames were requested of a UMEM whose shares have 128; request 128"
    );
    let second = sender(&other.left).shared_umem(&first.umem());
    let _taken = second.clone().build_sender().unwrap();
    says!(
        second.clone().interface(&net.veth().left).build_sender(),
        Error::Geometry(GeometryError::NoShareLeft),
        "ring geometry: the UMEM's shares are all taken; build its first socket with more `umem_shares`"
    );
    drop(first);
    says!(
        second.build_sender(),
        Error::Geometry(GeometryError::NoSharedSocket),
        "ring geometry: the socket whose UMEM is to be shared is closed; keep it open until this one is built"
    );
}
