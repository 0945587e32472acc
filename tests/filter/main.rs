//! Filters: on live sockets, and beside libpcap.

mod differential;
mod live;
mod oracle;

ringtap_lab::test_binary!();
