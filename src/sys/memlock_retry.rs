//! Waiting for memory that the kernel is about to free.

use std::io;
use std::time::Duration;

/// The number of retries, and the first wait: 127 ms in total.
const RETRIES: u32 = 7;
const WAIT: Duration = Duration::from_millis(1);

/// Retries for a bounded time if lockable memory is short.
///
/// The memory of a closed io_uring or UMEM counts against RLIMIT_MEMLOCK until a kernel worker has freed it
/// (`io_ring_exit_work`, io_uring/io_uring.c; `xdp_umem_release_deferred`, net/xdp/xdp_umem.c).
pub(crate) fn patiently<T>(
    short: i32,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    for retry in 0..RETRIES {
        match attempt() {
            Err(error) if error.raw_os_error() == Some(short) => {
                std::thread::sleep(WAIT * (1 << retry));
            }
            done => return done,
        }
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_tried_again_and_nothing_else() {
        let mut left = 3;
        let mut attempt = |errno| {
            left -= 1;
            if left > 0 { Err(io::Error::from_raw_os_error(errno)) } else { Ok(left) }
        };
        assert_eq!(attempt(libc::EPERM).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(patiently(libc::ENOMEM, || attempt(libc::ENOMEM)).unwrap(), 0);
        let mut tried = 0;
        let refused = patiently(libc::ENOMEM, || {
            tried += 1;
            Err::<(), _>(io::Error::from_raw_os_error(libc::EPERM))
        });
        assert_eq!((refused.unwrap_err().raw_os_error(), tried), (Some(libc::EPERM), 1));
    }
}
