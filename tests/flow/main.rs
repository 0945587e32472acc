//! Flows, their streams, messages and records.

#[cfg(all(feature = "flow-protocols", feature = "flow-records"))]
mod cases;
mod conversations;
#[cfg(feature = "flow-protocols")]
mod edges;
#[cfg(feature = "flow-protocols")]
mod faults;
#[cfg(feature = "flow-protocols")]
mod hostile;
mod made;
#[cfg(feature = "flow-protocols")]
mod messages;
#[cfg(feature = "flow-records")]
mod records;
mod replay;
mod table;
mod tcp_vs_tshark;
mod tunnels;

ringtap_lab::test_binary!();
