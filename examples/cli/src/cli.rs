//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Captures and records packets, tells flows and their messages, and sends records of them to engines that exist.
#[derive(Debug, Parser)]
#[command(name = "ringtap", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints packets, or writes them to pcapng files.
    Capture(CaptureArgs),
    /// Records every packet to disk, a series of files for each core.
    Record(RecordArgs),
    /// Returns the recorded packets of a time and a filter.
    Query(QueryArgs),
    /// Lists a recording, proves that it is complete, or writes the indexes that it lacks.
    Archive {
        #[command(subcommand)]
        what: ArchiveCommand,
    },
    /// Sends the packets of a capture file.
    Replay(ReplayArgs),
    /// Joins two interfaces, so that hosts behind them reach each other.
    Bridge(BridgeArgs),
    /// Prints packets, bits and drops of an interface, every second.
    Stats(StatsArgs),
    /// Shows what shards see, and who talks most.
    Top(TopArgs),
    /// Prints flows as they end.
    Flows(FlowsArgs),
    /// Prints the messages of HTTP, DNS and TLS in flows.
    Messages(MessagesArgs),
    /// Is a sensor: shards, flows, spool, sinks.
    #[command(alias = "run")]
    Sensor(SensorArgs),
    /// Opens packet sockets, and passes them to a program that may not: `ringtap pass -i eth0 -- PROGRAM …`.
    Pass(PassArgs),
    /// Reads sensors' records back from where they were sent, and says whether all are there, or what is missing and why; the exit
    /// code is 1 if there is anything.
    Verify(VerifyArgs),
    /// Explains a filter: how it is understood, its program, and what an index knows of it.
    Filter(FilterArgs),
    /// Says what works on this machine, and what to do about what does not.
    Doctor {
        /// An interface to examine too.
        interface: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Plays all of it in a network namespace of its own, with traffic and without root.
    Demo {
        /// Hosts that visit a server: 18 frames, 3 flows each.
        #[arg(long, default_value_t = 3000)]
        visits: u32,
        /// Writes a report, .html or .svg.
        #[arg(long)]
        report: Option<PathBuf>,
        /// Plays a recording instead, which is killed, started anew, and asked.
        #[arg(long, conflicts_with_all = ["visits", "report"])]
        recording: bool,
    },
    /// Measures what a record costs, into the spool and from there into sinks.
    Measure {
        /// As for `sensor`; each is measured by itself.
        #[arg(long = "sink", required_unless_present = "config")]
        sinks: Vec<String>,
        /// A sensor's configuration, whose sinks are measured.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[arg(long, default_value_t = 200_000)]
        records: u64,
        /// Connections of each sink at the same time.
        #[arg(long)]
        couriers: Option<u16>,
    },
    /// Prints completions for a shell.
    Completions { shell: Shell },
    /// Prints the manual page, of all of it or of a command.
    Man { command: Option<String> },
}

/// A size of files: at least one mebibyte, and no more than one file can have.
fn mebibytes() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=1 << 24)
}

/// The arguments of `ringtap-sensor` as those of `ringtap`.
pub(crate) fn of_sensor(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    let is_told = args.get(1).and_then(|first| first.to_str()).is_some_and(|first| {
        let cli = Cli::command();
        let is_command = cli.find_subcommand(first).is_some();
        is_command || ["help", "--help", "-h", "--version", "-V"].contains(&first)
    });
    if !is_told {
        args.insert(1.min(args.len()), "sensor".into());
    }
    args
}

/// An interface and a filter, said as one says them to tcpdump.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The interface, or `any`; without this flag it is the first word.
    #[arg(short, long)]
    interface: Option<String>,
    /// Only these packets, in the language of tcpdump: as the last words, or as one here.
    #[arg(long)]
    filter: Option<String>,
    /// The interface, unless -i or -r is given, and a filter.
    #[arg(value_name = "INTERFACE] [FILTER")]
    words: Vec<String>,
    /// Accepted out of habit: names are never asked for.
    #[arg(short)]
    n: bool,
}

