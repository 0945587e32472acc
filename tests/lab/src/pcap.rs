//! The frames of capture files, for replay.

use std::fs::File;
use std::path::{Path, PathBuf};

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// A packet's bytes, and its length on the wire.
pub type Recorded = (Vec<u8>, u32);

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

/// The packets of a capture file of any link type: which, and each packet's bytes and length on the wire. `None`
/// of a file that is damaged, or of several link types.
pub fn packets(path: &Path) -> Option<(u16, Vec<Recorded>)> {
    let mut link = None;
    let mut packets = Vec::new();
    walk(path, |block| {
        if let Some(found) = link_type(block)
            && *link.get_or_insert(found) != found
        {
            return false;
        }
        packets.extend(frame(block).map(|(data, wire_len)| (data.to_vec(), wire_len)));
        true
    })?;
    Some((link?, packets))
}

fn read(path: &Path) -> Option<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    walk(path, |block| {
        frames.extend(frame(block).map(|(data, _)| data.to_vec()));
        link_type(block).is_none_or(|link| i32::from(link) == Linktype::ETHERNET.0)
    })?;
    Some(frames)
}

/// Looks at every block, as long as it is told to go on: `None` where it was not, or the file is damaged.
fn walk(path: &Path, mut look: impl FnMut(&PcapBlockOwned<'_>) -> bool) -> Option<()> {
    let mut reader = create_reader(1 << 20, File::open(path).ok()?).ok()?;
    loop {
        let used = match reader.next() {
            Ok((used, block)) => {
                if !look(&block) {
                    return None;
                }
                used
            }
            Err(PcapError::Eof) => return Some(()),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().ok()?;
                continue;
            }
            Err(_) => return None,
        };
        reader.consume(used);
    }
}

fn link_type(block: &PcapBlockOwned<'_>) -> Option<u16> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => u16::try_from(header.network.0).ok(),
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            u16::try_from(interface.linktype.0).ok()
        }
        _ => None,
    }
}

fn frame<'a>(block: &'a PcapBlockOwned<'_>) -> Option<(&'a [u8], u32)> {
    match block {
        PcapBlockOwned::Legacy(packet) => {
            Some((packet.data.get(..packet.caplen as usize)?, packet.origlen))
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            Some((packet.data.get(..packet.caplen as usize)?, packet.origlen))
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let len = packet.data.len().min(packet.origlen as usize);
            Some((packet.data.get(..len)?, packet.origlen))
        }
        _ => None,
    }
}
