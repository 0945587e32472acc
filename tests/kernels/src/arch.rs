//! The processors of the guests, and what depends on them.

/// A guest's processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// Debian's name.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The emulator, in the folder of programs.
    pub(crate) fn emulator(self) -> &'static str {
        match self {
            Self::X86_64 => "usr/bin/qemu-system-x86_64",
            Self::Aarch64 => "usr/bin/qemu-system-aarch64",
        }
    }

    /// The emulator's options: no KVM, since the machines that this runs on are guests themselves.
    pub(crate) fn machine(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &["-machine", "q35", "-cpu", "max"],
            // The architecture's own algorithm for pointer authentication is slow to emulate.
            Self::Aarch64 => &["-machine", "virt", "-cpu", "max,pauth-impdef=on"],
        }
    }

    /// The console, and the serial line for the results.
    pub(crate) fn lines(self) -> [&'static str; 2] {
        match self {
            Self::X86_64 => ["ttyS0", "ttyS1"],
            Self::Aarch64 => ["ttyAMA0", "ttyAMA1"],
        }
    }

    /// What cargo builds for; `None` for this machine.
    pub(crate) fn target(self) -> Option<&'static str> {
        (self == Self::Aarch64).then_some("aarch64-unknown-linux-gnu")
    }

    /// What cargo's environment needs for this target. The binaries are static: the guest needs no libraries then.
    pub(crate) fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::X86_64 => &[],
            Self::Aarch64 => &[
                ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc"),
                (
                    "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                    "-Ctarget-feature=+crt-static",
                ),
            ],
        }
    }

    /// The program that strips binaries.
    pub(crate) fn strip(self) -> &'static str {
        match self {
            Self::X86_64 => "strip",
            Self::Aarch64 => "aarch64-linux-gnu-strip",
        }
    }
}
