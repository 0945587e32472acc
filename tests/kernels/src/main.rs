//! Boots other kernels and network cards in QEMU and runs ringtap's tests there: `just kernels`.
//!
//! Kernels and QEMU are Debian's packages, in a cache outside of the tree. A guest's file system is in memory: BusyBox, this
//! tree's test binaries, and the examples.

mod arch;
mod boot;
mod cells;
mod image;
mod packages;
mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use ringtap_lab_wire::Directory;

use self::arch::Arch;
use self::boot::Machine;
use self::cells::{CARDS, Card, Part, SERIES, SUITES, Series, Suite};
use self::image::Programs;
use self::packages::Packages;
use self::table::Row;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
Boots other kernels and network cards in QEMU and runs ringtap's tests there.

  --quick           what fits into CI: 5.10 and 6.12 with every runtime, igb on 6.18
  --kernel SERIES   only this one: 5.10, 6.1, 6.12, 6.18, newest, aarch64; again for more
  --suite NAME      only this one: conformance, reactor, capture, transmit, xdp, programs
  --test NAME       only this test program, as ringtap/capture, or one of its modules, as ringtap/capture/leases
  --card NAME       only this one: virtio_net, virtio_net-without-iommu, virtio_net-rss, igb, e1000e, vmxnet3
  --no-cards        none
  --cards-only      no suite
  --minutes N       the longest that one boot may take (30)
  --logs FOLDER     keeps what the guests printed
  --write FILE      puts the tables into this document, of all that FOLDER has
  --no-boots        only writes the document
";

/// What was asked for.
#[derive(Debug)]
struct Plan {
    is_quick: bool,
    series: Vec<String>,
    suites: Vec<String>,
    tests: Vec<String>,
    cards: Vec<String>,
    has_cards: bool,
    has_suites: bool,
    limit: Duration,
    write: Option<PathBuf>,
    has_boots: bool,
    logs: Option<PathBuf>,
}

fn main() -> ExitCode {
    match plan().and_then(|plan| plan.run()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("NOT RUN: {error}");
            // Lets the caller recognize a failure that is not caused by the code.
            ExitCode::from(if error.is::<packages::Away>() { 3 } else { 2 })
        }
    }
}

fn plan() -> Result<Plan> {
    let mut arguments = pico_args::Arguments::from_env();
    if arguments.contains("--help") {
        print!("{HELP}");
        std::process::exit(0);
    }
    let mut plan = Plan {
        is_quick: arguments.contains("--quick"),
        series: arguments.values_from_str("--kernel")?,
        suites: arguments.values_from_str("--suite")?,
        tests: arguments.values_from_str("--test")?,
        cards: arguments.values_from_str("--card")?,
        has_cards: !arguments.contains("--no-cards"),
        has_suites: !arguments.contains("--cards-only"),
        limit: Duration::from_secs(60 * arguments.opt_value_from_str("--minutes")?.unwrap_or(30)),
        write: arguments.opt_value_from_str("--write")?,
        has_boots: !arguments.contains("--no-boots"),
        logs: arguments.opt_value_from_str("--logs")?,
    };
    if let [unknown, ..] = arguments.finish().as_slice() {
        return Err(format!("unknown argument {}", unknown.display()).into());
    }
    let known_series: Vec<&str> = SERIES.iter().map(|series| series.name).collect();
    let known_suites: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
    let known_cards: Vec<&str> = CARDS.iter().map(|card| card.name).collect();
    for (named, known) in [
        (&plan.series, &known_series[..]),
        (&plan.suites, &known_suites[..]),
        (&plan.cards, &known_cards),
    ] {
        if let Some(unknown) = named.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("no {unknown}; there are {}", known.join(", ")).into());
        }
    }
    // Naming only suites excludes the cards, and the other way round.
    let (names_suites, names_cards) =
        (!plan.suites.is_empty() || !plan.tests.is_empty(), !plan.cards.is_empty());
    plan.has_cards &= names_cards || !names_suites;
    plan.has_suites &= names_suites || !names_cards;
    if plan.write.is_some() && (plan.logs.is_none() || plan.is_quick || !plan.tests.is_empty()) {
        return Err(
            "`--write` takes `--logs`, and no part of a suite: it replaces all tables".into()
        );
    }
    Ok(plan)
}

/// What one boot runs.
#[derive(Debug)]
struct Load {
    name: &'static str,
    /// Lines of its script.
    text: String,
    /// The card under test; `None` over veth.
    card: Option<&'static Card>,
}

