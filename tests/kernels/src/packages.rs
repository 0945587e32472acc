//! Kernels, QEMU and BusyBox as Debian packages, authenticated by Debian's keyring, in a folder outside of the tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arch::Arch;
use crate::{Result, run, text};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MIRROR: &str = "http://deb.debian.org";

/// Packages of some suites, for a processor.
#[derive(Debug)]
struct List {
    name: &'static str,
    suites: &'static [(&'static str, &'static str)],
    arch: Arch,
}

/// Where kernels are.
const KERNELS: List = List {
    name: "kernels",
    suites: &[
        ("debian", "bookworm-backports"),
        ("debian", "trixie-backports"),
        ("debian-security", "bullseye-security"),
        ("debian-security", "bookworm-security"),
    ],
    arch: Arch::X86_64,
};

/// Where the programs are that run on this machine: of one release, so that their libraries fit. Its own QEMU has no
/// igb, that of the backports has.
const PROGRAMS: List = List { name: "programs", suites: BOOKWORM, arch: Arch::X86_64 };

/// A kernel and BusyBox for the guests with another processor.
const AARCH64: List = List { name: "aarch64", suites: BOOKWORM, arch: Arch::Aarch64 };

const BOOKWORM: &[(&str, &str)] = &[
    ("debian", "bookworm"),
    ("debian", "bookworm-backports"),
    ("debian-security", "bookworm-security"),
];

impl List {
    /// With kernels for this processor.
    fn of(arch: Arch) -> &'static Self {
        match arch {
            Arch::X86_64 => &KERNELS,
            Arch::Aarch64 => &AARCH64,
        }
    }
}

/// The cache of packages, downloaded and unpacked.
#[derive(Debug)]
pub(crate) struct Packages {
    root: PathBuf,
}

/// A kernel that was unpacked.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// The image that boots.
    pub(crate) image: PathBuf,
    /// The folder that has `lib/modules`.
    pub(crate) modules: PathBuf,
}

/// The registry of packages cannot be reached.
#[derive(Debug)]
pub(crate) struct Away(String);

impl std::fmt::Display for Away {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the registry is away: {}", self.0)
    }
}

impl std::error::Error for Away {}

