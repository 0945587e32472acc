//! AF_XDP: bad input and bad luck are typed errors that name the step and the remedy, and no hang.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use crate::far_end::{FarEnd, PATIENCE};
use crate::setup::{FEW, assert_conserved, had, privileged, sender, socket};
use ringtap::error::{GeometryError, Step};
use ringtap::xdp::{
    AsyncXdpSender, AsyncXdpSocket, Attach, CopyMode, XdpProgram, XdpSender, XdpSocketBuilder,
};
use ringtap::{Error, XdpSocket, executor};
use ringtap_lab::{Generator, Tally, Traffic, child as process, limits, link, namespace, xdp};

#[ringtap_lab::test]
fn bad_input_is_an_error_that_says_what_to_do() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let tx = || sender(&veth.left);
    let geometry = |builder: XdpSocketBuilder| match builder.build().unwrap_err() {
        Error::Geometry(error) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(geometry(tx().frame_size(1000)), GeometryError::ChunkSize { frame_size: 1000 });
    for frame_count in [0, 32, 100, 1 << 17] {
        let error = geometry(tx().frame_count(frame_count));
        let frame_count = frame_count as usize;
        assert_eq!(error, GeometryError::ChunkCount { frame_count, shares: 1 });
    }
    let many = geometry(tx().umem_shares(1 << 10));
    assert_eq!(many, GeometryError::ChunkCount { frame_count: 128, shares: 1024 });
    let custom = |rx, tx_frames| match tx().rx_tx_frames(rx, tx_frames).build().unwrap_err() {
        Error::Geometry(error) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(custom(1, 62), GeometryError::ChunkCount { frame_count: 63, shares: 1 });
    assert_eq!(custom(0, 64), GeometryError::EmptyHalf);
    assert_eq!(custom(64, 0), GeometryError::EmptyHalf);
    let (headroom, frame_size) = (4096 - 1023, 4096);
    let error = geometry(tx().headroom(headroom as u32));
    assert_eq!(error, GeometryError::Headroom { headroom, frame_size });
    let error = XdpSocket::builder().build().unwrap_err();
    assert!(matches!(error, Error::InterfaceMissing));
    let error = socket("nowhere0").build().unwrap_err();
    assert!(matches!(error, Error::NoSuchInterface { .. }), "{error:?}");
    let error = tx().queue_id(7).build_sender().unwrap_err();
    assert!(matches!(error, Error::NoSuchQueue { queue: 7, count: 1, .. }), "{error:?}");
    let error = tx().copy_mode(CopyMode::ZeroCopy).build_sender().unwrap_err();
    assert!(error.to_string().contains("zero-copy"), "{error}");
    let mut first = tx().build_sender().unwrap();
    let error = tx().build_sender().unwrap_err();
    assert!(matches!(error, Error::Os { step: Step::BindQueue, .. }), "{error:?}");
    assert!(error.to_string().contains("ss -f xdp"), "{error}");
    for len in [0, 13, 1519, 5000] {
        let error = first.send(&vec![0xff; len]).unwrap_err();
        assert!(matches!(error, Error::FrameLength { .. }), "{error:?}");
    }
    assert_conserved(&mut first, FEW);
}

/// The ways in which a sender ends, the last two after so long at most.
const ENDS: [fn(XdpSender, Duration); 3] = [
    |socket, _| drop(socket),
    |socket, limit| {
        let handle = socket.stats_handle();
        assert_eq!(socket.close(limit).unwrap(), handle.stats().unwrap());
    },
    |socket, limit| {
        let handle = socket.stats_handle();
        let close = async { AsyncXdpSender::new(socket).unwrap().close(limit).await };
        assert_eq!(executor::block_on(close).unwrap(), handle.stats().unwrap());
    },
];

#[ringtap_lab::test]
fn what_is_committed_goes_out_at_the_end_and_what_cannot_is_counted() {
    // More than one kick takes before 6.17, which are 32 (`xsk_generic_xmit`).
    const COUNT: u64 = 100;
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let committed = || {
        let mut socket = sender(&veth.left).build_sender().unwrap();
        (0..COUNT).for_each(|number| socket.send(&traffic.frame(number, 0)).unwrap());
        socket
    };
    for end in ENDS {
        let far = FarEnd::new(&veth, Tally::new(&traffic, COUNT));
        let socket = committed();
        let handle = socket.stats_handle();
        end(socket, PATIENCE);
        let stats = handle.stats().unwrap();
        assert_eq!((stats.committed, stats.send_failed, stats.abandoned), (COUNT, 0, 0));
        far.wait_until(COUNT);
        far.finish().assert_complete();
    }
    link::set_up(&veth.left, false).unwrap();
    for end in ENDS {
        let socket = committed();
        let handle = socket.stats_handle();
        end(socket, Duration::from_millis(50));
        let stats = handle.stats().unwrap();
        assert_eq!((stats.committed, stats.abandoned), (COUNT, COUNT), "{stats:?}");
    }
}

#[ringtap_lab::test]
fn a_second_program_is_refused_by_the_name_of_the_first_which_goes_with_its_socket() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let socket = socket(&veth.right).attach(Attach::Native).build().unwrap();
    for attach in [Attach::Native, Attach::Generic] {
        let error = XdpProgram::redirect_all(&veth.right, attach).unwrap_err();
        let Error::ProgramAttached { name, id: Some(id) } = &error else { panic!("{error:?}") };
        assert!(*name == veth.right && error.to_string().contains(&format!("id {id}")), "{error}");
    }
    drop(socket);
    XdpProgram::redirect_all(&veth.right, Attach::Generic).unwrap();
}

