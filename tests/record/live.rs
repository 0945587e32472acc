//! Real packets, into files that every reader agrees about.

use std::time::Duration;

use ringtap::capture::RingLayout;
use ringtap::error::FileFault;
use ringtap::interface::Interface;
use ringtap::packet::Timestamp;
use ringtap::pcap::{CaptureReader, FileInterface, PcapSource};
use ringtap::record::{OnDiskError, Recorder, RecorderBuilder};
use ringtap::{Error, executor, time};
use ringtap_lab::{Directory, Generator, Traffic, frames, namespace, pcap, seccomp, skip, tool};

use crate::{capture, files, packets, recorded, ring};

fn recorder(directory: &Directory) -> RecorderBuilder {
    Recorder::builder(directory.path(), "p").interface(FileInterface::ethernet("right"))
}

/// Records a flood of `count` frames, and checks what is in the files.
async fn flood(
    veth: &ringtap_lab::Veth,
    options: ringtap::capture::CaptureBuilder,
    builder: RecorderBuilder,
    directory: &Directory,
    traffic: &Traffic,
    count: u64,
) -> ringtap::record::RecordStats {
    let mut capture = capture(options);
    let stop = capture.stop_handle().unwrap();
    let (left, plan) = (veth.left.clone(), traffic.clone());
    let sender = std::thread::spawn(move || {
        Generator::new(&left, &plan).bursts(count, 64, Duration::from_micros(300));
        std::thread::sleep(Duration::from_millis(50));
        stop.stop();
    });
    let mut recorder = builder.build().unwrap();
    recorder.record(&mut capture).await.unwrap();
    let stats = recorder.finish().await.unwrap();
    sender.join().unwrap();
    let kernel = capture.stats().unwrap();
    assert_eq!(stats.packets, kernel.delivered, "{stats:?} {kernel:?}");
    assert_eq!((stats.written, stats.pending, stats.lost), (stats.packets, 0, 0), "{stats:?}");
    assert_eq!(kernel.delivered + kernel.drops, count - veth.lost());
    let tally = recorded(directory.path(), traffic, count);
    tally.assert_sound();
    assert_eq!(tally.received(), stats.written, "the files have what the recorder says");
    // The statistics of the last file are those of the kernel.
    let mut reader = CaptureReader::open(files(directory.path()).last().unwrap()).unwrap();
    while reader.next_record().unwrap().is_some() {}
    let statistics = reader.interfaces()[0].statistics;
    assert_eq!(
        (statistics.received, statistics.dropped),
        (Some(kernel.packets), Some(kernel.drops))
    );
    stats
}

#[ringtap_lab::test]
fn packets_of_every_length_are_in_the_file_as_they_arrived() {
    let Some(net) = namespace() else { return };
    executor::block_on(async {
        for len in [60, 61, 62, 63, 200, 1514] {
            for (aligned, offloads) in [(true, false), (false, false), (true, true)] {
                let (veth, directory) = (net.veth(), Directory::new());
                let traffic = Traffic { len, flows: 5, ..Traffic::default() };
                let options = ring(&veth.right).for_recording(aligned).offloads(offloads);
                let builder = recorder(&directory);
                let stats =
                    flood(&veth, options, builder, &directory, &traffic, frames(5_000)).await;
                assert!(stats.blocks > 0 && stats.copied == 0, "{stats:?}");
            }
        }
    });
}

#[ringtap_lab::test]
fn rings_of_frames_are_copied_and_lose_nothing() {
    let Some(net) = namespace() else { return };
    executor::block_on(async {
        let (veth, directory) = (net.veth(), Directory::new());
        let traffic = Traffic { len: 300, ..Traffic::default() };
        let options = ring(&veth.right).layout(RingLayout::Frames).frame_size(2048);
        let builder = recorder(&directory);
        let stats = flood(&veth, options, builder, &directory, &traffic, frames(20_000)).await;
        assert!(stats.blocks == 0 && stats.copied > 0, "{stats:?}");
    });
}

#[ringtap_lab::test]
fn files_follow_one_another_without_a_gap_and_the_oldest_go() {
    let Some(net) = namespace() else { return };
    executor::block_on(async {
        let (veth, directory) = (net.veth(), Directory::new());
        let traffic = Traffic { len: 1000, ..Traffic::default() };
        let builder = recorder(&directory).max_bytes(1 << 20);
        let count = frames(20_000);
        let stats =
            flood(&veth, ring(&veth.right), builder.clone(), &directory, &traffic, count).await;
        assert!(stats.files > 5 && stats.removed == 0, "{stats:?}");
        let all = files(directory.path());
        assert_eq!(all.len() as u64, stats.files, "the one that was prepared is gone");
        for path in &all {
            let len = path.metadata().unwrap().len();
            assert!(len <= (1 << 20) + (1 << 16) + 4096, "{len}");
        }

        // Another run goes on behind them, and keeps three in all.
        let mut recorder = builder.keep_files(3).sync(true).build().unwrap();
        let mut batches = PcapSource::open(all.last().unwrap()).unwrap();
        let count = packets(all.last().unwrap()).0.len() as u64;
        recorder.record_stream(&mut batches).await.unwrap();
        recorder.rotate().unwrap();
        recorder.record_stream(&mut PcapSource::open(all.last().unwrap()).unwrap()).await.unwrap();
        let stats = recorder.finish().await.unwrap();
        assert_eq!((stats.written, stats.files), (2 * count, 2));
        assert_eq!(stats.removed, all.len() as u64 - 1);
        let left = files(directory.path());
        assert_eq!(left.len(), 3);
        assert_eq!(left[0], all[all.len() - 1]);
        assert!(left[1] > left[0]);
    });
}

