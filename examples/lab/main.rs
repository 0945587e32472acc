//! Runs an example on generated traffic.
//!
//! ```sh
//! cargo run --release --bin lab -- capture
//! cargo run --release --bin lab -- --list
//! ```
//!
//! It builds the example, makes a network namespace with the interfaces that the example wants, which takes no root, and
//! starts the example there. As soon as the example has printed its first line, traffic is sent to it. An example that runs
//! until Ctrl-C is interrupted when the traffic is over. Lines of the runner
//! begin with `lab:`.
//!
//! Arguments behind the name are handed to the example, after the interfaces and files that it gets from the runner.
//!
//! ```text
//!   table     the examples, and the needs of each
//!   binary    finds the program of an example, or builds it
//!   place     interfaces and files for it
//!   process   starts it, shows its output, and ends it
//!   traffic   sends packets to it
//! ```

mod binary;
mod place;
mod process;
mod table;
mod traffic;

use std::process::ExitCode;
use std::time::Duration;

use self::place::Place;
use self::process::Process;
use self::table::{EXAMPLES, End, Example};
use self::traffic::Traffic;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: lab NAME [ARGUMENT ...]
       lab --list";
/// How long an example may take to open its sockets, and to end.
const PATIENCE: Duration = Duration::from_secs(100);
/// How long packets may take from one end of a veth pair to the other.
const SETTLE: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = match arguments.next().as_deref() {
        None | Some("--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some("--list") => {
            EXAMPLES.iter().for_each(|example| println!("{example}"));
            return ExitCode::SUCCESS;
        }
        Some(name) => name.to_owned(),
    };
    let Some(example) = EXAMPLES.iter().find(|example| example.name == name) else {
        eprintln!("lab: there is no example {name:?}; `lab --list` lists them");
        return ExitCode::FAILURE;
    };
    match run(example, arguments.collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(example: &Example, more: Vec<String>) -> Result<ExitCode> {
    // Cargo may need the network, which there is none of in the namespace.
    let binary = binary::find(example)?;
    let place = Place::new(example)?;
    // A Ctrl-C in the terminal reaches the example as well: wait for it, and clean up.
    ctrlc::set_handler(|| ())?;

    let mut process = Process::start(&binary, place.arguments(example).into_iter().chain(more))?;
    if process.wait_for_first_line(PATIENCE)? {
        let traffic = Traffic::start(example.traffic, &place)?;
        while traffic.is_under_way() && process.is_running()? {
            std::thread::sleep(Duration::from_millis(20));
        }
        let summary = traffic.finish();
        if let End::CtrlC = example.end {
            std::thread::sleep(SETTLE);
            if let Some(server) = &example.server {
                server.ask()?;
            }
            process.interrupt()?;
        }
        let code = process.wait(PATIENCE)?;
        place.report();
        if let Some(text) = summary.after(&place)? {
            println!("lab: {text}");
        }
        return Ok(code);
    }
    process.wait(PATIENCE)
}
