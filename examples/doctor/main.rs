//! Examines what works on this machine, what does not, and what to do about it.
//!
//! ```sh
//! cargo run --release --features af-xdp --example doctor -- eth0
//! ```
//!
//! Without an interface it examines the machine alone; with `--json` it prints JSON. It needs the crates `libc` and
//! `pico-args` besides ringtap.
//!
//! `--report RX TX` tries a card in every mode. RX and TX are ports that are connected to each other, and RX is the one that
//! is examined. It sends frames of its own and counts those that arrive, disturbs all other traffic, and takes root.

#[cfg(feature = "af-xdp")]
mod queues;
#[cfg(feature = "af-xdp")]
mod report;

use ringtap::doctor;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = pico_args::Arguments::from_env();
    #[cfg(feature = "af-xdp")]
    if arguments.contains("--report") {
        let count = arguments.opt_value_from_str("--frames")?.unwrap_or(5_000);
        let ports = [arguments.free_from_str::<String>()?, arguments.free_from_str()?];
        return report::run(&ports[0], &ports[1], count);
    }
    #[cfg(feature = "af-xdp")]
    if arguments.contains("--hold") {
        return report::hold(&arguments.free_from_str::<String>()?);
    }
    let is_json = arguments.contains("--json");
    let interface: Option<String> = arguments.opt_free_from_str()?;
    let report = doctor::examine(interface.as_deref());
    if is_json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    Ok(())
}
