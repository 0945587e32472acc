//! A directory for one test.

pub use ringtap_lab_wire::Directory;

/// A directory with a disk of its own of so many bytes, as the calling thread sees it; `None`, said loudly, where there
/// can be none.
///
/// # Panics
/// Where nothing may be skipped.
pub fn tmpfs(bytes: usize) -> Option<Directory> {
    let mount = || -> Result<Directory, String> {
        crate::bootstrap::enter()?;
        let directory = Directory::new();
        directory.mount("tmpfs", &format!("size={bytes}"))?;
        Ok(directory)
    };
    mount().map_err(|why| crate::skip(&why)).ok()
}
