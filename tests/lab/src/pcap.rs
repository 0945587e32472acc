//! The frames of a classic capture file, for replay.

use std::io;
use std::path::{Path, PathBuf};

/// Where real captures lie: `shared/pcaps` beside the repository, or `None`.
pub fn directory() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let directory = root.join("../shared/pcaps");
    directory.is_dir().then_some(directory)
}

/// The frames of a classic (not pcapng) Ethernet capture; `None` for files of another kind.
///
/// # Errors
/// Where the file cannot be read.
pub fn ethernet_frames(path: &Path) -> io::Result<Option<Vec<Vec<u8>>>> {
    let bytes = std::fs::read(path)?;
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (header, mut rest) = bytes.split_at_checked(24)?;
    let read: fn([u8; 4]) -> u32 = match header[..4] {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => u32::from_le_bytes,
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => u32::from_be_bytes,
        _ => return None,
    };
    let ethernet = 1;
    if read(header[20..24].try_into().unwrap()) & 0xffff != ethernet {
        return None;
    }
    let mut frames = Vec::new();
    while let Some((record, after)) = rest.split_at_checked(16) {
        let captured = read(record[8..12].try_into().unwrap()) as usize;
        let (frame, after) = after.split_at_checked(captured)?;
        frames.push(frame.to_vec());
        rest = after;
    }
    Some(frames)
}
