//! `host-agent man`: manual pages from the same definition that parses the command line.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::fail;

/// Prints the program's page, or writes one for each command into `directory`.
pub(super) fn run(program: clap::Command, directory: Option<&Path>) -> ExitCode {
    let written = match directory {
        None => clap_mangen::Man::new(program).render(&mut io::stdout()),
        Some(directory) => {
            std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(program, directory))
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("failed to write the manual: {error}")),
    }
}
