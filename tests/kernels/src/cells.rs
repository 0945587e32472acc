//! The matrix: which suites run on which kernel, and which cards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Result;
use crate::arch::Arch;

/// The kernels: the long-term ones that distributions ship, the newest, and one for another processor.
pub(crate) const SERIES: &[Series] = &[
    Series { name: "5.10", version: "5.10", arch: Arch::X86_64 },
    Series { name: "6.1", version: "6.1", arch: Arch::X86_64 },
    Series { name: "6.12", version: "6.12", arch: Arch::X86_64 },
    Series { name: "6.18", version: "6.18", arch: Arch::X86_64 },
    Series { name: "newest", version: "newest", arch: Arch::X86_64 },
    Series { name: "aarch64", version: "6.12", arch: Arch::Aarch64 },
];

/// Kernels of one line, for one processor.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    /// What its versions begin with; `newest` for the newest of all.
    pub(crate) version: &'static str,
    pub(crate) arch: Arch,
}

impl Series {
    /// Whether a card is tried there. Drivers are the same on every processor, so one card is enough on aarch64. Before
    /// 6.12 the driver of virtio_net does not tell the emulator from the start which queue a packet is for.
    pub(crate) fn has_card(&self, card: &Card) -> bool {
        match self.arch {
            Arch::X86_64 => card.queues == 1 || !["5.10", "6.1"].contains(&self.name),
            Arch::Aarch64 => card.name == "igb",
        }
    }
}

/// What to run when time is short: the parts in which the most faults were found.
pub(crate) const QUICK: &[(&str, Part)] = &[
    ("5.10", Part::Suite("conformance")),
    ("6.12", Part::Suite("conformance")),
    ("6.18", Part::Card("igb")),
];

/// A part of what is run on a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Suite(&'static str),
    Card(&'static str),
}

/// What runs on every kernel, over veth: a column of the table, and its test binaries.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        name: "conformance",
        tests: &[
            "ringtap-tokio/conformance",
            "ringtap-smol/conformance",
            "ringtap-glommio/conformance",
            "ringtap-tokio-uring/conformance",
            "ringtap/reactor/conformance",
        ],
    },
    Suite {
        name: "reactor",
        tests: &[
            "ringtap/reactor/executor",
            "ringtap/reactor/captures",
            "ringtap/reactor/hosted",
            "ringtap/reactor/refused",
            "ringtap/reactor/wakers",
            "ringtap/reactor/prometheus",
            "ringtap/reactor/signals",
        ],
    },
    Suite { name: "capture", tests: &["ringtap/capture"] },
    Suite { name: "transmit", tests: &["ringtap/transmit"] },
    Suite { name: "xdp", tests: &["ringtap/xdp"] },
    Suite { name: "programs", tests: &["ringtap/programs"] },
];

/// The cards: a row each in their table, received and sent with every mode.
pub(crate) const CARDS: &[Card] = &[
    // Zero-copy wants the ring's memory behind an IOMMU's API, and no receive offloads that the host may use.
    Card {
        name: "virtio_net",
        device: "virtio-net-pci,mq=on,vectors=10,guest_tso4=off,guest_tso6=off,guest_ufo=off,guest_ecn=off,guest_csum=off,iommu_platform=on,disable-legacy=on",
        queues: 1,
    },
    // The same without that API: the driver offers zero-copy and refuses each queue.
    Card { name: "virtio_net-without-iommu", device: "virtio-net-pci,mq=on,vectors=10", queues: 1 },
    // With more queues than processors: those beyond are used only while an XDP program is attached.
    Card {
        name: "virtio_net-rss",
        device: "virtio-net-pci,mq=on,rss=on,vectors=18,guest_tso4=off,guest_tso6=off,guest_ufo=off,guest_ecn=off,guest_csum=off,iommu_platform=on,disable-legacy=on",
        queues: 8,
    },
    Card { name: "igb", device: "igb", queues: 1 },
    Card { name: "e1000e", device: "e1000e", queues: 1 },
    Card { name: "vmxnet3", device: "vmxnet3", queues: 1 },
];

/// A group of test binaries.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// Package and test, and the test's module if only that one is meant.
    pub(crate) tests: &'static [&'static str],
}

/// A network card of QEMU's.
#[derive(Debug)]
pub(crate) struct Card {
    /// Its driver, and any peculiarity of this configuration.
    pub(crate) name: &'static str,
    /// Its `-device`.
    pub(crate) device: &'static str,
    /// How many pairs of queues the emulator has for it. More than one takes a tap of this machine's.
    pub(crate) queues: u32,
}

/// Tests that are left out in an emulator. Some need super-frames, which TCP makes on a fast machine only, and one reads the
/// sources, which are not there.
const LEFT_OUT: &[&str] = &[
    "two_hosts_move_50_mb",
    "what_the_far_side_cannot_split",
    "what_the_kernel_cannot_be_told_to_split",
    "none_is_left_out",
];

/// The longest that one cell may take in an emulator.
const SECONDS: u32 = 600;

