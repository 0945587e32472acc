//! Files as streams, streams into files.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringtap::packet::{OwnedPacket, Timestamp};
use ringtap::pcap::{
    BackgroundWriter, CaptureReader, CaptureWriter, FileFormat, PacketSink, PcapSource, PcapTapExt,
    PreTrigger, RotatingWriter, Speed, TapPolicy,
};
use ringtap::{AsyncCapture, BpfFilter, Capture, Error, Packet, PacketBatch, executor, time};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Directory, Generator, Traffic, namespace};

const PATIENCE: Duration = Duration::from_secs(20);

/// A file of packets that were recorded so many milliseconds apart.
fn file(directory: &Directory, count: u64, apart: u64) -> PathBuf {
    let path = directory.path().join("recorded.pcap");
    let traffic = Traffic::default();
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 2 | 4 << 16, 0, 0, 65_535, 1] {
        bytes.extend(word.to_ne_bytes());
    }
    for number in 0..count {
        let frame = traffic.frame(number, 0);
        let millis = number * apart;
        let len = frame.len() as u32;
        for word in
            [1_700_000_000 + (millis / 1000) as u32, (millis % 1000 * 1000) as u32, len, len]
        {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(frame);
    }
    std::fs::write(&path, bytes).unwrap();
    path
}

fn numbers<'a>(packets: impl IntoIterator<Item = Packet<'a>>) -> Vec<u64> {
    let mark =
        |packet: Packet<'_>| ringtap_lab::Mark::find(packet.data()).expect("one of ours").number;
    packets.into_iter().map(mark).collect()
}

fn read(path: &std::path::Path) -> Vec<u64> {
    let mut reader = CaptureReader::open(path).unwrap();
    let mut numbers = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        numbers.extend(self::numbers([record.packet()]));
    }
    numbers
}

#[ringtap_lab::test]
fn a_file_is_played_in_rounds_up_to_a_limit_and_as_fast_as_was_recorded() {
    let directory = Directory::new();
    let path = file(&directory, 1_000, 1);
    let all = |source: PcapSource| -> Vec<u64> {
        let mut source = source;
        source.batches().flat_map(|batch| numbers(&batch.unwrap())).collect()
    };
    let open = || PcapSource::open(&path).unwrap();
    let once: Vec<u64> = (0..1_000).collect();
    assert_eq!(all(open()), once);
    assert_eq!(all(open().rounds(3)), [&once[..], &once, &once].concat());
    assert_eq!(all(open().rounds(3).limit(1_500)), [&once[..], &once[..500]].concat());
    assert_eq!(all(open().limit(0)), []);
    let reader = std::fs::File::open(&path).unwrap();
    assert_eq!(all(PcapSource::from_reader(reader).unwrap().rounds(9)), once);
    // Nothing comes before its time.
    let began = Instant::now();
    assert_eq!(all(open().limit(101).speed(Speed::Recorded(2.0))), once[..101]);
    assert!(began.elapsed() >= Duration::from_millis(49), "{:?}", began.elapsed());
    // A batch is of packets that are due together.
    let mut slow = open().limit(10).speed(Speed::Recorded(0.1));
    assert!(slow.batches().all(|batch| batch.unwrap().len() == 1));
    let mut fast = open().speed(Speed::Recorded(100.0));
    assert!(fast.batches().any(|batch| batch.unwrap().len() > 20));
}