impl Packages {
    /// A cache at this place.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            return Err(format!("no {KEYRING}: the packages could not be authenticated").into());
        }
        for folder in ["apt/lists/partial", "apt/cache/archives/partial", "unpacked", "debs"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Reads a list of packages anew, unless that was done today.
    fn refresh(&self, list: &List) -> Result<()> {
        let line = |(area, suite): &(&str, &str)| {
            let arch = list.arch.debian();
            format!("deb [arch={arch} signed-by={KEYRING}] {MIRROR}/{area} {suite} main\n")
        };
        let apt = self.root.join("apt");
        let lines: String = list.suites.iter().map(line).collect();
        fs::write(apt.join(format!("{}.list", list.name)), lines)?;
        let stamp = apt.join(format!("{}.read", list.name));
        let is_fresh = fs::metadata(&stamp)
            .and_then(|of| of.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() < 86_400));
        if is_fresh {
            return Ok(());
        }
        let mut update = self.apt(list, "apt-get");
        let update = update.args(["-o", "APT::Update::Error-Mode=any", "update", "-qq"]);
        match fetch(update) {
            Ok(()) => fs::write(stamp, "")?,
            Err(error) if stamp.exists() => println!("with older lists of packages: {error}"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The kernel of a series (`6.12`) that is newest in Debian, or the newest of all (`newest`).
    pub(crate) fn kernel(&self, series: &str, arch: Arch) -> Result<Kernel> {
        let list = List::of(arch);
        self.refresh(list)?;
        let names = text(self.apt(list, "apt-cache").args(["pkgnames", "linux-"]))?;
        let version_of = |name| version_of(name, arch);
        let wanted: Vec<u64> = series.split('.').filter_map(|part| part.parse().ok()).collect();
        let newest = names
            .lines()
            .filter_map(|name| Some((numbers(version_of(name)?), name)))
            .filter(|(numbers, _)| series == "newest" || numbers.starts_with(&wanted))
            .max()
            .ok_or_else(|| format!("Debian has no kernel {series} any more"))?
            .1;
        let version = version_of(newest).expect("it was found by it");
        // From 6.19 on the image and the modules are packages of their own.
        let debian = arch.debian();
        let folder = format!("kernel-{version}-{debian}");
        let modules = format!("linux-modules-{version}-{debian}");
        let folder = match names.lines().any(|name| name == modules) {
            true => {
                let binary = format!("linux-binary-{version}-{debian}");
                self.unpacked(list, &folder, &[&binary, &modules])?
            }
            false => self.unpacked(list, &folder, &[newest])?,
        };
        let modules = ["", "usr"].map(|under| folder.join(under));
        let modules = modules.into_iter().find(|base| base.join("lib/modules").is_dir());
        let modules = modules.ok_or("a kernel without modules")?;
        let release = one_in(&modules.join("lib/modules"), "")?;
        let release =
            release.file_name().expect("it is in a folder").to_string_lossy().into_owned();
        // From 6.19 on the image is beside the modules.
        let place = modules.join("lib/modules").join(&release);
        let image =
            one_in(&folder.join("boot"), "vmlinuz").or_else(|_| one_in(&place, "vmlinuz"))?;
        Ok(Kernel { release, image, modules })
    }

    /// BusyBox for guests with this processor.
    pub(crate) fn busybox(&self, arch: Arch) -> Result<PathBuf> {
        if arch == Arch::X86_64 {
            return Ok(self.programs(arch)?.join("bin/busybox"));
        }
        let list = List::of(arch);
        self.refresh(list)?;
        let folder = self.unpacked(list, "busybox-arm64", &["busybox-static"])?;
        Ok(folder.join("bin/busybox"))
    }

    /// A folder with QEMU for this processor, BusyBox and kmod, and the libraries that this machine lacks for them.
    pub(crate) fn programs(&self, arch: Arch) -> Result<PathBuf> {
        let (name, emulator) = match arch {
            Arch::X86_64 => ("programs", "qemu-system-x86"),
            Arch::Aarch64 => ("programs-aarch64", "qemu-system-arm"),
        };
        let folder = self.root.join("unpacked").join(name);
        if folder.join("complete").is_file() {
            return Ok(folder);
        }
        self.refresh(&PROGRAMS)?;
        let mut install = self.apt(&PROGRAMS, "apt-get");
        install.args(["-y", "-qq", "--no-install-recommends", "--download-only", "--reinstall"]);
        install.args(["-t", "bookworm-backports", "install", emulator, "seabios"]);
        fetch(install.args(["busybox-static", "kmod"]))?;
        let archives = fs::read_dir(self.root.join("apt/cache/archives"))?;
        for archive in archives.filter_map(std::io::Result::ok).map(|entry| entry.path()) {
            if archive.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg").arg("-x").arg(&archive).arg(&folder))?;
                fs::remove_file(archive)?;
            }
        }
        fs::write(folder.join("complete"), "")?;
        Ok(folder)
    }

    fn unpacked(&self, list: &List, name: &str, packages: &[&str]) -> Result<PathBuf> {
        let folder = self.root.join("unpacked").join(name);
        if folder.join("complete").is_file() {
            return Ok(folder);
        }
        println!("downloading {}", packages.join(", "));
        let place = self.root.join("debs").join(name);
        fs::create_dir_all(&place)?;
        let mut download = self.apt(list, "apt-get");
        fetch(download.current_dir(&place).args(["-qq", "download"]).args(packages))?;
        for archive in fs::read_dir(&place)? {
            run(Command::new("dpkg").arg("-x").arg(archive?.path()).arg(&folder))?;
        }
        fs::remove_dir_all(place)?;
        fs::write(folder.join("complete"), "")?;
        Ok(folder)
    }

    /// One of apt's commands, with sources, lists and a cache of our own.
    fn apt(&self, list: &List, command: &str) -> Command {
        let own = |name: &str| self.root.join("apt").join(name).display().to_string();
        let mut command = Command::new(command);
        for option in [
            format!("Dir::Etc::sourcelist={}", own(&format!("{}.list", list.name))),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", own("lists")),
            format!("Dir::Cache={}", own("cache")),
            "APT::Get::List-Cleanup=0".to_owned(),
            format!("APT::Architecture={}", list.arch.debian()),
            format!("APT::Architectures={}", list.arch.debian()),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Runs an apt command that downloads; fails with [`Away`] if the server cannot be reached.
fn fetch(command: &mut Command) -> Result<()> {
    const SIGNS: [&str; 5] = [
        "Could not resolve",
        "Temporary failure resolving",
        "Could not connect",
        "Connection failed",
        "connection timed out",
    ];
    run(command).map_err(|error| {
        let text = error.to_string();
        match SIGNS.iter().any(|sign| text.contains(sign)) {
            true => Away(text).into(),
            false => error,
        }
    })
}

/// The one entry of a folder whose name begins so.
fn one_in(folder: &Path, begin: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)?.filter_map(std::io::Result::ok).map(|entry| entry.path());
    let mut entries = entries.filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin))
    });
    entries.next().ok_or_else(|| format!("nothing in {}", folder.display()).into())
}

/// `6.12.117+deb12` of `linux-image-6.12.117+deb12-amd64-unsigned`; `None` of real-time and cloud kernels.
fn version_of(package: &str, arch: Arch) -> Option<&str> {
    let name =
        package.strip_prefix("linux-image-").or_else(|| package.strip_prefix("linux-binary-"))?;
    let version = name.strip_suffix("-unsigned").unwrap_or(name);
    let version = version.strip_suffix(arch.debian())?.strip_suffix('-')?;
    let is_plain = version.starts_with(|c: char| c.is_ascii_digit())
        && version.contains('.')
        && version.split(|c: char| !c.is_ascii_alphabetic()).all(|word| matches!(word, "" | "deb"));
    // Names without a patch level are of packages that only depend on others.
    (is_plain && numbers(version).len() > 2).then_some(version)
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_that_of_an_ordinary_kernel() {
        assert_eq!(
            version_of("linux-image-5.10.0-46-amd64-unsigned", Arch::X86_64),
            Some("5.10.0-46")
        );
        assert_eq!(
            version_of("linux-image-6.12.117+deb12-amd64", Arch::X86_64),
            Some("6.12.117+deb12")
        );
        assert_eq!(version_of("linux-binary-7.3.4+deb13-amd64", Arch::X86_64), Some("7.3.4+deb13"));
        assert_eq!(
            version_of("linux-image-6.12.117+deb12-arm64", Arch::Aarch64),
            Some("6.12.117+deb12")
        );
        for other in [
            "linux-image-6.12.117+deb12-arm64",
            "linux-image-amd64",
            "linux-image-6.1-amd64",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-modules-7.3.4+deb13-amd64",
        ] {
            assert_eq!(version_of(other, Arch::X86_64), None, "{other}");
        }
        assert!(numbers("6.12.117+deb12") > numbers("6.12.90+deb12.1"));
    }
}
