//! What a flow is: by addresses and ports, by pairs of hosts, by hardware addresses. `cargo run --features flow --example
//! flow_keys -- a.pcap`, or without arguments on talk made up.

use std::io::Cursor;

use futures_util::StreamExt;
use ringtap::flow::extract::{FiveTuple, IpPair, MacPair};
use ringtap::flow::{FlowEvent, FlowExt, FlowExtractor};
use ringtap::packet::Timestamp;
use ringtap::pcap::{CaptureWriter, PcapSource};
use ringtap::{Packet, executor};
use ringtap_lab_wire::talk;

fn source() -> ringtap::Result<PcapSource> {
    if let Some(path) = std::env::args().nth(1) {
        return PcapSource::open(path);
    }
    let mut writer = CaptureWriter::builder().to(Vec::new())?;
    for number in 0..100 {
        for frame in talk::visit((number % 20) + ((number / 20) << 16)) {
            writer.write(&Packet::from_bytes(&frame, Timestamp { secs: number, nanos: 0 }))?;
        }
    }
    PcapSource::from_reader(Cursor::new(writer.finish()?))
}

async fn count<E>(extractor: E) -> ringtap::Result<usize>
where
    E: FlowExtractor + Unpin,
    E::Key: Unpin,
{
    let mut flows = source()?.flow_stream(extractor);
    let mut count = 0;
    while let Some(event) = flows.next().await {
        count += usize::from(matches!(event?, FlowEvent::Started { .. }));
    }
    Ok(count)
}

fn main() -> ringtap::Result<()> {
    executor::block_on(async {
        println!(
            "{:>6} by protocol, addresses and ports",
            count(FiveTuple::bidirectional()).await?
        );
        println!(
            "{:>6} the same, each direction by itself",
            count(FiveTuple::directional()).await?
        );
        println!("{:>6} by pairs of hosts", count(IpPair).await?);
        println!("{:>6} by pairs of hardware addresses", count(MacPair).await?);
        Ok(())
    })
}