#[ringtap_lab::test]
fn times_that_are_missing_or_out_of_order_hold_up_nothing() {
    let directory = Directory::new();
    let path = directory.path().join("odd");
    let frame = Traffic::default().frame(0, 0);
    let write = |micros: &mut dyn Iterator<Item = u64>| {
        let mut writer = CaptureWriter::create(&path).unwrap();
        for micros in micros {
            let (secs, nanos) =
                (1_700_000_000 + (micros / 1_000_000) as u32, (micros % 1_000_000 * 1_000) as u32);
            writer.write(&Packet::from_bytes(&frame, Timestamp { secs, nanos })).unwrap();
        }
        writer
    };
    let play = |speed| -> Vec<Result<PacketBatch, Error>> {
        let mut source = PcapSource::open(&path).unwrap().speed(Speed::Recorded(speed));
        source.batches().take(1_000).collect()
    };
    let count = |batches: &[Result<PacketBatch, Error>]| -> usize {
        batches.iter().map(|batch| batch.as_ref().unwrap().len()).sum()
    };
    // 10 ms of recording, shuffled: at a hundredth of its speed a second, not a hundred.
    write(&mut (0..200).map(|number| if number % 2 == 0 { 0 } else { 10_000 })).finish().unwrap();
    let began = Instant::now();
    assert_eq!(count(&play(0.1)), 200);
    assert!(began.elapsed() >= Duration::from_millis(99));
    // A packet without a time is due with the one before: else it would be 54 years.
    let mut writer = write(&mut [0].into_iter());
    let body = [&(frame.len() as u32).to_ne_bytes()[..], &frame].concat();
    writer.write_block(3, &body).unwrap();
    writer.write(&Packet::from_bytes(&frame, Timestamp { secs: 1_700_000_000, nanos: 5 })).unwrap();
    writer.finish().unwrap();
    assert_eq!(count(&play(1.0)), 3);
    // Times at both ends of what there is, as fast as can be.
    write(&mut (0..50).map(|number| if number % 2 == 0 { 0 } else { 2_000_000_000_000_000 }))
        .finish()
        .unwrap();
    assert_eq!(count(&play(f64::INFINITY)), 50);
    for speed in [0.0, -1.0, f64::NAN] {
        let batches = play(speed);
        assert!(
            batches.len() == 1
                && batches[0].as_ref().is_err_and(|e| e.to_string().contains("above 0"))
        );
    }
}

#[ringtap_lab::test]
fn a_pipe_delivers_what_it_has_and_a_file_that_is_gone_ends_its_rounds() {
    let directory = Directory::new();
    let path = file(&directory, 5, 0);
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, &std::fs::read(&path).unwrap()).unwrap();
    let mut source = PcapSource::from_reader(reader).unwrap();
    // More may come, and is not waited for.
    assert_eq!(source.next_batch().unwrap().unwrap().len(), 5);
    drop(writer);
    assert!(source.next_batch().unwrap().is_none());
    let mut source = PcapSource::open(&path).unwrap().rounds(u64::MAX);
    std::fs::remove_file(&path).unwrap();
    let items: Vec<_> = source.batches().take(10).collect();
    assert_eq!(items.len(), 2, "the packets, the error, the end");
    assert!(items[0].as_ref().is_ok_and(|batch| batch.len() == 5) && items[1].is_err());
}

#[ringtap_lab::test]
fn a_file_is_a_stream_like_any_other() {
    let directory = Directory::new();
    let path = file(&directory, 600, 1);
    executor::block_on(async {
        let filter: BpfFilter = "udp and less 100".parse().unwrap();
        let mut source = PcapSource::open(&path).unwrap().speed(Speed::Recorded(20.0));
        let began = Instant::now();
        let mut seen = Vec::new();
        while let Some(batch) = source.next().await {
            let batch = batch.unwrap();
            assert!(batch.is_detached());
            seen.extend(numbers(batch.iter().filter(|packet| filter.matches(packet.data()))));
            assert!(batch.ts_first() <= batch.ts_last());
        }
        assert_eq!(seen, (0..600).collect::<Vec<_>>());
        assert!(began.elapsed() >= Duration::from_millis(29), "{:?}", began.elapsed());
        // Dropped while it waits, it leaves nothing behind.
        let mut slow = PcapSource::open(&path).unwrap().speed(Speed::Recorded(1e-6));
        assert_eq!(slow.next().await.unwrap().unwrap().len(), 1);
        assert!(time::timeout(Duration::from_millis(5), slow.next()).await.is_err());
    });
}

/// Fails from a certain batch on.
struct Failing(usize);

impl PacketSink for Failing {
    fn write_packet(&mut self, _: &Packet<'_>) -> ringtap::Result<()> {
        unreachable!("batches are written whole")
    }