impl Load {
    fn suite(suite: &'static Suite, is_short: bool) -> Self {
        Self { name: suite.name, text: suite.script(is_short), card: None }
    }

    fn card(card: &'static Card) -> Self {
        Self { name: card.name, text: card.script(), card: Some(card) }
    }

    /// The names of its cells.
    fn cells(&self) -> Vec<String> {
        let lines = self.text.lines().filter_map(|line| line.trim_start().strip_prefix("cell "));
        lines.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
    }

    fn row(&self, boot: boot::Boot) -> Row {
        Row { card: self.card.map(|card| card.name), boot }
    }
}

impl Plan {
    /// Whether all is well.
    fn run(&self) -> Result<bool> {
        let is_good = if self.has_boots { self.boot_all()? } else { true };
        if let (Some(document), Some(logs)) = (&self.write, &self.logs) {
            table::write_into(document, &table::markdown(&recorded(logs)?))?;
        }
        Ok(is_good)
    }

    fn boot_all(&self) -> Result<bool> {
        let begun = Instant::now();
        let scratch = Directory::new();
        let packages = Packages::open(&cache()?)?;
        let mut rows = Vec::new();
        for arch in [Arch::X86_64, Arch::Aarch64] {
            if SERIES.iter().any(|series| series.arch == arch && !self.loads(series).is_empty()) {
                rows.extend(self.boot_each(arch, &scratch, &packages)?);
            }
        }
        println!("\n{}\nin {} s", table::markdown(&rows), begun.elapsed().as_secs());
        Ok(!rows.is_empty() && rows.iter().all(|row| row.boot.is_good()))
    }

    /// Boots everything that is wanted on a processor.
    fn boot_each(&self, arch: Arch, scratch: &Directory, packages: &Packages) -> Result<Vec<Row>> {
        let programs = Programs { folder: packages.programs(arch)? };
        let base = scratch.path().join(format!("base-{}.cpio", arch.debian()));
        let folder = scratch.path().join(format!("base-{}", arch.debian()));
        let busybox = packages.busybox(arch)?;
        image::base(&programs, arch, &busybox, &folder, &self.binaries(arch)?, &base)?;
        let mut rows = Vec::new();
        for series in SERIES.iter().filter(|series| series.arch == arch) {
            let loads = self.loads(series);
            if loads.is_empty() {
                continue;
            }
            let kernel = packages.kernel(series.version, arch)?;
            let modules = scratch.path().join(format!("modules-{}.cpio", series.name));
            let folder = scratch.path().join(format!("modules-{}", series.name));
            image::modules(&programs, &kernel, &folder, &modules)?;
            for load in loads {
                let name = format!("{}-{}", series.name, load.name);
                let script = scratch.path().join(format!("{name}.cpio"));
                let folder = scratch.path().join(&name);
                image::script(&programs, &folder, &load.text, &script)?;
                let initrd = scratch.path().join(format!("{name}.initrd"));
                join(&[&base, &modules, &script], &initrd)?;
                let log = self.log(scratch, &name)?;
                let machine = Machine {
                    arch,
                    programs: &programs,
                    initrd: &initrd,
                    log: &log,
                    scratch: &folder,
                    card: load.card,
                    cells: &load.cells(),
                    limit: self.limit,
                };
                let mut boot = machine.boot(&kernel)?;
                if self.is_quick && !boot.is_good() {
                    report(&load, &boot, &log);
                    println!("UNSTEADY? once more, since machines are shared, and emulators slow");
                    boot = machine.boot(&kernel)?;
                }
                std::fs::remove_file(initrd)?;
                report(&load, &boot, &log);
                rows.push(load.row(boot));
            }
        }
        Ok(rows)
    }

