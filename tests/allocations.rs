//! In steady state, capturing allocates nothing a packet and nothing a batch.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use ringtap::executor::block_on;
use ringtap::{AsyncCapture, Capture, time};
use ringtap_lab::{Generator, Pace, Traffic, namespace};

ringtap_lab::test_binary!();

/// Counts the allocations of each thread by itself.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

#[ringtap_lab::test]
fn the_counter_counts() {
    let before = allocations();
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert_eq!(allocations() - before, 1);
}

#[ringtap_lab::test]
fn a_stream_of_batches_allocates_nothing_once_it_runs() {
    const COUNT: u64 = 60_000;
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let ring = Capture::builder()
        .interface(&veth.right)
        .block_size(1 << 16)
        .block_count(512)
        .block_timeout_ms(1);
    let capture = ring.build().unwrap();
    let left = veth.left.clone();
    let pace = Pace::default();
    let counter = pace.clone();
    let sender = std::thread::spawn(move || {
        let traffic = Traffic { flows: 8, ..Traffic::default() };
        Generator::new(&left, &traffic).in_step(COUNT, &pace);
    });
    block_on(async {
        let mut capture = AsyncCapture::new(capture).unwrap();
        let (mut packets, mut batches, mut bytes) = (0, 0, 0);
        let mut at_start = None;
        while packets < COUNT {
            // A timeout around each wait, as real programs have.
            let batch = time::timeout(Duration::from_secs(10), capture.next_batch()).await;
            let batch = batch.expect("frames come").unwrap().unwrap();
            packets += batch.len() as u64;
            counter.count(batch.len());
            batches += 1;
            bytes += batch.iter().map(|packet| packet.len()).sum::<usize>();
            if packets > 10_000 && at_start.is_none() {
                at_start = Some((allocations(), packets, batches));
            }
        }
        let (before, packets_before, batches_before) = at_start.unwrap();
        let (packets, batches) = (packets - packets_before, batches - batches_before);
        assert!(batches > 20, "{packets} packets in {batches} batches, {bytes} bytes in all");
        let made = allocations() - before;
        assert_eq!(made, 0, "allocations for {packets} packets in {batches} batches");
    });
    sender.join().unwrap();
}

#[cfg(feature = "flow")]
#[ringtap_lab::test]
fn a_stream_of_flows_allocates_nothing_once_they_have_begun() {
    use futures_util::StreamExt;
    use ringtap::flow::FlowExt;
    use ringtap::flow::extract::FiveTuple;

    const FIRST: u64 = 10_000;
    const REST: u64 = 50_000;
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let left = veth.left.clone();
    let (send, counts) = std::sync::mpsc::channel();
    let pace = Pace::default();
    let counter = pace.clone();
    let sender = std::thread::spawn(move || {
        let traffic = Traffic { flows: 64, both_directions: true, ..Traffic::default() };
        let mut generator = Generator::new(&left, &traffic);
        for count in counts {
            generator.in_step(count, &pace);
        }
    });
    block_on(async {
        let ring = Capture::builder()
            .interface(&veth.right)
            .ignore_outgoing(true)
            .block_size(1 << 16)
            .block_count(512)
            .block_timeout_ms(1);
        let capture = AsyncCapture::new(ring.build().unwrap()).unwrap();
        let mut flows = capture.flow_stream(FiveTuple::bidirectional());
        let delivered = |flows: &ringtap::flow::FlowStream<_, _>| {
            let delivered = AsyncCapture::stats(flows.get_ref()).unwrap().delivered;
            counter.count((delivered - counter.received()) as usize);
            delivered
        };
        send.send(FIRST).unwrap();
        while delivered(&flows) < FIRST {
            let _ = time::timeout(Duration::from_millis(20), flows.next()).await;
        }
        assert_eq!(flows.stats().flows_created, 64);
        send.send(REST).unwrap();
        let before = allocations();
        // No more events come: it is polled until all packets went through.
        while delivered(&flows) < FIRST + REST {
            let event = time::timeout(Duration::from_millis(20), flows.next()).await;
            assert!(event.is_err(), "{event:?}");
        }
        assert_eq!(allocations() - before, 0, "allocations for {REST} packets");
    });
    drop(send);
    sender.join().unwrap();
}

#[cfg(feature = "record")]
#[ringtap_lab::test]
fn a_recorder_allocates_nothing_a_block_once_it_runs() {
    use ringtap::record::Recorder;

    const COUNT: u64 = 60_000;
    const FIRST: u64 = 20_000;
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let directory = ringtap_lab::Directory::new();
    for has_index in [true, false] {
        let ring = Capture::builder()
            .interface(&veth.right)
            .block_size(1 << 16)
            .block_count(512)
            .block_timeout_ms(1)
            .for_recording(true);
        let capture = ring.build().unwrap();
        let left = veth.left.clone();
        let pace = Pace::default();
        let counter = pace.clone();
        let sender = std::thread::spawn(move || {
            let traffic = Traffic { flows: 8, ..Traffic::default() };
            Generator::new(&left, &traffic).in_step(COUNT, &pace);
        });
        block_on(async {
            let mut capture = AsyncCapture::new(capture).unwrap();
            let prefix = if has_index { "with" } else { "without" };
            let recorder = Recorder::builder(directory.path(), prefix).index(has_index);
            let mut recorder = recorder.build().unwrap();
            let (mut packets, mut batches, mut at_start) = (0, 0, None);
            while packets < COUNT {
                let batch = time::timeout(Duration::from_secs(10), capture.next_batch()).await;
                let batch = batch.expect("frames come").unwrap().unwrap();
                packets += batch.len() as u64;
                counter.count(batch.len());
                batches += 1;
                recorder.write(batch).await.unwrap();
                if packets > FIRST && at_start.is_none() {
                    at_start = Some((allocations(), packets, batches));
                }
            }
            let (before, packets_before, batches_before) = at_start.unwrap();
            let (packets, batches) = (packets - packets_before, batches - batches_before);
            let made = allocations() - before;
            assert!(batches > 20, "{packets} packets in {batches} batches");
            // Of the index, one for each write: of 16 kilobytes, or of what there is each second. A disk that has stalled may
            // have made more room for writes, a few times.
            let most = if has_index { batches / 8 + 16 } else { 4 };
            assert!(made <= most, "{made} allocations for {packets} packets in {batches} batches");
            assert_eq!(recorder.finish().await.unwrap().lost, 0);
        });
        sender.join().unwrap();
    }
}
