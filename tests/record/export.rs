//! Answers that are written to files, and answers as batches.

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{FlowEvent, FlowExt};
use ringtap::pcap::{CaptureReader, CaptureWriter, FileFormat, FileInterface};
use ringtap::record::{Archive, Recorder};
use ringtap::{Error, executor};
use ringtap_lab::{Directory, Generator, Traffic, namespace, tool};

use crate::{capture, files, packets, ring};

/// A series of each of these interfaces, in two files.
fn record(net: &ringtap_lab::Namespace, directory: &Directory, names: &[&str]) {
    executor::block_on(async {
        for name in names {
            let veth = net.veth();
            let mut capture = capture(ring(&veth.right));
            let stop = capture.stop_handle().unwrap();
            let traffic = Traffic { flows: 3, ..Traffic::default() };
            let builder = Recorder::builder(directory.path(), format!("of_{name}"));
            let mut recorder = builder.interface(FileInterface::ethernet(*name)).build().unwrap();
            let mut generator = Generator::new(&veth.left, &traffic);
            generator.flood(60);
            crate::give(&mut recorder, &mut capture, 60).await;
            recorder.rotate().unwrap();
            generator.flood(60);
            stop.stop();
            recorder.record(&mut capture).await.unwrap();
            assert_eq!(recorder.finish().await.unwrap().written, 120);
        }
    });
}

#[ringtap_lab::test]
fn each_packet_of_an_answer_is_of_the_interface_that_it_was_seen_on() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    record(&net, &directory, &["uplink", "downlink"]);
    let out = directory.path().join("answer");
    let archive = Archive::open(directory.path()).unwrap();
    let mut file = CaptureWriter::builder().each_interface().create(&out).unwrap();
    let mut answer = archive.query().packets();
    let mut names = Vec::new();
    while answer.write_next(&mut file).unwrap() {
        names.push(answer.interface().unwrap().name.clone().unwrap());
    }
    file.finish().unwrap();
    let count = |name: &str| names.iter().filter(|known| *known == name).count();
    assert_eq!((count("uplink"), count("downlink"), names.len()), (120, 120, 240));
    assert_eq!(archive.progress().bytes(), archive.bytes());

    // Two descriptions, although each was in two files.
    let mut reader = CaptureReader::open(&out).unwrap();
    let mut read = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        read.push(record.interface());
    }
    let described: Vec<_> = reader.interfaces().iter().map(|one| one.name.clone()).collect();
    assert_eq!(described.len(), 2);
    assert!(read.iter().map(|number| described[*number].clone().unwrap()).eq(names.clone()));
    let path = out.to_str().unwrap();
    let arguments = ["-r", path, "-T", "fields", "-e", "frame.interface_name"];
    let Some(shown) = tool::run("tshark", &arguments, &[]) else { return };
    assert!(shown.lines().eq(names.iter().map(String::as_str)));
}

#[ringtap_lab::test]
fn an_answer_goes_into_no_file_that_can_have_one_interface_only() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    record(&net, &directory, &["uplink"]);
    let archive = Archive::open(directory.path()).unwrap();
    let builder = CaptureWriter::builder().format(FileFormat::PcapNanos);
    let mut file = builder.interface(FileInterface::ethernet("x")).to(Vec::new()).unwrap();
    let error = archive.query().packets().write_next(&mut file).unwrap_err();
    assert!(matches!(error, Error::File(_)), "{error}");
}

#[ringtap_lab::test]
fn batches_have_the_packets_of_an_answer_and_flows_are_counted_from_them() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    record(&net, &directory, &["uplink", "downlink"]);
    let query = Archive::open(directory.path()).unwrap().query();
    let wanted: Vec<_> =
        query.clone().packets().map(|packet| packet.unwrap().data().to_vec()).collect();
    let mut batches = query.clone().batches();
    let mut found = Vec::new();
    while let Some(batch) = batches.next_batch().unwrap() {
        found.extend(batch.iter().map(|packet| packet.data().to_vec()));
    }
    assert_eq!(found, wanted);
    assert_eq!(batches.report().packets, 240);
    assert!(batches.next_batch().unwrap().is_none());

    let flows = query.batches().flow_stream(FiveTuple::default());
    let ended = flows.filter_map(async |event| match event.unwrap() {
        FlowEvent::Ended { stats, .. } => Some(stats.packets_initiator + stats.packets_responder),
        _ => None,
    });
    let mut counts: Vec<u64> = executor::block_on(ended.collect());
    counts.sort_unstable();
    // Both interfaces have seen packets of the same flows.
    assert_eq!(counts, [80, 80, 80]);
}

#[ringtap_lab::test]
fn a_file_that_is_damaged_ends_its_own_series_only() {
    let Some(net) = namespace() else { return };
    let directory = Directory::new();
    record(&net, &directory, &["uplink", "downlink"]);
    let [path, ..] = &files(directory.path())[..] else { panic!("there are files") };
    let bytes = std::fs::read(path).unwrap();
    let cut = packets(path).0.len();
    std::fs::write(path, &bytes[..300]).unwrap();
    let left = packets(path).0.len();
    let mut batches = Archive::open(directory.path()).unwrap().query().batches();
    let mut found = 0;
    while let Some(batch) = batches.next_batch().unwrap() {
        found += batch.len();
    }
    assert_eq!(found, 240 - cut + left);
    assert_eq!(batches.report().cut_short, 1);
}
