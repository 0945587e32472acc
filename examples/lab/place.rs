//! Interfaces and files for an example.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use ringtap_lab_wire::{Directory, Namespace, Pair, Traffic, bootstrap, bpf, stage, talk, xdp};

use crate::Result;
use crate::table::{Example, Files, Stage};

/// Where an example runs, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) network: Network,
    folder: Directory,
    /// Whether the example writes files into the folder.
    is_written: bool,
}

/// Interfaces, in a namespace of their own.
#[derive(Debug)]
pub(crate) enum Network {
    Here,
    Veth(stage::Stage),
    Hosts(Pair),
    Loopback(#[expect(dead_code, reason = "dropped, it is left")] Namespace),
}

impl Place {
    /// Makes it. The calling thread, and the processes that it starts, are there from now on.
    pub(crate) fn new(example: &Example) -> Result<Self> {
        let network = match example.stage {
            Stage::Here => Network::Here,
            Stage::Veth => {
                let stage = stage::Stage::in_the_lab()?;
                stage.set_loopback_up(); // some answer on a port
                Network::Veth(stage)
            }
            Stage::Hosts => Network::Hosts(Pair::new()?),
            Stage::HostsWithChecksums => {
                let pair = Pair::new()?;
                pair.finish_checksums();
                Network::Hosts(pair)
            }
            Stage::Loopback => {
                bootstrap::enter()?;
                let namespace = Namespace::enter()?;
                namespace.loopback_up();
                Network::Loopback(namespace)
            }
        };
        let folder = Directory::new();
        fill(&folder, example.files)?;
        let is_written = matches!(example.files, Files::Nothing);
        Ok(Self { network, folder, is_written })
    }

    /// The arguments of the example, with the names of the interfaces and of the folder.
    pub(crate) fn arguments(&self, example: &Example) -> Vec<String> {
        let [a, b] = match &self.network {
            Network::Here => ["", ""],
            Network::Veth(stage) => [stage.interface(), ""],
            Network::Hosts(pair) => [&*pair.interfaces[0], &*pair.interfaces[1]],
            Network::Loopback(_) => ["lo", ""],
        };
        let folder = self.folder.path().to_string_lossy();
        let named = |argument: &&str| {
            argument.replace("{a}", a).replace("{b}", b).replace("{folder}", &folder)
        };
        example.arguments.iter().map(named).collect()
    }

    /// Prints which files the example has written.
    pub(crate) fn report(&self) {
        let Ok(entries) = fs::read_dir(self.folder.path()) else { return };
        let mut files: Vec<_> = entries.flatten().filter(|_| self.is_written).collect();
        files.sort_by_key(fs::DirEntry::file_name);
        for file in files {
            let len = file.metadata().map_or(0, |metadata| metadata.len());
            println!("lab: {} has {len} bytes", file.file_name().display());
        }
    }
}

fn fill(folder: &Directory, files: Files) -> Result<()> {
    let path = |name| folder.path().join(name);
    match files {
        Files::Nothing => {}
        Files::Bursts => {
            let traffic = Traffic { len: 600, varied: true, flows: 16, ..Traffic::default() };
            // A hundred frames each ten milliseconds.
            let frames = (0..20_000).map(|number| {
                let micros = 10_000 * (number / 100) + 3 * (number % 100);
                (micros, traffic.frame(number, 0))
            });
            record(&path("a.pcap"), frames)?;
        }
        Files::Visits => {
            // Twenty hosts, five times each, from other ports.
            let visits = (0..100).map(|number| (number % 20) + ((number / 20) << 16));
            let frames = visits.flat_map(talk::visit).zip(0..);
            record(&path("a.pcap"), frames.map(|(frame, number)| (1000 * number, frame)))?;
        }
        Files::Filter => {
            folder.mount("bpf", "").map_err(|why| format!("{why}; run as root"))?;
            let program = bpf::even_ports().map_err(of_root)?;
            bpf::pin(program.as_fd(), &path("filter"))?;
        }
        Files::Program => {
            folder.mount("bpf", "").map_err(|why| format!("{why}; run as root"))?;
            let map = xdp::xskmap(64).map_err(of_root)?;
            let program = xdp::drop_odd_ports(map.as_fd()).map_err(of_root)?;
            bpf::pin(map.as_fd(), &path("sockets"))?;
            bpf::pin(program.as_fd(), &path("program"))?;
        }
    }
    Ok(())
}

fn of_root(error: std::io::Error) -> String {
    format!("loading a BPF program: {error}; run as root")
}

/// Writes a capture file, in the classic format of libpcap: of each frame its time in microseconds, and its bytes.
fn record(path: &Path, frames: impl Iterator<Item = (u64, Vec<u8>)>) -> std::io::Result<()> {
    const ETHERNET: u32 = 1;
    const START: u64 = 1_700_000_000;
    // Version 2.4, in the byte order of this machine.
    let version = [2_u16, 4].map(u16::to_ne_bytes).concat();
    let mut file = [&0xa1b2_c3d4_u32.to_ne_bytes()[..], &version].concat();
    let put =
        |file: &mut Vec<u8>, numbers: [u32; 4]| file.extend(numbers.map(u32::to_ne_bytes).concat());
    put(&mut file, [0, 0, 1 << 16, ETHERNET]);
    for (micros, frame) in frames {
        let len = frame.len() as u32;
        let (seconds, micros) = (START + micros / 1_000_000, micros % 1_000_000);
        put(&mut file, [seconds as u32, micros as u32, len, len]);
        file.extend(frame);
    }
    fs::write(path, file)
}
