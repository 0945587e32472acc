//! Chunks over plain memory: none has two owners, and none is lost. Runs under Miri.

use std::sync::Arc;

use super::*;
use crate::ring::xsk_ring::{Consumer, IndexLayout, IndexRing, Producer};

const CHUNK: u32 = 2048;

fn umem(chunks: usize) -> (Arc<Umem>, Share) {
    let umem = Arc::new(Umem::new(Mapping::heap(chunks * CHUNK as usize), CHUNK, 0, 1));
    let share = umem.take_share().unwrap();
    assert_eq!((share.number, share.chunks.len()), (0, chunks));
    assert!(umem.take_share().is_none(), "there is one");
    (umem, share)
}

/// Plays the kernel: receives `bytes` into a chunk it was given, and returns their address.
fn receive(umem: &Umem, mut chunk: Chunk, fill: &FillHolder, headroom: usize, bytes: &[u8]) -> u64 {
    umem.bytes_mut(&mut chunk)[headroom..headroom + bytes.len()].copy_from_slice(bytes);
    let address = umem.give(chunk, fill.holder()) + headroom as u64;
    assert_eq!(umem.take_back(address, Holder::tx(0)), None, "it was not given to that ring");
    address
}

fn lease(umem: &Arc<Umem>, share: &mut Share, frames: &[&[u8]]) -> ChunkLease {
    let mut lending = Lending::new(umem);
    for frame in frames {
        let address = receive(umem, share.chunks.pop().unwrap(), &share.holder, 256, frame);
        lending.receive(address, frame.len() as u32, &mut share.holder).unwrap();
    }
    lending.lend(1).unwrap()
}

fn read(lease: &ChunkLease) -> Vec<Vec<u8>> {
    let mut place = lease.start();
    std::iter::from_fn(|| lease.frame(&mut place).map(<[u8]>::to_vec)).collect()
}

