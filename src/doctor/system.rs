//! Checks of the machine and of the permissions of this process: from /proc, /sys and the thread's affinity.

use std::fs;

use super::Finding;
#[cfg(test)]
use super::Verdict;
use crate::sys::thread::allowed_cores;

/// Returns the first line of a file.
fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next()?.trim().to_owned())
}

pub(super) fn look() -> Vec<Finding> {
    vec![kernel(), cores(), clock(), user_namespaces(), jit(), huge_pages()]
}

fn kernel() -> Finding {
    match line("/proc/sys/kernel/osrelease") {
        Some(release) => {
            Finding::works("kernel", format!("Linux {release}, {}", std::env::consts::ARCH))
        }
        None => Finding::unknown("kernel", "/proc is not mounted"),
    }
}

fn cores() -> Finding {
    match allowed_cores() {
        Ok(cores) => Finding::works("cores", format!("{} for this thread", cores.len())),
        Err(error) => Finding::unknown("cores", error.to_string()),
    }
}

/// Checks whether the time can be read without a system call.
fn clock() -> Finding {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    match line(path).as_deref() {
        None => Finding::unknown("clock", format!("{path} cannot be read")),
        Some(slow @ ("hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" | "xen")) => {
            Finding::limited(
                "clock",
                format!("{slow}: reading it takes a system call"),
                "a machine, or boot options, with a steady counter (`tsc`)",
            )
        }
        Some(source) => Finding::works("clock", source),
    }
}

fn user_namespaces() -> Finding {
    let number = |path| line(path).and_then(|text| text.parse::<u64>().ok());
    let subject = "user namespaces";
    let most = number("/proc/sys/user/max_user_namespaces");
    let is_restricted = number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1);
    let is_off = number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0);
    match most {
        None => Finding::unknown(subject, "this kernel does not say"),
        Some(0) => Finding::missing(
            subject,
            "none may be made",
            "`sysctl user.max_user_namespaces=10000`, to run examples and tests without root",
        ),
        Some(_) if is_off => Finding::limited(
            subject,
            "only root may make them",
            "`sysctl kernel.unprivileged_userns_clone=1`, to run examples and tests without root",
        ),
        Some(_) if is_restricted => Finding::limited(
            subject,
            "AppArmor takes the capabilities in them away",
            "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`, to run examples and tests without root",
        ),
        Some(_) => Finding::works(subject, "may be made: examples and tests need no root"),
    }
}

fn jit() -> Finding {
    match line("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        None => Finding::unknown(
            "BPF",
            "only the initial network namespace tells (net.core.bpf_jit_enable)",
        ),
        Some("0") => Finding::limited(
            "BPF",
            "filters are interpreted",
            "`sysctl net.core.bpf_jit_enable=1` has them compiled",
        ),
        Some(_) => Finding::works("BPF", "filters are compiled to machine code"),
    }
}

fn huge_pages() -> Finding {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let figure = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    match (figure("HugePages_Free"), figure("Hugepagesize")) {
        (Some(0), Some(kib)) => Finding::limited(
            "huge pages",
            format!("none is free (of {kib} KiB)"),
            "`sysctl vm.nr_hugepages=64`, for a UMEM of `HugePages::Require`",
        ),
        (Some(free), Some(kib)) => {
            Finding::works("huge pages", format!("{free} free, of {kib} KiB"))
        }
        _ => Finding::unknown("huge pages", "/proc/meminfo does not say"),
    }
}

/// A capability (linux/capability.h) and its purpose.
#[derive(Debug, Clone, Copy)]
struct Capability {
    bit: u32,
    name: &'static str,
    purpose: &'static str,
    /// Whether capturing is impossible without it.
    is_needed: bool,
    /// Whether it only counts in the initial user namespace (`capable`, kernel/capability.c).
    is_of_the_machine: bool,
}

const IPC_LOCK: u32 = 14;

const CAPABILITIES: [Capability; 5] = [
    Capability {
        bit: 13,
        name: "CAP_NET_RAW",
        purpose: "opening packet sockets and AF_XDP sockets",
        is_needed: true,
        is_of_the_machine: false,
    },
    Capability {
        bit: 12,
        name: "CAP_NET_ADMIN",
        purpose: "attaching XDP programs, busy polling beyond the default",
        is_needed: false,
        is_of_the_machine: true,
    },
    Capability {
        bit: 39,
        name: "CAP_BPF",
        purpose: "loading XDP programs",
        is_needed: false,
        is_of_the_machine: true,
    },
    Capability {
        bit: 21,
        name: "CAP_SYS_ADMIN",
        purpose: "entering other network namespaces",
        is_needed: false,
        is_of_the_machine: false,
    },
    Capability {
        bit: IPC_LOCK,
        name: "CAP_IPC_LOCK",
        purpose: "a UMEM beyond RLIMIT_MEMLOCK",
        is_needed: false,
        is_of_the_machine: true,
    },
];

