//! Capture files.

mod faults;
mod files;
mod streams;
mod tshark;
mod writing;

ringtap_lab::test_binary!();
