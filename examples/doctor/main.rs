//! What works on this machine, what not, and what to do about it: `cargo run --features af-xdp --example doctor`,
//! with an interface's name to examine that too, with `--json` for programs.
//!
//! With `--report RX TX` it tries a card: ports that are connected to each other, of which the first is looked at in every
//! mode. Frames of its own are sent, and those that arrive counted; whatever else uses the ports is disturbed. Needs root.

#[cfg(feature = "af-xdp")]
mod queues;
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