    /// The boots planned for a kernel.
    fn loads(&self, series: &Series) -> Vec<Load> {
        let is_named = |wanted: &[String], name: &str| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted == name)
        };
        let is_wanted = |part: Part| match self.is_quick {
            true => cells::QUICK.contains(&(series.name, part)),
            false => true,
        };
        if !is_named(&self.series, series.name) {
            return Vec::new();
        }
        let mut loads = Vec::new();
        if self.has_suites {
            let suites = self.suites().into_iter();
            let suites = suites.filter(|suite| is_wanted(Part::Suite(suite.name)));
            loads.extend(suites.map(|suite| Load::suite(suite, self.is_quick)));
            if !self.tests.is_empty() {
                let text = self.tests.iter().map(|test| cells::line(test, false)).collect();
                loads.push(Load { name: "tests", text, card: None });
            }
        }
        let cards = CARDS.iter().filter(|card| series.has_card(card));
        let cards = cards.filter(|card| is_wanted(Part::Card(card.name)));
        if self.has_cards {
            loads.extend(cards.filter(|card| is_named(&self.cards, card.name)).map(Load::card));
        }
        loads
    }

    /// What goes into the guest, and where.
    fn binaries(&self, arch: Arch) -> Result<Vec<(PathBuf, PathBuf)>> {
        let loads = SERIES.iter().filter(|series| series.arch == arch);
        let loads = loads.flat_map(|series| self.loads(series));
        let (cards, suites): (Vec<Load>, Vec<Load>) = loads.partition(|load| load.card.is_some());
        let wanted = suites.iter().flat_map(Load::cells);
        let wanted: BTreeSet<String> = wanted.map(|test| cells::program(&test)).collect();
        let (mut tests, examples) = cells::build(&wanted, !cards.is_empty(), arch)?;
        let mut binaries = Vec::new();
        for test in &wanted {
            let binary = tests.remove(test).ok_or_else(|| format!("there is no test {test}"))?;
            binaries.push((binary, Path::new("tests").join(cells::file_name(test))));
        }
        for (name, path) in examples {
            binaries.push((path, Path::new("examples").join(name)));
        }
        Ok(binaries)
    }

    fn suites(&self) -> Vec<&'static Suite> {
        let is_wanted = |suite: &&Suite| match (self.suites.is_empty(), self.tests.is_empty()) {
            (true, is_all) => is_all,
            (false, _) => self.suites.iter().any(|name| name == suite.name),
        };
        SUITES.iter().filter(is_wanted).collect()
    }

    /// Where a guest's console is written to.
    fn log(&self, scratch: &Directory, name: &str) -> Result<PathBuf> {
        let Some(folder) = &self.logs else {
            return Ok(scratch.path().join(format!("{name}.log")));
        };
        std::fs::create_dir_all(folder)?;
        Ok(folder.join(format!("{name}.log")))
    }
}

/// The boots of the whole matrix whose results are in a folder.
fn recorded(logs: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for series in SERIES {
        let suites = SUITES.iter().map(|suite| Load::suite(suite, false));
        let cards = CARDS.iter().filter(|card| series.has_card(card)).map(Load::card);
        for load in suites.chain(cards) {
            let results = logs.join(format!("{}-{}.results", series.name, load.name));
            rows.extend(boot::Boot::read(&results, &load.cells())?.map(|boot| load.row(boot)));
        }
    }
    Ok(rows)
}

fn report(load: &Load, boot: &boot::Boot, log: &Path) {
    println!("== {}, {}, in {} s", boot.release, load.name, boot.seconds);
    for outcome in &boot.outcomes {
        let verdict = if outcome.is_good() { "ok" } else { "FAILED" };
        println!(
            "{verdict:<6} {:<32} {:>3} passed, {} not run, {} s",
            outcome.cell, outcome.passed, outcome.ignored, outcome.seconds
        );
        for line in &outcome.said {
            println!("       {line}");
        }
        for line in outcome.failed.iter().chain(&outcome.kernel) {
            println!("       {line}");
        }
    }
    if !boot.is_complete {
        println!("FAILED it did not come to its end");
    }
    if !boot.is_good() {
        println!("what the guest printed of what failed:");
        let text = std::fs::read(log.with_extension("results")).unwrap_or_default();
        for line in
            String::from_utf8_lossy(&text).lines().filter_map(|line| line.strip_prefix("@| "))
        {
            println!("    {line}");
        }
    }
}

/// `RINGTAP_KERNELS`, or a folder of the user's cache.
fn cache() -> Result<PathBuf> {
    let named = std::env::var_os("RINGTAP_KERNELS").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/ringtap-kernels"));
    named.or_else(home).ok_or_else(|| "neither RINGTAP_KERNELS nor HOME is set".into())
}

fn join(archives: &[&Path], into: &Path) -> Result<()> {
    let mut out = std::fs::File::create(into)?;
    for archive in archives {
        std::io::copy(&mut std::fs::File::open(archive)?, &mut out)?;
    }
    Ok(())
}

/// Runs a command that must do well.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    text(command).map(drop)
}

/// What a command that must do well writes.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {}", output.status, complaint.trim()).into())
}
