//! What the guest starts with: a file system in memory, of an init, BusyBox, binaries and the libraries they name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::arch::Arch;
use crate::packages::Kernel;
use crate::{Result, run, text};

const INIT: &str = include_str!("init.sh");

/// Modules of drivers, and of features that tests need. A kernel without such a module has it built in, or not at all.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "igb",
    "e1000e",
    "vmxnet3",
    "veth",
    "tun",
    "ifb",
    "macvlan",
    "8021q",
    "bridge",
    "vxlan",
    "sch_tbf",
    "sch_ingress",
    "sch_netem",
    "cls_bpf",
    "act_mirred",
    "af_packet_diag",
    "xsk_diag",
    "sctp",
];

/// The programs that packages brought: QEMU, BusyBox, depmod.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) folder: PathBuf,
}

impl Programs {
    /// A program of theirs, which finds the libraries that came with it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        let libraries = libraries.map(|place| self.folder.join(place).display().to_string());
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
        command
    }

    /// A program of theirs that is ended after `limit`.
    pub(crate) fn bounded(&self, program: &str, limit: Duration) -> Command {
        let unbounded = self.command(program);
        let mut command = Command::new("timeout");
        command.args(["-k", "5"]).arg(limit.as_secs().to_string()).arg(unbounded.get_program());
        command.envs(unbounded.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// As [`bounded`](Self::bounded), in a network of its own with a bridge, which ends with it.
    pub(crate) fn wired(&self, program: &str, scratch: &Path, limit: Duration) -> Result<Command> {
        let busybox = self.folder.join("bin/busybox");
        let attach = scratch.join("attach");
        // Called by the emulator with a tap's name. Its queue holds a burst of the other end's, where we may say so.
        let text = format!(
            "#!{0} sh\n{0} ip link set \"$1\" qlen 10000 2>/dev/null\n\
             {0} ip link set \"$1\" up && {0} brctl addif wires \"$1\"\n",
            busybox.display()
        );
        fs::write(&attach, text)?;
        fs::set_permissions(&attach, fs::Permissions::from_mode(0o755))?;
        let inner = self.bounded(program, limit);
        let mut command = Command::new("unshare");
        // This process's own folder belongs to its user.
        if fs::metadata("/proc/self")?.uid() != 0 {
            command.arg("--map-root-user");
        }
        command.arg("--net").arg(&busybox).args([
            "sh",
            "-ec",
            "busybox=$1; shift; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
            $busybox brctl addbr wires; $busybox ip link set wires up; exec \"$@\"",
            "sh",
        ]);
        command.arg(&busybox).arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ok(command)
    }

    /// The emulator's end `number` of the bridge that [`wired`](Self::wired) made.
    pub(crate) fn tap(&self, scratch: &Path, number: u32, queues: u32) -> String {
        let attach = scratch.join("attach");
        let script = format!("script={},downscript=no,vhost=off", attach.display());
        let queues = if queues > 1 { format!(",queues={queues}") } else { String::new() };
        format!("tap,id=n{number},ifname=tap{number},{script}{queues}")
    }

    /// Writes a folder as an archive that the kernel unpacks.
    fn pack(&self, folder: &Path, archive: &Path) -> Result<()> {
        let mut names = Vec::new();
        list(folder, Path::new(""), &mut names)?;
        let mut pack = Command::new(self.folder.join("bin/busybox"));
        pack.args(["cpio", "-o", "-H", "newc"]).current_dir(folder);
        pack.stdin(Stdio::piped()).stdout(File::create(archive)?).stderr(Stdio::null());
        let mut child = pack.spawn()?;
        child.stdin.take().expect("it was asked for").write_all(names.join("\n").as_bytes())?;
        if child.wait()?.success() { Ok(()) } else { Err("cpio failed".into()) }
    }
}

/// Writes the part of the guest's files that all kernels share to `archive`.
pub(crate) fn base(
    programs: &Programs,
    arch: Arch,
    busybox: &Path,
    folder: &Path,
    binaries: &[(PathBuf, PathBuf)],
    archive: &Path,
) -> Result<()> {
    for place in ["bin", "proc", "sys", "dev", "tmp", "root", "etc", "tests", "examples"] {
        fs::create_dir_all(folder.join(place))?;
    }
    fs::write(folder.join("init"), INIT)?;
    fs::set_permissions(folder.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::copy(busybox, folder.join("bin/busybox"))?;
    symlink("bin", folder.join("sbin"))?;
    fs::write(folder.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(folder.join("modules"), MODULES.join("\n") + "\n")?;
    let mut libraries = BTreeSet::new();
    for (binary, place) in binaries {
        let place = folder.join(place);
        run(Command::new(arch.strip()).arg("-o").arg(&place).arg(binary))?;
        // What is built for another processor is static.
        if arch.target().is_none() {
            libraries.extend(libraries_of(binary)?);
        }
    }
    for library in libraries {
        let place = folder.join(library.strip_prefix("/").unwrap_or(&library));
        fs::create_dir_all(place.parent().expect("it has one"))?;
        fs::copy(&library, place)?;
    }
    programs.pack(folder, archive)
}

/// Writes a kernel's modules, and those that they need according to `depmod`, to `archive`.
pub(crate) fn modules(
    programs: &Programs,
    kernel: &Kernel,
    folder: &Path,
    archive: &Path,
) -> Result<()> {
    let place = format!("lib/modules/{}", kernel.release);
    let (from, to) = (kernel.modules.join(&place), folder.join(&place));
    if !from.join("modules.dep").is_file() {
        depmod(programs, &kernel.modules, &kernel.release)?;
    }
    fs::create_dir_all(&to)?;
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        let _ = fs::copy(from.join(name), to.join(name)); // newer kernels have all of them
    }
    let needs = fs::read_to_string(from.join("modules.dep"))?;
    for line in needs.lines() {
        let (module, others) = line.split_once(':').ok_or("modules.dep")?;
        let name = module.rsplit('/').next().expect("a path").split('.').next().expect("a name");
        if !MODULES.contains(&name) {
            continue;
        }
        for file in others.split_whitespace().chain([module]) {
            let copy = to.join(file);
            fs::create_dir_all(copy.parent().expect("it has one"))?;
            fs::copy(from.join(file), &copy)?;
            if file.ends_with(".xz") {
                run(Command::new("xz").arg("-df").arg(&copy))?; // BusyBox loads what is not compressed
            }
        }
    }
    depmod(programs, folder, &kernel.release)?;
    programs.pack(folder, archive)
}

/// The script with what is to be run.
pub(crate) fn script(programs: &Programs, folder: &Path, text: &str, archive: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("run.sh"), text)?;
    programs.pack(folder, archive)
}

fn depmod(programs: &Programs, base: &Path, release: &str) -> Result<()> {
    // Called by that name, kmod is depmod.
    let link = programs.folder.join("bin/depmod");
    if !link.exists() {
        symlink("kmod", &link)?;
    }
    run(programs.command("bin/depmod").arg("-b").arg(base).arg(release))
}

/// The libraries that the loader would take, and the loader.
fn libraries_of(binary: &Path) -> Result<Vec<PathBuf>> {
    let list = text(Command::new("ldd").arg(binary))?;
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(list.lines().filter_map(path).collect())
}

fn list(folder: &Path, under: &Path, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder.join(under))? {
        let entry = entry?;
        let name = under.join(entry.file_name());
        names.push(name.display().to_string());
        if entry.file_type()?.is_dir() {
            list(folder, &name, names)?;
        }
    }
    Ok(())
}
