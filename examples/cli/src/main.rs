//! The command `ringtap`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringtap_cli::main()
}
