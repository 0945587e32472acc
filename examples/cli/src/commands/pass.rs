//! `ringtap pass`: opens packet sockets for a program that may not.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use ringtap::Capture;
use ringtap::capture::{CaptureBuilder, NetNs};
use ringtap::interface::interface_info;

use crate::cli::PassArgs;
use crate::passed;
use crate::sink::Outcome;

/// Returns only if the program could not be started.
pub(super) fn run(args: &PassArgs) -> Outcome<ExitCode> {
    let shards = match args.shards {
        Some(0) => return Err("0 shards: give at least one".into()),
        Some(count) => count.into(),
        None => std::thread::available_parallelism()?.get(),
    };
    let options = |interface: &String| -> Outcome<CaptureBuilder> {
        let options = Capture::builder().interface(interface).promiscuous(true);
        // A socket is bound to its interface later, by who gets it; a name that is wrong is told here.
        let look = || if interface == "any" { Ok(()) } else { interface_info(interface).map(drop) };
        let Some(netns) = args.netns.as_ref().map(NetNs::path) else {
            look()?;
            return Ok(options);
        };
        netns.within(look)?;
        Ok(options.netns(netns))
    };
    let options: Vec<_> = args.interfaces.iter().map(options).collect::<Result<_, _>>()?;
    let of_shards = (0..shards).flat_map(|_| &options);
    let sockets = of_shards.map(|options| options.open_socket()).collect::<Result<_, _>>()?;
    let program = args.program[0].to_string_lossy();
    let error = passed::program_with(sockets, &args.program)?.exec();
    Err(format!("{program}: {error}").into())
}