impl Suite {
    /// The lines of the guest's script.
    pub(crate) fn script(&self, is_short: bool) -> String {
        self.tests.iter().map(|test| line(test, is_short)).collect()
    }
}

impl Card {
    /// The lines of the guest's script: the port with this driver, and the other one.
    pub(crate) fn script(&self) -> String {
        format!(
            "
            for path in /sys/class/net/*; do
                [ -e \"$path/device\" ] || continue
                port=${{path##*/}}
                ip link set \"$port\" up
                case $(cat \"$path/address\") in *:01) card=$port ;; *:02) other=$port ;; esac
            done
            sleep 4 # for the link
            cell {name} {SECONDS} /examples/doctor --report \"$card\" \"$other\"
            ",
            name = self.name,
        )
    }
}

/// For suites that run the same tests in several ways: the way to run when time is short.
const PLAINEST: &[(&str, &str)] = &[
    ("ringtap-tokio/conformance", "plain::"),
    ("ringtap/reactor/conformance", "conformance::with_io_uring::"),
];

/// The line of the guest's script that runs tests; only the plainest of their ways, if the time `is_short`.
pub(crate) fn line(test: &str, is_short: bool) -> String {
    let module = test.split('/').nth(2).map(|module| format!("{module}::"));
    let plainest = PLAINEST.iter().find(|(name, _)| is_short && *name == test);
    let filter = plainest.map(|(_, filter)| (*filter).to_owned()).or(module);
    let filter = filter.map_or(String::new(), |filter| format!(" {filter}"));
    let skips: String = LEFT_OUT.iter().map(|name| format!(" --skip {name}")).collect();
    format!("cell {test} {SECONDS} /tests/{}{filter}{skips}\n", file_name(test))
}

/// The package and name of the program that has a test.
pub(crate) fn program(test: &str) -> String {
    test.split('/').take(2).collect::<Vec<_>>().join("/")
}

/// What the program that has a test is called in the guest.
pub(crate) fn file_name(test: &str) -> String {
    program(test).replace('/', "--")
}

/// Builds tests (returned by package and name) and the wanted examples (by name), in release mode, since code that is not
/// optimized takes up to fourteen times as long in an emulator.
pub(crate) fn build(
    tests: &BTreeSet<String>,
    has_cards: bool,
    arch: Arch,
) -> Result<(BTreeMap<String, PathBuf>, BTreeMap<String, PathBuf>)> {
    let (mut built, mut examples) = (BTreeMap::new(), BTreeMap::new());
    // The command takes minutes to build, and is not asked for.
    let all = [
        "--workspace",
        "--exclude",
        "ringtap-cli",
        "--exclude",
        "ringtap-sensor",
        "--all-features",
        "--release",
    ];
    let names: BTreeSet<&str> =
        tests.iter().filter_map(|test| Some(test.split_once('/')?.1)).collect();
    let names: Vec<&str> = names.into_iter().flat_map(|name| ["--test", name]).collect();
    let mut builds = Vec::new();
    if tests.contains("ringtap/programs") {
        builds.push([&["build", "--examples", "--bin", "lab"][..], &all].concat());
    } else if has_cards {
        // They are tried by the doctor alone.
        let doctor = ["--example", "doctor", "--all-features", "--release"];
        builds.push([&["build", "-p", "ringtap-examples"][..], &doctor].concat());
    }
    if !names.is_empty() {
        builds.push([&["test", "--no-run"][..], &all, &names].concat());
    }
    for arguments in builds {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(arguments).arg("--message-format=json-render-diagnostics");
        build.args(arch.target().map(|target| format!("--target={target}")));
        build.envs(arch.environment().iter().copied());
        let output = build.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            let wants = match arch {
                Arch::X86_64 => "",
                Arch::Aarch64 => {
                    "; `rustup target add aarch64-unknown-linux-gnu`, and Debian's gcc-aarch64-linux-gnu and libc6-dev-arm64-cross, are needed"
                }
            };
            return Err(format!("the tests and examples do not build{wants}").into());
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let message: serde_json::Value = serde_json::from_str(line)?;
            let Some(path) = message["executable"].as_str().map(PathBuf::from) else { continue };
            let name = message["target"]["name"].as_str().unwrap_or_default().to_owned();
            match message["target"]["kind"][0].as_str() {
                Some("test") => {
                    let manifest = message["manifest_path"].as_str().unwrap_or_default();
                    built.insert(format!("{}/{name}", package_of(manifest)?), path);
                }
                Some("example") => _ = examples.insert(name, path),
                Some("bin") if name == "lab" => _ = examples.insert(name, path),
                _ => {}
            }
        }
    }
    Ok((built, examples))
}

fn package_of(manifest: &str) -> Result<String> {
    let text = std::fs::read_to_string(manifest)?;
    let name = text.lines().find_map(|line| line.strip_prefix("name = "));
    Ok(name.ok_or("a manifest without a name")?.trim_matches('"').to_owned())
}