#[ringtap_lab::test]
fn real_captures_are_recorded_to_the_last_bit() {
    let Some(captures) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    executor::block_on(async {
        let mut count = 0;
        for entry in std::fs::read_dir(captures).unwrap() {
            let path = entry.unwrap().path();
            let Ok(mut source) = PcapSource::open(&path) else { continue };
            let (wanted, is_whole) = packets(&path);
            let [interface] = source.interfaces() else { continue };
            if !is_whole || wanted.is_empty() {
                continue;
            }
            let directory = Directory::new();
            let builder = Recorder::builder(directory.path(), "p").interface(interface.clone());
            let mut recorder = builder.build().unwrap();
            recorder.record_stream(&mut source).await.unwrap();
            let stats = recorder.finish().await.unwrap();
            let (read, is_whole) = packets(&files(directory.path())[0]);
            assert!(
                is_whole && stats.written == wanted.len() as u64,
                "{}: {stats:?}",
                path.display()
            );
            let same = read.iter().zip(&wanted).all(|(read, wanted)| {
                let (read, wanted) = (read.as_packet(), wanted.as_packet());
                let of = |packet: &ringtap::Packet<'_>| (packet.timestamp(), packet.original_len());
                read.data() == wanted.data() && of(&read) == of(&wanted)
            });
            assert!(same && read.len() == wanted.len(), "{}", path.display());
            count += 1;
        }
        assert!(count > 20, "{count} captures");
    });
}

#[ringtap_lab::test]
fn tags_beside_the_bytes_are_in_the_file_and_directions_too() {
    let Some(net) = namespace() else { return };
    executor::block_on(async {
        let (veth, directory) = (net.veth(), Directory::new());
        let mut capture = capture(ring(&veth.right));
        let mut injector = ringtap::Injector::open(&veth.left).unwrap();
        let tag = [0x81, 0, 0x60, 0x64];
        let frame = |number: u8, len: usize| -> Vec<u8> {
            let addresses = [[0xff; 6], [2, 0, 0, 0, 0, number]].concat();
            let rest: Vec<u8> = (0..len).map(|at| at as u8 ^ number).collect();
            [&addresses[..], &tag, &[0x88, 0xb5], &rest].concat()
        };
        for number in 0..100 {
            injector.send(&frame(number, 42 + usize::from(number))).unwrap();
        }
        injector.flush().unwrap();
        let mut recorder = recorder(&directory).build().unwrap();
        while recorder.stats().packets < 100 {
            let batch = time::timeout(Duration::from_secs(20), capture.next_batch()).await;
            let batch = batch.expect("they come").unwrap().unwrap();
            assert!(
                batch.iter().all(|packet| packet.stripped_vlan().is_some()),
                "the kernel takes it off"
            );
            recorder.write(batch).await.unwrap();
        }
        let stats = recorder.finish().await.unwrap();
        assert_eq!((stats.written, stats.lost), (100, 0));
        let path = &files(directory.path())[0];
        let (packets, _) = packets(path);
        for (number, packet) in packets.iter().enumerate() {
            let frame = frame(number as u8, 42 + number);
            assert_eq!(packet.data(), frame);
            assert_eq!(packet.as_packet().original_len(), frame.len());
            assert!(packet.as_packet().timestamp() > Timestamp { secs: 1_700_000_000, nanos: 0 });
        }
        let path = path.to_str().unwrap();
        // Received, as broadcast.
        let shown =
            tool::run("tshark", &["-r", path, "-T", "fields", "-e", "frame.packet_flags"], &[]);
        if let Some(shown) = shown {
            let flags: Vec<&str> = shown.lines().collect();
            assert_eq!(flags, vec!["0x0000000d"; 100]);
        }
    });
}