#[test]
fn frames_are_read_where_they_lie_and_their_chunks_come_back() {
    let (umem, mut share) = umem(8);
    let first = lease(&umem, &mut share, &[b"one", b"two", b"three"]);
    let second = lease(&umem, &mut share, &[b"four"]);
    let mut free = share.chunks;
    assert_eq!((first.len(), free.len()), (3, 4));
    assert_eq!(read(&first), [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    let back = |free: &mut Vec<Chunk>| umem.take_returned(0, |chunk| free.push(chunk.keep()));
    back(&mut free);
    assert_eq!(free.len(), 4, "nothing was returned");
    drop(second);
    drop(first);
    back(&mut free);
    let mut all: Vec<u32> = free.iter().map(|chunk| chunk.0).collect();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn an_address_or_length_that_cannot_be_is_refused() {
    let (umem, mut share) = umem(2);
    let mut lending = Lending::new(&umem);
    let fill = &mut share.holder;
    let mut chunk = share.chunks.pop().unwrap();
    for (offset, len) in [(2047, 2), (256, 2048 - 255), (0, u32::MAX), (2047, u32::MAX)] {
        let address = receive(&umem, chunk, fill, offset, &[]);
        chunk = lending.receive(address, len, fill).unwrap_err().expect("it is ours again");
    }
    let address = receive(&umem, chunk, fill, 256, &[]);
    lending.receive(address, 2048 - 256, fill).unwrap();
    assert_eq!(lending.receive(address, 1, fill), Err(None), "named twice");
    assert_eq!(lending.len(), 1);
    assert!(Lending::new(&umem).lend(1).is_none());
    for address in [0, 2048, 2 * 2048, 4096 + 17, u64::MAX] {
        assert_eq!(umem.take_received(address, fill), None, "not there, or not given away");
    }
}

#[test]
fn a_share_that_no_socket_uses_is_whole_again_whatever_its_fill_ring_was_given() {
    let umem = Umem::new(Mapping::heap(8 * CHUNK as usize), CHUNK, 0, 2);
    let (_first, mut second) = (umem.take_share().unwrap(), umem.take_share().unwrap());
    for given in 0..=4 {
        let for_tx = second.chunks.split_off(3);
        let given = given.min(second.chunks.len());
        for _ in 0..given {
            let chunk = second.chunks.pop().unwrap();
            umem.give(chunk, second.holder.holder());
        }
        umem.take_unseen(second.number, &mut second.holder, &mut second.chunks);
        second.chunks.extend(for_tx);
        umem.return_share(second);
        second = umem.take_share().expect("it was returned");
        assert!(umem.take_share().is_none(), "once");
        let numbers: Vec<u32> = second.chunks.iter().map(Chunk::number).collect();
        assert_eq!((second.number, numbers), (1, vec![4, 5, 6, 7]), "{given} given");
    }
}

#[test]
fn a_frame_taken_out_of_its_lease_can_be_changed_and_its_chunk_goes_home() {
    let umem = Arc::new(Umem::new(Mapping::heap(8 * CHUNK as usize), CHUNK, 0, 2));
    let mut shares = [umem.take_share().unwrap(), umem.take_share().unwrap()];
    assert!(umem.take_share().is_none());
    let mut lease = lease(&umem, &mut shares[1], &[b"one", b"two", b"three"]);
    lease.first_mut().unwrap()[0] = b'O';
    let one = lease.take_first().unwrap();
    assert_eq!(read(&lease), [b"two".to_vec(), b"three".to_vec()]);
    assert_eq!(umem.bytes(&one.chunk, one.offset, one.len), Some(b"One".as_slice()));
    drop(lease);
    umem.take_returned(0, |_| panic!("it is not this share's"));
    let mut back = Vec::new();
    umem.take_returned(1, |chunk| back.push(chunk.keep().0));
    back.sort_unstable();
    assert_eq!(back, [5, 6], "the last three of the share were received into");
    umem.put_back(one.chunk);
    umem.take_returned(1, |chunk| back.push(chunk.keep().0));
    assert_eq!(back.len(), 3);
}

#[test]
fn a_gathered_frame_lies_in_the_lease() {
    let (umem, Share { chunks: mut free, holder: mut fill, .. }) = umem(4);
    let mut lending = Lending::new(&umem);
    lending.push_gathered(free.pop().unwrap(), &[7; 5000]);
    let address = receive(&umem, free.pop().unwrap(), &fill, 0, b"short");
    lending.receive(address, 5, &mut fill).unwrap();
    lending.push_gathered(free.pop().unwrap(), &[8; 3000]);
    let mut lease = lending.lend(1).unwrap();
    assert_eq!(read(&lease), [vec![7; 5000], b"short".to_vec(), vec![8; 3000]]);
    assert!(lease.is_first_gathered());
    assert_eq!(lease.first_mut().unwrap().len(), 5000);
    while let Some(taken) = lease.take_first() {
        lease.put_back(taken);
    }
    assert!(lease.first_mut().is_none());
    drop(lease);
    umem.take_returned(0, |chunk| free.push(chunk.keep()));
    assert_eq!(free.len(), 4);
}

#[test]
fn leases_that_end_in_other_threads_lose_no_chunk() {
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 2_000 };
    let (umem, mut share) = umem(16);
    let (lend, leases) = std::sync::mpsc::channel::<ChunkLease>();
    let leases = Arc::new(Mutex::new(leases));
    let enders: Vec<_> = (0..2)
        .map(|_| {
            let leases = Arc::clone(&leases);
            std::thread::spawn(move || {
                loop {
                    let received = leases.lock().unwrap().recv();
                    let Ok(lease) = received else { return };
                    assert_eq!(read(&lease), [b"frame".to_vec(), b"another".to_vec()]);
                }
            })
        })
        .collect();
    for _ in 0..ROUNDS {
        while share.chunks.len() < 2 {
            umem.take_returned(0, |chunk| share.chunks.push(chunk.keep()));
            std::thread::yield_now();
        }
        lend.send(lease(&umem, &mut share, &[b"frame", b"another"])).unwrap();
    }
    drop(lend);
    enders.into_iter().for_each(|ender| ender.join().unwrap());
    umem.take_returned(0, |chunk| share.chunks.push(chunk.keep()));
    assert_eq!(share.chunks.len(), 16);
}

#[test]
fn what_was_sent_comes_home_once_whoever_looks_and_whatever_the_kernel_says() {
    let umem = Arc::new(Umem::new(Mapping::heap(4 * CHUNK as usize), CHUNK, 0, 2));
    let [mut first, second] = [umem.take_share().unwrap(), umem.take_share().unwrap()];
    let layout = IndexLayout { producer: 0, consumer: 64, flags: 128, entries: 192, size: 8 };
    let ring = Arc::new(IndexRing::<u64>::new(Mapping::heap(4096), layout));
    let mut kernel = Producer::new(Arc::clone(&ring));
    let completions = Arc::new(Completions::new(Consumer::new(ring), 2..4, second.number));
    umem.register(&completions);
    let mut give = |chunk, times| {
        let address = umem.give(chunk, Holder::tx(second.number));
        (0..times).for_each(|_| kernel.push(address + 17));
        kernel.publish();
    };
    let foreign = first.chunks.pop().unwrap();
    let mut own = second.chunks.into_iter();
    give(foreign, 2); // named twice
    give(own.next().unwrap(), 1);
    umem.gather_completions(); // by any socket
    let mut back = Vec::new();
    umem.take_returned(first.number, |chunk| back.push(chunk.keep().number()));
    assert_eq!(back, [1], "home, once");
    let mut free = Vec::new();
    let counts = completions.take(&umem, &mut free);
    assert_eq!((counts.entries, counts.malformed, free.len()), (3, 1, 1));
    // A socket that ends keeps no chunk.
    give(Chunk(1), 0);
    umem.bring_home(second.number);
    umem.take_returned(first.number, |chunk| back.push(chunk.keep().number()));
    assert_eq!(back, [1, 1]);
}

#[test]
fn a_socket_that_ends_beside_one_that_receives_gives_no_chunk_to_two() {
    const ROUNDS: usize = if cfg!(miri) { 5 } else { 10_000 };
    const CHUNKS: usize = 32;
    let (end, ends) = std::sync::mpsc::channel::<Arc<Umem>>();
    let sweeper = std::thread::spawn(move || ends.iter().for_each(|umem| umem.bring_home(1)));
    for round in 0..ROUNDS {
        let memory = Mapping::heap(2 * CHUNKS * CHUNK as usize);
        let umem = Arc::new(Umem::new(memory, CHUNK, 0, 2));
        let [first, second] = [umem.take_share().unwrap(), umem.take_share().unwrap()];
        let size = CHUNKS as u32;
        let layout = IndexLayout { producer: 0, consumer: 64, flags: 128, entries: 192, size };
        let ring = Arc::new(IndexRing::<u64>::new(Mapping::heap(4096), layout));
        let mut kernel = Producer::new(Arc::clone(&ring));
        // All chunks were sent on by the second socket, and have come back.
        for chunk in first.chunks {
            kernel.push(umem.give(chunk, Holder::tx(second.number)));
        }
        kernel.publish();
        let own = size..2 * size;
        let completions = Arc::new(Completions::new(Consumer::new(ring), own, second.number));
        umem.register(&completions);
        end.send(Arc::clone(&umem)).unwrap();
        umem.gather_completions();
        let (mut seen, mut back) = ([false; CHUNKS], 0);
        while back < CHUNKS {
            umem.take_returned(first.number, |chunk| {
                let number = chunk.keep().number() as usize;
                assert!(!std::mem::replace(&mut seen[number], true), "round {round}: twice");
                back += 1;
            });
            std::thread::yield_now();
        }
    }
    drop(end);
    sweeper.join().unwrap();
}
