//! Files written by the reactor of a host.

use ringtap::AsyncCapture;
use ringtap::pcap::CaptureReader;
use ringtap::record::{Archive, Recorder, Verified};
use ringtap_lab::{Directory, Generator, Pace, Tally, Traffic, namespace};

use crate::Host;
use crate::behaviours::{ring, run};

/// Every packet that is captured is in the files of a recorder, while the host goes on with what is its own.
///
/// # Panics
/// Where that is not so.
pub fn records_what_it_captures<H: Host>() {
    const COUNT: u64 = 20_000;
    let Some(net) = namespace() else { return };
    net.loopback_up(); // for the own I/O of a host
    let (veth, directory) = (net.veth(), Directory::new());
    let traffic = Traffic { len: 300, flows: 8, ..Traffic::default() };
    let (sender, plan) = (veth.left.clone(), traffic.clone());
    let pace = Pace::default();
    let counter = pace.clone();
    run::<H, _>(async {
        let mut capture = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
        let stop = capture.stop_handle().unwrap();
        let sending = std::thread::spawn(move || {
            Generator::new(&sender, &plan).in_step(COUNT, &pace);
            stop.stop();
        });
        H::spawn(H::own_io(20));
        let recorder = Recorder::builder(directory.path(), "p").max_bytes(1 << 20);
        let mut recorder = recorder.build().unwrap();
        while let Some(batch) = capture.next_batch().await.unwrap() {
            counter.count(batch.len());
            recorder.write(batch).await.unwrap();
        }
        let stats = recorder.finish().await.unwrap();
        assert_eq!((stats.written, stats.lost), (COUNT, 0), "{stats:?}");
        assert!(stats.files > 1 && stats.copied == 0, "{stats:?}");
        capture.close().await;
        sending.join().unwrap();
    });
    let mut tally = Tally::new(&traffic, COUNT);
    let archive = Archive::open(directory.path()).unwrap();
    for file in archive.series().flat_map(|series| archive.files(series)) {
        let mut reader = CaptureReader::open(file).unwrap();
        while let Some(record) = reader.next_record().unwrap() {
            tally.record(record.packet().data());
        }
    }
    assert!(archive.query().verify().unwrap().iter().all(Verified::is_complete));
    tally.assert_complete();
}
