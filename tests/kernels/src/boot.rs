//! One boot of a guest, and what it said.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::Result;
use crate::arch::Arch;
use crate::cells::Card;
use crate::image::Programs;
use crate::packages::Kernel;

/// The status of a cell that was to run and did not.
const MISSING: i32 = -1;

/// How one cell of the matrix ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) cell: String,
    /// Exit status of the command; 124 if it timed out.
    pub(crate) code: i32,
    pub(crate) seconds: u64,
    pub(crate) passed: u32,
    pub(crate) ignored: u32,
    pub(crate) failed: Vec<String>,
    /// What it printed for the table: lines that begin with "@".
    pub(crate) said: Vec<String>,
    /// What the kernel complained about.
    pub(crate) kernel: Vec<String>,
}

impl Outcome {
    /// Whether it ran something and nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        let has_run = self.passed > 0 || !self.said.is_empty();
        has_run && self.code == 0 && self.failed.is_empty() && self.kernel.is_empty()
    }

    /// A cell that reported nothing.
    fn missing(cell: &str) -> Self {
        Self { cell: cell.to_owned(), code: MISSING, ..Self::default() }
    }
}

/// What one boot came to.
#[derive(Debug)]
pub(crate) struct Boot {
    /// The kernel's.
    pub(crate) release: String,
    pub(crate) outcomes: Vec<Outcome>,
    /// By the guest's clock.
    pub(crate) seconds: u64,
    /// Whether it went through to the end of its script.
    pub(crate) is_complete: bool,
}

/// What a boot needs besides the kernel.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) arch: Arch,
    pub(crate) programs: &'a Programs,
    pub(crate) initrd: &'a Path,
    pub(crate) log: &'a Path,
    /// A folder for what only this boot needs.
    pub(crate) scratch: &'a Path,
    pub(crate) card: Option<&'a Card>,
    /// The cells of its script.
    pub(crate) cells: &'a [String],
    pub(crate) limit: Duration,
}

impl Boot {
    /// Reads what a guest with these cells wrote; `None` if it did not boot.
    pub(crate) fn read(results: &Path, cells: &[String]) -> Result<Option<Self>> {
        let said = match fs::read(results) {
            Ok(said) => said,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let said = String::from_utf8_lossy(&said);
        let Some(release) = word_after(&said, "@@ booted ") else { return Ok(None) };
        let mut outcomes = outcomes(&said);
        for cell in cells {
            if outcomes.iter().filter(|outcome| outcome.cell == *cell).count() != 1 {
                outcomes.push(Outcome::missing(cell));
            }
        }
        let seconds = word_after(&said, "@@ end after ").and_then(|text| text.parse::<f64>().ok());
        let (release, is_complete) = (release.to_owned(), seconds.is_some());
        Ok(Some(Self { release, outcomes, seconds: seconds.unwrap_or(0.0) as u64, is_complete }))
    }

    pub(crate) fn is_good(&self) -> bool {
        self.is_complete && self.outcomes.iter().all(Outcome::is_good)
    }
}

impl Machine<'_> {
    pub(crate) fn boot(&self, kernel: &Kernel) -> Result<Boot> {
        // The guest writes its results where the kernel does not write.
        let results = self.log.with_extension("results");
        for file in [self.log, &results] {
            let _ = fs::remove_file(file);
        }
        let share = |name: &str| self.programs.folder.join("usr/share").join(name);
        let wires = self.card.filter(|card| card.queues > 1);
        let mut qemu = match wires {
            Some(_) => self.programs.wired(self.arch.emulator(), self.scratch, self.limit)?,
            None => self.programs.bounded(self.arch.emulator(), self.limit),
        };
        for folder in ["qemu", "seabios"].map(share) {
            qemu.arg("-L").arg(folder);
        }
        qemu.args(self.arch.machine());
        // XDP wants a queue for each processor, and drivers have no more queues than processors.
        let processors = if wires.is_some() { "4" } else { "2" };
        qemu.args(["-accel", "tcg,thread=multi", "-m", "3G", "-smp", processors]);
        qemu.args(["-nodefaults", "-nographic", "-no-reboot"]);
        for file in [self.log, &results] {
            qemu.arg("-serial").arg(format!("file:{}", file.display()));
        }
        qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(self.initrd);
        let [console, line] = self.arch.lines();
        // The kernel hands what it does not know on to the guest's init.
        qemu.arg("-append").arg(format!(
            "console={console} RINGTAP_RESULTS=/dev/{line} panic=-1 loglevel=4 mitigations=off nokaslr"
        ));
        if let Some(card) = self.card {
            // The other end sends what the card under test receives, and the other way round.
            for (end, device, queues) in [(1, card.device, card.queues), (2, "e1000e", 1)] {
                let net = match wires {
                    None => format!("hubport,id=n{end},hubid=0"),
                    Some(_) => self.programs.tap(self.scratch, end, queues),
                };
                qemu.arg("-netdev").arg(net);
                qemu.arg("-device")
                    .arg(format!("{device},netdev=n{end},mac=52:54:00:00:00:0{end},romfile="));
            }
        }
        qemu.stdin(Stdio::null());
        let complaint = qemu.output()?.stderr;
        Boot::read(&results, self.cells)?.ok_or_else(|| {
            let complaint = String::from_utf8_lossy(&complaint);
            let (kernel, log) = (&kernel.release, self.log.display());
            format!("{kernel} did not boot: {complaint}, see {log}").into()
        })
    }
}

