//! The frames of capture files, for replay.

use std::fs::File;
use std::path::{Path, PathBuf};

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// Where real captures lie: `shared/pcaps` beside the repository, or `None`.
pub fn directory() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let directory = root.join("../shared/pcaps");
    directory.is_dir().then_some(directory)
}

/// The Ethernet frames of a capture file, pcap or pcapng; none of a file that is damaged or of
/// another link type.
pub fn ethernet_frames(path: &Path) -> Vec<Vec<u8>> {
    read(path).unwrap_or_default()
}

fn read(path: &Path) -> Option<Vec<Vec<u8>>> {
    let mut reader = create_reader(1 << 20, File::open(path).ok()?).ok()?;
    let mut frames = Vec::new();
    loop {
        let used = match reader.next() {
            Ok((used, block)) => {
                if !is_ethernet(&block) {
                    return None;
                }
                frames.extend(frame(&block).map(<[u8]>::to_vec));
                used
            }
            Err(PcapError::Eof) => return Some(frames),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().ok()?;
                continue;
            }
            Err(_) => return None,
        };
        reader.consume(used);
    }
}

fn is_ethernet(block: &PcapBlockOwned<'_>) -> bool {
    match block {
        PcapBlockOwned::LegacyHeader(header) => header.network == Linktype::ETHERNET,
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            interface.linktype == Linktype::ETHERNET
        }
        _ => true,
    }
}

fn frame<'a>(block: &'a PcapBlockOwned<'_>) -> Option<&'a [u8]> {
    match block {
        PcapBlockOwned::Legacy(packet) => packet.data.get(..packet.caplen as usize),
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            packet.data.get(..packet.caplen as usize)
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            packet.data.get(..packet.data.len().min(packet.origlen as usize))
        }
        _ => None,
    }
}