    fn write_batch(&mut self, _: &PacketBatch) -> ringtap::Result<()> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| Error::other("no room"))?;
        Ok(())
    }

    fn flush(&mut self) -> ringtap::Result<()> {
        Ok(())
    }
}

#[ringtap_lab::test]
fn a_tap_writes_what_passes_and_fails_as_it_was_told() {
    let directory = Directory::new();
    let path = file(&directory, 1_000, 0);
    executor::block_on(async {
        let copy = directory.path().join("copy.pcapng");
        let writer = CaptureWriter::create(&copy).unwrap();
        let mut tap = PcapSource::open(&path).unwrap().with_pcap_tap(writer, TapPolicy::FailStream);
        let mut seen = Vec::new();
        while let Some(batch) = tap.next().await {
            seen.extend(numbers(&batch.unwrap()));
        }
        tap.into_parts().1.finish().unwrap();
        assert_eq!(seen.len(), 1_000);
        assert_eq!(read(&copy), seen);
        for (policy, good, bad, errors) in [
            (TapPolicy::Continue, 4, 0, 2),
            (TapPolicy::DropTap, 4, 0, 1),
            (TapPolicy::FailStream, 2, 2, 2),
        ] {
            let mut tap = PcapSource::open(&path).unwrap().with_pcap_tap(Failing(2), policy);
            let (mut is_good, mut is_bad) = (0, 0);
            while let Some(batch) = tap.next().await {
                *if batch.is_ok() { &mut is_good } else { &mut is_bad } += 1;
            }
            assert_eq!((is_good, is_bad, tap.errors()), (good, bad, errors), "{policy:?}");
            assert_eq!(tap.is_writing(), policy != TapPolicy::DropTap);
            assert_eq!(tap.take_error().is_some(), policy != TapPolicy::FailStream);
        }
    });
}

#[ringtap_lab::test]
fn a_trigger_writes_what_was_before_and_what_comes_after() {
    let directory = Directory::new();
    let path = file(&directory, 1_000, 10);
    let batches: Vec<PacketBatch> =
        PcapSource::open(&path).unwrap().batches().collect::<Result<_, _>>().unwrap();
    let copy = directory.path().join("copy");
    let new = |bytes| PreTrigger::new(CaptureWriter::create(&copy).unwrap(), bytes);
    // By bytes: only the last batches are kept.
    let mut trigger = new(60_000);
    batches.iter().for_each(|batch| trigger.write_batch(batch).unwrap());
    let kept = trigger.kept() as u64;
    assert!(kept > 200 && kept + trigger.forgotten() == 1_000, "{kept}");
    assert_eq!(read(&copy), [], "nothing yet");
    trigger.fire().unwrap();
    assert_eq!(trigger.kept(), 0);
    trigger.write_packet(&batches[0].iter().next().unwrap()).unwrap();
    trigger.write_batch(&batches[0]).unwrap();
    trigger.into_inner().finish().unwrap();
    let first = numbers(&batches[0]);
    assert_eq!(
        read(&copy),
        [&(1_000 - kept..1_000).collect::<Vec<_>>()[..], &[0], &first].concat()
    );
    // By time: of 10 seconds the last one.
    let mut trigger = new(usize::MAX).keep_for(Duration::from_secs(1));
    for packet in batches.iter().flat_map(|batch| batch.iter()) {
        trigger.write_packet(&packet).unwrap();
    }
    assert_eq!(trigger.kept(), 101);
    trigger.fire().unwrap();
    trigger.rearm();
    trigger.write_batch(&batches[0]).unwrap();
    assert!(!trigger.has_fired() && trigger.kept() > 0);
    trigger.into_inner().finish().unwrap();
    assert_eq!(read(&copy), (899..1_000).collect::<Vec<_>>());
    // A sink that fails has taken all the same: nothing is given twice.
    let mut trigger = PreTrigger::new(Failing(1), usize::MAX);
    batches.iter().for_each(|batch| trigger.write_batch(batch).unwrap());
    trigger.fire().unwrap_err();
    assert_eq!(trigger.kept(), 0);
    *trigger.get_mut() = Failing(100);
    trigger.write_batch(&batches[0]).unwrap();
    assert_eq!((trigger.kept(), trigger.get_mut().0), (0, 99));
}

