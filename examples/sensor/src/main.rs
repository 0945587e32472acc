//! The command `ringtap sensor`, by a name of its own. It takes the other commands as well.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringtap_cli::sensor_main()
}
