//! One run of many ways, in turn, and what came of it.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::calls::count_them;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No library at all.
    Limit,
    Ours,
    Peer,
}

/// What the measuring thread and the measured one tell each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    stop: Arc<AtomicBool>,
    /// Wakes who waits for that.
    stopped: Arc<(Mutex<()>, Condvar)>,
    is_open: Arc<AtomicBool>,
    packets: Arc<AtomicU64>,
    /// The process that is measured, if it is another.
    process: Arc<AtomicU32>,
}

impl Progress {
    pub(crate) fn started(&self, process: u32) {
        self.process.store(process, Ordering::Relaxed);
    }

    /// What another process has used that is measured.
    pub(crate) fn used_by_process(&self) -> Used {
        Used::by_process(self.process.load(Ordering::Relaxed))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The measured side has opened its sockets.
    pub(crate) fn opened(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        let _held = self.stopped.0.lock();
        self.stop.store(true, Ordering::Relaxed);
        self.stopped.1.notify_all();
    }

    /// Sleeps until it is over: who looks from time to time would be measured.
    pub(crate) fn wait(&self) {
        let held = self.stopped.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.stopped.1.wait_while(held, |()| !self.is_over()));
    }

    pub(crate) fn add(&self, more: u64) {
        self.packets.fetch_add(more, Ordering::Relaxed);
    }

    /// For who counts all by itself: no more than a store.
    pub(crate) fn set(&self, all: u64) {
        self.packets.store(all, Ordering::Relaxed);
    }

    pub(crate) fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }
}

/// A way's samples, for each column.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) samples: Vec<Vec<f64>>,
    pub(crate) fault: Option<String>,
}

impl Row {
    pub(crate) fn median(&self, column: usize) -> Option<f64> {
        Some(self.spread(column)?.1)
    }

    /// The least, the median, and the most.
    pub(crate) fn spread(&self, column: usize) -> Option<Spread> {
        spread(self.samples.get(column)?.clone())
    }

    /// Its ratios to another way, round by round: what slowed a round down slowed both.
    pub(crate) fn ratio(&self, other: &Self, column: usize) -> Option<Spread> {
        let rounds = self.samples.get(column)?.iter().zip(other.samples.get(column)?);
        spread(rounds.filter(|(_, other)| **other > 0.0).map(|(own, other)| own / other).collect())
    }
}

/// The least, the median, and the most.
pub(crate) type Spread = (f64, f64, f64);

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    Some((*values.first()?, values[values.len() / 2], *values.last()?))
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: Vec<Row>,
    /// What a reader needs to know of it.
    pub(crate) note: Option<String>,
}

impl Table {
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name && row.fault.is_none())
    }

    /// Whichever of the peers has the least in a column, or the most.
    pub(crate) fn best_peer(&self, column: usize, is_most: bool) -> Option<&Row> {
        let peers = self.rows.iter().filter(|row| row.kind == Kind::Peer && row.fault.is_none());
        let with = peers.filter_map(|row| Some((row, row.median(column)?)));
        let by = |a: &(&Row, f64), b: &(&Row, f64)| a.1.total_cmp(&b.1);
        Some(if is_most { with.max_by(by)? } else { with.min_by(by)? }.0)
    }

    /// How far the middle half of the samples of the first column lie apart, at the way in the middle: what is
    /// below that is noise.
    pub(crate) fn noise(&self) -> f64 {
        let spread = |row: &Row| {
            let mut sorted = row.samples[0].clone();
            sorted.sort_by(f64::total_cmp);
            let at = |share: usize| sorted.get(sorted.len() * share / 4).copied().unwrap_or(0.0);
            (at(3) - at(1)) / at(2).max(1e-9)
        };
        let mut all: Vec<f64> =
            self.rows.iter().filter(|row| row.fault.is_none()).map(spread).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    }
}

/// The columns of system calls and of wake-ups.
pub(crate) const CALLS: &str = "system calls/1,000";
pub(crate) const WAKEUPS: &str = "wake-ups/1,000";

/// Ways and what is done to each of them, each round from another one on. The first round touches memory that the
/// machine has not used yet, and does not count.
pub(crate) fn compare<W: Copy>(
    title: &'static str,
    columns: &'static [&'static str],
    ways: &[(&'static str, Kind, W)],
    rounds: usize,
    mut measure: impl FnMut(W) -> Outcome<Vec<f64>>,
) -> Table {
    eprintln!("{title} …");
    let only = std::env::var("FIELD_WAY").unwrap_or_default(); // to look at some alone
    let is_wanted = |name: &str| only.split(';').any(|part| name.contains(part));
    let ways: Vec<_> = ways.iter().filter(|way| is_wanted(way.0)).copied().collect();
    let row = |&(name, kind, _): &(&'static str, Kind, W)| Row {
        name,
        kind,
        samples: vec![Vec::new(); columns.len()],
        fault: None,
    };
    let mut rows: Vec<Row> = ways.iter().map(row).collect();
    for round in 0..=rounds {
        count_them(round == 0);
        for step in 0..ways.len() {
            // None is always first, nor always behind the same one.
            let step = if round % 2 == 0 { step } else { ways.len() - 1 - step };
            let at = (step + round) % ways.len();
            if rows[at].fault.is_some() {
                continue;
            }
            if round == 0 {
                eprintln!("  {}", ways[at].0);
            }
            match measure(ways[at].2) {
                Ok(values) => {
                    let all = rows[at].samples.iter_mut().zip(values).zip(columns);
                    // Calls are of the first round, all else of the others.
                    all.filter(|(_, column)| (**column == CALLS) == (round == 0))
                        .for_each(|((all, value), _)| all.push(value));
                }
                Err(error) => rows[at].fault = Some(error.to_string()),
            }
        }
    }
    Table { title, columns, rows, note: None }
}

pub(crate) fn pin(core: usize) {
    // SAFETY: a C struct of integers.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the core's number is below the set's size.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is readable for its size.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
}

/// What a thread, the process, or children that were waited for have used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    /// Times that they gave the core up, to be woken.
    pub(crate) sleeps: u64,
}

impl Used {
    pub(crate) fn by(who: libc::c_int) -> Self {
        // SAFETY: a C struct of integers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the struct is writable.
        unsafe { libc::getrusage(who, &raw mut usage) };
        // Not the times in there, which are behind by up to a tick.
        Self { cpu: cpu_time(who), sleeps: usage.ru_nvcsw as u64 }
    }

    /// What the threads of another process have used; nothing for process 0.
    pub(crate) fn by_process(process: u32) -> Self {
        let mut used = Self::default();
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { return used };
        for task in tasks.flatten() {
            let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let (times, status) = (read("schedstat"), read("status"));
            let nanos = times.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
            used.cpu += Duration::from_nanos(nanos);
            let sleeps =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            used.sleeps += sleeps.and_then(|word| word.trim().parse::<u64>().ok()).unwrap_or(0);
        }
        used
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), sleeps: self.sleeps - before.sleeps }
    }
}

/// The user and system time of this thread, or of the process.
pub(crate) fn cpu_time(who: libc::c_int) -> Duration {
    let clock = match who {
        libc::RUSAGE_THREAD => libc::CLOCK_THREAD_CPUTIME_ID,
        _ => libc::CLOCK_PROCESS_CPUTIME_ID,
    };
    // SAFETY: a C struct of integers.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is writable.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes resident: a ring's pages are, from the mapping on.
pub(crate) fn resident() -> Outcome<i64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: i64 = text.split(' ').nth(1).ok_or("statm has two numbers")?.parse()?;
    Ok(pages * 4096)
}
