//! Room that a recorder which was killed had reserved, and given back to nobody.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::sys::file;

/// Bytes of a unit of `st_blocks`.
const UNIT: u64 = 512;
/// A file system allocates more than it was asked for by less than this.
const ROUNDING: u64 = 1 << 16;

/// Gives back what was reserved behind the end of a file, unless a recorder is at work on it. What cannot be given back stays
/// reserved until the file is removed.
pub(super) fn give_back(path: &Path) {
    let Ok(file) = OpenOptions::new().write(true).open(path) else { return };
    if !file::lock(file.as_fd()) {
        return;
    }
    let Ok(metadata) = file.metadata() else { return };
    if metadata.blocks() * UNIT > metadata.len() + ROUNDING {
        file::cut(file.as_fd(), metadata.len());
    }
}
