//! `host-agent completions`: from the same definition that parses the command line.

use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use clap_complete::shells::{Bash, Fish, Zsh};

/// Shells that scripts are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub(super) fn run(program: clap::Command, shell: Shell) -> ExitCode {
    write(program, shell, &mut std::io::stdout());
    ExitCode::SUCCESS
}

/// Writes the script.
pub(super) fn write(mut program: clap::Command, shell: Shell, out: &mut dyn Write) {
    let name = program.get_name().to_owned();
    match shell {
        Shell::Bash => clap_complete::generate(Bash, &mut program, name, out),
        Shell::Zsh => clap_complete::generate(Zsh, &mut program, name, out),
        Shell::Fish => clap_complete::generate(Fish, &mut program, name, out),
    }
}
