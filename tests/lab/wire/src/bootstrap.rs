//! Becoming root in a user namespace of our own.

use std::sync::OnceLock;
use std::{fs, io};

static OUTCOME: OnceLock<Result<(), String>> = OnceLock::new();
static WAS_ROOT: OnceLock<bool> = OnceLock::new();

/// Enters a user and network namespace where the process is not root; does nothing where it is.
///
/// Must be called while the process has one thread. Later calls return the first one's outcome.
///
/// # Errors
/// Why it was refused, and how to allow it.
pub fn enter() -> Result<(), String> {
    OUTCOME.get_or_init(unshare_user).clone()
}

/// Whether the process was root when it first asked here: afterwards everybody seems to be.
pub fn was_root() -> bool {
    // SAFETY: no arguments, no memory.
    *WAS_ROOT.get_or_init(|| unsafe { libc::geteuid() } == 0)
}

fn unshare_user() -> Result<(), String> {
    if was_root() {
        return Ok(());
    }
    // SAFETY: no arguments, no memory.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: no arguments, no memory.
    let gid = unsafe { libc::getegid() };
    // SAFETY: affects this process only, which has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) } != 0 {
        return Err(refused(&io::Error::last_os_error()));
    }
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ];
    for (path, text) in maps {
        fs::write(path, text).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

fn refused(error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "allow unprivileged user namespaces (`sysctl kernel.unprivileged_userns_clone=1`, \
             `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or a container seccomp \
             profile that permits unshare), or run as root"
        }
        Some(libc::ENOSPC) => "raise `sysctl user.max_user_namespaces`, or run as root",
        Some(libc::EINVAL) => "the process had threads already: call it first, or run as root",
        _ => "run as root",
    };
    format!("no user namespace: {error}; {remedy}")
}
