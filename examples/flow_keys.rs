//! Counts the flows of a file by different definitions: by ports, hosts, and hardware addresses.
//!
//! ```sh
//! cargo run --release --features flow --example flow_keys -- a.pcap
//! ```
//!
//! `cargo run --release --bin lab -- flow_keys` tries it on generated traffic, without root.
//! It needs the crate `futures-util` besides ringtap.

use futures_util::StreamExt;
use ringtap::executor;
use ringtap::flow::extract::{FiveTuple, IpPair, MacPair};
use ringtap::flow::{FlowEvent, FlowExt, FlowExtractor};
use ringtap::pcap::PcapSource;

async fn count<E>(path: &str, extractor: E) -> ringtap::Result<usize>
where
    E: FlowExtractor + Unpin,
    E::Key: Unpin,
{
    let mut flows = PcapSource::open(path)?.flow_stream(extractor);
    let mut count = 0;
    while let Some(event) = flows.next().await {
        count += usize::from(matches!(event?, FlowEvent::Started { .. }));
    }
    Ok(count)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: flow_keys FILE")?;
    executor::block_on(async {
        let (both, each) = (FiveTuple::bidirectional(), FiveTuple::directional());
        println!("{:>6} by protocol, addresses and ports", count(&path, both).await?);
        println!("{:>6} with each direction on its own", count(&path, each).await?);
        println!("{:>6} by pairs of hosts", count(&path, IpPair).await?);
        println!("{:>6} by pairs of hardware addresses", count(&path, MacPair).await?);
        Ok(())
    })
}