#[ringtap_lab::test]
fn a_killed_process_leaves_neither_program_nor_queue() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let mut holder = process::start(module_path!(), "a_holder_of_a_program", &veth.right);
    let mut said = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().ends_with("holding")), "it came up");
    let error = XdpProgram::redirect_all(&veth.right, Attach::Native).unwrap_err();
    assert!(matches!(error, Error::ProgramAttached { .. }), "{error:?}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let mut socket = socket(&veth.right).build().unwrap();
    Generator::new(&veth.left, &Traffic::default()).flood(1);
    assert_eq!(socket.next_batch_timeout(PATIENCE).unwrap().expect("a frame").len(), 1);
}

#[ringtap_lab::test]
fn a_program_of_another_interface_and_a_queue_that_is_taken_in_its_map_are_refused() {
    let Some(net) = privileged() else { return };
    let (veth, other) = (net.veth(), net.veth());
    let mut first = socket(&veth.right).build().unwrap();
    let program = first.program().unwrap().clone();
    let error = socket(&other.right).program(program).build().unwrap_err();
    assert!(matches!(error, Error::OtherInterface { .. }), "{error:?}");
    let map = xdp::xskmap(1).unwrap();
    let wide = XdpProgram::from_map(&other.right, false, map.try_clone().unwrap()).unwrap();
    let narrow = XdpProgram::from_map(&veth.left, false, map).unwrap();
    let _holder = socket(&other.right).program(wide).build().unwrap();
    let error = socket(&veth.left).program(narrow).build().unwrap_err();
    assert!(matches!(error, Error::Os { step: Step::RegisterSocket, .. }), "{error:?}");
    assert!(error.to_string().contains("another socket has this queue"), "{error}");
    Generator::new(&veth.left, &Traffic::default()).flood(1);
    assert_eq!(first.next_batch_timeout(PATIENCE).unwrap().expect("a frame").len(), 1);
}

#[ringtap_lab::test]
fn a_frame_of_more_chunks_than_there_are_is_too_long() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    veth.set_mtu(9000);
    let enough = socket(&veth.left).frame_count(64).frame_size(2048).multi_buffer(true);
    let Some(enough) = had(enough.build_sender()) else { return };
    assert_eq!(enough.max_frame_len(), 9014);
    drop(enough);
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    veth.set_mtu(9000);
    let options = socket(&veth.left).rx_tx_frames(62, 2).frame_size(2048).multi_buffer(true);
    let mut socket = options.build().unwrap();
    assert_eq!(socket.sender().max_frame_len(), 4096);
    assert!(matches!(socket.send(&[0xff; 9000]), Err(Error::FrameLength { most: 4096, .. })));
}

#[ringtap_lab::test]
fn memory_that_may_not_be_locked_is_named() {
    process::run(module_path!(), "a_umem_beyond_the_limit", "");
}

#[ringtap_lab::test]
fn a_mtu_beyond_a_frame_is_refused_in_the_driver_and_taken_with_several_frames() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    veth.set_mtu(9000);
    let native = || socket(&veth.right).attach(Attach::Native);
    let error = native().build().unwrap_err();
    assert!(matches!(error, Error::Os { step: Step::AttachProgram, .. }), "{error:?}");
    assert!(error.to_string().contains("multi_buffer"), "{error}");
    let Some(_) = had(native().multi_buffer(true).build()) else { return };
    let auto = socket(&veth.right).build().unwrap();
    assert!(auto.program().unwrap().is_generic(), "in the stack, where the driver cannot");
}

