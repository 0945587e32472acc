//! Sockets that any task of a multi-thread runtime may own, on real packets.

#[path = "../../../tests/common/far_end.rs"]
mod far_end;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use far_end::FarEnd;
use futures_util::{SinkExt, StreamExt};
use ringtap::capture::{CaptureBuilder, RingLayout};
use ringtap::reactor::{Reactor, ReactorOptions};
use ringtap::xdp::{Attach, XdpProgram};
use ringtap::{AsyncCapture, Error, XdpSocket, time};
use ringtap_lab::{
    Generator, Pace, Tally, Traffic, Veth, bootstrap, link, namespace, skip_for_ordinary_users,
};
use ringtap_tokio::{Capture, Injector, Receiver, Sender};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use tokio::time::timeout;

ringtap_lab::test_binary!();

const PATIENCE: Duration = Duration::from_secs(60);

/// Two workers: whatever is spawned moves between them.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn ring(interface: &str) -> CaptureBuilder {
    ringtap::Capture::builder()
        .interface(interface)
        .block_size(1 << 16)
        .block_count(64)
        .block_timeout_ms(5)
        .frame_size(2048)
        .ignore_outgoing(true)
}

fn capture(builder: CaptureBuilder) -> Capture {
    Capture::new(builder.build().unwrap()).unwrap()
}

/// Counts what comes, until the capture ends.
async fn count(mut capture: Capture, mut tally: Tally, pace: Pace) -> (Capture, Tally) {
    while let Some(batch) = timeout(PATIENCE, capture.next_batch()).await.unwrap().unwrap() {
        for packet in &batch {
            tally.record(packet.data());
        }
        pace.count(batch.len());
    }
    (capture, tally)
}

#[ringtap_lab::test]
fn a_spawned_capture_sees_each_frame_once_and_drains_at_its_stop() {
    let Some(net) = namespace() else { return };
    let runtime = runtime();
    let _entered = runtime.enter();
    for layout in [RingLayout::Blocks, RingLayout::Frames] {
        let veth = net.veth();
        let traffic = Traffic { flows: 16, ..Traffic::default() };
        let frames = ringtap_lab::generator::frames(20_000);
        let mut generator = Generator::new(&veth.left, &traffic);
        let mut capture = capture(ring(&veth.right).layout(layout));
        let (stop, stats) = (capture.stop_handle().unwrap(), capture.get_ref().stats_handle());
        let pace = Pace::default();
        let counting = runtime.spawn(count(capture, Tally::new(&traffic, frames), pace.clone()));
        generator.in_step(frames, &pace);
        stop.stop();
        let (mut capture, tally) = runtime.block_on(counting).unwrap();
        let last = stats.stats().unwrap();
        assert_eq!((last.drops, last.pending()), (0, 0), "{last:?}");
        tally.assert_complete();
        assert!(runtime.block_on(capture.next_batch()).unwrap().is_none(), "it stays over");
        assert!(capture.get_ref().is_ended());
    }
}

#[ringtap_lab::test]
fn a_stop_before_the_first_wait_and_during_a_wait_ends_both() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut early = ring(&veth.right).build().unwrap();
    early.stop_handle().unwrap().stop();
    let mut early = Capture::new(early).unwrap();
    let ended = runtime.block_on(async { timeout(PATIENCE, early.next_batch()).await });
    assert!(ended.unwrap().unwrap().is_none());

    let mut waiting = capture(ring(&veth.right));
    let stops = [waiting.stop_handle().unwrap(), waiting.stop_handle().unwrap()];
    let waiting = runtime.spawn(async move { waiting.next_batch().await });
    std::thread::sleep(Duration::from_millis(20));
    stops.iter().for_each(|stop| stop.stop());
    let ended = runtime.block_on(async { timeout(PATIENCE, waiting).await });
    assert!(ended.unwrap().unwrap().unwrap().is_none());
}

#[ringtap_lab::test]
fn a_stop_handle_made_by_the_socket_itself_ends_it_too() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut capture = capture(ring(&veth.right));
    let stop = capture.get_mut().stop_handle().unwrap();
    let waiting =
        runtime.spawn(async move { capture.next_batch().await.map(|batch| batch.is_none()) });
    std::thread::sleep(Duration::from_millis(20));
    stop.stop();
    let ended = runtime.block_on(async { timeout(PATIENCE, waiting).await });
    assert!(ended.unwrap().unwrap().unwrap(), "it ends");
}

