use std::time::Duration;

use ringtap_lab::Directory;

use super::*;
use crate::record::tests::flow;
use crate::record::{Counts, LEN, Record};

const ROOM: u64 = 1 << 20;

fn flows(range: std::ops::Range<u64>) -> Vec<Body> {
    range.map(|number| Body::Flow(flow(number))).collect()
}

fn read(reader: &mut Reader, most: usize) -> Vec<Record> {
    let batch = reader.next_batch(most, Duration::ZERO).unwrap().unwrap_or_default();
    reader.acknowledge(&batch, batch.records.len()).unwrap();
    batch.records
}

#[test]
fn records_come_out_as_they_went_in_and_once_for_each_reader() {
    let directory = Directory::new();
    let mut spool = Spool::open(directory.path(), ROOM, 2).unwrap();
    let mut readers = [spool.reader("a").unwrap(), spool.reader("b").unwrap()];
    assert!(spool.append(0, &flows(0..10)).unwrap());
    assert!(spool.append(1, &flows(10..12)).unwrap());
    assert!(spool.append(0, &[Body::Counts(Counts::default())]).unwrap());
    for reader in &mut readers {
        let got: Vec<_> = std::iter::repeat_with(|| read(reader, 4)).take(4).flatten().collect();
        let numbers = |shard| -> Vec<_> {
            got.iter()
                .filter(|record| record.shard == shard)
                .map(|record| record.sequence)
                .collect()
        };
        assert_eq!((numbers(0), numbers(1)), ((0..=10).collect(), vec![0, 1]));
        assert_eq!(got[3].body, flows(3..4)[0]);
        assert!(!reader.is_done());
    }
    spool.close();
    assert!(readers.iter().all(Reader::is_done));
}

#[test]
fn what_was_acknowledged_in_part_goes_on_from_there_after_a_restart() {
    let directory = Directory::new();
    {
        let mut spool = Spool::open(directory.path(), ROOM, 1).unwrap();
        let mut reader = spool.reader("a").unwrap();
        for _ in 0..3 {
            spool.append(0, &flows(0..10)).unwrap();
        }
        for (count, first) in [(4, 0), (13, 4), (0, 17), (3, 17)] {
            let batch = reader.next_batch(100, Duration::ZERO).unwrap().unwrap();
            assert_eq!(batch.records[0].sequence, first);
            reader.acknowledge(&batch, count).unwrap();
        }
    }
    let mut spool = Spool::open(directory.path(), ROOM, 1).unwrap();
    assert_eq!(spool.totals(0), Totals { records: 30, flows: 30 });
    spool.append(0, &flows(0..1)).unwrap();
    let rest = read(&mut spool.reader("a").unwrap(), 100);
    let numbers: Vec<_> = rest.iter().map(|record| record.sequence).collect();
    assert_eq!(numbers, (20..=30).collect::<Vec<_>>());
}

#[test]
fn a_torn_frame_is_cut_off_and_a_torn_segment_removed() {
    let directory = Directory::new();
    drop(Spool::open(directory.path(), ROOM, 1).map(|mut spool| spool.append(0, &flows(0..5))));
    let path = directory.path().join("00000001.seg");
    let whole = fs::read(&path).unwrap();
    let torn = directory.path().join("00000002.seg");
    for cut in [1, 100, 507, 519] {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        fs::write(&torn, &b"RTSPOOL3\0\x01"[..]).unwrap();
        let mut spool = Spool::open(directory.path(), ROOM, 1).unwrap();
        assert_eq!(spool.totals(0).records, 0);
        assert!(!torn.exists());
        spool.append(0, &flows(0..2)).unwrap();
        let name = format!("after {cut}");
        assert_eq!(read(&mut spool.reader(&name).unwrap(), 9).len(), 2);
    }
}

