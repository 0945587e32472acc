//! Rights that a sensor gives up once it has what it needs: files by Landlock, system calls by seccomp.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::sink::Outcome;

/// Directories that may be read: a sensor finds interfaces and drivers there, and resolvers their configuration and libraries.
const READ: [&str; 9] =
    ["/etc", "/proc", "/sys", "/run", "/lib", "/lib64", "/usr/lib", "/usr/share", "/dev"];

/// What no sensor does: start programs, look into others, change what is mounted, load code into the kernel.
const REFUSED: [libc::c_long; 37] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_acct,
    libc::SYS_quotactl,
];

/// From now on, this thread and those that it starts write below these places only. Returns whether the kernel can.
pub(crate) fn files(written: &[PathBuf]) -> Outcome<bool> {
    let abi = ABI::V5;
    let read = READ.iter().map(Path::new);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(read, AccessFs::from_read(abi)))?
        .add_rules(path_beneath_rules(written, AccessFs::from_all(abi)))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// From now on, all threads are refused what no sensor does.
pub(crate) fn calls() -> Outcome<()> {
    let rules: BTreeMap<_, _> = REFUSED.iter().map(|&number| (number, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter_all_threads(&program)?)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;

    use ringtap_lab::Directory;

    use super::*;

    #[test]
    fn nothing_is_written_elsewhere() {
        let (inside, outside) = (Directory::new(), Directory::new());
        let file = outside.path().join("named");
        fs::write(&file, "before").unwrap();
        let thread = std::thread::spawn({
            let (inside, outside, file) =
                (inside.path().to_owned(), outside.path().to_owned(), file.clone());
            move || {
                if !files(&[inside.clone(), file.clone()]).unwrap() {
                    return eprintln!("this kernel has no Landlock");
                }
                fs::write(inside.join("a"), "x").unwrap();
                fs::rename(inside.join("a"), inside.join("b")).unwrap();
                fs::create_dir(inside.join("c")).unwrap();
                fs::write(&file, "after").unwrap();
                for refused in [outside.join("a"), Path::new("/etc/ringtap-none").to_owned()] {
                    assert_eq!(
                        File::create(refused).unwrap_err().kind(),
                        ErrorKind::PermissionDenied
                    );
                }
                let kind = fs::read_dir(outside).unwrap_err().kind();
                assert_eq!(kind, ErrorKind::PermissionDenied);
                assert!(fs::read("/proc/self/status").is_ok());
            }
        });
        thread.join().unwrap();
        // Other threads are as they were.
        fs::write(outside.path().join("a"), "x").unwrap();
    }
}
