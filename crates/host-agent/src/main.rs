//! The `host-agent` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    host_agent::cli::run()
}