impl Which {
    /// The interface.
    pub(crate) fn interface(&self) -> Result<&str, &'static str> {
        let first = self.words.first().map(String::as_str);
        let interface = self.interface.as_deref().or(first);
        interface.ok_or("no interface: name one, such as eth0, or any")
    }

    /// The filter; all words are its if there is a file to read.
    pub(crate) fn filter(&self, is_file: bool) -> Result<Option<String>, &'static str> {
        let has_interface = !is_file && self.interface.is_none();
        let words = self.words.get(usize::from(has_interface)..).unwrap_or_default();
        match (&self.filter, words) {
            (filter, []) => Ok(filter.clone()),
            (None, words) => Ok(Some(words.join(" "))),
            (Some(_), _) => Err("a filter in --filter and another in the last words: give one"),
        }
    }
}

/// Where packets come from.
#[derive(Debug, Args)]
pub(crate) struct From {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Ends after this number of seconds.
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Reads a capture file instead; `-` is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "interface")]
    pub(crate) read: Option<PathBuf>,
    /// Ends after this number of seconds.
    #[arg(long, conflicts_with = "read")]
    pub(crate) seconds: Option<u64>,
    /// Writes one file instead of printing packets; `-` is standard output.
    #[arg(short, long, value_name = "FILE", conflicts_with = "directory")]
    pub(crate) write: Option<PathBuf>,
    /// Ends after this number of packets.
    #[arg(short, long)]
    pub(crate) count: Option<u64>,
    /// Writes files into this directory, one after another, instead of printing packets.
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// Begins another file after this many MiB.
    #[arg(long, default_value_t = 512, requires = "directory", value_parser = mebibytes())]
    pub(crate) file_mib: u64,
    /// Keeps this many files, and removes the oldest.
    #[arg(long, requires = "directory")]
    pub(crate) keep: Option<usize>,
    /// Cuts packets to this many bytes; 0 keeps them whole.
    #[arg(short, long)]
    pub(crate) snap_len: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    pub(crate) from: From,
    /// The directory of the files, which is made if there is none.
    #[arg(short, long, value_name = "DIRECTORY")]
    pub(crate) write: PathBuf,
    /// Begins another file after this many MiB.
    #[arg(long, default_value_t = 1024, value_parser = mebibytes())]
    pub(crate) file_mib: u64,
    /// Keeps this much in all, such as 500G, and removes the oldest files; all are kept by default.
    #[arg(long, value_name = "SIZE", value_parser = crate::units::size)]
    pub(crate) max: Option<u64>,
    /// Synchronises each file with the disk when it is closed, so that a power cut takes no packet of it.
    #[arg(long)]
    pub(crate) sync: bool,
    /// Seals each file when it is closed, with the key of this file; `archive key` makes one.
    #[arg(long, value_name = "FILE")]
    pub(crate) sign: Option<PathBuf>,
    /// The number of shards; by default, one per core.
    #[arg(long)]
    pub(crate) shards: Option<u16>,
    /// Cuts packets to this many bytes; 0 keeps them whole.
    #[arg(short, long)]
    pub(crate) snap_len: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// The directory of a recording.
    pub(crate) directory: PathBuf,
    /// Only these packets, in the language of tcpdump.
    pub(crate) filter: Vec<String>,
    /// Packets of this time or later: 2026-11-30T20:00:00Z, or seconds since 1970.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Packets before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Packets of one series: the beginning of its files' names.
    #[arg(long)]
    pub(crate) series: Option<String>,
    /// Writes a pcapng file; `-` is standard output. Without it, packets are only counted.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Writes a file that says what was asked for, what was found, and what is missing in that time, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Says what would be read and what passed over, and why, instead of reading it.
    #[arg(long, conflicts_with_all = ["write", "manifest"])]
    pub(crate) explain: bool,
    /// What was read, as JSON.
    #[arg(long, conflicts_with = "write")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A file of lines, a directory of them or of Parquet files, or what `sensor` takes as --sink.
    pub(crate) places: Vec<String>,
    /// All sinks of a sensor's configuration but those of IPFIX.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Records of one sensor.
    #[arg(long)]
    pub(crate) sensor: Option<String>,
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Lists the series of a recording, and what each has.
    Ls(ArchiveArgs),
    /// Reads everything, and says what is missing and what was changed; the exit code is 1 if there is anything.
    Verify {
        #[command(flatten)]
        archive: ArchiveArgs,
        /// The public key of the seals that all files must have.
        #[arg(long, value_name = "PUBLIC KEY")]
        key: Option<String>,
    },
    /// Seals the files that are not sealed yet.
    Seal {
        #[command(flatten)]
        archive: ArchiveArgs,
        /// The file of the key; `archive key` makes one.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Makes a key that seals, and prints its public half.
    Key {
        /// The file that is going to have the key.
        file: PathBuf,
    },
    /// Writes an index for each file that has none.
    Index(ArchiveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {
    /// The directory of a recording.
    pub(crate) directory: PathBuf,
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The capture file; `-` is standard input.
    pub(crate) file: PathBuf,
    /// Only these packets, in the language of tcpdump.
    pub(crate) filter: Vec<String>,
    /// The interface that sends.
    #[arg(short, long)]
    pub(crate) interface: String,
    /// The factor by which they are sent faster than they were recorded.
    #[arg(long, default_value_t = 1.0, conflicts_with = "fast")]
    pub(crate) speed: f64,
    /// As fast as the interface takes them.
    #[arg(long)]
    pub(crate) fast: bool,
    /// Sends the file this many times.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: u64,
    /// Ends after this number of packets.
    #[arg(short, long)]
    pub(crate) count: Option<u64>,
    /// What was sent, as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BridgeArgs {
    pub(crate) interface_a: String,
    pub(crate) interface_b: String,
    /// Forwards only these packets, in the language of tcpdump.
    pub(crate) filter: Vec<String>,
    /// Ends after this number of seconds.
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// What was forwarded, as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    pub(crate) from: From,
    /// Looks once, after a second.
    #[arg(long)]
    pub(crate) once: bool,
    /// As JSON, an object a second.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// The filter, in the language of tcpdump.
    #[arg(required = true)]
    pub(crate) words: Vec<String>,
    /// The link type that it is for, by its number in capture files: 1 is Ethernet, 101 IP, 276 a cooked capture.
    #[arg(long, default_value_t = 1)]
    pub(crate) link: u16,
    /// For frames in files, whose VLAN tags are in their bytes, instead of a socket.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Only the program, as numbers for others to load: `tcpdump -ddd`.
    #[arg(long)]
    pub(crate) numbers: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) from: From,
    /// The number of shards; by default, one per core.
    #[arg(long)]
    pub(crate) shards: Option<u16>,
    /// Looks once, after a second.
    #[arg(long)]
    pub(crate) once: bool,
    /// As JSON, an object a look.
    #[arg(long)]
    pub(crate) json: bool,
    /// Writes a report at the end, a page of HTML.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    Table,
    Ndjson,
    Csv,
    Eve,
    Zeek,
}

/// Where packets come from: an interface, or a file.
#[derive(Debug, Args)]
pub(crate) struct Input {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Reads a capture file instead; `-` is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "interface")]
    pub(crate) read: Option<PathBuf>,
    /// Ends after this number of seconds.
    #[arg(long, conflicts_with = "read")]
    pub(crate) seconds: Option<u64>,
    /// How far tunnels are looked into (GRE, VXLAN, Geneve, GTP-U, IP in IP and others).
    #[arg(long, value_enum, default_value_t = Depth::Innermost)]
    pub(crate) tunnels: Depth,
    /// Tells the same addresses in several VLANs apart.
    #[arg(long)]
    pub(crate) vlan_ids: bool,
    /// Tells the same addresses in several tunnels apart.
    #[arg(long)]
    pub(crate) tunnel_ids: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Depth {
    /// Not at all.
    Outer,
    /// Into the first tunnel.
    Inner,
    /// Into tunnels in tunnels.
    Innermost,
}