#[ringtap_lab::test]
fn a_live_stream_is_written_by_a_thread_as_it_passes() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let directory = Directory::new();
    let copy = directory.path().join("copy");
    let file = CaptureWriter::builder().format(FileFormat::PcapNanos).create(&copy).unwrap();
    let writer = BackgroundWriter::spawn(file, 8 << 20).unwrap();
    let capture = Capture::builder().interface(&veth.right).block_timeout_ms(2);
    let capture = capture.block_size(1 << 18).block_count(16);
    executor::block_on(async {
        let capture = AsyncCapture::new(capture.build().unwrap()).unwrap();
        let mut tap = capture.with_pcap_tap(writer, TapPolicy::FailStream);
        let frames: Vec<_> = (0..2_000).map(|number| Traffic::default().frame(number, 0)).collect();
        let sender = Sender::open(&veth.left).unwrap();
        let mut seen: Vec<OwnedPacket> = Vec::new();
        for frames in frames.chunks(200) {
            sender.send_all(frames).unwrap();
            let wanted = seen.len() + frames.len();
            while seen.len() < wanted {
                let batch = tap.next().await.unwrap().unwrap();
                seen.extend(batch.iter().map(|packet| packet.to_owned()));
            }
        }
        let (file, stats) = tap.into_parts().1.finish().unwrap();
        assert_eq!((stats.written, stats.dropped), (2_000, 0));
        file.finish().unwrap();
        assert_eq!(read(&copy), (0..2_000).collect::<Vec<_>>());
    });
}

