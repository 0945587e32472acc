//! What a process holds: descriptors, memory, CPU time.

/// Open descriptors of this process whose target names `kind`; all where it is empty.
///
/// # Panics
/// Without `/proc`.
pub fn descriptors(kind: &str) -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").expect("there is a /proc");
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains(kind)).count()
}

/// Packet sockets that are open in the calling thread's network namespace.
///
/// # Panics
/// Without `/proc`.
pub fn packet_sockets() -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/net/packet").expect("there is a /proc");
    table.lines().count() - 1
}

/// Bytes of this process that are in memory and not shared with a file.
///
/// # Panics
/// Without `/proc`.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("there is a /proc");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line of it");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") * 1024
}
