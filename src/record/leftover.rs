//! Room that a recorder which was killed had reserved, and given back to nobody.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::sys::file;

/// Bytes of a unit of `st_blocks`.
const UNIT: u64 = 512;
/// A file system allocates more than it was asked for by less than this.
const ROUNDING: u64 = 1 << 16;

/// Gives back what was reserved behind the end of a file, unless a recorder is at work on it. What cannot be given back stays
/// reserved until the file is removed.
pub(super) fn give_back(path: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let Ok(file) = options.open(path) else { return };
    // Looked at before it is locked, so that no recorder finds a file of its own locked without need; and again.
    if surplus(&file).is_some()
        && file::lock(file.as_fd())
        && let Some(len) = surplus(&file)
    {
        file::cut(file.as_fd(), len);
    }
}

/// Returns the length of a file that takes more room than it needs.
fn surplus(file: &File) -> Option<u64> {
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    (metadata.blocks() * UNIT > metadata.len() + ROUNDING).then_some(metadata.len())
}
