//! The program `sterna`: see the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    sterna_cli::run()
}
