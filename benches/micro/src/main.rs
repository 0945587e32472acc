//! What ringtap's own code costs a packet, without the kernel's: `cargo run --release -p ringtap-micro`.
//!
//! `-- --check` counts instructions under callgrind and compares them with `baseline.txt`: more than 3 % above it
//! is a failure. Instructions are the same on any machine with the same compiler, so the baseline names it, and
//! with another one nothing is compared. `-- --write` writes a new baseline.
//!
//! Each path has a half that feeds it, which does not count, and a half that does. Both are in one thread, over a
//! veth pair of a namespace of its own where a real socket is meant. AF_XDP receives as root only.

mod paths;

use std::process::Command;
use std::time::{Duration, Instant};

use paths::{PATHS, Path};
use ringtap_lab::{Namespace, bootstrap};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.txt");
/// What a path may cost beyond its baseline.
const TOLERANCE: f64 = 1.03;
/// Packets that instructions are counted for.
const COUNTED: u64 = 50_000;

fn main() -> Outcome<()> {
    let mut args = pico_args::Arguments::from_env();
    if let Some(name) = args.opt_value_from_str::<_, String>("--path")? {
        let namespace = enter()?;
        let mut path = open(&name, &namespace)?;
        let counted = pass(path.as_mut(), COUNTED)?;
        println!("{}", counted.0);
        return Ok(());
    }
    if args.contains("--write") {
        let mut text = format!("# {}\n", compiler()?);
        for (name, instructions) in count()? {
            text += &format!("{instructions:8.1} {name}\n");
        }
        std::fs::write(BASELINE, text)?;
        return Ok(());
    }
    if args.contains("--check") { check() } else { time(args.opt_value_from_str("--rounds")?) }
}

fn enter() -> Outcome<Namespace> {
    bootstrap::enter()?;
    Ok(Namespace::enter()?)
}

fn open(name: &str, namespace: &Namespace) -> Outcome<Box<dyn Path>> {
    let (_, open) = PATHS.iter().find(|(known, _)| *known == name).ok_or("no such path")?;
    open(&namespace.veth())
}

/// Feeds and takes at least so many packets: how many, and how long taking took.
fn pass(path: &mut dyn Path, least: u64) -> Outcome<(u64, Duration)> {
    let (mut count, mut took) = (0, Duration::ZERO);
    while count < least {
        path.feed()?;
        let start = Instant::now();
        count += path.measured();
        took += start.elapsed();
    }
    Ok((count, took))
}

fn time(rounds: Option<usize>) -> Outcome<()> {
    let namespace = enter()?;
    let rounds = rounds.unwrap_or(15);
    println!("ns a packet, {rounds} rounds: median (least to most)");
    for (name, _) in PATHS {
        let mut path = match open(name, &namespace) {
            Ok(path) => path,
            Err(error) => {
                println!("{name:<28} not run: {error}");
                continue;
            }
        };
        pass(path.as_mut(), COUNTED)?; // touches memory for the first time
        let mut times = Vec::new();
        for _ in 0..rounds {
            let (count, took) = pass(path.as_mut(), COUNTED)?;
            times.push(took.as_nanos() as f64 / count as f64);
        }
        times.sort_by(f64::total_cmp);
        let (least, most) = (times[0], times[times.len() - 1]);
        println!("{name:<28} {:>7.1} ({least:.1} to {most:.1})", times[times.len() / 2]);
    }
    Ok(())
}

/// Instructions a packet of each path that can be run here.
fn count() -> Outcome<Vec<(&'static str, f64)>> {
    let mut counts = Vec::new();
    for (name, _) in PATHS {
        let run = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .args(["--collect-atstart=no", "--toggle-collect=*measured*"])
            .arg(std::env::current_exe()?)
            .args(["--path", name])
            .output()
            .map_err(|error| format!("valgrind: {error}; install it to count instructions"))?;
        let (told, report) = (String::from_utf8(run.stdout)?, String::from_utf8(run.stderr)?);
        if !run.status.success() {
            println!("{name:<28} not run: {}", report.lines().last().unwrap_or("no word"));
            continue;
        }
        let collected = report.lines().find_map(|line| line.split("Collected :").nth(1));
        let instructions: f64 = collected.ok_or("callgrind collected nothing")?.trim().parse()?;
        let packets: f64 = told.trim().parse()?;
        counts.push((*name, instructions / packets));
    }
    Ok(counts)
}

fn check() -> Outcome<()> {
    let baseline = std::fs::read_to_string(BASELINE)?;
    let compiler = compiler()?;
    let has_compiler = baseline.lines().next() == Some(&format!("# {compiler}"));
    let known = |name: &str| {
        let line = baseline
            .lines()
            .find(|line| line.trim_start().split_once(' ').is_some_and(|(_, rest)| rest == name))?;
        line.trim_start().split_once(' ')?.0.parse::<f64>().ok()
    };
    let mut is_worse = false;
    println!("instructions a packet");
    for (name, instructions) in count()? {
        let Some(known) = known(name) else {
            is_worse = true;
            println!("{name:<28} {instructions:>8.1}  has no baseline: run with --write");
            continue;
        };
        let verdict = match instructions / known {
            ratio if ratio > TOLERANCE => {
                is_worse |= has_compiler;
                "WORSE"
            }
            ratio if ratio < 2.0 - TOLERANCE => "better: write a new baseline",
            _ => "as before",
        };
        println!("{name:<28} {instructions:>8.1}  baseline {known:>8.1}  {verdict}");
    }
    if !has_compiler {
        println!("NOT COMPARED: the baseline is of another compiler than {compiler}");
    }
    if is_worse { Err("more instructions a packet than the baseline has".into()) } else { Ok(()) }
}

/// What counts depend on.
fn compiler() -> Outcome<String> {
    let rustc = Command::new("rustc").arg("--version").output()?;
    let version = String::from_utf8(rustc.stdout)?;
    Ok(format!("{}, {}", version.trim(), std::env::consts::ARCH))
}
