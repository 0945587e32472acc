//! The machine, and what this process may do on it: from /proc, /sys and the thread's own affinity.

use std::fs;

use super::{Finding, Verdict};
use crate::sys::thread::allowed_cores;

/// A file's first line, or all of a file of one line.
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

/// Whether the time can be read without a system call.
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
        None => Finding::unknown("BPF", "/proc/sys/net/core/bpf_jit_enable cannot be read"),
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

/// linux/capability.h: its number, its name, what it is for, whether there is no capturing without.
const CAPABILITIES: [(u32, &str, &str, bool); 5] = [
    (13, "CAP_NET_RAW", "opening packet sockets and AF_XDP sockets", true),
    (12, "CAP_NET_ADMIN", "attaching XDP programs, busy polling beyond the default", false),
    (39, "CAP_BPF", "loading XDP programs", false),
    (21, "CAP_SYS_ADMIN", "entering other network namespaces", false),
    (14, "CAP_IPC_LOCK", "a UMEM beyond RLIMIT_MEMLOCK", false),
];

pub(super) fn capabilities() -> Vec<Finding> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    let Some(effective) = effective else {
        return vec![Finding::unknown("all", "/proc/thread-self/status cannot be read")];
    };
    let is_initial = line("/proc/self/uid_map")
        .is_some_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    let here = if is_initial { "" } else { "; in this user namespace only" };
    CAPABILITIES.iter().map(|capability| found(*capability, effective, here)).collect()
}

fn found(capability: (u32, &'static str, &str, bool), effective: u64, here: &str) -> Finding {
    let (bit, name, purpose, is_needed) = capability;
    if effective & 1 << bit != 0 {
        return Finding::works(name, format!("{purpose}{here}"));
    }
    let verdict = if is_needed { Verdict::Missing } else { Verdict::Limited };
    let small = name.to_lowercase();
    let remedy = match is_needed {
        true => {
            "`just setcap <binary>`, root, or a user and network namespace of your own".to_owned()
        }
        false => format!("`setcap {small},cap_net_raw+ep <binary>`, where that is wanted"),
    };
    Finding::new(name, verdict, format!("no: {purpose}")).with_remedy(&remedy)
}

pub(super) fn limits() -> Vec<Finding> {
    let text = fs::read_to_string("/proc/thread-self/limits").unwrap_or_default();
    vec![
        limit(
            &text,
            "Max locked memory",
            "locked memory",
            64 << 20,
            "bytes",
            "UMEMs are within it; `ulimit -l`",
        ),
        limit(
            &text,
            "Max open files",
            "descriptors",
            1024,
            "",
            "a capture takes up to three; `ulimit -n`",
        ),
    ]
}

/// The soft limit, which is fine from `enough` on.
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
    fn a_capability_that_is_needed_and_one_that_is_useful_are_told_apart() {
        let without: Vec<_> =
            CAPABILITIES.iter().map(|one| found(*one, 1 << 12, "").verdict).collect();
        assert_eq!(without[0], Verdict::Missing);
        assert_eq!(without[1], Verdict::Works);
        assert!(without[2..].iter().all(|verdict| *verdict == Verdict::Limited));
    }
}
