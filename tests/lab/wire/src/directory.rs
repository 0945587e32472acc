//! A directory of temporary files.

use std::ffi::CString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// A new directory, removed with all that is in it when this is dropped, also by a panic.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes one.
    ///
    /// # Panics
    /// Where there is no place for temporary files.
    #[expect(clippy::new_without_default, reason = "it makes something")]
    pub fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// Makes one in another directory.
    ///
    /// # Panics
    /// Where it cannot.
    pub fn within(parent: &Path) -> Self {
        loop {
            let path = parent.join(unique_name());
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Mounts a file system without a device on it, which is unmounted when this is dropped. Only the calling thread sees
    /// it, and the threads and processes that it starts afterwards.
    ///
    /// # Errors
    /// The kernel's, and which step it was.
    pub fn mount(&self, kind: &str, options: &str) -> Result<(), String> {
        own_mounts()?;
        let text = |text: &[u8]| CString::new(text).expect("no zero in it");
        let (target, kind, options) =
            (text(self.0.as_os_str().as_bytes()), text(kind.as_bytes()), text(options.as_bytes()));
        let data = options.as_ptr().cast();
        // SAFETY: all texts are terminated, and live until it returns.
        if unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, data) } != 0 {
            return Err(last(&format!("a {}", kind.to_string_lossy())));
        }
        Ok(())
    }
}

/// A name for something of this process. Numbers of processes come again, and who was killed has left something behind: the
/// time is in it too.
pub fn unique_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_nanos() as u64);
    format!("ringtap-{}-{number}-{now:x}", std::process::id())
}

/// Gives the calling thread, and the threads and processes that it starts afterwards, mounts of their own.
///
/// # Errors
/// The kernel's, and which step it was.
pub fn own_mounts() -> Result<(), String> {
    // SAFETY: it takes no memory; only the view of this thread changes.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(last("a mount namespace"));
    }
    let (none, flags) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: the text is terminated, and the others may be null.
    if unsafe { libc::mount(none, c"/".as_ptr(), none, flags, std::ptr::null()) } != 0 {
        return Err(last("mounts of its own"));
    }
    Ok(())
}

fn last(step: &str) -> String {
    format!("{step}: {}", std::io::Error::last_os_error())
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(self.0.as_os_str().as_bytes()) {
            // SAFETY: the text is terminated; where nothing is mounted it is an error.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_of_the_same_number_left_is_in_nobodys_way() {
        let parent = Directory::new();
        for number in 0..1000 {
            let left = format!("ringtap-{}-{number}", std::process::id());
            std::fs::create_dir(parent.path().join(left)).unwrap();
        }
        let count = || std::fs::read_dir(parent.path()).unwrap().count();
        let directories: Vec<_> = (0..100).map(|_| Directory::within(parent.path())).collect();
        assert_eq!(count(), 1100);
        drop(directories);
        assert_eq!(count(), 1000);
    }
}