#[ringtap_lab::test]
fn other_programs_read_what_we_read() {
    let Some(net) = namespace() else { return };
    executor::block_on(async {
        let (veth, directory) = (net.veth(), Directory::new());
        let traffic = Traffic { len: 700, flows: 9, ..Traffic::default() };
        let options = ring(&veth.right).snap_len(200);
        let mut capture = capture(options);
        let stop = capture.stop_handle().unwrap();
        Generator::new(&veth.left, &traffic).flood(3_000);
        stop.stop();
        let mut recorder = recorder(&directory).build().unwrap();
        recorder.record(&mut capture).await.unwrap();
        let stats = recorder.finish().await.unwrap();
        assert!(stats.written > 2_000 && stats.lost == 0, "{stats:?}");
        let path = &files(directory.path())[0];
        let (ours, is_whole) = packets(path);
        assert!(is_whole);
        let path = path.to_str().unwrap();
        let fields = [
            "-r",
            path,
            "-T",
            "fields",
            "-e",
            "frame.time_epoch",
            "-e",
            "frame.len",
            "-e",
            "frame.cap_len",
        ];
        let Some(shown) = tool::run("tshark", &fields, &[]) else { return };
        let rows: Vec<String> = ours
            .iter()
            .map(|packet| {
                let packet = packet.as_packet();
                let Timestamp { secs, nanos } = packet.timestamp();
                format!("{secs}.{nanos:09}\t{}\t{}", packet.original_len(), packet.len())
            })
            .collect();
        assert!(shown.lines().eq(rows.iter().map(String::as_str)), "tshark sees it otherwise");
        let told = tool::run("capinfos", &["-c", "-M", path], &[]).unwrap();
        let wanted = format!("Number of packets:   {}", ours.len());
        assert!(told.contains(&wanted), "{told}");
    });
}

#[ringtap_lab::test]
fn tcpdump_reads_it_as_well() {
    // Not in a namespace: tcpdump needs one that maps all users.
    let directory = Directory::new();
    let Some(captures) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let path = captures.join("http.pcap");
    let Ok(mut source) = PcapSource::open(&path) else { return };
    let count = packets(&path).0.len();
    executor::block_on(async {
        let mut recorder = recorder(&directory).build().unwrap();
        recorder.record_stream(&mut source).await.unwrap();
        recorder.finish().await.unwrap();
    });
    let path = files(directory.path())[0].display().to_string();
    let Some(shown) = tool::run("tcpdump", &["-n", "-r", &path], &[]) else { return };
    assert_eq!(shown.lines().filter(|line| line.contains(" IP ")).count(), count);
}

#[ringtap_lab::test]
fn every_interface_is_described_in_a_capture_of_all() {
    let Some(net) = namespace() else { return };
    executor::block_on(async {
        let directory = Directory::new();
        let (first, second) = (net.veth(), net.veth());
        let options = ringtap::Capture::builder().interface(Interface::Any).ignore_outgoing(true);
        let mut capture = capture(options.block_size(1 << 16).block_count(256).block_timeout_ms(2));
        let stop = capture.stop_handle().unwrap();
        let traffic = Traffic::default();
        Generator::new(&first.left, &traffic).flood(30);
        Generator::new(&second.left, &traffic).flood(20);
        stop.stop();
        let builder = Recorder::builder(directory.path(), "any").each_interface();
        let mut recorder = builder.build().unwrap();
        recorder.record(&mut capture).await.unwrap();
        let stats = recorder.finish().await.unwrap();
        assert!(stats.written >= 50 && stats.copied > 0 && stats.lost == 0, "{stats:?}");
        let mut reader = CaptureReader::open(&files(directory.path())[0]).unwrap();
        let mut seen = std::collections::BTreeMap::<String, u64>::new();
        while let Some(record) = reader.next_record().unwrap() {
            let interface = record.interface();
            let name = reader.interfaces()[interface].name.clone().unwrap();
            *seen.entry(name).or_default() += 1;
        }
        assert!(seen[&first.right] >= 30 && seen[&second.right] >= 20, "{seen:?}");
    });
}

#[ringtap_lab::test]
fn without_io_uring_the_same_is_recorded() {
    let Some(net) = namespace() else { return };
    let (veth, directory) = (net.veth(), Directory::new());
    let traffic = Traffic { len: 200, flows: 5, ..Traffic::default() };
    seccomp::without(libc::SYS_io_uring_setup, None, libc::EPERM, || {
        executor::block_on(async {
            let builder = recorder(&directory);
            flood(&veth, ring(&veth.right), builder, &directory, &traffic, frames(5_000)).await;
        });
    });
}

#[ringtap_lab::test]
fn a_recorder_without_a_reactor_or_a_directory_says_so() {
    let directory = Directory::new();
    let none = Recorder::builder(directory.path(), "p").build();
    assert!(matches!(none, Err(Error::NoReactor)));
    executor::block_on(async {
        let missing = Recorder::builder(directory.path().join("missing"), "p").build();
        let Err(Error::File(error)) = missing else { panic!("{missing:?}") };
        assert!(
            matches!(error.fault(), FileFault::Io(error) if error.kind() == std::io::ErrorKind::NotFound)
        );
        // Nothing was given: no file.
        let recorder = Recorder::builder(directory.path(), "p").on_error(OnDiskError::DropAndRetry);
        assert_eq!(recorder.build().unwrap().finish().await.unwrap().files, 0);
        assert!(files(directory.path()).is_empty());
    });
}