#[derive(Debug, Args)]
pub(crate) struct MessagesArgs {
    #[command(flatten)]
    pub(crate) from: Input,
    /// As JSON, an object a line; with what could not be read, and what is missing.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    pub(crate) from: Input,
    /// Also prints flows that go on, at this interval in seconds.
    #[arg(long)]
    pub(crate) active_seconds: Option<u64>,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// As JSON, an object a line: --format ndjson.
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SensorArgs {
    /// A configuration; flags go over it.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Who it is.
    #[arg(long)]
    pub(crate) sensor: Option<String>,
    /// What it watches: an interface, or `any`; as often as there are interfaces.
    #[arg(short, long = "interface", value_name = "INTERFACE")]
    pub(crate) interfaces: Vec<String>,
    /// Capture files, or directories of them such as a recording, that are read instead, as fast as that goes.
    #[arg(short, long, value_name = "PLACE", conflicts_with_all = ["interfaces", "xdp", "passed"])]
    pub(crate) read: Vec<PathBuf>,
    /// Captures by AF_XDP, before the network stack, which does not see the packets: a shard for each queue.
    #[arg(long)]
    pub(crate) xdp: bool,
    /// Captures on packet sockets that were passed to it (sd_listen_fds(3)), as `ringtap pass` does, and needs no right of its own:
    /// a shard for each.
    #[arg(long, conflicts_with = "xdp")]
    pub(crate) passed: bool,
    /// A file that stands for the interface's network namespace.
    #[arg(long)]
    pub(crate) netns: Option<PathBuf>,
    #[arg(long)]
    pub(crate) filter: Option<String>,
    #[arg(long)]
    pub(crate) shards: Option<u16>,
    /// The directory where records wait.
    #[arg(long)]
    pub(crate) spool: Option<PathBuf>,
    #[arg(long)]
    pub(crate) spool_mib: Option<u64>,
    /// Seconds after which a flow without packets ends.
    #[arg(long)]
    pub(crate) idle_seconds: Option<u64>,
    /// Seconds after which a flow that goes on is told of, again and again; 0 is never.
    #[arg(long)]
    pub(crate) active_seconds: Option<u64>,
    /// Has records say what applications said: names of DNS, hosts of HTTP, hellos of TLS and QUIC.
    #[arg(long)]
    pub(crate) applications: bool,
    /// ndjson:PATH, ipfix:HOST:PORT, ipfix+tcp:HOST:PORT, kafka:HOST:PORT,…, nats:HOST:PORT,…, redis://HOST:PORT, parquet:DIRECTORY;
    /// as often as wanted.
    #[arg(long = "sink")]
    pub(crate) sinks: Vec<String>,
    /// Gives up what it does not need once it is open: by Landlock and seccomp.
    #[arg(long, conflicts_with = "report")]
    pub(crate) harden: bool,
    /// Where /metrics and /ready are served.
    #[arg(long)]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Ends after this number of seconds.
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// Shows what the shards see.
    #[arg(long)]
    pub(crate) view: bool,
    /// Ends with the account as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Writes a report at the end, a page of HTML.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PassArgs {
    /// An interface, or `any`; as often as there are interfaces.
    #[arg(short, long = "interface", value_name = "INTERFACE", required = true)]
    pub(crate) interfaces: Vec<String>,
    /// Sockets for each interface: the shards of who gets them. By default, one per core.
    #[arg(short = 'n', long)]
    pub(crate) shards: Option<u16>,
    /// A file that stands for the interfaces' network namespace.
    #[arg(long)]
    pub(crate) netns: Option<PathBuf>,
    /// The program and its arguments. It takes the place of this one, and finds the sockets as sd_listen_fds(3) says.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}
