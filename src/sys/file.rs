//! Files: how they are created, and the operations of a reactor without io_uring.

#![allow(unsafe_code, reason = "adopts the descriptor that a completion names, and system calls")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::FileError;

/// The mode of a file that is created, before the process's mask.
pub(crate) const MODE: u32 = 0o640;

/// The flags of [`create`].
pub(crate) fn create_flags(is_direct: bool) -> i32 {
    let direct = if is_direct { libc::O_DIRECT } else { 0 };
    libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | direct
}

/// Returns a path as system calls take it.
pub(crate) fn c_path(path: &Path) -> Result<CString, FileError> {
    let zero = |_| FileError::io(0, io::ErrorKind::InvalidInput.into()).of(path);
    CString::new(path.as_os_str().as_bytes()).map_err(zero)
}

/// Takes over a descriptor that the kernel has just opened for us.
pub(crate) fn adopt(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has answered a request of ours to open a file with it, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The result of a system call, as io_uring tells it.
fn told(result: i64) -> i32 {
    if result >= 0 {
        return result as i32;
    }
    -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

pub(crate) fn write(file: RawFd, bytes: &[u8], offset: u64) -> i32 {
    // SAFETY: the bytes are readable for their length.
    told(unsafe { libc::pwrite(file, bytes.as_ptr().cast(), bytes.len(), offset as i64) } as i64)
}

pub(crate) fn reserve(file: RawFd, len: u64) -> i32 {
    // SAFETY: no memory is passed.
    told(unsafe { libc::fallocate(file, libc::FALLOC_FL_KEEP_SIZE, 0, len as i64) }.into())
}

pub(crate) fn sync(file: RawFd) -> i32 {
    // SAFETY: no memory is passed.
    told(unsafe { libc::fdatasync(file) }.into())
}

pub(crate) fn create(path: &CString, flags: i32) -> i32 {
    // SAFETY: the path ends with a zero.
    told(unsafe { libc::open(path.as_ptr(), flags, MODE) }.into())
}

pub(crate) fn remove(path: &CString) -> i32 {
    // SAFETY: the path ends with a zero.
    told(unsafe { libc::unlink(path.as_ptr()) }.into())
}

pub(crate) fn close(file: RawFd) -> i32 {
    // SAFETY: the descriptor was given up by its owner for this.
    told(unsafe { libc::close(file) }.into())
}

/// Sets the length of a file, and gives back what was reserved behind it. A file system that fails in that keeps it, which
/// is no harm.
pub(crate) fn cut(file: BorrowedFd<'_>, len: u64) {
    // SAFETY: no memory is passed.
    unsafe { libc::ftruncate(file.as_raw_fd(), len as i64) };
}

/// Locks a file for as long as it is open, and says whether nobody else has it locked. Where files cannot be locked, it says no.
pub(crate) fn lock(file: BorrowedFd<'_>) -> bool {
    // SAFETY: no memory is passed.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

/// Tells the page cache to write a range out and to forget what of it is clean.
pub(crate) fn forget_pages(file: BorrowedFd<'_>, offset: u64, len: u64) {
    let (fd, offset, len) = (file.as_raw_fd(), offset as i64, len as i64);
    // SAFETY: no memory is passed.
    unsafe { libc::sync_file_range(fd, offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    // What is written out now is forgotten with the next range.
    // SAFETY: no memory is passed.
    unsafe { libc::posix_fadvise(fd, 0, offset, libc::POSIX_FADV_DONTNEED) };
}

/// Tells the page cache that a range is going to be read.
pub(crate) fn will_need(file: BorrowedFd<'_>, offset: u64, len: u64) {
    let (fd, offset, len) = (file.as_raw_fd(), offset as i64, len as i64);
    // SAFETY: no memory is passed.
    unsafe { libc::posix_fadvise(fd, offset, len, libc::POSIX_FADV_WILLNEED) };
}

/// Whether a file is in memory (tmpfs).
pub(crate) fn is_in_memory(file: BorrowedFd<'_>) -> bool {
    let mut about = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the call writes the struct.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), about.as_mut_ptr()) };
    // SAFETY: it is zeroed, and any bytes are valid in it.
    let about = unsafe { about.assume_init() };
    // The types of the two differ from one C library to another.
    result == 0 && i128::from(about.f_type) == i128::from(libc::TMPFS_MAGIC)
}