#[ringtap_lab::test]
fn a_link_that_goes_down_comes_back_and_a_removed_one_is_an_error() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let runtime = runtime();
    let _entered = runtime.enter();
    let traffic = Traffic::default();
    let mut generator = Generator::new(&veth.left, &traffic);
    let capture = capture(ring(&veth.right));
    let (tell, told) = std::sync::mpsc::channel();
    let reading = runtime.spawn(async move {
        let mut capture = capture;
        let mut tally = Tally::new(&Traffic::default(), 30);
        loop {
            match capture.next_batch().await {
                Ok(Some(batch)) => {
                    batch.iter().for_each(|packet| tally.record(packet.data()));
                    tell.send(tally.received()).unwrap();
                }
                ended => {
                    let after = capture.next_batch().await;
                    return (tally, ended.map(drop), after.map(|batch| batch.is_none()));
                }
            }
        }
    });
    let arrived = |count: u64| {
        while told.recv_timeout(PATIENCE).expect("they arrive") < count {}
    };
    generator.flood(10);
    arrived(10);
    veth.down();
    std::thread::sleep(Duration::from_millis(50));
    veth.up();
    generator.flood(10);
    arrived(20);
    // Frames that lie in the ring when the interface goes are delivered.
    generator.flood(10);
    veth.delete();
    let (tally, ended, after) =
        runtime.block_on(async { timeout(PATIENCE, reading).await.unwrap().unwrap() });
    tally.assert_complete();
    assert!(matches!(ended, Err(Error::InterfaceGone { .. })), "{ended:?}");
    assert!(matches!(after, Ok(true)), "{after:?}");
}

#[ringtap_lab::test]
fn waits_that_are_dropped_lose_nothing() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let runtime = runtime();
    let _entered = runtime.enter();
    let traffic = Traffic { flows: 4, ..Traffic::default() };
    let frames = ringtap_lab::generator::frames(5_000);
    let mut generator = Generator::new(&veth.left, &traffic);
    let mut capture = capture(ring(&veth.right));
    let pace = Pace::default();
    let (seen, mut tally) = (pace.clone(), Tally::new(&traffic, frames));
    let reading = runtime.spawn(async move {
        let mut dropped = 0_u32;
        while tally.received() < frames {
            let mut wait = pin!(capture.next_batch());
            // Polled once, as by a `select!` that another branch wins.
            let polled = poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx))).await;
            match polled {
                Poll::Ready(batch) => {
                    let batch = batch.unwrap().expect("it goes on");
                    batch.iter().for_each(|packet| tally.record(packet.data()));
                    seen.count(batch.len());
                }
                Poll::Pending => {
                    dropped += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        (tally, dropped)
    });
    generator.in_step(frames, &pace);
    let (tally, dropped) =
        runtime.block_on(async { timeout(PATIENCE, reading).await.unwrap().unwrap() });
    tally.assert_complete();
    assert!(dropped > 0, "no wait was dropped");
}

#[ringtap_lab::test]
fn a_spawned_injector_sends_each_frame_and_waits_for_room() {
    let Some(net) = namespace() else { return };
    let runtime = runtime();
    let _entered = runtime.enter();
    let veth = net.veth();
    let traffic = Traffic { flows: 16, ..Traffic::default() };
    let frames = ringtap_lab::generator::frames(10_000);
    let far_end = FarEnd::new(&veth, Tally::new(&traffic, frames));
    let few = ringtap::Injector::builder().interface(&veth.left).frame_count(8);
    let mut injector = Injector::new(few.build().unwrap()).unwrap();
    let sending = runtime.spawn(async move {
        for number in 0..frames / 2 {
            injector.feed(&traffic.frame(number, 0)).await.unwrap();
        }
        injector.flush().await.unwrap();
        assert_eq!(injector.get_mut().pending(), 0);
        for number in frames / 2..frames {
            // Written in place.
            let frame = traffic.frame(number, 0);
            injector.room(frame.len()).await.unwrap();
            let mut slot = injector.get_mut().allocate(frame.len()).expect("there is room");
            slot.data_mut().copy_from_slice(&frame);
            slot.send().unwrap();
        }
        injector.drain().await.unwrap();
        injector.get_ref().stats()
    });
    far_end.wait_until(frames);
    let stats = runtime.block_on(async { timeout(PATIENCE, sending).await.unwrap().unwrap() });
    assert_eq!((stats.committed, stats.rejected), (frames, 0), "{stats:?}");
    far_end.finish().assert_complete();
}

