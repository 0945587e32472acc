//! A directory for one test.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

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
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringtap-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// A directory with a disk of its own of so many bytes, as the calling thread sees it; `None`, said loudly, where there
/// can be none.
///
/// # Panics
/// Where nothing may be skipped.
pub fn tmpfs(bytes: usize) -> Option<Directory> {
    let mount = || -> Result<Directory, String> {
        crate::bootstrap::enter()?;
        let last = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
        // SAFETY: it takes no memory; the calling thread alone gets a view of its own of what is mounted.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err(last("a mount namespace"));
        }
        let directory = Directory::new();
        let target = CString::new(directory.0.as_os_str().as_bytes()).expect("no zero in it");
        let options = CString::new(format!("size={bytes}")).expect("no zero in it");
        let (none, tmpfs) = (std::ptr::null(), c"tmpfs".as_ptr());
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        // SAFETY: the text is terminated, and the others may be null.
        if unsafe { libc::mount(none, c"/".as_ptr(), none, flags, std::ptr::null()) } != 0 {
            return Err(last("mounts of its own"));
        }
        let data = options.as_ptr().cast();
        // SAFETY: all texts are terminated, and live until it returns.
        if unsafe { libc::mount(tmpfs, target.as_ptr(), tmpfs, 0, data) } != 0 {
            return Err(last("a tmpfs"));
        }
        Ok(directory)
    };
    mount().map_err(|why| crate::skip(&why)).ok()
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
