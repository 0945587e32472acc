//! Programs: the examples and the doctor.

#[cfg(feature = "af-xdp")]
mod doctor;
#[cfg(all(
    feature = "af-xdp",
    feature = "channel",
    feature = "flow-protocols",
    feature = "flow-records",
    feature = "pcap"
))]
mod examples;

ringtap_lab::test_binary!();
