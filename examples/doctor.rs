//! What works on this machine, what not, and what to do about it: `cargo run --features af-xdp --example doctor`,
//! with an interface's name to examine that too, with `--json` for programs.

use ringtap::doctor;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = pico_args::Arguments::from_env();
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
