//! A disk whose power can be cut: ext4 on a loop device, in a file.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringtap_lab_wire::{Directory, directory};

/// `FS_IOC_SHUTDOWN` of `linux/fs.h` (`EXT4_IOC_SHUTDOWN` before it).
const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
/// What was not written to the journal yet is lost, as when the power is cut (`EXT4_GOING_FLAGS_NOLOGFLUSH`).
static WITHOUT_LOG: u32 = 2;

/// A file system of its own, as the calling thread sees it, and the threads and processes that it starts afterwards.
/// Unmounted and removed when this is dropped.
#[derive(Debug)]
pub struct Disk {
    directory: Directory,
    place: PathBuf,
}

impl Disk {
    /// Creates a disk of this many bytes, and mounts it.
    ///
    /// # Errors
    /// Why there can be none: it takes root, and `mkfs.ext4`.
    pub fn new(bytes: u64) -> Result<Self, String> {
        let directory = Directory::new();
        let (image, place) = (directory.path().join("image"), directory.path().join("disk"));
        std::fs::create_dir(&place).map_err(|error| error.to_string())?;
        let file = File::create(&image).and_then(|file| file.set_len(bytes));
        file.map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), &image])?;
        directory::own_mounts()?;
        let disk = Self { directory, place };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        let image = self.directory.path().join("image");
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &self.place])
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.place
    }

    /// Cuts the power: what has not come to the disk is lost, and everything fails with EIO from now on.
    ///
    /// # Panics
    /// Where the kernel cannot.
    pub fn cut(&self) {
        let root = File::open(&self.place).expect("it is mounted");
        // SAFETY: the kernel reads the word during the call.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const WITHOUT_LOG) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// Mounts it anew, as after the power has come back. Its files must be closed.
    ///
    /// # Panics
    /// Where they are not.
    pub fn restart(&self) {
        run("umount", &[&self.place]).and_then(|()| self.mount()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l".as_ref(), &self.place]);
    }
}

/// Runs a program that says nothing when all is well.
fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("no {program} here: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim_end())),
    }
}