fn word_after<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_whitespace().next()
}

/// What the guest's init wrote.
fn outcomes(log: &str) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for line in log.lines().map(|line| line.trim_end_matches('\r')) {
        if let Some(rest) = line.strip_prefix("@@ cell ") {
            let mut words = rest.split(' ');
            let number = |words: &mut std::str::Split<'_, char>| {
                words.next().and_then(|word| word.parse().ok())
            };
            let cell = words.next().unwrap_or_default().to_owned();
            let code = number(&mut words).unwrap_or(-1);
            let seconds = number(&mut words).unwrap_or(0);
            let seconds = u64::try_from(seconds).unwrap_or(0);
            outcomes.push(Outcome { cell, code, seconds, ..Outcome::default() });
        }
        let Some(outcome) = outcomes.last_mut() else { continue };
        if let Some(line) = line.strip_prefix("@> ") {
            outcome.note(line);
        } else if let Some(line) = line.strip_prefix("@! ") {
            outcome.kernel.push(line.to_owned());
        }
    }
    outcomes
}

impl Outcome {
    fn note(&mut self, line: &str) {
        let count = |what: &str| -> u32 {
            let before = line.split(what).next().unwrap_or_default().trim_end();
            before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        if line.starts_with("test result") {
            // The last such line is of the binary itself, those before it of children that a test ran.
            (self.passed, self.ignored) = (count(" passed"), count(" ignored"));
        } else if let Some(rest) = line.strip_prefix("test ") {
            if line.ends_with("FAILED") {
                self.failed.push(rest.split(' ').next().unwrap_or_default().to_owned());
            }
        } else if let Some(said) = line.strip_prefix('@') {
            self.said.push(said.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_counted_by_its_cell() {
        let log = "[ 0.1] noise\r\n@@ booted 6.12 after 3 s\r\n@@ cell capture 101 7\r\n\
                   @> test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured\r\n\
                   @> test rings::a_ring ... FAILED\r\n@! WARNING: CPU: 1\r\n@@ cell igb 0 12\r\n@> @copy: 5000 of 5000\r\n";
        let outcomes = outcomes(log);
        let [tests, card] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert_eq!((tests.code, tests.seconds, tests.passed, tests.ignored), (101, 7, 3, 2));
        assert_eq!(
            (&tests.failed[..], &tests.kernel[..]),
            (&["rings::a_ring".to_owned()][..], &["WARNING: CPU: 1".to_owned()][..])
        );
        assert!(!tests.is_good() && card.is_good());
        assert_eq!(card.said, ["copy: 5000 of 5000"]);
    }
}