#[ringtap_lab::test]
fn an_injector_waits_for_its_link_and_learns_that_it_is_gone() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let runtime = runtime();
    let _entered = runtime.enter();
    let traffic = Traffic::default();
    let far_end = FarEnd::new(&veth, Tally::new(&traffic, 20));
    let mut injector = Injector::open(&veth.left).unwrap();
    runtime.block_on(async {
        let too_long = injector.feed(&[0; 9000]).await;
        assert!(matches!(too_long, Err(Error::FrameLength { .. })), "{too_long:?}");
        for number in 0..10 {
            injector.send(&traffic.frame(number, 0)).await.unwrap();
        }
    });
    far_end.wait_until(10);
    link::set_up(&veth.left, false).unwrap();
    let frame = traffic.frame(10, 0);
    let sending = runtime.spawn(async move {
        injector.send(&frame).await.unwrap();
        injector
    });
    std::thread::sleep(Duration::from_millis(60));
    assert!(!sending.is_finished(), "it waits for the link");
    veth.up();
    let mut injector =
        runtime.block_on(async { timeout(PATIENCE, sending).await.unwrap() }).unwrap();
    far_end.wait_until(11);
    veth.delete();
    let gone = runtime.block_on(async { timeout(PATIENCE, injector.send(&[0xff; 60])).await });
    assert!(matches!(gone.unwrap(), Err(Error::InterfaceGone { .. })));
}

#[ringtap_lab::test]
fn stamps_that_nobody_reads_do_not_make_an_injector_spin() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let runtime = runtime();
    let _entered = runtime.enter();
    let injector = ringtap::Injector::builder().interface(&veth.left).tx_timestamps(true);
    let mut injector = Injector::new(injector.build().unwrap()).unwrap();
    runtime.block_on(injector.send(&[0xff; 60])).unwrap(); // its stamp is an error of the descriptor
    link::set_up(&veth.left, false).unwrap();
    let start = Instant::now();
    let waited = runtime
        .block_on(async { timeout(Duration::from_millis(300), injector.send(&[0xff; 60])).await });
    assert!(waited.is_err(), "it waits for the link");
    // The link is looked at every 20 ms, with two kicks.
    let (most, kicks) = (start.elapsed().as_millis() / 4, injector.get_ref().stats().kicks);
    assert!(u128::from(kicks) < most, "{kicks} kicks");
}

#[ringtap_lab::test]
fn room_is_waited_for_only_where_there_can_be_any() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut injector = Injector::open(&veth.left).unwrap();
    let most = injector.get_ref().frame_capacity();
    runtime.block_on(async {
        injector.room(most).await.unwrap();
        let refused = injector.room(most + 1).await;
        assert!(matches!(refused, Err(Error::FrameLength { .. })), "{refused:?}");
    });
    assert!(injector.get_mut().allocate(most).is_some());
}

#[ringtap_lab::test]
fn streams_and_sinks_forward_from_one_link_to_another() {
    let Some(net) = namespace() else { return };
    let (from, to) = (net.veth(), net.veth());
    let runtime = runtime();
    let _entered = runtime.enter();
    let traffic = Traffic { flows: 16, ..Traffic::default() };
    let frames = ringtap_lab::generator::frames(5_000);
    let far_end = FarEnd::new(&to, Tally::new(&traffic, frames));
    let mut generator = Generator::new(&from.left, &traffic);
    let mut capture = capture(ring(&from.right));
    let stop = capture.stop_handle().unwrap();
    let mut injector = Injector::open(&to.left).unwrap();
    let pace = Pace::default();
    let seen = pace.clone();
    let forwarding = runtime.spawn(async move {
        let mut batches = capture.into_stream();
        while let Some(batch) = batches.next().await {
            let batch = batch.unwrap();
            seen.count(batch.len());
            for packet in batch.into_packets() {
                // `feed` of the trait, which takes all that is bytes.
                SinkExt::feed(&mut injector, packet).await.unwrap();
            }
            SinkExt::<&[u8]>::flush(&mut injector).await.unwrap();
        }
        assert!(batches.next().await.is_none(), "it is over");
        SinkExt::<&[u8]>::close(&mut injector).await.unwrap();
    });
    generator.in_step(frames, &pace);
    stop.stop();
    runtime.block_on(async { timeout(PATIENCE, forwarding).await.unwrap().unwrap() });
    far_end.wait_until(frames);
    far_end.finish().assert_complete();
}

