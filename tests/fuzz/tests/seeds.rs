//! Every seed holds what the fuzzers check.

use std::path::Path;

fn each(target: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(directory).expect("seeds are in the repository") {
        check(&std::fs::read(entry.expect("a seed").path()).expect("a seed"));
        count += 1;
    }
    assert!(count >= 20, "{count} seeds of {target}");
}

#[test]
fn of_filters_as_text() {
    each("filter_text", ringtap_fuzz::filter_text);
}

#[test]
fn of_filters_made_of_words() {
    each("filter_words", ringtap_fuzz::filter_words);
}

#[test]
fn of_capture_files() {
    each("capture_pcapng", ringtap_fuzz::capture_pcapng);
    each("capture_pcap", ringtap_fuzz::capture_pcap);
}

#[test]
fn of_programs() {
    each("filter_program", ringtap_fuzz::filter_program);
}

#[test]
fn of_flows() {
    each("flow_frames", ringtap_fuzz::flow_frames);
}