#[test]
fn a_spool_of_another_version_is_left_to_it() {
    let directory = Directory::new();
    drop(Spool::open(directory.path(), ROOM, 1).map(|mut spool| spool.append(0, &flows(0..5))));
    let path = directory.path().join("00000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    bytes[7] = b'1';
    fs::write(&path, &bytes).unwrap();
    let error = Spool::open(directory.path(), ROOM, 1).unwrap_err();
    assert!(error.to_string().contains("another version"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "it is as it was");
}

#[test]
fn a_spool_of_the_version_before_is_read_and_gone_on_with_behind_it() {
    let directory = Directory::new();
    let path = directory.path().join("00000001.seg");
    let body = |number| Body::Flow(flow(number));
    let mut older = b"RTSPOOL2\0\x01".to_vec();
    older.extend([0; 16]);
    older.extend(crc32fast::hash(&older).to_be_bytes());
    for first in [0, 2] {
        let (mut frame, mut payload) = (Vec::new(), vec![0, 0, 0, 2]);
        payload.extend(u64::to_be_bytes(first));
        for number in first..first + 2 {
            frame.clear();
            body(number).encode(&mut frame);
            payload.extend(&frame[..122]);
        }
        older.extend((payload.len() as u32).to_be_bytes());
        older.extend(crc32fast::hash(&payload).to_be_bytes());
        older.extend(payload);
    }
    older.extend([0, 0, 1]); // of a frame that a kill cut off
    fs::write(&path, &older).unwrap();
    let mut spool = Spool::open(directory.path(), ROOM, 1).unwrap();
    assert_eq!(spool.totals(0), Totals { records: 4, flows: 4 });
    let said = Body::Flow(crate::record::tests::said());
    assert!(spool.append(0, std::slice::from_ref(&said)).unwrap());
    drop(spool);
    let mut spool = Spool::open(directory.path(), ROOM, 1).unwrap();
    assert_eq!(spool.totals(0), Totals { records: 5, flows: 5 });
    let mut reader = spool.reader("a").unwrap();
    let records = read(&mut reader, 100);
    let sequences: Vec<_> = records.iter().map(|record| record.sequence).collect();
    assert_eq!(sequences, [0, 1, 2, 3, 4]);
    let bodies: Vec<_> = records.into_iter().map(|record| record.body).collect();
    assert_eq!(bodies, [body(0), body(1), body(2), body(3), said]);
    spool.append(0, &flows(5..6)).unwrap();
    assert_eq!(read(&mut reader, 100).len(), 1);
    assert!(!path.exists() || spool.append(0, &flows(6..7)).unwrap() && !path.exists());
}

#[test]
fn one_that_has_room_for_a_frame_takes_the_next_when_that_was_read() {
    let directory = Directory::new();
    let mut scratch = Vec::new();
    frame::encode(&mut scratch, 0, 0, &flows(0..100));
    let most = scratch.len() as u64 * 3 / 2;
    let mut spool = Spool::open(directory.path(), most, 1).unwrap();
    let mut reader = spool.reader("a").unwrap();
    for round in 0..5_u64 {
        let bodies = flows(100 * round..100 * (round + 1));
        let is_taken = (0..3).any(|_| {
            let is_taken = spool.append(0, &bodies).unwrap();
            assert!(is_taken || reader.next_batch(1, Duration::ZERO).unwrap().is_none());
            is_taken
        });
        assert!(is_taken, "round {round}");
        assert_eq!(read(&mut reader, 1000).len(), 100);
    }
}

#[test]
fn it_keeps_within_its_bound_and_takes_records_again_when_there_is_room() {
    let directory = Directory::new();
    let mut spool = Spool::open(directory.path(), ROOM, 1).unwrap();
    let mut reader = spool.reader("a").unwrap();
    let chunk = flows(0..100);
    let mut appended = 0;
    while spool.append(0, &chunk).unwrap() {
        appended += 100;
        assert!(spool.bytes() <= ROOM);
    }
    assert!(appended > ROOM / LEN as u64 * 9 / 10, "{appended}");
    let mut got = 0;
    while got < appended {
        got += read(&mut reader, 1000).len() as u64;
    }
    for _ in 0..40 {
        assert!(spool.append(0, &chunk).unwrap());
        appended += 100;
    }
    let files = fs::read_dir(directory.path()).unwrap().count();
    assert!(files < 12, "{files} files");
    while got < appended {
        let records = read(&mut reader, 1000);
        assert_eq!(records[0].sequence, got);
        got += records.len() as u64;
    }
}

#[test]
fn one_that_is_made_smaller_takes_records_again_when_what_was_there_is_delivered() {
    let directory = Directory::new();
    let mut spool = Spool::open(directory.path(), 64 * ROOM, 1).unwrap();
    let mut reader = spool.reader("a").unwrap();
    for _ in 0..300 {
        assert!(spool.append(0, &flows(0..100)).unwrap());
    }
    assert!(spool.bytes() > 2 * ROOM);
    assert_eq!(read(&mut reader, 30_000).len(), 30_000);
    drop((spool, reader));
    let mut spool = Spool::open(directory.path(), ROOM, 1).unwrap();
    let mut reader = spool.reader("a").unwrap();
    assert!(!spool.append(0, &flows(0..1)).unwrap());
    assert!(read(&mut reader, 1).is_empty());
    assert!(spool.append(0, &flows(0..1)).unwrap());
    assert_eq!(read(&mut reader, 1)[0].sequence, 30_000);
    assert!(spool.bytes() < ROOM);
}

#[test]
fn one_that_is_full_takes_counts() {
    let directory = Directory::new();
    let mut spool = Spool::open(directory.path(), ROOM, 1).unwrap();
    let _reader = spool.reader("a").unwrap();
    while spool.append(0, &flows(0..1)).unwrap() {}
    for _ in 0..50 {
        assert!(spool.append(0, &[Body::Counts(Counts::default())]).unwrap());
    }
    assert!(spool.bytes() <= ROOM + ROOM / 64);
}

#[test]
fn what_a_kill_took_is_counted_once() {
    let directory = Directory::new();
    let mut spool = Spool::open(directory.path(), ROOM, 1).unwrap();
    spool.append(0, &flows(0..5)).unwrap();
    spool.append(0, &[Body::Counts(Counts::default())]).unwrap();
    spool.ledger().set(0, Counter::Made, 12).unwrap();
    spool.ledger().set(0, Counter::Overflowed, 3).unwrap();
    drop(spool); // as a kill would
    for _ in 0..2 {
        let spool = Spool::open(directory.path(), ROOM, 1).unwrap();
        assert_eq!(spool.ledger().entry(0).unwrap().lost, 4);
        assert_eq!(spool.totals(0), Totals { records: 6, flows: 5 });
    }
}
