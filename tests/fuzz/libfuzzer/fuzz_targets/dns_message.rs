#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringtap_fuzz::dns_message(bytes));