#[ringtap_lab::test]
fn what_the_far_end_does_not_take_is_counted_and_holds_up_nothing() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic { len: 1400, varied: false, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, 40));
    let mut tx = sender(&veth.left).build_sender().unwrap();
    let mut send = |range: std::ops::Range<u64>| {
        range.for_each(|number| tx.send(&traffic.frame(number, 0)).unwrap());
        tx.flush().unwrap();
        assert!(tx.drain(PATIENCE).unwrap());
        let stats = tx.stats().unwrap();
        (stats.committed, stats.send_failed)
    };
    assert_eq!(send(0..10), (10, 0));
    // Only the far end: this one's MTU says nothing of it.
    veth.set_mtu_of_right(1000);
    assert_eq!(send(10..20), (20, 10), "each was refused");
    veth.set_mtu_of_right(1500);
    assert_eq!(send(20..40), (40, 10));
    far.wait_until(30);
    assert_eq!(far.finish().received(), 30);
    assert_conserved(&mut tx, FEW);
}

#[ringtap_lab::test]
fn frames_wait_while_the_interface_is_down_and_go_when_it_is_up() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let mut tx = sender(&veth.left).build_sender().unwrap();
    veth.down(); // the far end: no carrier
    tx.send(&traffic.frame(99, 0)).unwrap();
    tx.flush().unwrap();
    let stats = tx.stats().unwrap();
    assert_eq!((stats.committed, stats.send_failed), (1, 1), "lost, and counted");
    link::set_up(&veth.left, false).unwrap();
    (0..10).for_each(|number| tx.send(&traffic.frame(number, 0)).unwrap());
    let error = tx.flush().unwrap_err();
    assert!(matches!(&error, Error::LinkDown { name } if *name == veth.left), "{error:?}");
    veth.up();
    let far = FarEnd::new(&veth, Tally::new(&traffic, 10));
    tx.flush().unwrap();
    far.wait_until(10);
    far.finish().assert_complete();
    veth.delete();
    tx.send(&traffic.frame(0, 0)).unwrap();
    let error = tx.flush().unwrap_err();
    assert!(matches!(error, Error::InterfaceGone { .. }), "{error:?}");
}

#[ringtap_lab::test]
fn a_removed_interface_ends_a_wait_and_one_that_was_down_goes_on() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let mut socket = socket(&veth.right).build().unwrap();
    let mut generator = Generator::new(&veth.left, &Traffic::default());
    veth.down();
    veth.up();
    generator.flood(1);
    assert_eq!(socket.next_batch_timeout(PATIENCE).unwrap().expect("a frame").len(), 1);
    let gone = veth.clone();
    let removing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        gone.delete();
    });
    let error = socket.next_batch_timeout(PATIENCE).unwrap_err();
    assert!(matches!(&error, Error::InterfaceGone { name } if *name == veth.right), "{error:?}");
    removing.join().unwrap();
    let error = executor::block_on(async {
        let mut socket = AsyncXdpSocket::new(socket).unwrap();
        socket.next_batch().await.unwrap_err()
    });
    assert!(matches!(error, Error::InterfaceGone { .. }), "{error:?}");
}

#[ringtap_lab::test]
fn even_a_wait_of_no_time_notices_removal() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let mut receiver = socket(&veth.right).build_receiver().unwrap();
    veth.delete();
    let start = std::time::Instant::now();
    loop {
        match receiver.next_batch_timeout(Duration::ZERO) {
            Ok(None) => assert!(start.elapsed() < PATIENCE, "it is never noticed"),
            Err(Error::InterfaceGone { .. }) => break,
            other => panic!("{other:?}"),
        }
    }
}

mod child {
    use super::*;

    /// Holds the program of the interface that it is given, until it is killed.
    #[ringtap_lab::test]
    fn a_holder_of_a_program() {
        let Some(interface) = process::value() else { return };
        let _socket = socket(&interface).attach(Attach::Native).build().unwrap();
        println!("\nholding");
        std::thread::sleep(3 * PATIENCE);
    }

    #[ringtap_lab::test]
    fn a_umem_beyond_the_limit() {
        const NET_RAW: u32 = 1 << 13;
        if process::value().is_none() {
            return;
        }
        let net = ringtap_lab::Namespace::enter().unwrap();
        let veth = net.veth();
        limits::set(libc::RLIMIT_MEMLOCK, 2 << 20);
        limits::keep_capabilities(NET_RAW); // without CAP_IPC_LOCK, as any ordinary user
        let tx = |frames| socket(&veth.left).frame_count(frames).build_sender();
        let error = tx(4096).unwrap_err();
        assert!(matches!(error, Error::Os { step: Step::RegisterUmem, .. }), "{error:?}");
        assert!(error.to_string().contains("RLIMIT_MEMLOCK"), "{error}");
        tx(64).expect("a small one fits");
        for _ in 0..100 {
            // The memory of a closed one counts until a worker of the kernel frees it.
            tx(256).expect("what was closed takes nothing from the next");
        }
    }
}