/// The effective capabilities of this thread, and whether it is in the initial user namespace.
fn effective() -> Option<(u64, bool)> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let map = line("/proc/self/uid_map")?;
    let is_initial = map.split_whitespace().eq(["0", "0", "4294967295"]);
    Some((u64::from_str_radix(bits.trim(), 16).ok()?, is_initial))
}

pub(super) fn capabilities() -> Vec<Finding> {
    let Some((bits, is_initial)) = effective() else {
        return vec![Finding::unknown("all", "/proc/thread-self/status cannot be read")];
    };
    CAPABILITIES.iter().map(|capability| found(capability, bits, is_initial)).collect()
}

fn found(capability: &Capability, bits: u64, is_initial: bool) -> Finding {
    let Capability { bit, name, purpose, is_needed, is_of_the_machine } = *capability;
    let has = bits & 1 << bit != 0;
    if has && (is_initial || !is_of_the_machine) {
        let where_it_holds = if is_initial { "" } else { ", in this user namespace" };
        return Finding::works(name, format!("{purpose}{where_it_holds}"));
    }
    if is_needed {
        let remedy =
            "`setcap cap_net_raw+ep BINARY`, root, or a user and network namespace of your own";
        return Finding::missing(name, format!("no: {purpose}"), remedy);
    }
    let detail = match has {
        true => format!("of no use in a user namespace of one's own: {purpose}"),
        false => format!("no: {purpose}"),
    };
    // All of them at once, because `setcap` replaces the previous set.
    let all = "`setcap cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock,cap_sys_admin+ep <binary>`, of them what is wanted; or root";
    Finding::limited(name, detail, all)
}

pub(super) fn limits() -> Vec<Finding> {
    let text = fs::read_to_string("/proc/thread-self/limits").unwrap_or_default();
    let is_free =
        effective().is_some_and(|(bits, is_initial)| is_initial && bits & 1 << IPC_LOCK != 0);
    let memory = match is_free {
        true => Finding::works("locked memory", "as much as there is: CAP_IPC_LOCK"),
        false => {
            let remedy = "`ulimit -l` (LimitMEMLOCK= of a unit), or a smaller UMEM (AF_XDP)";
            limit(&text, "Max locked memory", "locked memory", 64 << 20, "bytes", remedy)
        }
    };
    let remedy = "a capture takes up to three; `ulimit -n`";
    vec![memory, limit(&text, "Max open files", "descriptors", 1024, "", remedy)]
}

/// Checks a soft limit; values from `enough` on are fine.
fn limit(
    text: &str,
    name: &str,
    subject: &'static str,
    enough: u64,
    unit: &str,
    remedy: &str,
) -> Finding {
    let soft = text.lines().find_map(|line| line.strip_prefix(name));
    match soft.and_then(|rest| rest.split_whitespace().next()) {
        None => Finding::unknown(subject, "/proc/thread-self/limits does not say"),
        Some("unlimited") => Finding::works(subject, "no limit"),
        Some(soft) => {
            let detail = format!("{soft} {unit}").trim_end().to_owned();
            match soft.parse::<u64>() {
                Ok(soft) if soft < enough => Finding::limited(subject, detail, remedy),
                _ => Finding::works(subject, detail),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limits_are_found_and_judged() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max locked memory         8388608              unlimited            bytes\n\
                    Max open files            1024                 4096                 files\n\
                    Max stack size            unlimited            unlimited            bytes\n";
        let look = |name, enough| limit(text, name, "x", enough, "bytes", "more");
        assert_eq!(look("Max locked memory", 1).verdict, Verdict::Works);
        assert_eq!(
            look("Max locked memory", 8_388_609),
            Finding::limited("x", "8388608 bytes", "more")
        );
        assert_eq!(look("Max open files", 1024).verdict, Verdict::Works);
        assert_eq!(look("Max stack size", 1).detail, "no limit");
        assert_eq!(look("Max nonsense", 1).verdict, Verdict::Unknown);
    }

    #[test]
    fn capabilities_are_judged_by_what_they_are_good_for_here() {
        let verdicts = |bits, is_initial| {
            CAPABILITIES.each_ref().map(|one| found(one, bits, is_initial).verdict)
        };
        use Verdict::{Limited, Missing, Works};
        assert_eq!(verdicts(u64::MAX, true), [Works; 5]);
        assert_eq!(verdicts(u64::MAX, false), [Works, Limited, Limited, Works, Limited]);
        assert_eq!(verdicts(1 << 12, true), [Missing, Works, Limited, Limited, Limited]);
    }
}
