//! Filters: on live sockets, and beside libpcap.

mod differential;
mod live;
mod oracle;
mod wireless;

ringtap_lab::test_binary!();
