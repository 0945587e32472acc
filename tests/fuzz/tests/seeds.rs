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

#[test]
fn of_rings_that_a_kernel_writes() {
    each("block", ringtap_fuzz::block);
    each("slot", ringtap_fuzz::slot);
    each("descriptors", ringtap_fuzz::descriptors);
}

#[test]
fn of_messages_of_the_kernel() {
    each("netlink_answer", ringtap_fuzz::netlink_answer);
    each("control_messages", ringtap_fuzz::control_messages);
}

#[test]
fn of_compressed_files_and_listings() {
    each("capture_compressed", ringtap_fuzz::capture_compressed);
    each("filter_listing", ringtap_fuzz::filter_listing);
}

#[test]
fn of_headers_and_tables() {
    each("layers", ringtap_fuzz::layers);
    each("flow_table", ringtap_fuzz::flow_table);
}

#[test]
fn of_messages() {
    each("dns_message", ringtap_fuzz::dns_message);
    each("http_stream", ringtap_fuzz::http_stream);
    each("tls_stream", ringtap_fuzz::tls_stream);
}
