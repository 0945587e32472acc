//! AF_XDP over veth: frames compared byte by byte at the far end, chunks counted at the end of every test.

use std::time::{Duration, Instant};

use crate::far_end::{FarEnd, PATIENCE};
use crate::setup::{FEW, assert_conserved, privileged, receive_all, sender, socket};
use ringtap::xdp::{Attach, XdpProgram, XdpReceiver, XdpSender};
use ringtap_lab::{Generator, Tally, Traffic, frames, namespace};

#[ringtap_lab::test]
fn a_million_frames_arrive_once_in_order_in_the_driver_and_in_the_stack() {
    for attach in [Attach::Native, Attach::Generic] {
        let Some(net) = privileged() else { return };
        let veth = net.veth();
        let count = frames(1_000_000);
        let options = socket(&veth.right).attach(attach);
        let mut socket = options.build_receiver().unwrap();
        assert_eq!(socket.program().unwrap().is_generic(), attach == Attach::Generic);
        assert!(!socket.is_zerocopy());
        let traffic = Traffic { flows: 16, varied: false, ..Traffic::default() };
        let mut tally = Tally::new(&traffic, count);
        let mut generator = Generator::new(&veth.left, &traffic);
        receive_all(&mut socket, &mut generator, &mut tally, count);
        tally.assert_complete();
        let stats = socket.stats().unwrap();
        assert_eq!((stats.delivered, stats.rx_ring_full, stats.rx_dropped), (count, 0, 0));
        assert_conserved(&mut socket, 1024);
    }
}

#[ringtap_lab::test]
fn a_million_frames_are_sent_once_in_order_without_root() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let count = frames(1_000_000);
    let traffic = Traffic { flows: 16, ..Traffic::default() };
    let far = FarEnd::new(&veth, Tally::new(&traffic, count));
    let mut socket = sender(&veth.left).build_sender().unwrap();
    assert!(socket.program().is_none());
    for number in 0..count {
        socket.send(&traffic.frame(number, 0)).unwrap();
        if number % 50_000 == 0 {
            socket.flush().unwrap();
            far.wait_until(number.saturating_sub(50_000));
        }
    }
    assert!(socket.drain(PATIENCE).unwrap());
    far.wait_until(count);
    far.finish().assert_complete();
    assert_eq!(socket.stats().unwrap().committed, count);
    assert_conserved(&mut socket, FEW);
}

#[ringtap_lab::test]
fn every_queue_of_an_interface_has_its_socket_and_keeps_its_order() {
    const COUNT: u64 = 20_000;
    let Some(net) = privileged() else { return };
    let veth = net.veth_with_queues(4);
    let program = XdpProgram::redirect_all(&veth.right, Attach::Native).unwrap();
    let open = |queue| {
        let options = socket(&veth.right).program(program.clone());
        options.queue_id(queue).build_receiver().unwrap()
    };
    let mut sockets: Vec<XdpReceiver> = (0..4).map(open).collect();
    // Sent by queue: TX queue N of one end is RX queue N of the other.
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let mut senders: Vec<XdpSender> =
        (0..4).map(|queue| socket(&veth.left).queue_id(queue).build_sender().unwrap()).collect();
    let mut tallies: Vec<Tally> = (0..4).map(|_| Tally::new(&traffic, COUNT)).collect();
    for number in 0..COUNT {
        let queue = (number % 4) as usize;
        senders[queue].send(&traffic.frame(number, 0)).unwrap();
        if number % 400 == 399 {
            senders.iter_mut().for_each(|sender| assert!(sender.drain(PATIENCE).unwrap()));
            for (socket, tally) in sockets.iter_mut().zip(&mut tallies) {
                while tally.received() < (number + 1) / 4 {
                    let batch = socket.next_batch_timeout(PATIENCE).unwrap().expect("frames");
                    batch.iter().for_each(|packet| tally.record(packet.data()));
                }
            }
        }
    }
    let mut all = Tally::new(&traffic, COUNT);
    for (queue, tally) in tallies.iter().enumerate() {
        assert_eq!(tally.flows(), [queue as u32], "a flow a queue");
        all.merge(tally);
    }
    all.assert_complete();
    sockets.iter_mut().for_each(|socket| assert_conserved(socket, 1024));
    senders.iter_mut().for_each(|socket| assert_conserved(socket, 1024));
}

#[ringtap_lab::test]
fn an_echo_answers_every_frame_on_the_same_socket() {
    const COUNT: u64 = 5_000;
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let mut echo = socket(&veth.right).build().unwrap();
    let traffic = Traffic::default();
    let mut generator = Generator::new(&veth.left, &traffic);
    let back = ringtap_lab::Veth { left: veth.right.clone(), right: veth.left.clone() };
    let far = FarEnd::new(&back, Tally::new(&traffic, COUNT));
    while generator.sent() < COUNT {
        generator.flood(100);
        let mut answered = 0;
        while answered < 100 {
            let batch = echo.next_batch_timeout(PATIENCE).unwrap().expect("a frame");
            for packet in &batch {
                echo.send(packet.data()).unwrap();
                answered += 1;
            }
            echo.flush().unwrap();
        }
        far.wait_until(generator.sent());
    }
    far.finish().assert_complete();
    assert!(echo.drain(PATIENCE).unwrap());
    assert_conserved(&mut echo, 1024);
}

#[ringtap_lab::test]
fn a_reader_that_keeps_everything_starves_the_ring_and_goes_on_when_it_lets_go() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let mut socket = socket(&veth.right).frame_count(64).build_receiver().unwrap();
    let traffic = Traffic::default();
    let mut generator = Generator::new(&veth.left, &traffic);
    generator.flood(200);
    let mut held = Vec::new();
    while let Some(batch) = socket.next_batch_timeout(Duration::from_millis(20)).unwrap() {
        held.push(batch);
    }
    let kept: usize = held.iter().map(ringtap::PacketBatch::len).sum();
    assert_eq!(kept, 64, "as many as there are frames");
    let stats = socket.stats().unwrap();
    assert!(stats.fill_ring_empty > 0, "{stats:?}");
    assert_eq!((stats.rx_dropped, veth.lost()), (136, 136), "the interface counts them too");
    assert_eq!(socket.chunks().rx_leased, 64);
    let contents: Vec<Vec<u8>> =
        held.iter().flatten().map(|packet| packet.data().to_vec()).collect();
    let letting_go = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(held);
    });
    let start = Instant::now();
    loop {
        generator.flood(1);
        if socket.next_batch_timeout(Duration::from_millis(10)).unwrap().is_some() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it never went on");
    }
    letting_go.join().unwrap();
    assert_eq!(contents.len(), 64);
    while socket.next_batch_timeout(Duration::from_millis(20)).unwrap().is_some() {}
    assert_conserved(&mut socket, 64);
}

#[ringtap_lab::test]
fn a_batch_outlives_its_socket_whose_queue_is_free_at_once() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    for _ in 0..5 {
        let mut socket = socket(&veth.right).build().unwrap();
        let mut generator = Generator::new(&veth.left, &traffic);
        generator.flood(3);
        let batch = socket.next_batch_timeout(PATIENCE).unwrap().expect("a batch");
        drop(socket);
        let mut tally = Tally::new(&traffic, 3);
        batch.iter().for_each(|packet| tally.record(packet.data()));
        assert!(tally.received() > 0);
        tally.assert_sound();
        assert_eq!(batch.detach().len() as u64, tally.received());
    }
}