#[ringtap_lab::test]
fn the_halves_of_an_af_xdp_socket_echo_from_two_tasks() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    if !bootstrap::was_root() {
        let refused = XdpProgram::redirect_all(&veth.right, Attach::Auto).unwrap_err();
        assert!(refused.to_string().contains("CAP_BPF"), "{refused}");
        return skip_for_ordinary_users("receiving through AF_XDP takes root");
    }
    let runtime = runtime();
    let _entered = runtime.enter();
    let traffic = Traffic { flows: 16, ..Traffic::default() };
    let frames = ringtap_lab::generator::frames(5_000);
    // Twice what is under way: frames that the sender gives back are refilled only when the receiver runs again.
    let echo = XdpSocket::builder().interface(&veth.right).frame_count(4096).build().unwrap();
    let (receiver, sender) = echo.into_split();
    let mut receiver: ringtap_tokio::XdpReceiver = Receiver::new(receiver).unwrap();
    let mut sender: ringtap_tokio::XdpSender = Sender::new(sender).unwrap();
    let stop = receiver.stop_handle().unwrap();
    let mut answers = capture(ring(&veth.left));
    let (hand, mut handed) = tokio::sync::mpsc::channel(4);
    let pace = Pace::default();
    let (seen, mut tally) = (pace.clone(), Tally::new(&traffic, frames));
    let receiving = runtime.spawn(async move {
        while let Some(batch) = receiver.next_batch().await.unwrap() {
            hand.send(batch).await.unwrap();
        }
    });
    let sending = runtime.spawn(async move {
        while let Some(batch) = handed.recv().await {
            for packet in &batch {
                sender.feed(packet.data()).await.unwrap();
            }
            sender.flush().await.unwrap();
        }
        sender.drain().await.unwrap();
    });
    let counting = runtime.spawn(async move {
        while tally.received() < frames {
            let batch = answers.next_batch().await.unwrap().expect("it goes on");
            batch.iter().for_each(|packet| tally.record(packet.data()));
            seen.count(batch.len());
        }
        tally
    });
    Generator::new(&veth.left, &traffic).in_step(frames, &pace);
    let tally = runtime.block_on(async { timeout(PATIENCE, counting).await.unwrap().unwrap() });
    tally.assert_complete();
    stop.stop();
    runtime.block_on(async {
        timeout(PATIENCE, receiving).await.unwrap().unwrap();
        timeout(PATIENCE, sending).await.unwrap().unwrap();
    });
}

/// A capture on the reactor of this thread sees a frame.
async fn sees_a_frame(veth: &Veth) {
    let mut capture = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
    Generator::new(&veth.left, &Traffic::default()).flood(1);
    let batch = time::timeout(PATIENCE, capture.next_batch()).await.unwrap().unwrap();
    assert_eq!(batch.expect("a batch").len(), 1);
}

#[ringtap_lab::test]
fn a_future_runs_with_a_reactor_on_every_flavour_and_without_a_local_set() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let current = || Builder::new_current_thread().enable_all().build().unwrap();
    for runtime in [runtime(), current()] {
        let output = runtime.block_on(ringtap_tokio::run(async {
            sees_a_frame(&veth).await;
            let nested = ringtap_tokio::run(async {}).await;
            assert!(matches!(nested, Err(Error::AlreadyAttached)), "{nested:?}");
            7
        }));
        assert_eq!(output.unwrap(), 7);
        assert!(Reactor::current().is_err(), "it ends with its future");
        let open = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
        assert_eq!(open.lines().count(), 1, "its sockets are closed: {open}");

        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let attached = ringtap_tokio::attach_in(&local, ReactorOptions::default()).unwrap();
            sees_a_frame(&veth).await;
            attached.shutdown().await.unwrap();
        });
        let refused = runtime.block_on(async { ringtap_tokio::attach().map(drop) });
        assert!(matches!(refused, Err(Error::Other(_))), "{refused:?}");
        let open = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
        assert_eq!(open.lines().count(), 1, "sockets are closed with their reactor: {open}");
        // What was refused has left nothing behind.
        runtime.block_on(ringtap_tokio::run(sees_a_frame(&veth))).unwrap();
    }
}

#[ringtap_lab::test]
fn outside_of_tokio_there_are_errors_and_no_panics() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let capture = Capture::open(&veth.right).map(drop);
    let injector = Injector::open(&veth.left).map(drop);
    let attached = ringtap_tokio::attach().map(drop);
    let attached_in = ringtap_tokio::attach_in(&LocalSet::new(), ReactorOptions::default());
    let ran = ringtap::executor::block_on(ringtap_tokio::run(async {}));
    for refused in [capture, injector, attached, attached_in.map(drop)] {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("no tokio runtime is entered"), "{text}");
    }
    assert!(ran.is_err());
}
