//! Pages whose programs are compiled here, since they need tokio.

#[doc = include_str!("../../../docs/MIGRATING_FROM_NETRING.md")]
struct MigratedPrograms;

#[doc = include_str!("../../../docs/MIGRATING_FROM_PCAP.md")]
struct ProgramsFromPcap;
