//! Chunks over plain memory: nobody has one twice, and none is lost. Runs under Miri.

use super::*;

const CHUNK: u32 = 2048;

fn umem(chunks: usize) -> (Arc<Umem>, Vec<Chunk>) {
    let umem = Arc::new(Umem::new(Mapping::heap(chunks * CHUNK as usize), CHUNK, 0, 1));
    let share = umem.take_share().unwrap();
    assert_eq!((share.number, share.chunks.len()), (0, chunks));
    assert!(umem.take_share().is_none(), "there is one");
    (umem, share.chunks)
}

/// Plays the kernel: receives `bytes` into a chunk it was given, and gives it back.
fn receive(umem: &Umem, mut chunk: Chunk, headroom: usize, bytes: &[u8]) -> Chunk {
    umem.bytes_mut(&mut chunk)[headroom..headroom + bytes.len()].copy_from_slice(bytes);
    let address = umem.give(chunk) + headroom as u64;
    umem.take_back(address).unwrap()
}

fn lease(umem: &Arc<Umem>, free: &mut Vec<Chunk>, frames: &[&[u8]]) -> ChunkLease {
    let mut lending = Lending::new(umem);
    for frame in frames {
        let chunk = receive(umem, free.pop().unwrap(), 256, frame);
        lending.push(chunk, 256, frame.len() as u32).unwrap();
    }
    lending.lend(1).unwrap()
}

fn read(lease: &ChunkLease) -> Vec<Vec<u8>> {
    let mut place = lease.start();
    std::iter::from_fn(|| lease.frame(&mut place).map(<[u8]>::to_vec)).collect()
}

#[test]
fn frames_are_read_where_they_lie_and_their_chunks_come_back() {
    let (umem, mut free) = umem(8);
    let first = lease(&umem, &mut free, &[b"one", b"two", b"three"]);
    let second = lease(&umem, &mut free, &[b"four"]);
    assert_eq!((first.len(), free.len()), (3, 4));
    assert_eq!(read(&first), [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    let back = |free: &mut Vec<Chunk>| umem.take_returned(0, |chunk| free.push(chunk));
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
    let (umem, mut free) = umem(2);
    let mut lending = Lending::new(&umem);
    let mut chunk = free.pop().unwrap();
    for (offset, len) in [(2047, 2), (256, 2048 - 255), (0, u32::MAX), (u32::MAX, u32::MAX)] {
        chunk = lending.push(chunk, offset, len).unwrap_err();
    }
    lending.push(chunk, 256, 2048 - 256).unwrap();
    assert_eq!(lending.len(), 1);
    assert!(Lending::new(&umem).lend(1).is_none());
    for address in [2 * 2048, 4096 + 17, u64::MAX] {
        assert_eq!(umem.take_back(address), None);
    }
}

#[test]
fn a_frame_taken_out_of_its_lease_can_be_changed_and_its_chunk_goes_home() {
    let umem = Arc::new(Umem::new(Mapping::heap(8 * CHUNK as usize), CHUNK, 0, 2));
    let mut shares = [umem.take_share().unwrap(), umem.take_share().unwrap()];
    assert!(umem.take_share().is_none());
    let mut lease = lease(&umem, &mut shares[1].chunks, &[b"one", b"two", b"three"]);
    let mut one = lease.take_first().unwrap();
    lease.bytes_of(&mut one)[0] = b'O';
    assert_eq!(read(&lease), [b"two".to_vec(), b"three".to_vec()]);
    assert_eq!(umem.bytes(&one.chunk, one.offset, one.len), Some(b"One".as_slice()));
    drop(lease);
    umem.take_returned(0, |_| panic!("it is not this share's"));
    let mut back = Vec::new();
    umem.take_returned(1, |chunk| back.push(chunk.0));
    back.sort_unstable();
    assert_eq!(back, [5, 6], "the last three of the share were received into");
    umem.put_back(one.chunk);
    umem.take_returned(1, |chunk| back.push(chunk.0));
    assert_eq!(back.len(), 3);
}

#[test]
fn a_gathered_frame_lies_in_the_lease() {
    let (umem, mut free) = umem(4);
    let mut lending = Lending::new(&umem);
    lending.push_gathered(free.pop().unwrap(), &[7; 5000]);
    let chunk = receive(&umem, free.pop().unwrap(), 0, b"short");
    lending.push(chunk, 0, 5).unwrap();
    lending.push_gathered(free.pop().unwrap(), &[8; 3000]);
    let mut lease = lending.lend(1).unwrap();
    assert_eq!(read(&lease), [vec![7; 5000], b"short".to_vec(), vec![8; 3000]]);
    let mut first = lease.take_first().unwrap();
    assert!(first.is_gathered());
    assert_eq!(lease.bytes_of(&mut first).len(), 5000);
    umem.put_back(first.chunk);
    while let Some(taken) = lease.take_first() {
        umem.put_back(taken.chunk);
    }
    drop(lease);
    umem.take_returned(0, |chunk| free.push(chunk));
    assert_eq!(free.len(), 4);
}

#[test]
fn leases_that_end_in_other_threads_lose_no_chunk() {
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 2_000 };
    let (umem, mut free) = umem(16);
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
        while free.len() < 2 {
            umem.take_returned(0, |chunk| free.push(chunk));
            std::thread::yield_now();
        }
        lend.send(lease(&umem, &mut free, &[b"frame", b"another"])).unwrap();
    }
    drop(lend);
    enders.into_iter().for_each(|ender| ender.join().unwrap());
    umem.take_returned(0, |chunk| free.push(chunk));
    assert_eq!(free.len(), 16);
}