#[cfg(all(feature = "gzip", feature = "lz4"))]
#[ringtap_lab::test]
fn compressed_files_are_read_as_they_were_written() {
    use ringtap::pcap::Compression;

    let directory = Directory::new();
    let path = file(&directory, 5_000, 1);
    let plain = std::fs::metadata(&path).unwrap().len();
    for (compression, tool) in [(Compression::Gzip, Some("gzip")), (Compression::Lz4, None)] {
        let copy = directory.path().join("copy");
        let options =
            CaptureWriter::builder().format(FileFormat::PcapNanos).compression(compression);
        let mut writer = options.create(&copy).unwrap();
        for batch in PcapSource::open(&path).unwrap().batches() {
            writer.write_batch(&batch.unwrap()).unwrap();
        }
        writer.finish().unwrap();
        assert!(std::fs::metadata(&copy).unwrap().len() < plain / 2);
        assert_eq!(read(&copy), (0..5_000).collect::<Vec<_>>());
        if let Some(tool) = tool {
            let file = std::fs::File::open(&copy).unwrap();
            let status = std::process::Command::new(tool).arg("-t").stdin(file).status();
            assert!(status.unwrap().success(), "{tool} finds nothing wrong with it");
        }
        // Each flush ends a member or frame: all of them are read.
        let options = CaptureWriter::builder().compression(compression);
        let mut writer = options.clone().create(&copy).unwrap();
        let batches: Vec<_> =
            PcapSource::open(&path).unwrap().batches().collect::<Result<_, _>>().unwrap();
        for batch in &batches {
            writer.write_batch(batch).unwrap();
            writer.flush().unwrap();
        }
        assert_eq!(read(&copy), (0..5_000).collect::<Vec<_>>(), "before it is finished");
        writer.finish().unwrap();
        assert!(matches!(options.append(&copy), Err(Error::File(_))));
        // Cut off, it says so.
        let bytes = std::fs::read(&copy).unwrap();
        std::fs::write(&copy, &bytes[..bytes.len() / 2]).unwrap();
        let mut reader = CaptureReader::open(&copy).unwrap();
        let error = loop {
            match reader.next_record() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends as if it were whole"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("copy"), "{error}");
        assert!(CaptureWriter::append(&copy).is_err());
    }
}

#[cfg(all(feature = "gzip", feature = "lz4"))]
#[ringtap_lab::test]
fn where_the_disk_is_full_for_a_while_a_compressed_file_is_whole_all_the_same() {
    use ringtap::pcap::Compression;
    use ringtap_lab::directory;

    let recorded = Directory::new();
    let path = file(&recorded, 20_000, 0);
    let batches: Vec<_> =
        PcapSource::open(&path).unwrap().batches().collect::<Result<_, _>>().unwrap();
    for compression in [Compression::Gzip, Compression::Lz4] {
        let Some(disk) = directory::tmpfs(1 << 20) else { return };
        let copy = disk.path().join("copy");
        let options = CaptureWriter::builder().compression(compression);
        let mut writer = options.create(&copy).unwrap();
        let ballast = disk.path().join("ballast");
        std::fs::write(&ballast, vec![1; (1 << 20) - (48 << 10)]).unwrap();
        let failures: usize =
            batches.iter().map(|batch| usize::from(writer.write_batch(batch).is_err())).sum();
        let is_full = writer.flush().is_err();
        assert!(failures > 0 || is_full, "{compression:?} filled nothing");
        std::fs::remove_file(&ballast).unwrap();
        let stats = writer.stats();
        writer.finish().unwrap();
        assert_eq!(read(&copy).len() as u64, stats.packets, "{compression:?}");
        assert_eq!(stats.packets + stats.dropped, 20_000);
    }
}

#[ringtap_lab::test]
fn a_file_is_closed_on_time_if_no_packet_arrives() {
    let Some(net) = namespace() else { return };
    let (veth, scratch) = (net.veth(), Directory::new());
    let age = Duration::from_millis(50);
    let rotating = || {
        let writer = RotatingWriter::builder(scratch.path(), "idle");
        writer.max_time(age).build().unwrap()
    };
    // On a reactor.
    executor::block_on(async {
        let capture = Capture::builder().interface(&veth.right).block_timeout_ms(2);
        let capture = AsyncCapture::new(capture.build().unwrap()).unwrap();
        let mut tap = capture.with_pcap_tap(rotating(), TapPolicy::FailStream);
        Generator::new(&veth.left, &Traffic::default()).flood(1);
        assert_eq!(tap.next().await.unwrap().unwrap().len(), 1);
        let path = tap.sink_mut().path().expect("a file").to_owned();
        let start = Instant::now();
        while tap.sink_mut().path().is_some() {
            let _ = time::timeout(Duration::from_millis(20), tap.next()).await;
            assert!(start.elapsed() < PATIENCE, "it is closed in time");
        }
        let mut source = PcapSource::open(&path).unwrap();
        let packets: usize = source.batches().map(|batch| batch.unwrap().len()).sum();
        assert_eq!(packets, 1, "and whole");
    });

    // In a thread, which has a sink that says what is due.
    #[derive(Default)]
    struct Due {
        at: Option<Instant>,
        ticks: Arc<AtomicU32>,
    }
    impl PacketSink for Due {
        fn write_packet(&mut self, _: &Packet<'_>) -> ringtap::Result<()> {
            self.at = Some(Instant::now() + Duration::from_millis(20));
            Ok(())
        }
        fn flush(&mut self) -> ringtap::Result<()> {
            Ok(())
        }
        fn next_due(&self) -> Option<Instant> {
            self.at
        }
        fn tick(&mut self) -> ringtap::Result<()> {
            self.at = None;
            self.ticks.fetch_add(1, SeqCst);
            Ok(())
        }
    }
    let sink = Due::default();
    let ticks = Arc::clone(&sink.ticks);
    let mut writer = BackgroundWriter::spawn(sink, 1 << 20).unwrap();
    writer.write_packet(&Packet::from_bytes(&[0; 60], Timestamp::default())).unwrap();
    let start = Instant::now();
    while ticks.load(SeqCst) == 0 {
        assert!(start.elapsed() < PATIENCE, "it is done in time");
        std::thread::sleep(Duration::from_millis(1));
    }
    writer.finish().unwrap();
}
